"""Sinks of lifecycle events: the port, and the adapter that posts them over HTTP.

The HTTP binding of CloudEvents in structured mode, which webhooks and Event Grid's topics take. What a sink answers is
not read beyond its status; it is never followed to another address, which might be another host. No error repeats the
address, whose path or query may be a secret.
"""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

from shared.core.deadline import at_most
from shared.core.errors import UnavailableError
from shared.events.cloudevents import CONTENT_TYPE

TIMEOUT_S = 10.0


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
        self._service = f"the event sink {name}"
        self._parts = urlsplit(url)
        self._token = token
        self._timeout_s = timeout_s

    def post(self, event: Mapping[str, Any]) -> None:
        """See EventSink.post."""
        body = json.dumps(event, ensure_ascii=False).encode()
        headers = {"Content-Type": CONTENT_TYPE}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        connection = self._connection()
        try:
            connection.connect()
            with at_most(connection.sock, self._timeout_s):
                connection.request("POST", target, body, headers)
                status = connection.getresponse().status
        except (OSError, HTTPException) as error:
            raise UnavailableError(self._service, f"{type(error).__name__} while it was posted to") from error
        finally:
            connection.close()
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise UnavailableError(self._service, f"it answered {status} where 2xx was wanted")

    def _connection(self) -> HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "https":
            return HTTPSConnection(host, self._parts.port, timeout=self._timeout_s)
        return HTTPConnection(host, self._parts.port, timeout=self._timeout_s)
