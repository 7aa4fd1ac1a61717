"""The ports, held in memory, for tests of the services. tests/contract/ holds what the real adapters do.

Each port call is counted by a `Fuse`, which can end the "process" before any of them, and so after the one before:
what survives is what the ports hold, as after a SIGKILL.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shared.alerts.notices import Notice
from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError, ConflictError, NotFoundError, UnavailableError
from shared.events.posting import BusyError, RefusedError
from shared.store.blob_rules import check_name, check_size, checked_metadata, named
from shared.store.ports import PARTITION_KEY, Blob, BlobContainer, BlobInfo, Container, Page, Stored


class Killed(BaseException):
    """The process died here. No handler of ours may catch it."""


@dataclass
class Fuse:
    """Burns through once, at a numbered port call, before its effect."""

    at: int | None = None
    calls: int = 0

    def before_call(self) -> None:
        """Die here if it is time."""
        self.calls += 1
        if self.calls == self.at:
            raise Killed


@dataclass
class FakeClock:
    """A clock that the test moves."""

    time: datetime = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)

    def now(self) -> datetime:
        """The time that the test set."""
        return self.time

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


@dataclass
class FakeDocuments:
    """Documents in a dictionary."""

    fuse: Fuse
    held: dict[tuple[Container, str, str], Stored] = field(default_factory=dict)
    etags: Iterator[int] = field(default_factory=itertools.count)
    other_writers: list[Callable[[], object]] = field(default_factory=list)
    """What other processes do just before the next conditional writes, one each."""

    def get(self, container: Container, partition: str, document_id: str) -> Stored | None:
        """See the port."""
        self.fuse.before_call()
        found = self.held.get((container, partition, document_id))
        return _copy(found) if found else None

    def create(self, container: Container, body: Mapping[str, Any]) -> Stored:
        """See the port."""
        self.fuse.before_call()
        key = (container, str(body[PARTITION_KEY[container]]), str(body["id"]))
        if key in self.held:
            raise AlreadyExistsError(key[2])
        return self._put(key, body)

    def replace(self, container: Container, body: Mapping[str, Any], *, etag: str) -> Stored:
        """See the port."""
        self.fuse.before_call()
        if self.other_writers:
            self.other_writers.pop(0)()
        key = (container, str(body[PARTITION_KEY[container]]), str(body["id"]))
        if key not in self.held:
            raise NotFoundError(key[2])
        if self.held[key].etag != etag:
            raise ChangedMeanwhileError(key[2])
        return self._put(key, body)

    def delete(self, container: Container, partition: str, document_id: str, *, etag: str) -> bool:
        """See the port."""
        self.fuse.before_call()
        key = (container, partition, document_id)
        if key in self.held and self.held[key].etag != etag:
            raise ChangedMeanwhileError(document_id)
        return self.held.pop(key, None) is not None

    def query(
        self,
        container: Container,
        *,
        partition: str | None = None,
        where: Mapping[str, str | int | bool] | None = None,
        page_size: int = 100,
        continuation: str | None = None,
    ) -> Page:
        """See the port."""
        self.fuse.before_call()
        keys = sorted(key for key in self.held if key[0] is container and partition in {None, key[1]})
        keys = [key for key in keys if (where or {}).items() <= self.held[key].body.items()]
        keys = [key for key in keys if continuation is None or "/".join(key) > continuation]
        page, rest = keys[:page_size], keys[page_size:]
        return Page(items=[_copy(self.held[key]) for key in page], continuation="/".join(page[-1]) if rest else None)

    def _put(self, key: tuple[Container, str, str], body: Mapping[str, Any]) -> Stored:
        self.held[key] = _copy(Stored(body=dict(body), etag=str(next(self.etags))))
        return _copy(self.held[key])


def _copy(stored: Stored) -> Stored:
    """What a store gives back of a document: its JSON, read again."""
    return Stored(body=json.loads(json.dumps(stored.body)), etag=stored.etag)


@dataclass
class FakeBlobs:
    """Blobs in a dictionary, under the contract tests of tests/contract/test_blobs.py."""

    fuse: Fuse
    clock: FakeClock
    held: dict[tuple[BlobContainer, str], Blob] = field(default_factory=dict)
    etags: Iterator[int] = field(default_factory=itertools.count)
    copies: int = 0
    """How many blobs were stored by copying."""
    uploads: int = 0
    """How many were stored by sending their bytes."""
    reads: list[str] = field(default_factory=list)
    """The names of what was read, in order."""
    protected: set[str] = field(default_factory=set)
    """The names of what storage lets nobody change or delete."""
    refused: set[str] = field(default_factory=set)
    """The names of what storage fails to delete."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def info(self, container: BlobContainer, name: str) -> BlobInfo | None:
        """See the port."""
        blob = self._find(container, name)
        return blob.info if blob else None

    def read(self, container: BlobContainer, name: str, *, max_bytes: int) -> Blob | None:
        """See the port."""
        blob = self._find(container, name)
        if blob:
            check_size(named(container, name), len(blob.data), max_bytes)
            self.reads.append(name)
        return blob

    def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
        """See the port."""
        blob = self._require(container, name, etag)
        check_size(named(container, name), len(blob.data), max_bytes)
        with path.open("xb") as file:
            file.write(blob.data)
        self.reads.append(name)
        return hashlib.sha256(blob.data).hexdigest()

    def create(
        self, container: BlobContainer, name: str, source: bytes | Path, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """See the port."""
        with self.lock:
            plain = checked_metadata(metadata)
            if self._find(container, name):
                return False
            self.put(container, name, source if isinstance(source, bytes) else source.read_bytes(), plain)
            self.uploads += 1
            return True

    def replace(
        self,
        container: BlobContainer,
        name: str,
        data: bytes,
        *,
        etag: str,
        metadata: Mapping[str, str] | None = None,
    ) -> BlobInfo:
        """See the port."""
        plain = checked_metadata(metadata)
        blob = self._find(container, name)
        if blob is None or blob.info.etag != etag:
            raise ChangedMeanwhileError(named(container, name))
        return self.put(container, name, data, plain)

    def copy(self, source: BlobContainer, source_name: str, target: BlobContainer, name: str, *, etag: str) -> bool:
        """See the port."""
        with self.lock:
            check_name(source_name)
            if self._find(target, name):
                return False
            self.put(target, name, self._require(source, source_name, etag).data, {})
            self.copies += 1
            return True

    def touch(self, container: BlobContainer, name: str) -> bool:
        """See the port."""
        blob = self._find(container, name)
        if blob is not None and name not in self.protected:
            self.put(container, name, blob.data, blob.info.metadata)
        return blob is not None

    def delete(self, container: BlobContainer, name: str, *, etag: str) -> bool:
        """See the port."""
        blob = self._find(container, name)
        if blob is None:
            return False
        if blob.info.etag != etag:
            raise ChangedMeanwhileError(named(container, name))
        if name in self.refused:
            raise UnavailableError("blob storage", "it failed")
        if name in self.protected:
            raise ConflictError(f"{named(container, name)} is protected from being deleted")
        del self.held[container, name]
        return True

    def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
        """See the port."""
        self.fuse.before_call()
        names = sorted(name for held, name in self.held if held is container and name.startswith(prefix))
        return iter([self.held[container, name].info for name in names])

    def put(self, container: BlobContainer, name: str, data: bytes, metadata: Mapping[str, str]) -> BlobInfo:
        """Store a blob as somebody outside would."""
        info = BlobInfo(
            name=name,
            etag=str(next(self.etags)),
            size_bytes=len(data),
            last_modified=self.clock.now(),
            metadata=dict(metadata),
        )
        self.held[container, name] = Blob(info=info, data=data)
        return info

    def _find(self, container: BlobContainer, name: str) -> Blob | None:
        check_name(name)
        self.fuse.before_call()
        return self.held.get((container, name))

    def _require(self, container: BlobContainer, name: str, etag: str) -> Blob:
        blob = self._find(container, name)
        if blob is None:
            raise NotFoundError(named(container, name))
        if blob.info.etag != etag:
            raise ChangedMeanwhileError(named(container, name))
        return blob


@dataclass
class FakeSink:
    """A sink of events that keeps what it is told."""

    fuse: Fuse
    told: list[dict[str, Any]] = field(default_factory=list)
    is_down: bool = False

    def post(self, event: Mapping[str, Any]) -> None:
        """See EventSink.post."""
        self.fuse.before_call()
        if self.is_down:
            raise UnavailableError("the sink", "it is down")
        self.told.append(dict(event))


@dataclass
class FakeNoticeSink:
    """A sink of alerts that keeps what it is told."""

    fuse: Fuse
    told: list[Notice] = field(default_factory=list)
    is_down: bool = False
    refuses: Callable[[Notice], bool] = lambda _: False
    """Whether it answers 400 to a notice."""
    retry_after_s: float = 0.0
    """How long it asks to be left alone while it is down."""
    meanwhile: list[Callable[[], object]] = field(default_factory=list)
    """What other processes do while it takes the next notices, one each."""

    def post(self, notice: Notice) -> None:
        """See NoticeSink.post."""
        self.fuse.before_call()
        if self.meanwhile:
            self.meanwhile.pop(0)()
        if self.is_down and self.retry_after_s:
            raise BusyError("the sink", "it is down", retry_after_s=self.retry_after_s)
        if self.is_down:
            raise UnavailableError("the sink", "it is down")
        if self.refuses(notice):
            raise RefusedError("the sink", "it answered 400 where 2xx was wanted", status=400)
        self.told.append(notice)


@dataclass
class FakeQueues:
    """Messages in a list, each with the time from which it is visible."""

    fuse: Fuse
    clock: FakeClock
    messages: list[tuple[datetime, str, str]] = field(default_factory=list)
    loses: Callable[[], bool] = lambda: False
    """Whether the message that is sent now is lost."""

    def send(self, queue: str, body: str, *, delay_s: float = 0.0) -> None:
        """See the port."""
        self.fuse.before_call()
        if not self.loses():
            self.messages.append((self.clock.now() + timedelta(seconds=delay_s), queue, body))
