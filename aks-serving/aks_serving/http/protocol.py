"""One HTTP/1.1 connection: requests in, answers out in the order of their requests.

A request that comes whole in one piece, with a head that asks for nothing special, goes straight to the handler; all
else takes the slower way through `_read`. Nothing here starts a timer: `Connection.sweep`, called about once a second,
holds every limit of time. Nothing that a client sends raises out of this module, and nothing stays without an answer or
a close.

A client that closes its side is gone: what it still waits for is dropped, as nginx and Go's net/http do.
"""

import asyncio
import logging
from collections import deque
from time import perf_counter
from typing import cast

from aks_serving.http.access import check_access, is_open
from aks_serving.http.answers import CONTINUE, INTERNAL_ERROR, refusal
from aks_serving.http.body import too_large
from aks_serving.http.exchange import HttpExchange
from aks_serving.http.head import END, RefusedError, RequestHead, parse
from aks_serving.http.reader import RequestReader
from aks_serving.http.state import Pace, Shared

log = logging.getLogger(__name__)

_TURN_S = 0.005
"""After so long over what one read brought, to within one request or a part of one, a connection goes on in the next
turn."""

_SPARES = 16
"""Connections beyond their bound that may ask how the server is, so that a probe is answered when all are taken."""
_REFUSED_HEAD = RequestHead("GET", "", b"", {}, 1)


class Connection(asyncio.Protocol):
    """One connection, from its opening to its loss."""

    __slots__ = (
        "_active", "_buffered_bytes", "_choked", "_closing", "_corked", "_ended_s", "_full", "_heads", "_idle_s",
        "_odd", "_owes_continue", "_pace", "_paused", "_queue", "_reader", "_resting", "_served", "_shared", "_slow",
        "_spare", "_transport", "_unsent_bytes", "_waiting_bytes",
    )  # fmt: skip

    def __init__(self, shared: Shared) -> None:
        now_s = shared.clock()
        self._shared = shared
        self._heads = shared.heads
        self._reader = RequestReader(shared.limits)
        self._queue: deque[HttpExchange] = deque()
        self._corked: list[bytes] | None = None
        self._slow = False
        """What comes goes through the reader."""
        self._odd = False
        """An answer is more than one write."""
        self._spare = False
        """It is beyond the bound of connections, and may ask once how the server is."""
        self._active = False
        self._served = False
        self._closing = False
        """Nothing that comes is taken any more."""
        self._full = False
        self._choked = False
        self._resting = False
        """It had its share of this turn of the event loop, and goes on in the next."""
        self._paused = False
        self._owes_continue = False
        self._buffered_bytes = 0
        self._unsent_bytes = 0
        self._waiting_bytes = 0
        """Of answers that wait behind an earlier one."""
        self._pace = Pace(now_s)
        self._idle_s = now_s
        self._ended_s: float | None = None
        self._transport: asyncio.Transport

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        shared = self._shared
        shared.connections.add(self)
        beyond = len(shared.connections) > shared.limits.max_connections
        if beyond and not shared.draining and shared.spares < _SPARES:
            shared.spares += 1
            self._spare = True
            self._heads = {}  # what it asks is looked at in `_admit`
        elif beyond or shared.draining:
            self._refuse(_no_room())
            if len(shared.connections) > 2 * shared.limits.max_connections:
                self.abort()  # those that linger over their refusal are bounded too

    def data_received(self, data: bytes) -> None:
        if self._slow or self._queue:
            self._read(data)
            return
        end = data.find(END) + 4
        raw = data[:end]
        head = self._heads.get(raw) or self._met(raw)
        if head is None or head.length != len(data) - end:
            if head is not None:
                self._reader.begin(head)
                self._pace.restart(self._shared.clock())
                data = data[end:]
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
        self._choked = False
        self._leave()
        shared = self._shared
        shared.connections.discard(self)
        if shared.draining and not shared.connections:
            shared.emptied.set()

    def pause_writing(self) -> None:
        self._choked = True
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._pace.restart(self._shared.clock())
        self._settle()
        self._count_unsent()

    def resume_writing(self) -> None:
        self._choked = False
        self._count_unsent()
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
            self._waiting_bytes += len(data)
            self._count_unsent()

    # -- called by the transport

    @property
    def in_flight(self) -> int:
        """Requests handed to the handler and not answered."""
        return len(self._queue)

    @property
    def held_bytes(self) -> int:
        """Of answers that are made and not sent."""
        return self._waiting_bytes + (self._transport.get_write_buffer_size() if self._choked else 0)

    @property
    def working(self) -> bool:
        """Whether a request is being read, or waits for its answer, or an answer for its being written."""
        return bool(self._queue) or self._reader.begun or self._choked

    def retire(self) -> None:
        """Close after the next answer that is not made yet, which says so."""
        if self._ended_s is None and self._queue and not self._queue[-1].answered and not self._reader.begun:
            self._queue[-1].last = True
            self._stop_reading()

    def drain(self) -> None:
        """Take no further request, and close once what was taken, or came in part, is answered. A connection that was
        just made has some time left for its request; pipelined ones whose turn did not come are not taken.
        """
        if self._ended_s is not None:
            return
        if self._queue:
            self._queue[-1].last = True
            self._stop_reading()
        elif not self._reader.begun and (self._active or self._served):
            self._end()
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever was not answered or written."""
        self._leave()
        self._transport.abort()

    def sweep(self, now_s: float) -> None:
        """Hold the limits of time."""
        if self._choked:
            self._sweep_unsent(now_s)
        elif self._ended_s is not None:
            self._sweep_ended(now_s - self._ended_s)
        elif self._closing or self._full or self._resting or self._owes_continue:
            pass
        elif self._reader.begun:
            self._sweep_request(now_s)
        elif self._active or self._queue:
            self._active = False
            self._served = True
            self._idle_s = now_s
        elif now_s - self._idle_s >= self._idle_limit_s():
            self._end()
            self._transport.close()

    # -- reading

    def _read(self, data: bytes) -> None:
        """Take what came, as far as it can be taken now."""
        if self._closing:
            return
        self._active = True
        self._corked = []
        self._odd = True
        reader = self._reader
        stage = reader.begun, reader.in_body
        reader.push(data)
        limit, clock = self._shared.limits.max_pipelined, self._shared.clock
        until_s = clock() + _TURN_S
        try:
            while not (self._closing or self._full or self._choked or self._resting):
                request = reader.take(self._admit)
                if clock() > until_s:
                    self._rest()
                if request is not None:
                    stage = False, False
                    self._dispatch(*request)
                    self._full = len(self._queue) >= limit
                elif not reader.stopped_short:
                    break
            if stage != (reader.begun, reader.in_body):
                self._pace.restart(self._shared.clock())
            self._pace.moved_bytes += len(data)
            self._count_buffered()
            if reader.expecting:
                self._continue()
        except RefusedError as error:
            self._refuse(error)
        self._uncork()
        if self._choked:
            self._count_unsent()
        self._settle()

    def _met(self, raw: bytes) -> RequestHead | None:
        """Read a head that is not known, and let it in. None where it is not whole, or is for the slower way, which
        also says what is wrong with one.
        """
        shared = self._shared
        if not len(END) <= len(raw) <= shared.limits.max_head_bytes or self._spare or shared.retiring:
            return None
        try:
            head = self._reader.met = parse(raw, shared.limits)
            if not head.plain:
                return None
            self._admit(raw, head)
        except RefusedError:
            return None
        self._reader.met = None
        return head

    def _admit(self, raw: bytes, head: RequestHead) -> None:
        """Refuse what can be refused before the body is read."""
        shared = self._shared
        if self._spare and not (is_open(head.path) and head.length == 0):
            raise _no_room()
        check_access(shared.tokens, head.path, head.headers.get(b"authorization"))
        if head.length > shared.limits.max_body_bytes:
            raise too_large(shared.limits.max_body_bytes)
        shared.keep(raw, head)

    def _count_buffered(self) -> None:
        """Hold the bodies of all connections that are not whole to their bound."""
        shared, held = self._shared, self._reader.body_bytes
        shared.buffered_bytes += held - self._buffered_bytes
        self._buffered_bytes = held
        if held and shared.buffered_bytes > shared.limits.buffered_bytes:
            raise RefusedError(503, "the server reads as many bodies as it has memory for: try again in a second")

    def _dispatch(self, head: RequestHead, body: bytes) -> None:
        """Hand a request to the handler."""
        exchange = HttpExchange(self, head, body, perf_counter())
        if head.close or self._spare or self._shared.retiring:
            exchange.last = True
            self._closing = True
        self._queue.append(exchange)
        try:
            self._shared.handle(exchange)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._failed(exchange, error)

    def _failed(self, exchange: HttpExchange, error: Exception) -> None:
        log.error("%s %r went wrong", exchange.method, exchange.path[:200], exc_info=error)
        if exchange.connection is not None:
            exchange.reply(INTERNAL_ERROR)

    def _refuse(self, error: RefusedError) -> None:
        """Answer what cannot be taken, after all that was taken, and close."""
        refused = self._shared.refused
        refused[error.status] = refused.get(error.status, 0) + 1
        exchange = HttpExchange(self, _REFUSED_HEAD, b"", perf_counter())
        exchange.last = True
        self._queue.append(exchange)
        self._stop_reading()
        exchange.reply(refusal(error))

    def _stop_reading(self) -> None:
        """Take nothing more of what comes."""
        self._closing = True
        if self._spare:
            self._spare = False
            self._shared.spares -= 1
        self._owes_continue = False
        self._shared.buffered_bytes -= self._buffered_bytes
        self._buffered_bytes = 0
        self._reader = RequestReader(self._shared.limits)
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
        self._waiting_bytes -= sum(map(len, parts)) - len(data)
        if self._choked:
            self._unsent_bytes += sum(map(len, parts))
        if self._corked is not None:
            self._corked += parts
        else:
            self._transport.write(b"".join(parts))
        if self._choked or len(parts) > 1:
            self._count_unsent()
        if last:
            self._end()
        elif self._owes_continue:
            self._continue()
        elif self._full and self._corked is None and len(queue) <= self._shared.limits.max_pipelined // 2:
            self._full = False
            self._resume()

    def _uncork(self) -> None:
        """Write what was answered while a read was looked at."""
        corked, self._corked = self._corked, None
        if corked:
            self._transport.write(b"".join(corked))

    def _count_unsent(self) -> None:
        """Hold the answers of all connections that are not sent to their bound."""
        self._shared.unsent.hold(self, self.held_bytes)

    def _continue(self) -> None:
        """Ask for the body, once all answers before are written and unless it comes unasked."""
        self._owes_continue = bool(self._queue) and self._reader.expecting
        if self._queue or not self._reader.expecting:
            return
        self._reader.expecting = False
        self._pace.restart(self._shared.clock())
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
        self._uncork()
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
        self._waiting_bytes = 0
        self._count_unsent()
        self._stop_reading()
        if self._ended_s is None:
            self._ended_s = self._shared.clock()

    # -- pausing

    def _rest(self) -> None:
        """Let the others have their turn. Reading pauses too: uvloop reads a full socket many times a turn."""
        self._resting = True
        asyncio.get_running_loop().call_soon(self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._pace.restart(self._shared.clock())  # it was held off, and did not dawdle
        self._read(b"")

    def _resume(self) -> None:
        if not (self._choked or self._full):
            self._pace.restart(self._shared.clock())
            asyncio.get_running_loop().call_soon(self._read, b"")

    def _settle(self) -> None:
        """Read, or not, and the fast or the slow way, as the connection's state asks."""
        paused = (self._choked or self._full or self._resting) and not self._closing
        self._slow = self._reader.begun or self._closing or paused
        self._odd = self._choked or self._full or self._closing or self._owes_continue or self._corked is not None
        if paused != self._paused and not self._transport.is_closing():
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # -- limits of time

    def _idle_limit_s(self) -> float:
        limits = self._shared.limits
        if self._shared.draining or self._spare:
            return limits.linger_s
        return limits.idle_s if self._served else limits.head_s

    def _sweep_request(self, now_s: float) -> None:
        limits = self._shared.limits
        if self._reader.in_body:
            if self._pace.too_slow(now_s, limits):
                self._refuse(RefusedError(408, f"the body came at less than {limits.min_bytes_per_s} bytes a second"))
        elif self._pace.elapsed_s(now_s) >= limits.head_s:
            self._refuse(RefusedError(408, f"the request's head was not whole after {limits.head_s:g} s"))

    def _sweep_unsent(self, now_s: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        self._pace.moved_bytes += max(self._unsent_bytes - unsent, 0)
        self._unsent_bytes = unsent
        self._count_unsent()
        if self._pace.too_slow(now_s, self._shared.limits):
            self.abort()

    def _sweep_ended(self, ended_for_s: float) -> None:
        """Close what lingered, cut off what does not even take its last answer."""
        limits = self._shared.limits
        if ended_for_s >= limits.linger_s and not self._transport.get_write_buffer_size():
            self._transport.close()
        elif ended_for_s >= max(limits.progress_s, limits.linger_s):
            self.abort()


def _no_room() -> RefusedError:
    return RefusedError(503, "the server has all the connections it takes: try again in a second")
