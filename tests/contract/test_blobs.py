"""What every blob store holds: storage itself, through Azurite, and the fake in memory that services are tested on."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest

from shared.core.errors import ChangedMeanwhileError, InvalidInputError, NotFoundError
from shared.store.blob_streams import BLOCK_BYTES
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer, BlobStore
from tests.world.fakes import FakeBlobs, FakeClock, Fuse

ROUTES = BlobContainer.ROUTES
ARTIFACTS = BlobContainer.ARTIFACTS
SIZES = [0, 1, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 17]


@pytest.fixture(params=["memory", pytest.param("azurite", marks=pytest.mark.azurite)])
def blobs(request: pytest.FixtureRequest) -> Iterator[BlobStore]:
    if request.param == "memory":
        yield FakeBlobs(Fuse(), FakeClock(datetime.now(UTC)))
        return
    with closing(AzureBlobs.from_connection_string(request.getfixturevalue("azurite_connection"))) as store:
        store.ensure_containers()
        yield store


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"{uuid4().hex}/blob.bin"


def etag_of(blobs: BlobStore, name: str) -> str:
    found = blobs.info(ROUTES, name)
    assert found is not None
    return found.etag


def data_of(blobs: BlobStore, name: str) -> bytes:
    found = blobs.read(ROUTES, name, max_bytes=10**9)
    assert found is not None
    return found.data


def test_an_absent_blob_is_none(blobs: BlobStore, name: str) -> None:
    assert blobs.info(ROUTES, name) is None
    assert blobs.read(ROUTES, name, max_bytes=10) is None


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("from_file", [False, True])
def test_what_was_created_reads_back(
    blobs: BlobStore,
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
def test_a_taken_name_is_left_alone(blobs: BlobStore, name: str, tmp_path: Path, source_bytes: int) -> None:
    assert blobs.create(ROUTES, name, b"first", metadata={"by": "first"})
    before = blobs.read(ROUTES, name, max_bytes=100)
    (tmp_path / "source").write_bytes(bytes(source_bytes))
    assert not blobs.create(ROUTES, name, bytes(source_bytes), metadata={"by": "second"})
    assert not blobs.create(ROUTES, name, tmp_path / "source")
    assert blobs.read(ROUTES, name, max_bytes=100) == before


@pytest.mark.parametrize("size_bytes", [100, BLOCK_BYTES + 100])
def test_of_several_who_create_one_wins_and_its_bytes_are_whole(blobs: BlobStore, name: str, size_bytes: int) -> None:
    writers = 8 if size_bytes < BLOCK_BYTES else 3
    together = Barrier(writers)

    def create(writer: int) -> bool:
        together.wait(timeout=60)
        return blobs.create(ROUTES, name, bytes([writer]) * size_bytes)

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(create, range(writers)))
    assert won.count(True) == 1
    assert data_of(blobs, name) == bytes([won.index(True)]) * size_bytes


@pytest.mark.parametrize("size_bytes", [0, 10, BLOCK_BYTES + 10])
def test_a_replace_changes_bytes_metadata_and_etag(blobs: BlobStore, name: str, size_bytes: int) -> None:
    blobs.create(ROUTES, name, b"old", metadata={"old": "yes"})
    old = etag_of(blobs, name)
    data = os.urandom(size_bytes)
    written = blobs.replace(ROUTES, name, data, etag=old, metadata={"new": "yes"})
    assert written == blobs.info(ROUTES, name)
    assert written.metadata == {"new": "yes"}
    assert written.etag != old
    assert data_of(blobs, name) == data


@pytest.mark.parametrize("size_bytes", [10, BLOCK_BYTES + 10])
def test_a_replace_under_a_stale_etag_changes_nothing(blobs: BlobStore, name: str, size_bytes: int) -> None:
    blobs.create(ROUTES, name, b"A")
    first = etag_of(blobs, name)
    second = blobs.replace(ROUTES, name, b"B", etag=first)
    third = blobs.replace(ROUTES, name, b"A", etag=second.etag)
    for stale in (first, second.etag, "0x0"):
        with pytest.raises(ChangedMeanwhileError, match=name):
            blobs.replace(ROUTES, name, bytes(size_bytes), etag=stale)
    assert blobs.info(ROUTES, name) == third
    assert data_of(blobs, name) == b"A"


def test_a_replace_of_an_absent_blob_is_refused(blobs: BlobStore, name: str) -> None:
    with pytest.raises(ChangedMeanwhileError):
        blobs.replace(ROUTES, name, b"x", etag="0x1")
    assert blobs.info(ROUTES, name) is None


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_download_gives_the_bytes_and_their_digest(
    blobs: BlobStore, name: str, tmp_path: Path, size_bytes: int
) -> None:
    data = os.urandom(size_bytes)
    blobs.create(ROUTES, name, data)
    path = tmp_path / "copy"
    found = blobs.download(ROUTES, name, path, etag=etag_of(blobs, name), max_bytes=size_bytes)
    assert found == hashlib.sha256(data).hexdigest()
    assert path.read_bytes() == data


def test_a_download_of_another_state_is_refused_and_leaves_no_file(blobs: BlobStore, name: str, tmp_path: Path) -> None:
    blobs.create(ROUTES, name, b"old")
    old = etag_of(blobs, name)
    blobs.replace(ROUTES, name, b"new", etag=old)
    with pytest.raises(ChangedMeanwhileError):
        blobs.download(ROUTES, name, tmp_path / "copy", etag=old, max_bytes=100)
    assert list(tmp_path.iterdir()) == []


def test_a_download_of_an_absent_blob_is_refused_and_leaves_no_file(
    blobs: BlobStore, name: str, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=name):
        blobs.download(ROUTES, name, tmp_path / "copy", etag="0x1", max_bytes=100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size_bytes", [11, BLOCK_BYTES + 1])
def test_a_blob_over_the_limit_is_refused_and_leaves_no_file(
    blobs: BlobStore, name: str, tmp_path: Path, size_bytes: int
) -> None:
    blobs.create(ROUTES, name, bytes(size_bytes))
    with pytest.raises(InvalidInputError, match=f"has {size_bytes} bytes, and at most {size_bytes - 1} are read"):
        blobs.download(ROUTES, name, tmp_path / "copy", etag=etag_of(blobs, name), max_bytes=size_bytes - 1)
    with pytest.raises(InvalidInputError, match=f"has {size_bytes} bytes, and at most {size_bytes - 1} are read"):
        blobs.read(ROUTES, name, max_bytes=size_bytes - 1)
    assert list(tmp_path.iterdir()) == []


def test_a_download_leaves_a_file_that_stood_there_alone(blobs: BlobStore, name: str, tmp_path: Path) -> None:
    blobs.create(ROUTES, name, b"new")
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        blobs.download(ROUTES, name, tmp_path / "copy", etag=etag_of(blobs, name), max_bytes=100)
    assert (tmp_path / "copy").read_bytes() == b"mine"


def test_a_listing_holds_the_blobs_under_a_prefix_in_the_order_of_their_names(blobs: BlobStore) -> None:
    prefix = uuid4().hex
    names = [f"{prefix}/{rest}" for rest in ("a", "a/b", "B", "b", "10", "9", "é", "a b", "a%20b", "x&y<z>'\"")]
    for number, each in enumerate(names):
        blobs.create(ROUTES, each, bytes(number), metadata={"n": str(number)})
    blobs.create(ROUTES, f"{prefix}-other", b"")
    found = list(blobs.list(ROUTES, f"{prefix}/"))
    assert [info.name for info in found] == sorted(names)
    assert {info.name: info.metadata for info in found} == {each: {"n": str(n)} for n, each in enumerate(names)}
    assert all(info == blobs.info(ROUTES, info.name) for info in found)


def test_a_listing_without_prefix_holds_everything_of_its_container_alone(blobs: BlobStore, name: str) -> None:
    blobs.create(BlobContainer.REPORTS, name, b"x")
    assert name in [info.name for info in blobs.list(BlobContainer.REPORTS)]
    assert name not in [info.name for info in blobs.list(ROUTES)]
    assert list(blobs.list(ROUTES, "no such prefix")) == []


@pytest.mark.parametrize(
    "bad", ["", "..", "../other", "a/../b", "a/./b", "./a", "a/..", "a.", "a\\b", "a\n", "a\0", "x" * 1025]
)
def test_a_name_that_would_reach_elsewhere_is_refused(blobs: BlobStore, tmp_path: Path, bad: str) -> None:
    for call in (
        lambda: blobs.info(ROUTES, bad),
        lambda: blobs.read(ROUTES, bad, max_bytes=1),
        lambda: blobs.create(ROUTES, bad, b""),
        lambda: blobs.replace(ROUTES, bad, b"", etag="0x1"),
        lambda: blobs.download(ROUTES, bad, tmp_path / "copy", etag="0x1", max_bytes=1),
        lambda: blobs.copy(ROUTES, bad, ARTIFACTS, "good", etag="0x1"),
        lambda: blobs.copy(ROUTES, "good", ARTIFACTS, bad, etag="0x1"),
        lambda: blobs.touch(ROUTES, bad),
        lambda: blobs.delete(ROUTES, bad, etag="0x1"),
    ):
        with pytest.raises(InvalidInputError, match="is not a blob name"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "metadata", [{"Upper": "x"}, {"a-b": "x"}, {"": "x"}, {"1a": "x"}, {"a": "é"}, {"a": ""}, {"a": " x"}, {"a": "x\n"}]
)
def test_metadata_that_would_not_come_back_is_refused(blobs: BlobStore, name: str, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="metadata"):
        blobs.create(ROUTES, name, b"", metadata=metadata)
    assert blobs.info(ROUTES, name) is None


def test_metadata_too_large_is_refused(blobs: BlobStore, name: str) -> None:
    assert blobs.create(ROUTES, name, b"", metadata={"a": "x" * (7 * 1024 - 1)})
    with pytest.raises(InvalidInputError, match="7168 bytes"):
        blobs.create(ROUTES, name + "2", b"", metadata={"a": "x" * (7 * 1024)})


@pytest.mark.parametrize("size_bytes", [0, 10, BLOCK_BYTES + 10])
def test_a_copy_holds_the_bytes_and_nothing_else_of_its_source(blobs: BlobStore, name: str, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    blobs.create(ROUTES, name, data, metadata={"by": "somebody"})
    before = blobs.info(ROUTES, name)
    assert blobs.copy(ROUTES, name, ARTIFACTS, name + "2", etag=etag_of(blobs, name))
    found = blobs.read(ARTIFACTS, name + "2", max_bytes=size_bytes)
    assert found is not None
    assert (found.data, found.info.metadata, found.info.size_bytes) == (data, {}, size_bytes)
    assert blobs.info(ROUTES, name) == before
    blobs.delete(ROUTES, name, etag=etag_of(blobs, name))
    assert blobs.read(ARTIFACTS, name + "2", max_bytes=size_bytes) == found


def test_a_copy_to_a_taken_name_changes_nothing(blobs: BlobStore, name: str) -> None:
    blobs.create(ROUTES, name, b"source")
    blobs.create(ARTIFACTS, name, b"first", metadata={"by": "first"})
    before = blobs.read(ARTIFACTS, name, max_bytes=10)
    assert not blobs.copy(ROUTES, name, ARTIFACTS, name, etag=etag_of(blobs, name))
    assert blobs.read(ARTIFACTS, name, max_bytes=10) == before


def test_a_copy_of_another_state_of_the_source_is_refused(blobs: BlobStore, name: str) -> None:
    blobs.create(ROUTES, name, b"old")
    old = etag_of(blobs, name)
    blobs.replace(ROUTES, name, b"new", etag=old)
    with pytest.raises(ChangedMeanwhileError, match=name):
        blobs.copy(ROUTES, name, ARTIFACTS, name, etag=old)
    assert blobs.info(ARTIFACTS, name) is None


def test_a_copy_of_an_absent_blob_is_refused(blobs: BlobStore, name: str) -> None:
    with pytest.raises(NotFoundError, match=name):
        blobs.copy(ROUTES, name, ARTIFACTS, name, etag="0x1")
    assert blobs.info(ARTIFACTS, name) is None


def test_of_several_who_copy_to_one_name_one_wins(blobs: BlobStore, name: str) -> None:
    writers = 6
    for writer in range(writers):
        blobs.create(ROUTES, f"{name}{writer}", bytes([writer]) * 100)
    together = Barrier(writers)

    def copy(writer: int) -> bool:
        source = f"{name}{writer}"
        etag = etag_of(blobs, source)
        together.wait(timeout=60)
        return blobs.copy(ROUTES, source, ARTIFACTS, name, etag=etag)

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(copy, range(writers)))
    assert won.count(True) == 1
    found = blobs.read(ARTIFACTS, name, max_bytes=100)
    assert found is not None
    assert found.data == bytes([won.index(True)]) * 100


def test_a_touched_blob_has_another_etag_and_nothing_else_new(blobs: BlobStore, name: str) -> None:
    blobs.create(ROUTES, name, b"x", metadata={"by": "me"})
    before = blobs.read(ROUTES, name, max_bytes=10)
    assert before is not None
    assert blobs.touch(ROUTES, name)
    after = blobs.read(ROUTES, name, max_bytes=10)
    assert after is not None
    assert (after.data, after.info.metadata) == (before.data, before.info.metadata)
    assert after.info.etag != before.info.etag
    with pytest.raises(ChangedMeanwhileError):
        blobs.delete(ROUTES, name, etag=before.info.etag)
    assert blobs.info(ROUTES, name) == after.info


def test_an_absent_blob_cannot_be_touched(blobs: BlobStore, name: str) -> None:
    assert not blobs.touch(ROUTES, name)
    assert blobs.info(ROUTES, name) is None


def test_a_deleted_blob_is_gone_and_its_name_is_free(blobs: BlobStore, name: str) -> None:
    blobs.create(ROUTES, name, b"old")
    assert blobs.delete(ROUTES, name, etag=etag_of(blobs, name))
    assert blobs.info(ROUTES, name) is None
    assert not blobs.delete(ROUTES, name, etag="0x1")
    assert blobs.create(ROUTES, name, b"new")


def test_a_delete_under_a_stale_etag_is_refused(blobs: BlobStore, name: str) -> None:
    blobs.create(ROUTES, name, b"old")
    old = etag_of(blobs, name)
    written = blobs.replace(ROUTES, name, b"new", etag=old)
    with pytest.raises(ChangedMeanwhileError, match=name):
        blobs.delete(ROUTES, name, etag=old)
    assert blobs.info(ROUTES, name) == written
