"""Fixtures that every test directory may use: see tests/support. No property fails for the time that it took."""

import pytest
from hypothesis import settings

from tests.support.order import longest_first
from tests.support.tree import ROOT, strangers

pytest_plugins = ["tests.support.azurite", "tests.support.skips"]

settings.register_profile("slipway", deadline=None)
settings.load_profile("slipway")


def pytest_configure() -> None:
    """Refuse to test another tree than this one."""
    if found := strangers(ROOT):
        raise pytest.UsageError(f"these are not this tree's: {found}; set PYTHONPATH={ROOT}:{ROOT / 'aks-serving'}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, have those begin first that take long."""
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items, lambda item: item.nodeid.partition("::")[0])
