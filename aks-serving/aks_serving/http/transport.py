"""The HTTP/1.1 transport: listens, and hands each whole request to a handler.

    transport = await serve(api.handle, [sock], limits=Limits(...), tls=server_context(...), tokens=Tokens(path))
    ...
    await transport.drain(20.0)

`serve(handle, sockets, *, limits=None, tls=None, tokens=None, clock=perf_counter, sweep_s=1.0)` listens on bound
sockets, which it then owns. `handle(exchange)` is called on the event loop; it answers through `exchange.reply`, at
once or later. `retire`, some time before the end, has each connection closed after its next answer, which says so: a
client that heeds it opens another, elsewhere. `drain` stops listening, closes idle connections, lets the others have
their answers, and cuts off what is not done in time; after it nothing of the transport is left.
"""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter, time

from aks_serving.exchange import Exchange
from aks_serving.http.access import Tokens
from aks_serving.http.answers import DATED
from aks_serving.http.handshakes import SecuredServer
from aks_serving.http.limits import Limits
from aks_serving.http.port import hold_off, take_on
from aks_serving.http.protocol import Connection
from aks_serving.http.secured import SecuredConnection
from aks_serving.http.state import Shared
from aks_serving.http.tls import ReloadingContext

log = logging.getLogger(__name__)

_BACKLOG = 2048
_DESCRIPTORS_A_CONNECTION = 2
"""One that is open, and one that lingers over its refusal; over TLS another, in its handshake; and one of gRPC's."""
_OTHER_DESCRIPTORS = 256
"""Models, storage and the rest."""
_LAST_CALL_S = 0.02
"""How long a connection that is half open has until it is accepted, before a port is closed."""
_LAST_HANDSHAKES_S = 1.0
"""How long those in their TLS handshakes have for these, once the port is closed."""


class Transport:
    """What listens. Made by `serve`."""

    def __init__(self, shared: Shared, tls: ReloadingContext | None, sweep_s: float) -> None:
        self._shared = shared
        self._tls = tls
        self._sweep_s = sweep_s
        self._sockets: Sequence[socket.socket] = ()
        self._servers: list[asyncio.Server | SecuredServer] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Connections that are open, those that linger included."""
        return len(self._shared.connections)

    @property
    def in_flight(self) -> int:
        """Requests handed to the handler and not answered."""
        return sum(connection.in_flight for connection in self._shared.connections)

    @property
    def refused(self) -> Mapping[int, int]:
        """Requests that the transport answered itself, by status."""
        return self._shared.refused

    def sweep(self) -> None:
        """Tell the date, hold the connections to their limits of time, and look whether the tokens or certificates
        changed. Called by itself every `sweep_s`.
        """
        DATED.tell(time())
        shared = self._shared
        now_s = shared.clock()
        for connection in tuple(shared.connections):
            connection.sweep(now_s)
        if shared.tokens is not None and shared.tokens.reload():
            shared.heads.clear()
        if self._tls is not None:
            self._tls.reload()

    def retire(self) -> None:
        """Go on, and have each answer from now on be its connection's last."""
        shared = self._shared
        shared.retiring = True
        shared.heads.clear()
        for connection in tuple(shared.connections):
            connection.retire()

    async def drain(self, timeout_s: float, *, handing_over: bool = False) -> int:
        """Stop listening and finish, within `timeout_s`; how many connections were cut off with work undone.

        `handing_over`: another process listens on the same sockets, and takes what waits there.
        """
        shared, loop = self._shared, asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        self.retire()
        held_off = [hold_off(sock) for sock in self._sockets if not handing_over]
        if any(held_off):
            await asyncio.sleep(_LAST_CALL_S)
        for server in self._servers:
            server.close()
            if isinstance(server, SecuredServer):
                await server.settled(min(_LAST_HANDSHAKES_S, timeout_s))
        shared.draining = True
        for connection in tuple(shared.connections):
            connection.drain()
        await self._emptied(until_s - loop.time())
        cut = [connection for connection in shared.connections if connection.working]
        if cut:
            log.warning("%d connections were cut off with work undone after %g s", len(cut), timeout_s)
        for connection in tuple(shared.connections):
            connection.abort()
        await self._emptied(None)
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers:
            await server.wait_closed()
        return len(cut)

    async def _emptied(self, timeout_s: float | None) -> None:
        """Wait until no connection is left, or `timeout_s`."""
        if self._shared.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shared.emptied.wait(), timeout_s)

    async def _start(self, sockets: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        shared = self._shared
        self._sockets = sockets
        for sock in sockets:
            take_on(sock)
            if self._tls is None:
                server = await loop.create_server(lambda: Connection(shared), sock=sock, backlog=_BACKLOG)
                self._servers.append(server)
                continue
            sock.listen(_BACKLOG)
            made, most = partial(SecuredConnection, shared), shared.limits.max_connections
            self._servers.append(SecuredServer(sock, self._tls.context, made, most=most))
        self._timer = loop.call_later(self._sweep_s, self._swept)

    def _swept(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._swept)
        try:
            self.sweep()
        except Exception:
            log.exception("a sweep over the connections went wrong")


def within_descriptors(limits: Limits, *, tls: bool = False, grpc: bool = False) -> Limits:
    """`limits` with no more connections than the process may open files: beyond those, the event loop resets them and
    gives no answer. With `grpc` there is room for as many of gRPC's. Raises the soft limit as far as is needed and
    allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = _DESCRIPTORS_A_CONNECTION + tls + grpc
    wanted = each * limits.max_connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    most = max((soft - _OTHER_DESCRIPTORS) // each, 1)
    log.warning("%d open files leave room for %d connections and not %d", soft, most, limits.max_connections)
    return replace(limits, max_connections=most)


async def serve(
    handle: Callable[[Exchange], None],
    sockets: Sequence[socket.socket],
    *,
    limits: Limits | None = None,
    tls: ReloadingContext | None = None,
    tokens: Tokens | None = None,
    clock: Callable[[], float] = perf_counter,
    sweep_s: float = 1.0,
) -> Transport:
    """Listen on `sockets` until `Transport.drain`. `clock` counts seconds for the limits of time.

    Raises the process's soft limit of file descriptors to what the bound of connections needs, or lowers that bound.
    """
    limits = within_descriptors(limits or Limits(), tls=tls is not None)
    transport = Transport(Shared(handle, limits, tokens, clock), tls, sweep_s)
    await transport._start(sockets)  # noqa: SLF001 - of this module
    return transport
