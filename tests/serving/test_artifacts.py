"""Files by their digests: who downloads them."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aks_serving.artifacts import Artifacts
from aks_serving.cache import DiskCache
from aks_serving.turns import turn

from shared.core.errors import UnavailableError
from tests.serving import models
from tests.serving.fakes import MemoryStorage

ONE = models.scaler(1.0)
_WAIT_S = 0.5
"""So long another thread has to begin a download of its own, which it is not to do."""
_LONG_S = 600.0
"""After so long a download stands, where none is to."""


class _Meanwhile(MemoryStorage):
    """Storage that in the midst of its first download has another thread do what the test says, and may break then."""

    def __init__(self, *, breaks: bool = False) -> None:
        super().__init__()
        self.put(ONE)
        self.other = threading.Thread()
        self._breaks = breaks

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        is_first = self.artifact_reads == 0
        chunks = super().artifact(digest, max_bytes=max_bytes)
        yield next(chunks)
        if is_first:
            self.other.start()
            self.other.join(_WAIT_S)
            if self._breaks:
                raise UnavailableError("blob storage", "the connection broke, says the test")
        yield from chunks


def test_two_that_want_a_file_at_once_download_it_once(tmp_path: Path) -> None:
    storage = _Meanwhile()
    artifacts = Artifacts(storage, DiskCache(tmp_path))
    read: list[bytes] = []

    def fetch() -> None:
        artifacts.fetch(models.route(2, ONE))
        read.append(artifacts.read(models.digest(ONE), max_bytes=len(ONE), what="model"))

    storage.other = threading.Thread(target=fetch)
    artifacts.fetch(models.route(1, ONE))
    storage.other.join(30)
    assert (storage.artifact_reads, read) == (1, [ONE])


def test_a_download_that_fails_is_tried_again_by_who_waited_for_it(tmp_path: Path) -> None:
    storage = _Meanwhile(breaks=True)
    artifacts = Artifacts(storage, DiskCache(tmp_path))
    storage.other = threading.Thread(target=artifacts.fetch, args=(models.route(2, ONE),))
    with pytest.raises(UnavailableError):
        artifacts.fetch(models.route(1, ONE))
    storage.other.join(30)
    assert storage.artifact_reads == 2
    assert DiskCache(tmp_path).artifact(models.digest(ONE), max_bytes=len(ONE)) == ONE


@pytest.mark.parametrize("breaks", [False, True])
def test_a_turn_is_over_with_its_download_whatever_came_of_it(tmp_path: Path, *, breaks: bool) -> None:
    storage = MemoryStorage()
    storage.put(ONE)
    storage.outages[models.digest(ONE)] = int(breaks)
    with contextlib.suppress(UnavailableError):
        Artifacts(storage, DiskCache(tmp_path)).fetch(models.route(1, ONE))

    def must_wait() -> int:
        raise AssertionError("the turn is taken")

    def taken() -> contextlib.AbstractContextManager[None]:
        return turn(tmp_path / "turns", models.digest(ONE), is_there=lambda: False, written=must_wait, size_bytes=1)

    with taken():
        assert storage.artifact_reads == 1
        with pytest.raises(AssertionError), taken():
            pass


def test_who_waits_for_a_turn_goes_on_once_the_file_is_there(tmp_path: Path) -> None:
    """Another brought it, who went on without the turn since whoever has it stood."""
    cache, digest, goes_on = DiskCache(tmp_path, stands_s=_LONG_S), models.digest(ONE), threading.Event()

    def wait() -> None:
        with cache.turn(digest, max_bytes=len(ONE)):
            goes_on.set()

    waiting = threading.Thread(target=wait)
    with cache.turn(digest, max_bytes=len(ONE)):
        waiting.start()
        assert not goes_on.wait(0.1)
        cache.keep_artifact(digest, [ONE])
        assert goes_on.wait(120)
    waiting.join(30)


def test_what_is_left_of_a_download_that_was_killed_counts_as_no_progress(tmp_path: Path) -> None:
    cache, digest = DiskCache(tmp_path), models.digest(ONE)
    left = tmp_path / "private" / "of-one-that-died" / digest
    left.parent.mkdir(parents=True)
    left.write_bytes(ONE)
    with cache.turn(digest, max_bytes=len(ONE)):
        assert not left.parent.exists()
