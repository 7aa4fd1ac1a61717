"""One HTTP/1.1 connection: requests in, answers out in the order of their requests.

A request that comes whole in one piece, with a head whose bytes were seen before, goes straight to the handler; all
else takes the slower way through `_read`. Nothing here starts a timer: `Connection.sweep`, called about once a second,
holds every limit of time. Nothing that a client sends raises out of this module, and nothing stays without an answer or
a close.

A client that closes its side is gone: what it still waits for is dropped, as nginx and Go's net/http do.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import cast

from aks_serving.exchange import Exchange, Response
from aks_serving.http.access import Tokens, is_open
from aks_serving.http.answers import CONTINUE, INTERNAL_ERROR, http1, refusal
from aks_serving.http.body import ChunkedBody, FixedBody, too_large
from aks_serving.http.head import CHUNKED, END, RefusedError, RequestHead, check_begun, head_too_large, parse
from aks_serving.http.limits import Limits

log = logging.getLogger(__name__)

_KEPT_HEADS = 512
_KEPT_HEAD_BYTES = 2048


class Shared:
    """What the connections of one transport share."""

    __slots__ = (
        "buffered_bytes", "clock", "connections", "draining", "emptied", "handle", "heads", "limits", "refused",
        "tokens",
    )  # fmt: skip

    def __init__(
        self, handle: Callable[[Exchange], None], limits: Limits, tokens: Tokens | None, clock: Callable[[], float]
    ) -> None:
        self.handle = handle
        self.limits = limits
        self.tokens = tokens
        self.clock = clock
        self.connections: set[Connection] = set()
        self.heads: dict[bytes, RequestHead] = {}
        """Plain heads by their bytes, each let in by the tokens of now."""
        self.draining = False
        self.emptied = asyncio.Event()
        """Set once the last connection is lost, when draining."""
        self.buffered_bytes = 0
        """Of bodies that are not whole yet."""
        self.refused: dict[int, int] = {}
        """Requests that the transport answered itself, by status."""


class HttpExchange(Exchange):
    """A request that came over a connection."""

    __slots__ = ("answered", "connection", "head", "last")

    def __init__(self, connection: "Connection", head: RequestHead, body: bytes, received_s: float) -> None:
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.body = body
        self.received_s = received_s
        self.gone = False
        self.head = head
        self.last = False
        self.connection: Connection | None = connection
        self.answered = b""

    def reply(self, response: Response) -> None:
        """Answer. Raises RuntimeError where it was answered before."""
        connection = self.connection
        if connection is None:
            raise RuntimeError(f"{self.method} {self.path} was answered twice")
        self.connection = None
        if self.gone:
            return
        try:
            data = http1(response, self.head, last=self.last)
        except ValueError:
            log.exception("the answer to %s %s cannot be sent", self.method, self.path[:200])
            data = http1(INTERNAL_ERROR, self.head, last=self.last)
        connection.answer(self, data)


class Connection(asyncio.Protocol):
    """One connection, from its opening to its loss."""

    __slots__ = (
        "_active", "_blank", "_body", "_buffered", "_choked", "_closing", "_corked", "_data", "_ended_s", "_full",
        "_head", "_heads", "_idle_s", "_moved", "_odd", "_owes_continue", "_paused", "_queue", "_seen", "_served",
        "_shared", "_since_s", "_slow", "_transport", "_unsent",
    )  # fmt: skip

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._heads = shared.heads
        self._queue: deque[HttpExchange] = deque()
        self._slow = False
        self._odd = False
        self._active = False
        self._served = False
        self._closing = False
        self._full = False
        self._choked = False
        self._paused = False
        self._owes_continue = False
        self._blank = False
        self._corked: list[bytes] | None = None
        self._data = b""
        self._seen = 0
        self._head: RequestHead | None = None
        self._body: FixedBody | ChunkedBody | None = None
        self._buffered = 0
        self._moved = 0
        self._unsent = 0
        self._idle_s = self._since_s = shared.clock()
        self._ended_s: float | None = None
        self._transport: asyncio.Transport

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        shared = self._shared
        shared.connections.add(self)
        if len(shared.connections) > shared.limits.max_connections or shared.draining:
            self._refuse(RefusedError(503, "the server has all the connections it takes: try again in a second"))

    def data_received(self, data: bytes) -> None:
        if self._slow or self._queue:
            self._read(data)
            return
        end = data.find(END) + 4
        head = self._heads.get(data[:end])
        if head is None or head.length != len(data) - end:
            self._read(data)
            return
        self._active = True
        exchange = HttpExchange(self, head, data[end:], perf_counter())
        self._queue.append(exchange)
        try:
            self._shared.handle(exchange)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._failed(exchange, error)

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._leave()
        shared = self._shared
        shared.connections.discard(self)
        if shared.draining and not shared.connections:
            shared.emptied.set()

    def pause_writing(self) -> None:
        self._choked = True
        self._unsent = self._transport.get_write_buffer_size()
        self._since_s = self._shared.clock()
        self._settle()

    def resume_writing(self) -> None:
        self._choked = False
        if self._ended_s is not None:
            self._ended_s = self._shared.clock()
        self._resume()

    # -- called by the exchanges

    def answer(self, exchange: HttpExchange, data: bytes) -> None:
        """Write an answer once those before it are written."""
        queue = self._queue
        if not self._odd and len(queue) == 1:
            queue.clear()
            self._transport.write(data)
        elif queue[0] is exchange:
            self._write_ready(data)
        else:
            exchange.answered = data

    # -- called by the transport

    @property
    def in_flight(self) -> int:
        """Requests handed to the handler and not answered."""
        return len(self._queue)

    @property
    def working(self) -> bool:
        """Whether a request is being read, or waits for its answer, or an answer for its being written."""
        return bool(self._queue or self._data or self._body is not None or self._choked)

    def drain(self) -> None:
        """Take no further request, and close once what came whole or in part is answered."""
        if self._ended_s is not None:
            return
        if self._queue:
            self._queue[-1].last = True
            self._stop_reading()
        elif not self._data and self._body is None:
            self._end()
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever was not answered or written."""
        self._leave()
        self._transport.abort()

    def sweep(self, now_s: float) -> None:
        """Hold the limits of time."""
        limits = self._shared.limits
        if self._choked:
            self._sweep_unsent(now_s)
        elif self._ended_s is not None:
            if now_s - self._ended_s >= limits.linger_s:
                self._sweep_ended(now_s)
        elif self._closing or self._full:
            pass
        elif self._body is not None:
            self._sweep_body(now_s)
        elif self._data:
            if now_s - self._since_s >= limits.head_s:
                self._refuse(RefusedError(408, f"the request's head was not whole after {limits.head_s:g} s"))
        elif self._active or self._queue:
            self._active = False
            self._served = True
            self._idle_s = now_s
        elif now_s - self._idle_s >= (limits.idle_s if self._served else limits.head_s):
            self._end()
            self._transport.close()

    # -- reading

    def _read(self, data: bytes) -> None:
        """Take what came, as far as it can be taken now."""
        if self._closing:
            return
        self._active = True
        if self._data:
            data = self._data + data
            self._data = b""
        self._corked = []
        self._odd = True
        limit = self._shared.limits.max_pipelined
        rest: bytes | None = data
        try:
            while rest and not (self._closing or self._full or self._choked):
                rest = self._read_head(rest) if self._body is None else self._read_body(rest)
                self._full = len(self._queue) >= limit
        except RefusedError as error:
            self._refuse(error)
        if rest and not self._closing:
            self._data = rest
        corked, self._corked = self._corked, None
        if corked:
            self._transport.write(b"".join(corked))
        self._settle()

    def _read_head(self, data: bytes) -> bytes | None:
        """Read a head. What is left after it, None where it is not whole. Raises RefusedError."""
        limits = self._shared.limits
        if data[:2] == b"\r\n" and not self._blank:
            self._blank = True  # RFC 9112, 2.2: one empty line before a request is skipped
            return data[2:]
        end = data.find(END, max(self._seen - 3, 0)) + 4
        if end < 4:
            check_begun(data, self._seen, limits)
            if not self._seen:
                self._since_s = self._shared.clock()
            self._seen = len(data)
            self._data = data
            return None
        if end > limits.max_head_bytes:
            raise head_too_large(limits)
        self._seen = 0
        self._blank = False
        raw = data[:end]
        head = parse(raw, limits)
        self._check(head)
        if head.plain and end <= _KEPT_HEAD_BYTES and not self._shared.draining:
            self._keep(raw, head)
        rest = data[end:]
        if head.length == 0:
            self._dispatch(head, b"")
            return rest
        self._head = head
        self._body = ChunkedBody(limits.max_body_bytes) if head.length == CHUNKED else FixedBody(head.length)
        self._since_s = self._shared.clock()
        self._moved = 0
        if head.expects and not rest:
            self._owes_continue = True
            self._continue()
        return rest

    def _check(self, head: RequestHead) -> None:
        """Refuse what can be refused before the body is read."""
        shared = self._shared
        if (
            shared.tokens is not None
            and not is_open(head.path)
            and not shared.tokens.allow(head.headers.get(b"authorization"))
        ):
            raise RefusedError(
                401, "a bearer token that this server knows is wanted: send Authorization: Bearer <token>"
            )
        if head.length > shared.limits.max_body_bytes:
            raise too_large(shared.limits.max_body_bytes)

    def _keep(self, raw: bytes, head: RequestHead) -> None:
        heads = self._heads
        if len(heads) >= _KEPT_HEADS:
            heads.clear()
        heads[raw] = head

    def _read_body(self, data: bytes) -> bytes:
        """Read of a body. What is left after it. Raises RefusedError."""
        shared, body, head = self._shared, self._body, self._head
        assert body is not None and head is not None  # noqa: S101, PT018 - for the type checker
        self._owes_continue = False
        rest = body.feed(data)
        if not body.whole:
            self._moved += len(data)
            shared.buffered_bytes += body.size_bytes - self._buffered
            self._buffered = body.size_bytes
            if shared.buffered_bytes > shared.limits.max_buffered_bytes:
                raise RefusedError(503, "the server reads as many bodies as it has memory for: try again in a second")
            return rest
        self._drop_body()
        self._dispatch(head, body.body())
        return rest

    def _drop_body(self) -> None:
        self._shared.buffered_bytes -= self._buffered
        self._buffered = 0
        self._body = self._head = None
        self._owes_continue = False

    def _dispatch(self, head: RequestHead, body: bytes) -> None:
        """Hand a request to the handler."""
        exchange = HttpExchange(self, head, body, perf_counter())
        if head.close or self._shared.draining:
            exchange.last = True
            self._closing = True
        self._queue.append(exchange)
        try:
            self._shared.handle(exchange)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._failed(exchange, error)

    def _failed(self, exchange: HttpExchange, error: Exception) -> None:
        log.error("%s %s went wrong", exchange.method, exchange.path[:200], exc_info=error)
        if exchange.connection is not None:
            exchange.reply(INTERNAL_ERROR)

    def _refuse(self, error: RefusedError) -> None:
        """Answer what cannot be taken, after all that was taken, and close."""
        refused = self._shared.refused
        refused[error.status] = refused.get(error.status, 0) + 1
        head = RequestHead("GET", "", b"", {}, 1)
        exchange = HttpExchange(self, head, b"", perf_counter())
        exchange.last = True
        self._queue.append(exchange)
        self._stop_reading()
        exchange.reply(refusal(error))

    def _stop_reading(self) -> None:
        """Take nothing more of what comes."""
        self._closing = True
        self._data = b""
        self._drop_body()
        self._settle()

    # -- writing

    def _write_ready(self, data: bytes) -> None:
        """Write the first answer, and those after it that wait for it alone."""
        queue = self._queue
        last = queue.popleft().last
        parts = [data]
        while queue and queue[0].answered:
            exchange = queue.popleft()
            last = exchange.last
            parts.append(exchange.answered)
        if self._choked:
            self._unsent += sum(map(len, parts))
        if self._corked is not None:
            self._corked += parts
        else:
            self._transport.write(b"".join(parts))
        if last:
            self._end()
        elif self._owes_continue:
            self._continue()
        elif self._full and self._corked is None and len(queue) <= self._shared.limits.max_pipelined // 2:
            self._full = False
            self._resume()

    def _continue(self) -> None:
        """Ask for the body, once all answers before are written."""
        if self._queue:
            return
        self._owes_continue = False
        if self._corked is not None:
            self._corked.append(CONTINUE)
        else:
            self._transport.write(CONTINUE)

    def _end(self) -> None:
        """All is answered: close, and read on for a while where the other side may still send, lest the kernel answers
        that with a reset, which would take the last answer away.
        """
        self._stop_reading()
        self._ended_s = self._shared.clock()
        corked, self._corked = self._corked, None
        if corked:
            self._transport.write(b"".join(corked))
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _leave(self) -> None:
        """The client is gone."""
        for exchange in self._queue:
            exchange.gone = True
        self._queue.clear()
        self._stop_reading()
        if self._ended_s is None:
            self._ended_s = self._shared.clock()

    # -- pausing

    def _resume(self) -> None:
        if not (self._choked or self._full):
            self._since_s = self._shared.clock()
            self._moved = 0
            asyncio.get_running_loop().call_soon(self._read, b"")

    def _settle(self) -> None:
        """Read, or not, and the fast or the slow way, as the connection's state asks."""
        paused = (self._choked or self._full) and not self._closing
        self._slow = bool(self._data) or self._body is not None or self._closing or paused or self._blank
        self._odd = self._choked or self._full or self._closing or self._owes_continue or self._corked is not None
        if paused != self._paused and not self._transport.is_closing():
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # -- limits of time

    def _sweep_body(self, now_s: float) -> None:
        limits = self._shared.limits
        span_s = now_s - self._since_s
        if span_s < limits.progress_s:
            return
        if self._moved < limits.min_bytes_per_s * span_s:
            self._refuse(RefusedError(408, f"the body came at less than {limits.min_bytes_per_s} bytes a second"))
            return
        self._since_s = now_s
        self._moved = 0

    def _sweep_unsent(self, now_s: float) -> None:
        limits = self._shared.limits
        span_s = now_s - self._since_s
        if span_s < limits.progress_s:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent > self._unsent - limits.min_bytes_per_s * span_s:
            self.abort()
            return
        self._since_s = now_s
        self._unsent = unsent

    def _sweep_ended(self, now_s: float) -> None:
        """Close what lingered, cut off what does not even take its last answer."""
        if not self._transport.get_write_buffer_size():
            self._transport.close()
        elif self._ended_s is not None and now_s - self._ended_s >= self._shared.limits.progress_s:
            self.abort()
