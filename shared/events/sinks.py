"""Sinks of lifecycle events: the port, and the adapter that posts them over HTTP.

The HTTP binding of CloudEvents in structured mode, which webhooks and Event Grid's topics take; or a message for
people, as Slack and Teams take it.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from shared.core.settings import EventFormat
from shared.events.chat import slack_message, teams_message
from shared.events.cloudevents import CONTENT_TYPE, stream_of
from shared.events.posting import TIMEOUT_S, Address

_JSON = "application/json; charset=utf-8"


class EventSink(Protocol):
    """Takes events. One may come twice, and late."""

    def post(self, event: Mapping[str, Any]) -> None:
        """Hand over an event; on return the sink has it. Raises UnavailableError, after which it may have it too."""
        ...


class HttpSink:
    """Posts each event of some streams to an address. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        token: Callable[[], str] | None = None,
        body_format: EventFormat = EventFormat.CLOUDEVENTS,
        streams: Collection[str] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`token` gives the bearer token of a request; `timeout_s` is what connecting has, and all that follows.

        `streams` are those whose events are posted, as in `endpoint`; without any, all are.
        """
        self._address = Address(f"the event sink {name}", url, timeout_s=timeout_s)
        self._token = token
        self._format = body_format
        self._streams = frozenset(streams)

    def post(self, event: Mapping[str, Any]) -> None:
        """See EventSink.post. What is of no stream that the sink wants is taken, and told nobody."""
        if self._streams and stream_of(event) not in self._streams:
            return
        match self._format:
            case EventFormat.CLOUDEVENTS:
                told, content_type = event, CONTENT_TYPE
            case EventFormat.SLACK:
                told, content_type = slack_message(event), _JSON
            case EventFormat.TEAMS:
                told, content_type = teams_message(event), _JSON
        body = json.dumps(told, ensure_ascii=False).encode()
        headers = {"Content-Type": content_type}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        self._address.post(body, headers)
