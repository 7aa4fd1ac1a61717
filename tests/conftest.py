"""Fixtures that every test directory may use: see tests/support."""

pytest_plugins = ["tests.support.azurite"]
