"""Sinks of lifecycle events: the port, and the adapter that posts them over HTTP.

The HTTP binding of CloudEvents in structured mode, which webhooks and Event Grid's topics take.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shared.events.cloudevents import CONTENT_TYPE
from shared.events.posting import TIMEOUT_S, Address


class EventSink(Protocol):
    """Takes events. One may come twice, and late."""

    def post(self, event: Mapping[str, Any]) -> None:
        """Hand over an event; on return the sink has it. Raises UnavailableError, after which it may have it too."""
        ...


class HttpSink:
    """Posts each event to an address. Safe to share between threads."""

    def __init__(
        self, name: str, url: str, *, token: Callable[[], str] | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`token` gives the bearer token of a request; `timeout_s` is what connecting has, and all that follows."""
        self._address = Address(f"the event sink {name}", url, timeout_s=timeout_s)
        self._token = token

    def post(self, event: Mapping[str, Any]) -> None:
        """See EventSink.post."""
        body = json.dumps(event, ensure_ascii=False).encode()
        headers = {"Content-Type": CONTENT_TYPE}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        self._address.post(body, headers)
