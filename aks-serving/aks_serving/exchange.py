"""One HTTP request and its response, as the handler sees them, whatever carries them.

A transport makes an `Exchange` once a request is whole and within its limits, and hands it to the handler; the handler
calls `reply` exactly once, now or later, on the same event loop. Nothing here knows a socket.
"""

from abc import ABC, abstractmethod

from shared.core.tracing import Span

JSON = b"application/json"
PREDICTION_ID = b"x-slipway-prediction-id"
HEADER_LENGTH = b"inference-header-content-length"
"""How much of a body is JSON, where binary data follows."""

type Headers = tuple[tuple[bytes, bytes], ...]


_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    411: b"Length Required",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


class Head:
    """A status and headers that many responses share. Made once, kept; `http1` is its form on the wire, up to and with
    the line break after the last of its headers.
    """

    __slots__ = ("headers", "http1", "status")

    def __init__(self, status: int, headers: Headers = (), *, content_type: bytes = JSON) -> None:
        """`headers` beside Content-Type. Content-Length, Connection and Date are the transport's."""
        self.status = status
        self.headers: Headers = ((b"content-type", content_type), *headers)
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"")), *(b": ".join(pair) for pair in self.headers)]
        self.http1 = b"\r\n".join(lines) + b"\r\n"


class Response:
    """What answers a request. `extra` are headers of this response alone."""

    __slots__ = ("body", "extra", "head")

    def __init__(self, head: Head, body: bytes, extra: Headers = ()) -> None:
        self.head = head
        self.body = body
        self.extra = extra


class Exchange(ABC):
    """A request, its body read, and the way to answer it.

    `path` is percent-decoded, without the query; `query` is raw. `headers` have lower-case names, are not changed, and
    hold a name that came twice once (`joined`). `received_s` is when its last byte came (perf_counter). `gone` becomes
    true when the client does not wait for the answer any more: work for it that has not begun may be dropped.
    """

    __slots__ = ("body", "gone", "headers", "method", "path", "query", "received_s")

    head: object = None
    """The same object for requests whose heads are the same bytes; None where the transport does not tell."""

    span: Span | None = None
    """The request's span, where it has one (aks_serving.tracing)."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    received_s: float
    gone: bool

    @abstractmethod
    def reply(self, response: Response) -> None:
        """Answer, exactly once. Where the client is gone, the answer is dropped."""

    def reply_named(self, head: Head, body: bytes, prediction_id: bytes) -> None:
        """As `reply`, with one header beside the head's: the prediction's id, which holds no line break."""
        self.reply(Response(head, body, ((PREDICTION_ID, prediction_id),)))


def joined(name: bytes, earlier: bytes, later: bytes) -> bytes:
    """The value of a header that came twice (RFC 9110, 5.3; of cookies, RFC 9113, 8.2.3)."""
    return b"%b%b%b" % (earlier, b"; " if name == b"cookie" else b", ", later)


OK = Head(200)
