from pathlib import Path

import pytest
from aks_serving.settings import Settings

from shared.core.errors import InvalidInputError

_ENV = {"SLIPWAY_STORAGE_CONNECTION": "UseDevelopmentStorage=true", "SLIPWAY_CACHE_DIR": "cache"}


def test_the_defaults() -> None:
    settings = Settings.from_env(_ENV)
    assert (settings.bind, settings.port, settings.endpoints) == ("127.0.0.1", 8080, ())
    assert (settings.poll_s, settings.window_s) == (2.0, 5.0)
    assert settings.max_body_bytes == 16 * 1024 * 1024
    assert settings.cache_dir == Path("cache")


def test_a_restarted_process_is_another_pod() -> None:
    env = _ENV | {"SLIPWAY_POD": "serving-7f"}
    pods = {Settings.from_env(env).pod for _ in range(5)}
    assert len(pods) == 5
    assert all(pod.startswith("serving-7f-") for pod in pods)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SLIPWAY_STORAGE_CONNECTION": ""}, "neither of SLIPWAY_STORAGE_CONNECTION and SLIPWAY_BLOB_URL"),
        ({"SLIPWAY_BLOB_URL": "https://a.blob.core.windows.net"}, "both of SLIPWAY_STORAGE_CONNECTION"),
        ({"SLIPWAY_CACHE_DIR": " "}, "SLIPWAY_CACHE_DIR"),
        ({"SLIPWAY_ENDPOINTS": "churn,Not A Name"}, "SLIPWAY_ENDPOINTS"),
        ({"SLIPWAY_POD": "a/b"}, "SLIPWAY_POD"),
        ({"SLIPWAY_PORT": "65536"}, "SLIPWAY_PORT"),
        ({"SLIPWAY_PORT": "-1"}, "SLIPWAY_PORT"),
        ({"SLIPWAY_PORT": "²"}, "SLIPWAY_PORT"),
        ({"SLIPWAY_POLL_S": "nan"}, "SLIPWAY_POLL_S"),
        ({"SLIPWAY_WINDOW_S": "0"}, "SLIPWAY_WINDOW_S"),
        ({"SLIPWAY_DRAIN_S": "soon"}, "SLIPWAY_DRAIN_S"),
        ({"SLIPWAY_MAX_BODY_BYTES": "0"}, "SLIPWAY_MAX_BODY_BYTES"),
        ({"SLIPWAY_MAX_QUEUE": "many"}, "SLIPWAY_MAX_QUEUE"),
    ],
)
def test_a_bad_setting_is_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        Settings.from_env(_ENV | change)
