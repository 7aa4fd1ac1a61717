"""The files of a version: fetched once, kept on disk, and handed out only where their digest is the plan's.

The bytes that are hashed are the bytes that are loaded. A file that is asked for as bytes is read once into memory and
hashed there. A model's file is copied into memory that has no name while it is hashed, and read from there: the runtime
keeps the interpreter's lock while it takes over a model's bytes, which of 100 MB are 0.1 s in which nothing is
answered, and lets go of it while it reads a file. Files with tensors may be larger than memory allows twice: each is
copied into a private folder while it is hashed, the runtime maps the copy, and the folder is gone before the version
serves. So nothing that happens to the cache afterwards reaches a loaded model. Where the disk takes no copy they are
held in memory for the load instead.
"""

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from aks_serving.cache import DiskCache
from aks_serving.errors import LoadCode, LoadError
from aks_serving.model import NO_EXTERNAL, ExternalData
from aks_serving.ports import Storage
from shared.core.errors import InvalidInputError, NotFoundError
from shared.routing.plan import ArtifactFile, Route

log = logging.getLogger(__name__)


class Artifacts:
    """Files by their digests. Methods block, and raise LoadError, or UnavailableError where storage does not answer. On
    any threads: of those that want the same file, here and in the other processes, one downloads it, and the others
    wait for that, as long as it gets on.
    """

    def __init__(self, storage: Storage, cache: DiskCache) -> None:
        self._storage = storage
        self._cache = cache

    def fetch(self, route: Route) -> None:
        """Have the disk hold a version's model and external data, as far as it takes them: where it does, loading it
        waits for no download.
        """
        if not self._cache.has_artifact(route.artifact_digest):
            self._fetch(route.artifact_digest, max_bytes=route.size_bytes, what="model")
        for file in route.external:
            if not self._cache.has_artifact(file.digest):
                self._fetch(file.digest, max_bytes=file.size_bytes, what=_external(file))

    def read(self, digest: str, *, max_bytes: int, what: str) -> bytes:
        """A file in memory; `what` names it in errors."""
        cached = self._cache.artifact(digest, max_bytes=max_bytes)
        if cached is None:
            self._fetch(digest, max_bytes=max_bytes, what=what)
            cached = self._cache.artifact(digest, max_bytes=max_bytes)
        return cached if cached is not None else self._fetch_uncached(digest, max_bytes=max_bytes, what=what)

    @contextlib.contextmanager
    def model(self, digest: str, *, max_bytes: int) -> Iterator[bytes | Path]:
        """A model's file: a path to a copy that is gone afterwards and that only this process has; where there can be
        none, its bytes.
        """
        with _nameless("model") as copy:
            if copy is not None and self._filled(copy, digest, max_bytes=max_bytes):
                yield Path(f"/proc/self/fd/{copy.fileno()}")
            else:
                yield self.read(digest, max_bytes=max_bytes, what="model")

    @contextlib.contextmanager
    def external_data(self, files: Sequence[ArtifactFile]) -> Iterator[ExternalData]:
        """Files with tensors, by the names that the model knows them by, for as long as a session is made."""
        if not files:
            yield NO_EXTERNAL
            return
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(self._cache.private_folder())
                copied = all(self._copy(file, folder) for file in files)
            except OSError as error:
                log.warning("the disk takes no private copy of external data, it is loaded from memory: %s", error)
                copied = False
            if copied:
                yield ExternalData(folder=folder)
                return
            stack.close()
            yield ExternalData(contents={file.name: self._read_external(file) for file in files})

    def _filled(self, copy: BinaryIO, digest: str, *, max_bytes: int) -> bool:
        """Whether it could be, which a limit on the size of files may forbid."""
        try:
            if not self._cache.copy_into(copy, digest, max_bytes=max_bytes):
                self._fetch(digest, max_bytes=max_bytes, what="model")
                if not self._cache.copy_into(copy, digest, max_bytes=max_bytes):
                    copy.write(self._fetch_uncached(digest, max_bytes=max_bytes, what="model"))
                    copy.flush()
        except OSError as error:
            log.warning("a model is loaded from its bytes, since they cannot be copied: %s", error)
            return False
        return True

    def _copy(self, file: ArtifactFile, folder: Path) -> bool:
        """Raises OSError where the disk takes no copy."""
        path = folder / _plain(file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._cache.copy_artifact(file.digest, path, max_bytes=file.size_bytes):
            return True
        self._fetch(file.digest, max_bytes=file.size_bytes, what=_external(file))
        return self._cache.copy_artifact(file.digest, path, max_bytes=file.size_bytes)

    def _read_external(self, file: ArtifactFile) -> bytes:
        _plain(file.name)
        return self.read(file.digest, max_bytes=file.size_bytes, what=_external(file))

    def _fetch(self, digest: str, *, max_bytes: int, what: str) -> None:
        """Into the cache, as far as the disk takes it."""
        with self._cache.turn(digest, max_bytes=max_bytes):
            if self._cache.holds(digest, max_bytes=max_bytes):
                return  # another was faster
            with _named(what, max_bytes):
                chunks = self._storage.artifact(digest, max_bytes=max_bytes)
                found, size_bytes = self._cache.keep_artifact(digest, chunks)
            _check(found, digest, size_bytes=size_bytes, what=what)

    def _fetch_uncached(self, digest: str, *, max_bytes: int, what: str) -> bytes:
        with _named(what, max_bytes):
            data = b"".join(self._storage.artifact(digest, max_bytes=max_bytes))
        _check(hashlib.sha256(data).hexdigest(), digest, size_bytes=len(data), what=what)
        return data


@contextlib.contextmanager
def _nameless(name: str) -> Iterator[BinaryIO | None]:
    """A file in memory, for reading and writing; None where there can be none. `name` is for whoever looks at /proc."""
    try:
        descriptor = os.memfd_create(name) if sys.platform == "linux" else None
    except OSError:  # a sandbox may forbid it
        descriptor = None
    if descriptor is None:
        yield None
        return
    file = os.fdopen(descriptor, "w+b")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # it writes what is buffered, which may be refused once more
            file.close()


def _check(found: str, wanted: str, *, size_bytes: int, what: str) -> None:
    if found != wanted:
        raise LoadError(
            LoadCode.ALTERED,
            f"what storage has as the {what} is {size_bytes} bytes of SHA-256 {found}, "
            f"and the plan says {wanted}; it is not loaded",
        )


@contextlib.contextmanager
def _named(what: str, max_bytes: int) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise LoadError(LoadCode.MISSING, f"the {what} cannot be had: {error}") from error
    except InvalidInputError as error:
        raise LoadError(
            LoadCode.ALTERED, f"what storage has as the {what} is more than the {max_bytes} bytes that it may be"
        ) from error


def _external(file: ArtifactFile) -> str:
    return f"external data {file.name!r}"


def _plain(name: str) -> PurePosixPath:
    """A name that leads nowhere but down. The control plane checked it; what it leads to here is checked again."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name:
        raise LoadError(LoadCode.MODEL, f"the plan names external data {name!r}, which is no plain relative path")
    return path
