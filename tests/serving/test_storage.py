"""The Azure adapter, held against Azurite."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aks_serving.settings import Settings
from aks_serving.storage import AzureStorage, open_storage
from azure.storage.blob import BlobServiceClient

from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.ids import endpoint_name
from shared.routing.plan import artifact_blob_name

CHURN = endpoint_name("churn")
_DIGEST = "ab" * 32


def _opened(connection: str) -> AzureStorage:
    return open_storage(Settings(storage_connection=connection, blob_url=None, cache_dir=Path("unused"), pod="pod"))


@pytest.fixture
def client(unused_accounts: Iterator[str]) -> Iterator[tuple[AzureStorage, BlobServiceClient, str]]:
    connection = next(unused_accounts)
    with BlobServiceClient.from_connection_string(connection) as service:
        yield _opened(connection), service, connection


def _read(storage: AzureStorage, max_bytes: int) -> bytes:
    return b"".join(storage.artifact(_DIGEST, max_bytes=max_bytes))


type Opened = tuple[AzureStorage, BlobServiceClient, str]


def _write(service: BlobServiceClient, container: str, name: str, data: bytes) -> None:
    service.get_blob_client(container, name).upload_blob(data, overwrite=True)


def test_a_plan_is_read_again_only_once_it_changed(client: Opened) -> None:
    storage, service, _ = client
    service.create_container("routes")
    assert storage.plan_etags() == {}
    assert storage.plan(CHURN, unless_etag=None) is None
    _write(service, "routes", "churn.json", b"one")
    _write(service, "routes", "Not A Name.json", b"")
    first = storage.plan(CHURN, unless_etag=None)
    assert first is not None
    assert first.data == b"one"
    assert storage.plan_etags() == {CHURN: first.etag}
    assert storage.plan(CHURN, unless_etag=first.etag) is None
    _write(service, "routes", "churn.json", b"two")
    second = storage.plan(CHURN, unless_etag=first.etag)
    assert second is not None
    assert (second.data, second.etag != first.etag) == (b"two", True)
    _write(service, "routes", "churn.json", b"")
    empty = storage.plan(CHURN, unless_etag=second.etag)
    assert empty is not None
    assert empty.data == b""


@pytest.mark.parametrize("name", ["a//b.json", "/lead.json", "folder/", "churn.json/x", "per%zz.json", "é.json"])
def test_names_that_no_plan_can_have_hide_no_plan(client: Opened, name: str) -> None:
    storage, service, _ = client
    service.create_container("routes")
    for stored in (name, "churn.json"):
        _write(service, "routes", stored, b"plan")
    assert list(storage.plan_etags()) == [CHURN]


def test_a_large_artifact_arrives_whole_and_within_its_limit(client: Opened) -> None:
    storage, service, _ = client
    service.create_container("artifacts")
    data = bytes(range(256)) * 40_000
    with pytest.raises(NotFoundError):
        _read(storage, len(data))
    _write(service, "artifacts", artifact_blob_name(_DIGEST), data)
    assert _read(storage, len(data)) == data
    with pytest.raises(InvalidInputError, match=re.escape(f"larger than the {len(data) - 1} bytes")):
        _read(storage, len(data) - 1)


def test_a_window_is_stored_once_and_never_changed(client: Opened) -> None:
    storage, service, _ = client
    service.create_container("telemetry")
    storage.keep_window("churn/2026-03-01T22/pod-0.json", b"first")
    storage.keep_window("churn/2026-03-01T22/pod-0.json", b"second")
    stored = service.get_blob_client("telemetry", "churn/2026-03-01T22/pod-0.json").download_blob().readall()
    assert stored == b"first"


def test_missing_containers_and_an_absent_service_are_unavailable(client: Opened) -> None:
    storage, _, connection = client
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = _opened(re.sub(r"(BlobEndpoint=http://127\.0\.0\.1:)\d+", rf"\g<1>{port}", connection))
    for broken in (storage, gone):
        with pytest.raises(UnavailableError):
            broken.plan_etags()
        with pytest.raises(UnavailableError):
            broken.plan(CHURN, unless_etag=None)
        with pytest.raises(UnavailableError):
            _read(broken, 1)
        with pytest.raises(UnavailableError):
            broken.keep_window("a", b"")


def test_a_wrong_key_is_unavailable(client: Opened) -> None:
    _, service, connection = client
    service.create_container("routes")
    with pytest.raises(UnavailableError):
        _opened(re.sub(r"AccountKey=[^;]+", "AccountKey=d3Jvbmc=", connection)).plan_etags()


def test_text_that_is_no_connection_string_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="SLIPWAY_STORAGE_CONNECTION"):
        _opened("rubbish")
