"""A service that nobody answers for is unavailable: no vendor's error gets out, and nobody waits for long."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.azurite import ACCOUNT_KEY, ACCOUNT_NAME
from local.processes import free_port
from shared.core.errors import UnavailableError
from shared.store.blobs import CLIENT_OPTIONS, AzureBlobs
from shared.store.ports import BlobContainer
from shared.store.queues import AzureQueues

ROUTES = BlobContainer.ROUTES
NO_RETRY = {**CLIENT_OPTIONS, "retry_total": 0}


@pytest.fixture
def nowhere() -> str:
    address = f"http://127.0.0.1:{free_port()}/{ACCOUNT_NAME}"
    return f"AccountName={ACCOUNT_NAME};AccountKey={ACCOUNT_KEY};BlobEndpoint={address};QueueEndpoint={address};"


@pytest.mark.parametrize(
    "call",
    [
        lambda blobs, _: blobs.info(ROUTES, "x"),
        lambda blobs, _: blobs.read(ROUTES, "x", max_bytes=1),
        lambda blobs, path: blobs.download(ROUTES, "x", path / "copy", etag="0x1", max_bytes=1),
        lambda blobs, _: blobs.create(ROUTES, "x", b""),
        lambda blobs, path: blobs.create(ROUTES, "x", path),
        lambda blobs, _: blobs.replace(ROUTES, "x", b"", etag="0x1"),
        lambda blobs, _: list(blobs.list(ROUTES)),
        lambda blobs, _: blobs.ensure_containers(),
    ],
)
def test_blobs(nowhere: str, tmp_path: Path, call: Callable[[AzureBlobs, Path], object]) -> None:
    with (
        closing(AzureBlobs(BlobServiceClient.from_connection_string(nowhere, **NO_RETRY))) as blobs,
        pytest.raises(UnavailableError, match="blob storage is unavailable"),
    ):
        call(blobs, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", [lambda queues: queues.send("ticks", "x"), lambda queues: queues.ensure_queues()])
def test_queues(nowhere: str, call: Callable[[AzureQueues], object]) -> None:
    with (
        closing(AzureQueues(QueueServiceClient.from_connection_string(nowhere, retry_total=0))) as queues,
        pytest.raises(UnavailableError, match="queue storage"),
    ):
        call(queues)
