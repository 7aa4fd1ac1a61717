"""Lifecycle events in the form of CloudEvents 1.0: what of the audit is told to others, and how it reads.

An event's id is the hash of the audit event that it was made from, so that one which is sent twice is known by it, and
can be looked up. `sequence` is that event's number in its stream: events of one source that arrive out of order can be
put back in order by it. Nothing is told that the audit does not hold.
Golden vectors: tests/unit/events/cloudevent_vectors.json.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from shared.audit.chain import AuditEvent
from shared.core.settings import EVENT_STREAMS

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"

_TYPE = "com.slipway."
_TOLD = frozenset(EVENT_STREAMS)
"""Streams whose events are told. Alerts and dead letters are not: a sink that fails makes some of both."""
_UNTOLD = frozenset({"check_failed"})
"""What is no transition."""


def is_lifecycle(event: AuditEvent) -> bool:
    """Whether an audit event is told to sinks."""
    return event.stream.partition(":")[0] in _TOLD and event.kind not in _UNTOLD


def cloud_event(event: AuditEvent, *, source: str) -> dict[str, Any]:
    """An audit event as a CloudEvent in JSON. `source` is how the sources of this Slipway begin."""
    kind, *names = event.stream.split(":")
    subject = "/".join(quote(name, safe="") for name in names)
    return {
        "specversion": "1.0",
        "id": event.hash,
        "source": f"{source}/{kind}/{subject}",
        "type": f"{_TYPE}{kind}.{event.kind}",
        "subject": subject,
        "time": event.at.isoformat(),
        "sequence": f"{event.seq:010d}",
        "datacontenttype": "application/json",
        "data": event.data,
    }


def stream_of(event: Mapping[str, Any]) -> str:
    """What kind of thing a CloudEvent of ours is about, as in `endpoint`."""
    return str(event["type"]).removeprefix(_TYPE).partition(".")[0]
