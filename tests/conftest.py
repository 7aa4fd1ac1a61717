"""Fixtures that every test directory may use: see tests/support. No property fails for the time that it took."""

from hypothesis import settings

pytest_plugins = ["tests.support.azurite"]

settings.register_profile("slipway", deadline=None)
settings.load_profile("slipway")
