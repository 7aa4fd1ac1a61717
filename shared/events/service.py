"""Lifecycle events on their last stretch: from the audit log to a sink, by message.

The outbox announces each event once it is in the audit log, so that whatever was announced can be read; the message
names it, and holds nothing of it. A sink that fails has the message tried again, and in the end kept as a dead letter.
"""

import logging
from collections.abc import Mapping

from shared.audit.chain import AuditEvent
from shared.core.errors import NotFoundError
from shared.core.messages import PublishEvent
from shared.events.cloudevents import cloud_event
from shared.events.sinks import EventSink
from shared.store.ports import Container, DocumentStore

_log = logging.getLogger(__name__)


class EventService:
    """Tells sinks of events."""

    def __init__(self, *, documents: DocumentStore, sinks: Mapping[str, EventSink], source: str) -> None:
        """`source` is how the sources of this Slipway's events begin."""
        self._documents = documents
        self._sinks = dict(sinks)
        self._source = source

    def publish(self, message: PublishEvent) -> None:
        """Hand an event to its sink; the same one again has the same id. One for a sink that is gone is left out.

        Raises UnavailableError; NotFoundError where the audit log holds no such event.
        """
        sink = self._sinks.get(message.sink)
        if sink is None:
            _log.warning("event %s of %s is not told: there is no sink %s", message.seq, message.stream, message.sink)
            return
        stored = self._documents.get(Container.AUDIT, message.stream, f"{message.seq:010d}")
        if stored is None:
            raise NotFoundError(f"event {message.seq} of audit stream {message.stream!r}")
        event = AuditEvent.model_validate({key: value for key, value in stored.body.items() if key != "id"})
        sink.post(cloud_event(event, source=self._source))
