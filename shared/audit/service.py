"""Reading and verifying the audit log."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.audit.chain import AuditEvent, Problem, problems_of
from shared.core.errors import NotFoundError
from shared.store.aggregate import Aggregate, AuditEntry
from shared.store.ports import Container, DocumentStore

_TRIES = 5


class Verification(BaseModel):
    """What a verification looked at and found. `verified` means: no problems."""

    model_config = ConfigDict(extra="forbid")

    verified: bool
    streams: int
    events: int
    problems: list[Problem]


class AuditService:
    """Reads streams, and holds them against the heads that their subjects keep.

    `kinds` are the audited aggregates by their `kind`.
    """

    def __init__(self, documents: DocumentStore, kinds: Mapping[str, type[Aggregate]]) -> None:
        self._documents = documents
        self._kinds = kinds

    def events(self, stream: str) -> list[AuditEvent]:
        """A stream's delivered events, in order. Raises NotFoundError for a stream without any."""
        events = [AuditEvent.model_validate(_event_body(body)) for body in self._bodies(Container.AUDIT, stream)]
        if not events:
            raise NotFoundError(f"audit stream {stream!r}")
        return events

    def verify(self, stream: str | None = None) -> Verification:
        """Verify one stream, or all of them. Raises NotFoundError for a named stream without a subject or events."""
        subjects = {subject.stream: subject for subject in self._subjects()}
        orphans = {str(body["stream"]) for body in self._bodies(Container.AUDIT, None)} - set(subjects)
        if stream is not None:
            if stream not in subjects and stream not in orphans:
                raise NotFoundError(f"audit stream {stream!r}")
            subjects = {name: subject for name, subject in subjects.items() if name == stream}
            orphans &= {stream}
        problems = [Problem(stream=name, seq=0, problem="its subject does not exist") for name in sorted(orphans)]
        events = 0
        for subject in subjects.values():
            count, found = self._verify_subject(subject)
            events += count
            problems += found
        return Verification(
            verified=not problems, streams=len(subjects) + len(orphans), events=events, problems=problems
        )

    def _verify_subject(self, subject: Aggregate) -> tuple[int, list[Problem]]:
        problems: list[Problem] = []
        count = 0
        for _ in range(_TRIES):
            # A subject that moves on between the two reads is looked at again.
            problems, count = self._check(subject)
            again = self._documents.get(subject.container, subject.partition, subject.id)
            if not problems or again is None or again.body["audit"] == subject.audit.model_dump():
                break
            subject = type(subject).from_body(again.body)
        return count, problems

    def _check(self, subject: Aggregate) -> tuple[list[Problem], int]:
        waiting = {entry.event.seq: entry.event for entry in subject.outbox if isinstance(entry, AuditEntry)}
        events: list[AuditEvent] = []
        for body in self._bodies(Container.AUDIT, subject.stream):
            try:
                events.append(AuditEvent.model_validate(_event_body(body)))
            except ValidationError as error:
                text = f"it does not have an event's form: {error.errors()[0]['msg']}"
                return [Problem(stream=subject.stream, seq=int(str(body["id"])), problem=text)], len(events)
        delivered = {event.seq for event in events}
        events += [event for seq, event in sorted(waiting.items()) if seq not in delivered]
        return problems_of(subject.stream, events, subject.audit), len(events)

    def _subjects(self) -> Iterator[Aggregate]:
        for container in (Container.MODELS, Container.ENDPOINTS):
            for body in self._bodies(container, None):
                kind = self._kinds.get(str(body.get("kind")))
                if kind is not None:
                    yield kind.from_body(body)

    def _bodies(self, container: Container, partition: str | None) -> Iterator[dict[str, object]]:
        continuation = None
        while True:
            page = self._documents.query(container, partition=partition, continuation=continuation)
            for stored in page.items:
                yield stored.body
            if page.continuation is None:
                return
            continuation = page.continuation


def _event_body(body: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in body.items() if key != "id"}
