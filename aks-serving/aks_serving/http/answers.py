"""Answers as bytes of HTTP/1.1, and the answers that the transport gives by itself."""

from email.utils import formatdate

import msgspec

from aks_serving.errors import WRONG
from aks_serving.exchange import PREDICTION_ID, Head, Headers, Response
from aks_serving.http.head import RefusedError, RequestHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LENGTH = b"content-length: "
NAMED = b"%b: " % PREDICTION_ID
_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"
_RETRY = (b"retry-after", b"1")
_EXTRA: dict[int, Headers] = {401: ((b"www-authenticate", b"Bearer"),), 503: (_RETRY,)}
_encode = msgspec.json.Encoder().encode
_heads: dict[int, Head] = {}


class Dated:
    """What stands between an answer's headers and its length: the date (RFC 9110, 6.6.1), once it was told."""

    __slots__ = ("_second", "line")

    def __init__(self) -> None:
        self._second = -1
        self.line = _LENGTH

    def tell(self, now_s: float) -> None:
        """Tell a Unix time, about once a second: asking the clock for each answer would take longer than the rest."""
        second = int(now_s)
        if second != self._second:
            self._second = second
            self.line = b"date: %b\r\n%b" % (formatdate(second, usegmt=True).encode(), _LENGTH)


DATED = Dated()
"""Of all answers. Told by the transport."""


def http1(response: Response, request: RequestHead, *, last: bool) -> bytes:
    """A response as it goes over the wire; `last` is the connection's. Raises ValueError where one of its own headers
    holds a line break.
    """
    body = response.body
    lines = _lines(response.extra) if response.extra else b""
    if last or not request.plain:
        if last:
            lines += _CLOSE
        elif request.version == 0:
            lines += _KEEP_ALIVE
        if request.method == "HEAD":
            body = b""
    return b"".join((response.head.http1, lines, DATED.line, b"%d\r\n\r\n" % len(response.body), body))


def refusal(error: RefusedError) -> Response:
    """What answers a request that the transport refuses."""
    head = _heads.get(error.status)
    if head is None:
        head = _heads[error.status] = Head(error.status, _EXTRA.get(error.status, ()))
    return Response(head, _encode({"error": error.reason}))


INTERNAL_ERROR = refusal(RefusedError(500, WRONG))


def _lines(headers: Headers) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise ValueError("a response's header holds a line break: encode it")
    return lines
