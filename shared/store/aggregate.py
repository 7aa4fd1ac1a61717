"""Aggregates: documents that carry their own outbox.

What a change calls for (audit events, messages, blobs to publish, records to archive) is written into the document
by the same conditional replace as the change itself, so neither exists without the other (docs/adr/0001). Delivery
follows, at least once; `shared.store.outbox` does it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from shared.audit.chain import AuditEvent, AuditHead, next_event
from shared.core.messages import QUEUE_OF, Message, Queue
from shared.core.tracing import stamped
from shared.store.ports import BlobContainer, Container

_AT = TypeAdapter[datetime](AwareDatetime)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    """Counts an aggregate's entries, so that each can be struck out once it is delivered."""
    at: AwareDatetime | None = None
    """When it was first saved."""


class AuditEntry(_Entry):
    """An event to append to the audit stream."""

    entry: Literal["audit"] = "audit"
    event: AuditEvent


class MessageEntry(_Entry):
    """A message to send, to become visible at `not_before` if that is later."""

    entry: Literal["message"] = "message"
    queue: Queue
    body: dict[str, Any]
    not_before: AwareDatetime | None = None


class PublishEntry(_Entry):
    """A JSON blob to write unless the blob holds this generation or a later one already."""

    entry: Literal["publish"] = "publish"
    container: BlobContainer
    name: str
    generation: int
    body: dict[str, Any]


class ArchiveEntry(_Entry):
    """A document to create once and never change."""

    entry: Literal["archive"] = "archive"
    container: Container
    body: dict[str, Any]


type OutboxEntry = Annotated[AuditEntry | MessageEntry | PublishEntry | ArchiveEntry, Field(discriminator="entry")]


class Aggregate(BaseModel):
    """Base of the documents that are changed as one. A subclass names its container, kind, id and audit stream."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    container: ClassVar[Container]

    id: str
    kind: str
    audit: AuditHead = AuditHead()
    outbox: list[OutboxEntry] = Field(default_factory=list)
    outbox_pending: bool = False
    outbox_count: int = 0

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        raise NotImplementedError

    @property
    def partition(self) -> str:
        """The value of its container's partition key."""
        raise NotImplementedError

    @property
    def parent_trace(self) -> str | None:
        """The `traceparent` under which what it calls for is done; None: that under which it changes."""
        return None

    def record(self, kind: str, at: datetime, **data: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append an audit event."""
        event = next_event(self.audit, stream=self.stream, at=at, kind=kind, data=data)
        self.audit = AuditHead(seq=event.seq, hash=event.hash)
        self._append(AuditEntry(number=self._next_number(), event=event))

    def send(self, message: Message, *, not_before: datetime | None = None) -> None:
        """Send a message on the queue of its type, as a part of its story."""
        body = stamped(message.model_dump(mode="json"), self.parent_trace)
        self._append(
            MessageEntry(number=self._next_number(), queue=QUEUE_OF[type(message)], body=body, not_before=not_before)
        )

    def publish(self, container: BlobContainer, name: str, body: Mapping[str, Any], *, generation: int) -> None:
        """Write a blob that only ever moves to a later generation."""
        self._append(
            PublishEntry(
                number=self._next_number(), container=container, name=name, body=dict(body), generation=generation
            )
        )

    def archive(self, container: Container, body: Mapping[str, Any]) -> None:
        """Keep a record as a document of its own."""
        self._append(ArchiveEntry(number=self._next_number(), container=container, body=dict(body)))

    def stamp(self, now: datetime) -> None:
        """Have the entries that are new say since when they wait."""
        if any(entry.at is None for entry in self.outbox):
            self.outbox = [entry if entry.at else entry.model_copy(update={"at": now}) for entry in self.outbox]

    def strike(self, delivered: set[int]) -> None:
        """Take delivered entries out, by their numbers."""
        self.outbox = [entry for entry in self.outbox if entry.number not in delivered]
        self.outbox_pending = bool(self.outbox)

    def to_body(self) -> dict[str, Any]:
        """The document's body."""
        return self.model_dump(mode="json")

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """The aggregate in a stored body."""
        return cls.model_validate(body)

    def _next_number(self) -> int:
        self.outbox_count += 1
        return self.outbox_count

    def _append(self, entry: OutboxEntry) -> None:
        self.outbox = [*self.outbox, entry]
        self.outbox_pending = True


def waiting_since(body: Mapping[str, Any]) -> datetime | None:
    """Since when the oldest entry of a stored body's outbox waits; None where it has none that tells.

    Where an entry does not say when it was saved, as those of earlier releases, an event tells when it was, and a
    message that was put off until when.
    """
    told = [entry.get("at") or _told_by(entry) for entry in body.get("outbox", [])]
    return min((_AT.validate_python(at) for at in told if at), default=None)


def _told_by(entry: Mapping[str, Any]) -> str | None:
    found: str | None = entry["event"]["at"] if entry.get("entry") == "audit" else entry.get("not_before")
    return found
