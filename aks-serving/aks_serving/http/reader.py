"""Requests out of a connection's bytes, however these are cut: no socket, no time, no answer.

Bytes are pushed, whole requests are taken out one by one. What cannot be taken raises RefusedError, after which nothing
of the connection can be read any more.
"""

from collections.abc import Callable

from aks_serving.http.body import ChunkedBody, FixedBody
from aks_serving.http.head import CHUNKED, END, RequestHead, check_begun, head_too_large, parse
from aks_serving.http.limits import Limits


class RequestReader:
    """Reads one connection. `expecting` while a head was read that waits for `100 Continue`, and nothing after it."""

    __slots__ = ("_blank", "_body", "_head", "_limits", "_seen", "_unread", "expecting", "met")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unread = b""
        self._seen = 0
        self._blank = False
        self._head: RequestHead | None = None
        self._body: FixedBody | ChunkedBody | None = None
        self.expecting = False
        self.met: RequestHead | None = None
        """The head that what is pushed next begins with, where it was read already and not let in yet."""

    @property
    def in_body(self) -> bool:
        """Whether a head was read and its body not yet."""
        return self._body is not None

    @property
    def begun(self) -> bool:
        """Whether there are bytes of a request that was not taken."""
        return bool(self._unread) or self._body is not None or self._blank

    @property
    def body_bytes(self) -> int:
        """What is held of the body that is being read."""
        return self._body.size_bytes if self._body is not None else 0

    @property
    def stopped_short(self) -> bool:
        """Whether `take` read for a while and left more of what came."""
        return self._body is not None and bool(self._unread)

    def push(self, data: bytes) -> None:
        """Bytes came."""
        self._unread = self._unread + data if self._unread else data

    def begin(self, head: RequestHead) -> None:
        """A head came that was read elsewhere and let in, and nothing is unread."""
        self._begin_body(head)

    def take(self, admit: Callable[[bytes, RequestHead], None]) -> tuple[RequestHead, bytes] | None:
        """The next whole request, its head and its body; None where there is none, or none yet (`stopped_short`).
        `admit` sees each head, its bytes first, before its body is read, and may raise RefusedError as well.
        """
        while self._unread:
            if self._body is None:
                head = self._next_head(admit)
                if head is None:
                    return None
                if head.length == 0:
                    return head, b""
                self._begin_body(head)
            else:
                return self._whole() if self._read_body(self._body) else None
        return None

    def _next_head(self, admit: Callable[[bytes, RequestHead], None]) -> RequestHead | None:
        data = self._unread
        if data[:2] == b"\r\n" and not self._blank:
            self._blank = True  # RFC 9112, 2.2: one empty line before a request is skipped
            self._seen = 0
            self._unread = data = data[2:]
        end = data.find(END, max(self._seen - 3, 0)) + len(END)
        if end < len(END):
            check_begun(data, self._seen, self._limits)
            self._seen = len(data)
            return None
        if end > self._limits.max_head_bytes:
            raise head_too_large(self._limits)
        self._seen = 0
        self._blank = False
        self._unread = data[end:]
        raw = data[:end]
        head = self.met or parse(raw, self._limits)
        self.met = None
        admit(raw, head)
        return head

    def _begin_body(self, head: RequestHead) -> None:
        self._head = head
        self._body = ChunkedBody(self._limits.max_body_bytes) if head.length == CHUNKED else FixedBody(head.length)
        self.expecting = head.expects and not self._unread

    def _read_body(self, body: FixedBody | ChunkedBody) -> bool:
        self.expecting = False
        self._unread = body.feed(self._unread)
        return body.whole

    def _whole(self) -> tuple[RequestHead, bytes]:
        head, body = self._head, self._body
        self._head = self._body = None
        assert head is not None and body is not None  # noqa: S101, PT018 - for the type checker
        return head, body.body()
