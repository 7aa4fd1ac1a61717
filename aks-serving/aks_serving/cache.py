"""Plans and artifacts on the pod's own disk: what a pod starts from when storage is down.

A file is written in a private folder, synced, and renamed, so that a name holds a whole file or none. An artifact's
digest is checked at every read, and a file that fails is removed: what the disk did to it is not served. Losing the
cache loses nothing but time, so a full or broken disk is logged and never stops serving. No artifact is held in memory
but one that is asked for as bytes.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from aks_serving.turns import STANDS_S, turn
from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName, endpoint_name
from shared.core.ids import digest as checked_digest
from shared.routing.plan import RoutePlan

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024


class DiskCache:
    """The cache in one directory. Several processes may share it. Methods block.

    A digest becomes a path: those that take one raise InvalidInputError, and touch nothing, where it is none.
    """

    def __init__(self, directory: Path, *, stands_s: float = STANDS_S) -> None:
        """Another's download that brings nothing for `stands_s` is not waited for."""
        self._stands_s = stands_s
        self._plans = directory / "plans"
        self._artifacts = directory / "artifacts"
        self._private = directory / "private"
        self._turns = directory / "turns"

    def plans(self) -> dict[EndpointName, bytes]:
        """The plans last applied, by endpoint."""
        plans = {}
        for path in sorted(self._plans.glob("*.json")):
            try:
                plans[endpoint_name(path.stem)] = path.read_bytes()
            except (OSError, InvalidInputError) as error:
                log.warning("the cached plan %s cannot be read: %s", path, error)
        return plans

    def keep_plan(self, endpoint: str, data: bytes) -> None:
        """Keep a plan for the next start."""
        with self._writer(self._plans / f"{endpoint}.json") as writer:
            writer.write(data)
            writer.commit()

    def artifact(self, digest: str, *, max_bytes: int) -> bytes | None:
        """An artifact whose digest holds, or None. A file larger than `max_bytes` is not read as a whole, and stays:
        whether its digest holds is not known.
        """
        with self._opened(digest) as file:
            if file is None:
                return None
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            _log_larger(digest, max_bytes)
        elif hashlib.sha256(data).hexdigest() == digest:
            return data
        else:
            self._drop(digest)
        return None

    def has_artifact(self, digest: str) -> bool:
        """Whether there is a file for an artifact, whatever it holds."""
        with self._opened(digest) as file:
            return file is not None

    def holds(self, digest: str, *, max_bytes: int) -> bool:
        """Whether there is an artifact whose digest holds: as `copy_into`, into nothing."""
        with Path(os.devnull).open("wb") as nothing:
            return self._copied(nothing, digest, max_bytes)

    def turn(self, digest: str, *, max_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Be the only one of all processes that downloads an artifact of at most so many bytes: see `turns.turn`."""
        name = checked_digest(digest)
        self._remove_leftovers()  # of what was killed: they would count as written
        return turn(
            self._turns,
            name,
            is_there=lambda: self._is_there(name, max_bytes),
            written=lambda: self._written(name),
            size_bytes=max_bytes,
            stands_s=self._stands_s,
        )

    def keep_artifact(self, digest: str, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Keep an artifact where its content has that digest; the digest and size that it was found to have."""
        hasher, size_bytes = hashlib.sha256(), 0
        with self._writer(self._place(digest)) as writer:
            for chunk in chunks:
                hasher.update(chunk)
                size_bytes += len(chunk)
                writer.write(chunk)
            if hasher.hexdigest() == digest:
                writer.commit()
        return hasher.hexdigest(), size_bytes

    def copy_artifact(self, digest: str, path: Path, *, max_bytes: int) -> bool:
        """As `copy_into`, into a new file, of which nothing is left where that is not done."""
        is_whole = False
        with path.open("xb") as copy:
            try:
                is_whole = self.copy_into(copy, digest, max_bytes=max_bytes)
            finally:
                if not is_whole:
                    path.unlink()
        return is_whole

    def copy_into(self, copy: BinaryIO, digest: str, *, max_bytes: int) -> bool:
        """Have a file hold an artifact whose digest holds, and nothing else: the bytes that were hashed are those that
        it has. False where there is no such artifact of at most `max_bytes`: then it holds nothing. Raises OSError
        where the copy cannot be written.
        """
        _empty(copy)
        is_whole = self._copied(copy, digest, max_bytes)
        if not is_whole:
            _empty(copy)
        return is_whole

    @contextlib.contextmanager
    def private_folder(self) -> Iterator[Path]:
        """A new directory that no one else has the name of, gone at the end. Raises OSError where there can be none.

        A process that dies leaves its own behind, unlocked; the next pruning removes it.
        """
        self._private.mkdir(parents=True, exist_ok=True)
        descriptor = None
        while descriptor is None:
            folder = Path(tempfile.mkdtemp(dir=self._private))
            descriptor = _locked(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)

    def prune_artifacts(self, wanted: Callable[[], frozenset[str]]) -> None:
        """Remove the artifacts that are neither wanted nor named by a kept plan, of this process or of another.

        `wanted` is asked after the directory was listed: what is fetched meanwhile for a newer plan is not removed.
        """
        self._remove_leftovers()
        try:
            paths = [path for path in self._artifacts.iterdir() if not path.name.startswith(".")]
            keep = set(wanted())
            for data in self.plans().values():
                keep |= digests(RoutePlan.model_validate_json(data))
            for path in paths:
                if path.name not in keep:
                    path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except ValueError:
            return  # what a kept plan needs cannot be read, so nothing is removed
        except OSError as error:
            log.warning("the artifact cache cannot be tidied: %s", error)

    def _is_there(self, digest: str, max_bytes: int) -> bool:
        try:
            return self._place(digest).stat().st_size <= max_bytes
        except OSError:
            return False

    def _written(self, digest: str) -> int:
        """Bytes of an artifact that are on disk and not yet kept, of all who download it."""
        size_bytes = 0
        for part in self._private.glob(f"*/{digest}"):
            with contextlib.suppress(OSError):
                size_bytes += part.stat().st_size
        return size_bytes

    def _remove_leftovers(self) -> None:
        folders: list[Path] = []
        with contextlib.suppress(OSError):
            folders += self._private.iterdir()
        for folder in folders:
            with contextlib.suppress(OSError):
                descriptor = _locked(folder)
                if descriptor is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(descriptor)

    def _copied(self, copy: BinaryIO, digest: str, max_bytes: int) -> bool:
        with self._opened(digest) as file:
            if file is None:
                return False
            hasher, left = hashlib.sha256(), max_bytes
            while chunk := file.read(min(_CHUNK_BYTES, left + 1)):
                left -= len(chunk)
                if left < 0:
                    _log_larger(digest, max_bytes)
                    return False
                hasher.update(chunk)
                copy.write(chunk)
            copy.flush()
            if hasher.hexdigest() == digest:
                return True
        self._drop(digest)
        return False

    @contextlib.contextmanager
    def _writer(self, path: Path) -> Iterator["_Writer"]:
        with contextlib.ExitStack() as stack:
            writer = _Writer(path)
            with writer.failing():
                folder = stack.enter_context(self.private_folder())
                path.parent.mkdir(parents=True, exist_ok=True)
                writer.file = stack.enter_context(_unfailing((folder / path.name).open("xb")))
            yield writer

    @contextlib.contextmanager
    def _opened(self, digest: str) -> Iterator[BinaryIO | None]:
        try:
            file = self._place(digest).open("rb")
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            log.warning("the cached artifact %s cannot be read: %s", digest, error)
            yield None
            return
        with file:
            yield file

    def _drop(self, digest: str) -> None:
        log.error("the cached artifact %s was altered on disk: it is removed and fetched again", digest)
        with contextlib.suppress(OSError):
            self._place(digest).unlink(missing_ok=True)

    def _place(self, digest: str) -> Path:
        return self._artifacts / checked_digest(digest)


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _log_larger(digest: str, max_bytes: int) -> None:
    log.warning("the cached artifact %s is larger than the plan's %d bytes: it is fetched again", digest, max_bytes)


def digests(plan: RoutePlan) -> frozenset[str]:
    """The artifacts that a plan needs."""
    needed: set[str] = set()
    for route in plan.routes:
        needed |= {route.artifact_digest, *(file.digest for file in route.external)}
        if route.golden_digest is not None:
            needed.add(route.golden_digest)
        if route.profile_digest is not None:
            needed.add(route.profile_digest)
        if route.signing is not None:
            needed.add(route.signing.digest)
    return frozenset(needed)


class _Writer:
    """Writes a file under another name; `commit` syncs it and gives it its own. Logs what the disk refuses, once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.file: BinaryIO | None = None
        """None where the disk refused: then writing does nothing."""

    def write(self, data: bytes) -> None:
        if self.file is not None:
            with self.failing():
                self.file.write(data)

    def commit(self) -> None:
        if self.file is not None:
            with self.failing():
                self.file.flush()
                os.fsync(self.file.fileno())
                Path(self.file.name).replace(self._path)
                _sync_directory(self._path.parent)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("%s is not kept for the next start: %s", self._path, error)
            self.file = None


@contextlib.contextmanager
def _unfailing(file: BinaryIO) -> Iterator[BinaryIO]:
    """A file whose closing raises nothing: it writes what is buffered, which a full disk refuses once more."""
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock, or None where another has it or the folder is gone. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return descriptor
    except BlockingIOError:
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
