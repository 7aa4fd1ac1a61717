from pathlib import Path

import pytest
from aks_serving.settings import Settings

from shared.core.errors import InvalidInputError
from shared.core.slots import Slot
from tests.unit.signing import made

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


@pytest.mark.parametrize(("given", "slot"), [("", None), ("blue", Slot.BLUE), (" green ", Slot.GREEN)])
def test_a_pod_of_an_endpoints_own_names_its_slot(given: str, slot: Slot | None) -> None:
    settings = Settings.from_env(_ENV | {"SLIPWAY_ENDPOINTS": "churn", "SLIPWAY_SLOT": given})
    assert (settings.slot, settings.endpoints) == (slot, ("churn",))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SLIPWAY_STORAGE_CONNECTION": ""}, "neither of SLIPWAY_STORAGE_CONNECTION and SLIPWAY_BLOB_URL"),
        ({"SLIPWAY_BLOB_URL": "https://a.blob.core.windows.net"}, "both of SLIPWAY_STORAGE_CONNECTION"),
        ({"SLIPWAY_CACHE_DIR": " "}, "SLIPWAY_CACHE_DIR"),
        ({"SLIPWAY_ENDPOINTS": "churn,Not A Name"}, "SLIPWAY_ENDPOINTS"),
        ({"SLIPWAY_ENDPOINTS": "churn", "SLIPWAY_SLOT": "red"}, "SLIPWAY_SLOT is 'red': use blue or green"),
        ({"SLIPWAY_SLOT": "blue"}, "SLIPWAY_ENDPOINTS names none: a slot is of one endpoint's own pods"),
        ({"SLIPWAY_ENDPOINTS": "churn,fraud", "SLIPWAY_SLOT": "blue"}, "SLIPWAY_ENDPOINTS names 2 .churn, fraud.: "),
        ({"SLIPWAY_POD": "a/b"}, "SLIPWAY_POD"),
        ({"SLIPWAY_PORT": "65536"}, "SLIPWAY_PORT"),
        ({"SLIPWAY_PORT": "-1"}, "SLIPWAY_PORT"),
        ({"SLIPWAY_PORT": "²"}, "SLIPWAY_PORT"),
        ({"SLIPWAY_POLL_S": "nan"}, "SLIPWAY_POLL_S"),
        ({"SLIPWAY_WINDOW_S": "0"}, "SLIPWAY_WINDOW_S"),
        ({"SLIPWAY_WINDOW_S": "61"}, "from 0.05 to 60"),
        ({"SLIPWAY_DRAIN_S": "soon"}, "SLIPWAY_DRAIN_S"),
        ({"SLIPWAY_MAX_BODY_BYTES": "0"}, "SLIPWAY_MAX_BODY_BYTES"),
        ({"SLIPWAY_MAX_QUEUE": "many"}, "SLIPWAY_MAX_QUEUE"),
        ({"SLIPWAY_MAX_QUEUE_BYTES": "0"}, "SLIPWAY_MAX_QUEUE_BYTES"),
        ({"SLIPWAY_TRUSTED_KEYS": "/nonexistent/key.pem"}, "SLIPWAY_TRUSTED_KEYS"),
    ],
)
def test_a_bad_setting_is_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        Settings.from_env(_ENV | change)


def test_the_servers_own_keys_come_from_a_file_or_from_a_folders_pem_files(tmp_path: Path) -> None:
    first, second = (made.public_key(made.private_key(number=number)).pem for number in (1, 2))
    (tmp_path / "both.pem").write_text(first + second)
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "a.pem").write_text(first)
    (folder / "b.pem").write_text(second + first)
    (folder / "readme.txt").write_text("no key")
    assert Settings.from_env(_ENV).trusted_keys == ()
    for name in ("both.pem", "keys"):
        settings = Settings.from_env(_ENV | {"SLIPWAY_TRUSTED_KEYS": str(tmp_path / name)})
        assert settings.trusted_keys == (first, second)


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff", b"private", b"half"])
def test_a_file_without_usable_keys_stops_the_start(tmp_path: Path, content: bytes) -> None:
    pem = made.public_key(made.private_key()).pem
    content = {b"private": made.private_key(), b"half": (pem + pem.replace("A", "B", 1)).encode()}.get(content, content)
    (tmp_path / "key.pem").write_bytes(content)
    for name in ("key.pem", "."):
        with pytest.raises(InvalidInputError, match="SLIPWAY_TRUSTED_KEYS"):
            Settings.from_env(_ENV | {"SLIPWAY_TRUSTED_KEYS": str(tmp_path / name)})


def test_a_folder_without_keys_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"a folder without \.pem files"):
        Settings.from_env(_ENV | {"SLIPWAY_TRUSTED_KEYS": str(tmp_path)})
