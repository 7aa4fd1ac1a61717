"""What the blob store holds over storage alone: lost answers, uploads and copies that meet, and memory."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceExistsError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import HttpRequest, HttpResponse, RequestsTransport
from azure.storage.blob import BlobClient, BlobServiceClient, ContentSettings

from shared.core.errors import ChangedMeanwhileError, ConflictError, UnavailableError
from shared.store.blob_streams import BLOCK_BYTES
from shared.store.blobs import CLIENT_OPTIONS, AzureBlobs
from shared.store.ports import BlobContainer
from tests.contract.test_blobs import data_of, etag_of

pytestmark = pytest.mark.azurite

ROUTES = BlobContainer.ROUTES
ARTIFACTS = BlobContainer.ARTIFACTS
NO_WAIT = {**CLIENT_OPTIONS, "initial_backoff": 0, "increment_base": 0, "random_jitter_range": 0}


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"{uuid4().hex}/blob.bin"


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
def transport() -> LosesAnswers:
    return LosesAnswers()


@pytest.fixture
def unlucky(azurite_connection: str, blobs: AzureBlobs, transport: LosesAnswers) -> Iterator[AzureBlobs]:
    """A store on the same blobs whose answers may be lost."""
    del blobs  # it made the containers
    with closing(_store(azurite_connection, transport)) as store:
        yield store


def test_making_the_containers_again_changes_nothing(blobs: AzureBlobs, name: str) -> None:
    blobs.create(ROUTES, name, b"x")
    blobs.ensure_containers()
    assert data_of(blobs, name) == b"x"


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


def _store(
    connection_string: str, transport: RequestsTransport, pause: Callable[[float], None] = lambda _: None
) -> AzureBlobs:
    service = BlobServiceClient.from_connection_string(connection_string, transport=transport, **NO_WAIT)
    return AzureBlobs(service, pause=pause)


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


def test_a_copy_whose_answer_was_lost_is_known_as_ones_own(
    unlucky: AzureBlobs, transport: LosesAnswers, name: str
) -> None:
    unlucky.create(ROUTES, name, b"x")
    transport.to_lose = 1
    assert unlucky.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(unlucky, name))
    assert transport.to_lose == 0
    assert not unlucky.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(unlucky, name))


class TellsOfCopies(RequestsTransport):  # type: ignore[misc]  # as above
    """Carries requests out, and puts a status of its own on the copies that it tells of, as long as it has any."""

    def __init__(self, statuses: list[str]) -> None:
        super().__init__()
        self.statuses = statuses
        self.aborted = 0

    def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().send(request, **kwargs)
        self.aborted += "comp=copy" in request.url
        if request.method == "HEAD" and "x-ms-copy-status" in response.headers and self.statuses:
            response.headers["x-ms-copy-status"] = self.statuses.pop(0)
        return response


def test_a_copy_that_storage_is_still_at_is_waited_for(azurite_connection: str, blobs: AzureBlobs, name: str) -> None:
    blobs.create(ROUTES, name, b"x")
    paused: list[float] = []
    transport = TellsOfCopies(["pending"] * 3)
    with closing(_store(azurite_connection, transport, paused.append)) as store:
        assert store.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(blobs, name))
    assert len(paused) == 3
    assert transport.aborted == 0


def test_an_upload_to_where_a_copy_is_under_way_waits_for_it(
    azurite_connection: str, blobs: AzureBlobs, name: str, tmp_path: Path
) -> None:
    blobs.create(ROUTES, name, b"x")
    blobs.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(blobs, name))
    (tmp_path / "source").write_bytes(b"x")
    paused: list[float] = []
    with closing(_store(azurite_connection, TellsOfCopies(["pending"] * 2), paused.append)) as store:
        assert not store.create(ARTIFACTS, name, tmp_path / "source")
    assert len(paused) == 2


def test_a_copy_that_does_not_end_is_broken_off_and_told(azurite_connection: str, blobs: AzureBlobs, name: str) -> None:
    blobs.create(ROUTES, name, b"x")
    transport = TellsOfCopies(["pending"] * 10_000)
    with (
        closing(_store(azurite_connection, transport)) as store,
        pytest.raises(UnavailableError, match="does not end"),
    ):
        store.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(blobs, name))
    assert transport.aborted == 1


@pytest.mark.parametrize("status", ["failed", "aborted"])
def test_a_copy_that_failed_is_told_and_leaves_nothing(
    azurite_connection: str, blobs: AzureBlobs, name: str, status: str
) -> None:
    blobs.create(ROUTES, name, b"x")
    etag = etag_of(blobs, name)
    with closing(_store(azurite_connection, TellsOfCopies([status]))) as store:
        with pytest.raises(UnavailableError, match="failed"):
            store.copy(ROUTES, name, ARTIFACTS, name, etag=etag)
        assert blobs.info(ARTIFACTS, name) is None
        assert store.copy(ROUTES, name, ARTIFACTS, name, etag=etag)


def test_blocks_that_a_dead_upload_left_do_not_stand_in_a_copys_way(
    azurite_connection: str, blobs: AzureBlobs, name: str
) -> None:
    def die() -> None:
        raise ServiceRequestError("the process died before its commit")

    with (
        closing(_store(azurite_connection, ActsBeforeCommit(die))) as dying,
        pytest.raises(UnavailableError),
    ):
        dying.create(ARTIFACTS, name, b"A" * (2 * BLOCK_BYTES))
    blobs.create(ROUTES, name, b"x")
    assert blobs.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(blobs, name))
    found = blobs.read(ARTIFACTS, name, max_bytes=10)
    assert found is not None
    assert found.data == b"x"


class RefusesChanges(RequestsTransport):  # type: ignore[misc]  # as above
    """Answers a change of metadata, and a deletion, as storage does under a policy of immutability."""

    def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if "comp=metadata" in request.url or request.method == "DELETE":
            error = ResourceExistsError("This operation is not permitted as the blob is immutable due to a policy.")
            error.error_code = "BlobImmutableDueToPolicy"  # type: ignore[attr-defined]  # as the SDK sets it
            raise error
        response: HttpResponse = super().send(request, **kwargs)
        return response


def test_a_blob_that_storage_protects_counts_as_touched(azurite_connection: str, blobs: AzureBlobs, name: str) -> None:
    blobs.create(ROUTES, name, b"x")
    with closing(_store(azurite_connection, RefusesChanges())) as store:
        assert store.touch(ROUTES, name)


def test_a_blob_under_a_policy_of_immutability_is_protected_from_being_deleted(
    azurite_connection: str, blobs: AzureBlobs, name: str
) -> None:
    blobs.create(ROUTES, name, b"x")
    etag = etag_of(blobs, name)
    with closing(_store(azurite_connection, RefusesChanges())) as store:
        with pytest.raises(
            ConflictError, match=r"is protected from being deleted \(BlobImmutableDueToPolicy\)"
        ) as told:
            store.delete(ROUTES, name, etag=etag)
        assert not isinstance(told.value, ChangedMeanwhileError)


@pytest.mark.parametrize(
    ("protect", "code"),
    [
        (lambda client: client.create_snapshot(), "SnapshotsPresent"),
        (lambda client: client.acquire_lease(), "LeaseIdMissing"),
    ],
)
def test_a_blob_that_somebody_holds_is_protected_from_being_deleted(
    azurite_connection: str, blobs: AzureBlobs, name: str, protect: Callable[[BlobClient], object], code: str
) -> None:
    blobs.create(ROUTES, name, b"x")
    with closing(BlobServiceClient.from_connection_string(azurite_connection)) as service:
        protect(service.get_blob_client(ROUTES.value, name))
    with pytest.raises(ConflictError, match=rf"is protected from being deleted \({code}\)"):
        blobs.delete(ROUTES, name, etag=etag_of(blobs, name))
    assert blobs.info(ROUTES, name) is not None


class ActsBeforeTouch(RequestsTransport):  # type: ignore[misc]  # as above
    """Has something done just before it carries out the first change of metadata."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._acts = [act]

    def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if "comp=metadata" in request.url and self._acts:
            self._acts.pop()()
        response: HttpResponse = super().send(request, **kwargs)
        return response


def test_a_touch_undoes_nothing_that_another_wrote_meanwhile(
    azurite_connection: str, blobs: AzureBlobs, name: str
) -> None:
    blobs.create(ROUTES, name, b"old", metadata={"by": "first"})
    old = etag_of(blobs, name)
    replace = ActsBeforeTouch(lambda: blobs.replace(ROUTES, name, b"new", etag=old, metadata={"by": "second"}))
    with closing(_store(azurite_connection, replace)) as store:
        assert store.touch(ROUTES, name)
    found = blobs.read(ROUTES, name, max_bytes=10)
    assert found is not None
    assert (found.data, found.info.metadata) == (b"new", {"by": "second"})
