"""The audit chain: events of one stream, numbered without gaps, each holding the hash of the one before.

An edited, deleted or reordered event breaks the chain at its place; a deleted last one shows against the head, which
the audited aggregate keeps in its own document. Who can rewrite every document can rewrite a chain: anchoring heads
outside the database is another feature.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of
from shared.core.ids import Digest

GENESIS = Digest("0" * 64)
"""What the first event of a stream holds as the hash of the one before."""


class AuditHead(BaseModel):
    """Where a stream stands: the number and hash of its last event; number 0 before the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int = 0
    hash: str = GENESIS


class AuditEvent(BaseModel):
    """What happened to a stream's subject, when, and the figures it was decided by. Never changed once written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stream: str
    seq: int = Field(ge=1)
    at: AwareDatetime
    kind: str
    data: dict[str, Any]
    previous: str
    hash: str


class Problem(BaseModel):
    """A place where a stream is not what was written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stream: str
    seq: int
    problem: str


def next_event(head: AuditHead, *, stream: str, at: datetime, kind: str, data: dict[str, Any]) -> AuditEvent:
    """The event that follows `head`. Raises ValueError or TypeError where `data` is not canonical JSON."""
    seq = head.seq + 1
    hashed = _event_hash(stream=stream, seq=seq, at=at, kind=kind, data=data, previous=head.hash)
    return AuditEvent(stream=stream, seq=seq, at=at, kind=kind, data=data, previous=head.hash, hash=hashed)


def problems_of(stream: str, events: Iterable[AuditEvent], head: AuditHead) -> list[Problem]:
    """What is wrong with a stream, given all its events in order of their numbers, and its subject's head."""
    problems: list[Problem] = []
    last = AuditHead()
    for event in events:
        if event.stream != stream:
            problems.append(Problem(stream=stream, seq=event.seq, problem=f"it names the stream {event.stream}"))
        if event.seq != last.seq + 1:
            problems.append(Problem(stream=stream, seq=event.seq, problem=f"it follows event {last.seq}"))
        if event.previous != last.hash:
            problems.append(
                Problem(stream=stream, seq=event.seq, problem="it does not hold the hash of the one before")
            )
        if event.hash != _hash_again(event):
            problems.append(Problem(stream=stream, seq=event.seq, problem="its content does not give its hash"))
        last = AuditHead(seq=event.seq, hash=event.hash)
    if last != head:
        problems.append(
            Problem(
                stream=stream, seq=last.seq, problem=f"the stream ends here, its subject stands at event {head.seq}"
            )
        )
    return problems


def _hash_again(event: AuditEvent) -> Digest:
    return _event_hash(
        stream=event.stream, seq=event.seq, at=event.at, kind=event.kind, data=event.data, previous=event.previous
    )


def _event_hash(*, stream: str, seq: int, at: datetime, kind: str, data: dict[str, Any], previous: str) -> Digest:
    return digest_of(
        {"stream": stream, "seq": seq, "at": at.isoformat(), "kind": kind, "data": data, "previous": previous}
    )
