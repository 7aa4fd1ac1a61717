"""Posts a body to an address over HTTP, within a time in all.

What is answered is not read beyond its head; no redirect is followed, for it may lead to another host. No error repeats
the address, whose path or query may be a secret.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from shared.core.deadline import at_most
from shared.core.errors import UnavailableError

TIMEOUT_S = 10.0
_MAY_PASS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Of 4xx, what the same request may not be answered the next time."""


class RefusedError(UnavailableError):
    """The receiver is there, and does not take what it was sent: the same again will hardly pass until a person mends
    something.
    """

    def __init__(self, service: str, reason: str, *, status: int) -> None:
        """`status` is HTTP's, or SMTP's."""
        super().__init__(service, reason)
        self.status = status


class BusyError(UnavailableError):
    """The receiver asks to be left alone for a time."""

    def __init__(self, service: str, reason: str, *, retry_after_s: float) -> None:
        super().__init__(service, f"{reason}, and wants {retry_after_s:.0f} s before the next try")
        self.retry_after_s = retry_after_s


class Address:
    """Where to post to. Safe to share between threads."""

    def __init__(self, service: str, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """`service` is what errors call it; `timeout_s` is what connecting has, and all that follows."""
        self._service = service
        self._parts = urlsplit(url)
        self._timeout_s = timeout_s

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a body. Raises UnavailableError where the answer is not 2xx, or none: RefusedError where it is one of
        4xx that trying again will not change, BusyError where it says how long to wait.
        """
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        connection = self._connection()
        try:
            connection.connect()
            with at_most(connection.sock, self._timeout_s):
                connection.request("POST", target, body, dict(headers))
                with connection.getresponse() as answer:
                    status, retry_after = answer.status, answer.getheader("Retry-After", "")
        except (OSError, HTTPException) as error:
            raise UnavailableError(self._service, f"{type(error).__name__} while it was posted to") from error
        finally:
            connection.close()
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._not_taken(status, retry_after)

    def _not_taken(self, status: int, retry_after: str) -> UnavailableError:
        reason = f"it answered {status} where 2xx was wanted"
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _MAY_PASS:
            return RefusedError(self._service, reason, status=status)
        wait_s = seconds_of(retry_after, datetime.now(UTC))
        return (
            BusyError(self._service, reason, retry_after_s=wait_s)
            if wait_s
            else UnavailableError(self._service, reason)
        )

    def _connection(self) -> HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "https":
            return HTTPSConnection(host, self._parts.port, timeout=self._timeout_s)
        return HTTPConnection(host, self._parts.port, timeout=self._timeout_s)


def seconds_of(retry_after: str, now: datetime) -> float:
    """How long a header Retry-After asks to wait: seconds, or till a date (RFC 9110, 10.2.3). 0 if it says neither."""
    if retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
