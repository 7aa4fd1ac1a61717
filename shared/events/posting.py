"""Posts a body to an address over HTTP, within a time in all.

What is answered is not read beyond its status; no redirect is followed, for it may lead to another host. No error
repeats the address, whose path or query may be a secret.
"""

from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from shared.core.deadline import at_most
from shared.core.errors import UnavailableError

TIMEOUT_S = 10.0


class Address:
    """Where to post to. Safe to share between threads."""

    def __init__(self, service: str, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """`service` is what errors call it; `timeout_s` is what connecting has, and all that follows."""
        self._service = service
        self._parts = urlsplit(url)
        self._timeout_s = timeout_s

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a body. Raises UnavailableError where the answer is not 2xx, or none."""
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        connection = self._connection()
        try:
            connection.connect()
            with at_most(connection.sock, self._timeout_s):
                connection.request("POST", target, body, dict(headers))
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
