"""The ways in which the benchmark runs Slipway's server."""

import pytest
from aks_serving.settings import Settings

from benchmarks.serving.subjects import SETUPS


@pytest.mark.parametrize("name", SETUPS)
def test_the_server_takes_the_settings_of_each_setup(name: str) -> None:
    given = {"SLIPWAY_STORAGE_CONNECTION": "UseDevelopmentStorage=true", "SLIPWAY_CACHE_DIR": "/cache"}
    assert Settings.from_env(given | dict(SETUPS[name].settings))
