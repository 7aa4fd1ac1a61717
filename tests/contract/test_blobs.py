"""What the blob store holds, against Azurite."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import HttpRequest, HttpResponse, RequestsTransport
from azure.storage.blob import BlobServiceClient, ContentSettings

from shared.core.errors import ChangedMeanwhileError, InvalidInputError, NotFoundError, UnavailableError
from shared.store.blobs import BLOCK_BYTES, CLIENT_OPTIONS, AzureBlobs
from shared.store.ports import BlobContainer

pytestmark = pytest.mark.azurite

ROUTES = BlobContainer.ROUTES
NO_WAIT = {**CLIENT_OPTIONS, "initial_backoff": 0, "increment_base": 0, "random_jitter_range": 0}
SIZES = [0, 1, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 17]


class LosesAnswers(RequestsTransport):  # type: ignore[misc]  # azure.core resolves the name at run time
    """Carries requests out, and loses the answers to as many writes as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.to_lose = 0

    def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().send(request, **kwargs)
        if request.method == "PUT" and "comp=block&" not in f"{request.url}&" and self.to_lose:
            self.to_lose -= 1
            raise ServiceResponseError("the connection broke before the answer came")
        return response


class ActsBeforeCommit(RequestsTransport):  # type: ignore[misc]  # as above
    """Has something done just before it carries out the commit of a blob's blocks."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if "comp=blocklist" in request.url:
            self._act()
        response: HttpResponse = super().send(request, **kwargs)
        return response


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"{uuid4().hex}/blob.bin"


@pytest.fixture
def transport() -> LosesAnswers:
    return LosesAnswers()


@pytest.fixture
def unlucky(azurite_connection: str, blobs: AzureBlobs, transport: LosesAnswers) -> Iterator[AzureBlobs]:
    """A store on the same blobs whose answers may be lost."""
    del blobs  # it made the containers
    with closing(_store(azurite_connection, transport)) as store:
        yield store


def etag_of(blobs: AzureBlobs, name: str) -> str:
    found = blobs.info(ROUTES, name)
    assert found is not None
    return found.etag


def data_of(blobs: AzureBlobs, name: str) -> bytes:
    found = blobs.read(ROUTES, name, max_bytes=10**9)
    assert found is not None
    return found.data


def test_an_absent_blob_is_none(blobs: AzureBlobs, name: str) -> None:
    assert blobs.info(ROUTES, name) is None
    assert blobs.read(ROUTES, name, max_bytes=10) is None


def test_making_the_containers_again_changes_nothing(blobs: AzureBlobs, name: str) -> None:
    blobs.create(ROUTES, name, b"x")
    blobs.ensure_containers()
    assert data_of(blobs, name) == b"x"


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("from_file", [False, True])
def test_what_was_created_reads_back(
    blobs: AzureBlobs,
    name: str,
    tmp_path: Path,
    size_bytes: int,
    from_file: bool,  # noqa: FBT001
) -> None:
    data = os.urandom(size_bytes)
    (tmp_path / "source").write_bytes(data)
    before = datetime.now(UTC) - timedelta(seconds=5)
    assert blobs.create(ROUTES, name, tmp_path / "source" if from_file else data, metadata={"model": "m", "n": "7"})
    found = blobs.read(ROUTES, name, max_bytes=size_bytes)
    assert found is not None
    assert found.data == data
    assert found.info == blobs.info(ROUTES, name)
    assert (found.info.name, found.info.size_bytes) == (name, size_bytes)
    assert found.info.metadata == {"model": "m", "n": "7"}
    assert '"' not in found.info.etag
    assert before < found.info.last_modified


@pytest.mark.parametrize("source_bytes", [10, BLOCK_BYTES + 10])
def test_a_taken_name_is_left_alone(blobs: AzureBlobs, name: str, tmp_path: Path, source_bytes: int) -> None:
    assert blobs.create(ROUTES, name, b"first", metadata={"by": "first"})
    before = blobs.read(ROUTES, name, max_bytes=100)
    (tmp_path / "source").write_bytes(bytes(source_bytes))
    assert not blobs.create(ROUTES, name, bytes(source_bytes), metadata={"by": "second"})
    assert not blobs.create(ROUTES, name, tmp_path / "source")
    assert blobs.read(ROUTES, name, max_bytes=100) == before


@pytest.mark.parametrize("size_bytes", [100, BLOCK_BYTES + 100])
def test_of_several_who_create_one_wins_and_its_bytes_are_whole(blobs: AzureBlobs, name: str, size_bytes: int) -> None:
    writers = 8 if size_bytes < BLOCK_BYTES else 3
    together = Barrier(writers)

    def create(writer: int) -> bool:
        together.wait(timeout=60)
        return blobs.create(ROUTES, name, bytes([writer]) * size_bytes)

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(create, range(writers)))
    assert won.count(True) == 1
    assert data_of(blobs, name) == bytes([won.index(True)]) * size_bytes


def test_blocks_of_two_uploads_to_one_name_never_mix(azurite_connection: str, blobs: AzureBlobs, name: str) -> None:
    mine, theirs = b"A" * (2 * BLOCK_BYTES), b"B" * (2 * BLOCK_BYTES)

    def break_off() -> None:
        raise ServiceRequestError("the other writer died before its commit")

    def stage_theirs() -> None:
        transport = ActsBeforeCommit(break_off)
        with (
            closing(_store(azurite_connection, transport)) as other,
            pytest.raises(UnavailableError, match="the other writer died"),
        ):
            other.create(ROUTES, name, theirs)

    with closing(_store(azurite_connection, ActsBeforeCommit(stage_theirs))) as store:
        assert store.create(ROUTES, name, mine)
    assert data_of(blobs, name) == mine


def test_an_upload_that_another_overtakes_is_told_that_the_name_is_taken(
    azurite_connection: str, blobs: AzureBlobs, name: str
) -> None:
    theirs = b"B" * (2 * BLOCK_BYTES)
    overtake = ActsBeforeCommit(lambda: blobs.create(ROUTES, name, theirs))
    with closing(_store(azurite_connection, overtake)) as store:
        assert not store.create(ROUTES, name, b"A" * (2 * BLOCK_BYTES))
    assert data_of(blobs, name) == theirs


def _store(connection_string: str, transport: RequestsTransport) -> AzureBlobs:
    return AzureBlobs(BlobServiceClient.from_connection_string(connection_string, transport=transport, **NO_WAIT))


@pytest.mark.parametrize("size_bytes", [0, 10, BLOCK_BYTES + 10])
def test_a_replace_changes_bytes_metadata_and_etag(blobs: AzureBlobs, name: str, size_bytes: int) -> None:
    blobs.create(ROUTES, name, b"old", metadata={"old": "yes"})
    old = etag_of(blobs, name)
    data = os.urandom(size_bytes)
    written = blobs.replace(ROUTES, name, data, etag=old, metadata={"new": "yes"})
    assert written == blobs.info(ROUTES, name)
    assert written.metadata == {"new": "yes"}
    assert written.etag != old
    assert data_of(blobs, name) == data


@pytest.mark.parametrize("size_bytes", [10, BLOCK_BYTES + 10])
def test_a_replace_under_a_stale_etag_changes_nothing(blobs: AzureBlobs, name: str, size_bytes: int) -> None:
    blobs.create(ROUTES, name, b"A")
    first = etag_of(blobs, name)
    second = blobs.replace(ROUTES, name, b"B", etag=first)
    third = blobs.replace(ROUTES, name, b"A", etag=second.etag)
    for stale in (first, second.etag, "0x0"):
        with pytest.raises(ChangedMeanwhileError, match=name):
            blobs.replace(ROUTES, name, bytes(size_bytes), etag=stale)
    assert blobs.info(ROUTES, name) == third
    assert data_of(blobs, name) == b"A"


def test_a_replace_of_an_absent_blob_is_refused(blobs: AzureBlobs, name: str) -> None:
    with pytest.raises(ChangedMeanwhileError):
        blobs.replace(ROUTES, name, b"x", etag="0x1")
    assert blobs.info(ROUTES, name) is None


@pytest.mark.parametrize("size_bytes", [10, BLOCK_BYTES + 10])
def test_a_create_whose_answer_was_lost_is_known_as_ones_own(
    unlucky: AzureBlobs, transport: LosesAnswers, name: str, size_bytes: int
) -> None:
    transport.to_lose = 1
    assert unlucky.create(ROUTES, name, bytes(size_bytes), metadata={"by": "me"})
    assert transport.to_lose == 0
    found = unlucky.info(ROUTES, name)
    assert found is not None
    assert found.metadata == {"by": "me"}
    assert not unlucky.create(ROUTES, name, bytes(size_bytes), metadata={"by": "me"})


@pytest.mark.parametrize("size_bytes", [10, BLOCK_BYTES + 10])
def test_a_replace_whose_answer_was_lost_is_known_as_ones_own(
    unlucky: AzureBlobs, transport: LosesAnswers, name: str, size_bytes: int
) -> None:
    unlucky.create(ROUTES, name, b"old")
    old = etag_of(unlucky, name)
    transport.to_lose = 1
    written = unlucky.replace(ROUTES, name, bytes(size_bytes), etag=old)
    assert transport.to_lose == 0
    assert written == unlucky.info(ROUTES, name)
    with pytest.raises(ChangedMeanwhileError):
        unlucky.replace(ROUTES, name, b"x", etag=old)


def test_a_write_that_is_never_answered_is_unavailable(unlucky: AzureBlobs, transport: LosesAnswers, name: str) -> None:
    transport.to_lose = 100
    with pytest.raises(UnavailableError, match="blob storage is unavailable: the connection broke"):
        unlucky.create(ROUTES, name, b"x")


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_download_gives_the_bytes_and_their_digest(
    blobs: AzureBlobs, name: str, tmp_path: Path, size_bytes: int
) -> None:
    data = os.urandom(size_bytes)
    blobs.create(ROUTES, name, data)
    path = tmp_path / "copy"
    found = blobs.download(ROUTES, name, path, etag=etag_of(blobs, name), max_bytes=size_bytes)
    assert found == hashlib.sha256(data).hexdigest()
    assert path.read_bytes() == data


def test_a_download_of_another_state_is_refused_and_leaves_no_file(
    blobs: AzureBlobs, name: str, tmp_path: Path
) -> None:
    blobs.create(ROUTES, name, b"old")
    old = etag_of(blobs, name)
    blobs.replace(ROUTES, name, b"new", etag=old)
    with pytest.raises(ChangedMeanwhileError):
        blobs.download(ROUTES, name, tmp_path / "copy", etag=old, max_bytes=100)
    assert list(tmp_path.iterdir()) == []


def test_a_download_of_an_absent_blob_is_refused_and_leaves_no_file(
    blobs: AzureBlobs, name: str, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=name):
        blobs.download(ROUTES, name, tmp_path / "copy", etag="0x1", max_bytes=100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size_bytes", [11, BLOCK_BYTES + 1])
def test_a_blob_over_the_limit_is_refused_and_leaves_no_file(
    blobs: AzureBlobs, name: str, tmp_path: Path, size_bytes: int
) -> None:
    blobs.create(ROUTES, name, bytes(size_bytes))
    with pytest.raises(InvalidInputError, match=f"has {size_bytes} bytes, and at most {size_bytes - 1} are read"):
        blobs.download(ROUTES, name, tmp_path / "copy", etag=etag_of(blobs, name), max_bytes=size_bytes - 1)
    with pytest.raises(InvalidInputError, match=f"has {size_bytes} bytes, and at most {size_bytes - 1} are read"):
        blobs.read(ROUTES, name, max_bytes=size_bytes - 1)
    assert list(tmp_path.iterdir()) == []


def test_a_download_leaves_a_file_that_stood_there_alone(blobs: AzureBlobs, name: str, tmp_path: Path) -> None:
    blobs.create(ROUTES, name, b"new")
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        blobs.download(ROUTES, name, tmp_path / "copy", etag=etag_of(blobs, name), max_bytes=100)
    assert (tmp_path / "copy").read_bytes() == b"mine"


def test_a_blob_replaced_during_a_download_is_refused_and_leaves_no_file(
    azurite_connection: str, blobs: AzureBlobs, name: str, tmp_path: Path
) -> None:
    data = os.urandom(3 * BLOCK_BYTES)
    blobs.create(ROUTES, name, data)
    etag = etag_of(blobs, name)

    class ReplacesAfterTheFirstPart(RequestsTransport):  # type: ignore[misc]  # as above
        parts = 0

        def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
            response: HttpResponse = super().send(request, **kwargs)
            self.parts += 1
            if self.parts == 1:
                blobs.replace(ROUTES, name, bytes(len(data)), etag=etag)
            return response

    with (
        closing(_store(azurite_connection, ReplacesAfterTheFirstPart())) as store,
        pytest.raises(ChangedMeanwhileError),
    ):
        store.download(ROUTES, name, tmp_path / "copy", etag=etag, max_bytes=len(data))
    assert list(tmp_path.iterdir()) == []
    assert data_of(blobs, name) == bytes(len(data))


def test_compressed_bytes_are_handed_out_as_they_were_stored(
    azurite_connection: str, blobs: AzureBlobs, name: str, tmp_path: Path
) -> None:
    data = b"not gzip at all"
    with BlobServiceClient.from_connection_string(azurite_connection) as service:
        service.get_blob_client(ROUTES.value, name).upload_blob(
            data, content_settings=ContentSettings(content_encoding="gzip")
        )
    assert data_of(blobs, name) == data
    digest = blobs.download(ROUTES, name, tmp_path / "copy", etag=etag_of(blobs, name), max_bytes=100)
    assert digest == hashlib.sha256(data).hexdigest()


def test_memory_does_not_grow_with_the_size_of_a_blob(blobs: AzureBlobs, name: str, tmp_path: Path) -> None:
    source, size_bytes = tmp_path / "source", 24 * BLOCK_BYTES
    with source.open("wb") as file:
        file.truncate(size_bytes)
    tracemalloc.start()
    try:
        assert blobs.create(ROUTES, name, source)
        blobs.download(ROUTES, name, tmp_path / "copy", etag=etag_of(blobs, name), max_bytes=size_bytes)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "copy").stat().st_size == size_bytes
    assert peak_bytes < 12 * BLOCK_BYTES  # the SDK takes eight times a part for a moment


def test_a_listing_holds_the_blobs_under_a_prefix_in_the_order_of_their_names(blobs: AzureBlobs) -> None:
    prefix = uuid4().hex
    names = [f"{prefix}/{rest}" for rest in ("a", "a/b", "B", "b", "10", "9", "é", "a b", "a%20b", "x&y<z>'\"")]
    for number, each in enumerate(names):
        blobs.create(ROUTES, each, bytes(number), metadata={"n": str(number)})
    blobs.create(ROUTES, f"{prefix}-other", b"")
    found = list(blobs.list(ROUTES, f"{prefix}/"))
    assert [info.name for info in found] == sorted(names)
    assert {info.name: info.metadata for info in found} == {each: {"n": str(n)} for n, each in enumerate(names)}
    assert all(info == blobs.info(ROUTES, info.name) for info in found)


def test_a_listing_without_prefix_holds_everything_of_its_container_alone(blobs: AzureBlobs, name: str) -> None:
    blobs.create(BlobContainer.REPORTS, name, b"x")
    assert name in [info.name for info in blobs.list(BlobContainer.REPORTS)]
    assert name not in [info.name for info in blobs.list(ROUTES)]
    assert list(blobs.list(ROUTES, "no such prefix")) == []


@pytest.mark.parametrize(
    "bad", ["", "..", "../other", "a/../b", "a/./b", "./a", "a/..", "a.", "a\\b", "a\n", "a\0", "x" * 1025]
)
def test_a_name_that_would_reach_elsewhere_is_refused(blobs: AzureBlobs, tmp_path: Path, bad: str) -> None:
    for call in (
        lambda: blobs.info(ROUTES, bad),
        lambda: blobs.read(ROUTES, bad, max_bytes=1),
        lambda: blobs.create(ROUTES, bad, b""),
        lambda: blobs.replace(ROUTES, bad, b"", etag="0x1"),
        lambda: blobs.download(ROUTES, bad, tmp_path / "copy", etag="0x1", max_bytes=1),
    ):
        with pytest.raises(InvalidInputError, match="is not a blob name"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "metadata", [{"Upper": "x"}, {"a-b": "x"}, {"": "x"}, {"1a": "x"}, {"a": "é"}, {"a": ""}, {"a": " x"}, {"a": "x\n"}]
)
def test_metadata_that_would_not_come_back_is_refused(blobs: AzureBlobs, name: str, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="metadata"):
        blobs.create(ROUTES, name, b"", metadata=metadata)
    assert blobs.info(ROUTES, name) is None


def test_metadata_too_large_is_refused(blobs: AzureBlobs, name: str) -> None:
    assert blobs.create(ROUTES, name, b"", metadata={"a": "x" * (7 * 1024 - 1)})
    with pytest.raises(InvalidInputError, match="7168 bytes"):
        blobs.create(ROUTES, name + "2", b"", metadata={"a": "x" * (7 * 1024)})
