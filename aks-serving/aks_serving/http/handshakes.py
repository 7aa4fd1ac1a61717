"""Listens for TLS, with a bound of handshakes under way.

An event loop's own server tells of a connection once its handshake is done: before that nobody could count it, and
each holds some 50 KiB for as long as a handshake may take. Here the oldest is ended where one too many begins, since
those of clients that mean it take milliseconds.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

log = logging.getLogger(__name__)

_AT_ONCE = 128
"""Connections accepted in one turn of the event loop."""
_HANDSHAKE_S = 10.0
_CLOSE_S = 2.0
_PAUSE_S = 0.2
"""How long none is accepted where no more files may be open."""
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class SecuredServer:
    """Accepts the connections of one listening socket, which it owns, as an `asyncio.Server` does."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, made: Callable[[], asyncio.Protocol], *, most: int
    ) -> None:
        """On a running event loop. `made` makes the protocol of a connection, `most` are the handshakes under way."""
        self._sock = sock
        self._context = context
        self._made = made
        self._most = most
        self._under_way: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.get_running_loop()
        self._listens = True
        sock.setblocking(False)
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept no more. Handshakes go on."""
        if self._listens:
            self._listens = False
            self._loop.remove_reader(self._sock)
            self._sock.close()

    async def settled(self, within_s: float) -> None:
        """Wait until no handshake is under way, for so long at most."""
        if self._under_way:
            await asyncio.wait(tuple(self._under_way), timeout=within_s)

    async def wait_closed(self) -> None:
        """End what handshakes are left."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                conn, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._loop.remove_reader(self._sock)
                    self._loop.call_later(_PAUSE_S, self._go_on)
                    return
                continue  # that one is gone already
            # Begun at once: a task that is cancelled before would close nothing.
            task = asyncio.Task(self._secure(conn), loop=self._loop, eager_start=True)
            self._under_way[task] = None
            task.add_done_callback(lambda done: self._under_way.pop(done, None))
            if len(self._under_way) > self._most:
                oldest = next(iter(self._under_way))
                del self._under_way[oldest]
                oldest.cancel()

    def _go_on(self) -> None:
        if self._listens:
            self._loop.add_reader(self._sock, self._accept)

    async def _secure(self, conn: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._made, conn, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_S, ssl_shutdown_timeout=_CLOSE_S
            )
        except OSError:
            pass  # it spoke no TLS, took too long, or went
        except Exception:
            log.exception("a TLS handshake went wrong")
