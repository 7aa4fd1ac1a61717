"""Delivery of outbox entries. Each delivery may happen again after a crash, and does the same again.

- an audit event is created under its number: the second time it is there already, and must be the same. One that is a
  lifecycle event is then announced to each sink, by message: whatever the process dies of, the entry is struck out only
  after that;
- a message may be sent twice: its handler expects that;
- a published blob only moves to a later generation;
- an archived document is created once.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from shared.audit.chain import AuditEvent
from shared.core.clock import Clock
from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError, IntegrityError
from shared.core.messages import PublishEvent, Queue
from shared.core.tracing import stamped
from shared.events.cloudevents import is_lifecycle
from shared.store.aggregate import ArchiveEntry, AuditEntry, MessageEntry, OutboxEntry, PublishEntry
from shared.store.ports import BlobInfo, BlobStore, Container, DocumentStore, QueueSender

_GENERATION = "generation"


def generation_of(info: BlobInfo) -> int:
    """The generation of a published blob; 0 where it does not say."""
    return int(info.metadata.get(_GENERATION, "0"))


class Outbox:
    """Delivers entries to the audit log, the queues and the blobs."""

    def __init__(
        self,
        documents: DocumentStore,
        blobs: BlobStore,
        queues: QueueSender,
        clock: Clock,
        *,
        sinks: Sequence[str] = (),
    ) -> None:
        """`sinks` names who is told of lifecycle events; without any, nobody is, and no message is sent."""
        self._documents = documents
        self._blobs = blobs
        self._queues = queues
        self._clock = clock
        self._sinks = tuple(sinks)

    def now(self) -> datetime:
        """The time by its clock: since then what is saved now waits."""
        return self._clock.now()

    def deliver(self, entry: OutboxEntry) -> None:
        """Deliver one entry. Raises UnavailableError; IntegrityError where the audit log holds another event."""
        match entry:
            case AuditEntry():
                self._append_event(entry.event)
                self._announce(entry.event)
            case MessageEntry():
                self._queues.send(entry.queue, json.dumps(entry.body), delay_s=self._delay_s(entry.not_before))
            case PublishEntry():
                self._publish(entry)
            case ArchiveEntry():
                self._archive(entry)

    def _append_event(self, event: AuditEvent) -> None:
        body = {"id": f"{event.seq:010d}", **event.model_dump(mode="json")}
        try:
            self._documents.create(Container.AUDIT, body)
        except AlreadyExistsError:
            found = self._documents.get(Container.AUDIT, event.stream, body["id"])
            if found is None or found.body.get("hash") != event.hash:
                raise IntegrityError(
                    f"event {event.seq} of audit stream {event.stream} is not the one that was written: "
                    "find out who changed the audit container"
                ) from None

    def _announce(self, event: AuditEvent) -> None:
        if is_lifecycle(event):
            for sink in self._sinks:
                message = PublishEvent(stream=event.stream, seq=event.seq, sink=sink)
                self._queues.send(Queue.LIFECYCLE_EVENTS, json.dumps(stamped(message.model_dump(mode="json"))))

    def _archive(self, entry: ArchiveEntry) -> None:
        try:
            self._documents.create(entry.container, entry.body)
        except AlreadyExistsError:
            return

    def _publish(self, entry: PublishEntry) -> None:
        data = json.dumps(entry.body).encode()
        metadata = {_GENERATION: str(entry.generation)}
        while True:
            info = self._blobs.info(entry.container, entry.name)
            if info is None:
                if self._blobs.create(entry.container, entry.name, data, metadata=metadata):
                    return
            elif generation_of(info) >= entry.generation:
                return
            else:
                try:
                    self._blobs.replace(entry.container, entry.name, data, etag=info.etag, metadata=metadata)
                except ChangedMeanwhileError:
                    continue
                return

    def _delay_s(self, not_before: datetime | None) -> float:
        if not_before is None:
            return 0.0
        return max(0.0, (not_before - self._clock.now()).total_seconds())
