"""Reading and verifying the audit log."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.audit.chain import AuditEvent, Problem, problems_of
from shared.core.errors import IntegrityError, NotFoundError
from shared.store.aggregate import Aggregate, AuditEntry
from shared.store.ports import Container, DocumentStore
from shared.store.unreadable import Unreadable, leaving_out, named

_TRIES = 5
_EVENT_ID = re.compile(r"[0-9]{10}")
_NAMED_WITHOUT_PARTITION = frozenset({"drop"})
"""The kinds whose streams are named by an id alone: their subject is looked for in every partition."""


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
        """A stream's delivered events, in order.

        Raises NotFoundError for a stream without any, IntegrityError where it holds what is no event.
        """
        events: list[AuditEvent] = []
        for body in self._bodies(Container.AUDIT, partition=stream):
            event = _read(body)
            if isinstance(event, Problem):
                raise IntegrityError(f"audit stream {stream!r}: {event.problem}")
            events.append(event)
        if not events:
            raise NotFoundError(f"audit stream {stream!r}")
        return events

    def verify(self, stream: str | None = None) -> Verification:
        """Verify one stream, or all of them. Raises NotFoundError for a named stream without a subject or events, where
        all that could be its subject was read.
        """
        # The streams before their subjects: a subject is stored before its first event is, so that one which is made
        # meanwhile is no stream without a subject.
        unreadable = list[Unreadable]()
        if stream is None:
            streams = {str(body["stream"]) for body in self._bodies(Container.AUDIT)}
            subjects = {subject.stream: subject for kind in self._kinds for subject in self._subjects(kind, unreadable)}
        else:
            streams = {stream} if any(True for _ in self._bodies(Container.AUDIT, partition=stream)) else set()
            subjects = self._subject_of(stream, unreadable)
            if subjects:
                unreadable.clear()  # What lies beside the stream's own subject is no matter of it.
            if unreadable:
                streams = {stream}  # Its subject may be among these.
            if not streams and not subjects:
                raise NotFoundError(f"audit stream {stream!r}")
        orphans = streams - set(subjects)
        lost = "its subject does not exist" + (", or cannot be read" if unreadable else "")
        problems = [Problem(stream=name, seq=0, problem=lost) for name in sorted(orphans)]
        problems += [Problem(stream="-", seq=0, problem=f"{what} cannot be read: {why}") for what, why in unreadable]
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
        problems: list[Problem] = []
        events: list[AuditEvent] = []
        for body in self._bodies(Container.AUDIT, partition=subject.stream):
            found = _read(body)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                events.append(found)
        delivered = {event.seq for event in events}
        events += [event for seq, event in sorted(waiting.items()) if seq not in delivered]
        return problems + problems_of(subject.stream, events, subject.audit), len(events)

    def _subject_of(self, stream: str, unreadable: list[Unreadable]) -> dict[str, Aggregate]:
        """The subject of a stream under the stream's name, looked for where the name says that it is."""
        kind, _, rest = stream.partition(":")
        if kind not in self._kinds:
            return {}
        partition = None if kind in _NAMED_WITHOUT_PARTITION else rest.partition(":")[0]
        found = self._subjects(kind, unreadable, partition=partition)
        return {subject.stream: subject for subject in found if subject.stream == stream}

    def _subjects(
        self, kind: str, unreadable: list[Unreadable], *, partition: str | None = None
    ) -> Iterator[Aggregate]:
        aggregate = self._kinds[kind]
        for body in self._bodies(aggregate.container, partition=partition, where={"kind": kind}):
            with leaving_out(named(aggregate.container, body), unreadable):
                yield aggregate.from_body(body)

    def _bodies(
        self, container: Container, *, partition: str | None = None, where: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        continuation = None
        while True:
            page = self._documents.query(container, partition=partition, where=where, continuation=continuation)
            for stored in page.items:
                yield stored.body
            if page.continuation is None:
                return
            continuation = page.continuation


def _read(body: Mapping[str, Any]) -> AuditEvent | Problem:
    """The event that a document of the audit container holds, or what is wrong with it."""
    document_id = str(body["id"])
    try:
        return AuditEvent.model_validate({key: value for key, value in body.items() if key != "id"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        return Problem(
            stream=str(body["stream"]),
            seq=int(document_id) if _EVENT_ID.fullmatch(document_id) else 0,
            problem=f"the document {document_id!r} is not an event: {where}: {first['msg']}",
        )
