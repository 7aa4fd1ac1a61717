"""Azurite for tests: one for the session, and in it an empty storage account for each test that asks.

Fixtures: `azurite` (the session's, an `Azurite`) and `storage` (the connection string of an account that no other test
has). Tests that use either are marked `azurite`.
"""

import itertools
from collections.abc import Iterator

import pytest

from local.azurite import Azurite

_ACCOUNTS = tuple(f"account{number:03d}" for number in range(400))


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """The session's Azurite, in memory."""
    log_path = tmp_path_factory.mktemp("azurite") / "azurite.log"
    with Azurite(log_path=log_path, accounts=_ACCOUNTS) as running:
        yield running


@pytest.fixture(scope="session")
def unused_accounts(azurite: Azurite) -> Iterator[str]:
    """Connection strings of accounts, each handed out once."""
    return (azurite.connection_string_of(account) for account in itertools.islice(_ACCOUNTS, 1, None))


@pytest.fixture
def storage(unused_accounts: Iterator[str]) -> str:
    """The connection string of an empty storage account."""
    return next(unused_accounts)


@pytest.fixture(scope="module")
def module_storage(unused_accounts: Iterator[str]) -> str:
    """The connection string of an empty storage account, shared by the tests of one module."""
    return next(unused_accounts)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need Azurite."""
    for item in items:
        if "azurite" in getattr(item, "fixturenames", ()):
            item.add_marker("azurite")
