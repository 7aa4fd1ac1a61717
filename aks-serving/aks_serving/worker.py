"""One worker: a process that loads, answers, counts, beats, and stops when it is told to.

The parent (aks_serving.supervisor) forks it. What starts threads when it is imported, as gRPC does, is imported here
and not before.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import uvloop

from aks_serving.api import Api
from aks_serving.http.limits import Limits
from aks_serving.http.transport import Transport, serve, within_descriptors
from aks_serving.reports import Siblings
from aks_serving.server import ModelServer
from aks_serving.storage import open_storage
from aks_serving.supervisor import BEAT, EXIT_HUNG, EXIT_UNUSABLE, FINISH_S, LEAVE, LISTENING, POLL, REPLACE, Post
from aks_serving.tracing import set_up, traced
from aks_serving.watchdog import LoopWatch
from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.logs import scrubbed
from shared.core.tracing import tracer

if TYPE_CHECKING:
    from aks_serving.__main__ import Shared
    from aks_serving.grpc.server import RunningGrpc

log = logging.getLogger(__name__)

_BEAT_S = 0.25
_TELL_S = 1.0
_FIRST_READY_S = 60.0
"""How long a worker that follows another waits to be ready before it listens all the same."""


def work(shared: "Shared", post: Post) -> int:
    """Be a worker: its exit code."""
    try:
        return uvloop.run(_Running(shared, post).until_stopped())
    except InvalidInputError as error:
        print(f"error: {scrubbed(str(error))}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return EXIT_UNUSABLE


class _Running:
    def __init__(self, shared: "Shared", post: Post) -> None:
        self._shared = shared
        self._post = post
        self._settings = replace(shared.settings, pod=f"{shared.settings.pod}-{post.number}")
        self._channel = post.channel
        self._stop = asyncio.Event()
        self._leave = False
        self._hung = False
        self._is_traced = False
        self._http: Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def until_stopped(self) -> int:
        """Serve until told to stop, or until another serves in this place: the exit code."""
        with self._told():
            self._is_traced = set_up(self._settings.pod)
            server = ModelServer(
                self._settings,
                open_storage(self._settings),
                siblings=Siblings(self._shared.board, place=self._post.place, seat=self._post.seat),
                replace=self._replace,
                reload_others=lambda: self._say(POLL),
            )
            self._server = server
            watch = LoopWatch(
                server.engine, hang_s=self._settings.hang_s, found=server.found_hanging, end=lambda: os._exit(EXIT_HUNG)
            )
            await server.start()
            watch.start()
            beating = asyncio.create_task(self._beat())
            try:
                async with self._transports(server):
                    self._say(LISTENING)
                    await self._stop.wait()
                    if not self._leave:
                        server.stop_soon()
                    if self._http is not None:
                        self._http.retire()
                    await asyncio.sleep(self._settings.drain_s)
                await server.stop()
                if self._is_traced:
                    await asyncio.to_thread(tracer().close)
            finally:
                beating.cancel()
                watch.close()
        return EXIT_HUNG if self._hung else 0

    @contextlib.asynccontextmanager
    async def _transports(self, server: ModelServer) -> AsyncIterator[None]:
        """HTTP, and gRPC where it is wanted, until the end of the block; what is in flight then is finished."""
        if self._post.follows:
            await self._until_ready(server)
        api = Api(
            server,
            timeout_s=self._settings.timeout_s,
            override_keys=self._settings.override_keys,
            pinning=self._settings.pinning,
            max_body_bytes=self._settings.max_body_bytes,
            secure_cookies=self._shared.tls is not None,
        )
        limits = within_descriptors(
            Limits(max_body_bytes=self._settings.max_body_bytes),
            tls=self._shared.tls is not None,
            grpc=self._shared.grpc_socket is not None,
        )
        grpc = await self._grpc(server, limits.max_connections)
        try:
            for number, sock in enumerate(self._shared.sockets):
                if number != self._post.place:
                    sock.close()
            self._http = await serve(
                traced(api.handle) if self._is_traced else api.handle,
                [self._shared.sockets[self._post.place]],
                limits=limits,
                tls=self._shared.tls,
                tokens=self._shared.tokens,
            )
            server.transport = self._http
            yield
        finally:
            drains: list[Coroutine[Any, Any, Any]] = []
            if self._http is not None:
                drains.append(self._http.drain(FINISH_S, handing_over=self._leave))
            if grpc is not None:
                drains.append(grpc.drain(within_s=FINISH_S))
            await asyncio.gather(*drains)

    async def _grpc(self, server: ModelServer, max_connections: int) -> "RunningGrpc | None":
        if self._shared.grpc_socket is None:
            return None
        from aks_serving.grpc.server import TlsFiles, serve_grpc  # noqa: PLC0415 - heavy, and starts threads

        settings, tls = self._settings, None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            tls = TlsFiles(certificate=settings.tls_certificate, key=settings.tls_key)
        return await serve_grpc(
            server,
            address=settings.bind,
            port=self._shared.grpc_socket.getsockname()[1],
            max_message_bytes=settings.max_body_bytes,
            max_connections=max_connections,
            timeout_s=settings.timeout_s,
            authorize=None if self._shared.tokens is None else self._shared.tokens.allow,
            pinning=settings.pinning,
            override_keys=settings.override_keys,
            tls=tls,
            share_port=True,
            traced=self._is_traced,
        )

    async def _until_ready(self, server: ModelServer) -> None:
        give_up_s = monotonic() + _FIRST_READY_S
        # Looked at, not awaited: it is asked for once in a worker's life.
        while (  # noqa: ASYNC110
            server.not_ready_here() and not server.is_idle and monotonic() < give_up_s and not self._stop.is_set()
        ):
            await asyncio.sleep(0.02)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Hear signals and the parent, until the end of the block."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._stop.set)
        # The parent blocked them for the fork.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*signals, signal.SIGCHLD))
        self._channel.setblocking(False)
        loop.add_reader(self._channel, self._heard)
        try:
            yield
        finally:
            loop.remove_reader(self._channel)
            for number in signals:
                loop.remove_signal_handler(number)

    def _heard(self) -> None:
        try:
            said = self._channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            log.error("the parent is gone: this worker stops")
            asyncio.get_running_loop().remove_reader(self._channel)
            self._stop.set()
        if LEAVE in said:
            self._leave = True
            self._stop.set()
        if POLL in said:
            task = asyncio.get_running_loop().create_task(self._poll())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _poll(self) -> None:
        with contextlib.suppress(UnavailableError):
            await self._server.reload_here()

    async def _beat(self) -> None:
        tell_s, was = 0.0, ""
        while True:
            self._say(BEAT)
            why = self._server.not_ready_here()
            if why != was or monotonic() >= tell_s:
                tell_s, was = monotonic() + _TELL_S, why
                self._server.tell()
            await asyncio.sleep(_BEAT_S)

    def _replace(self) -> None:
        self._hung = True
        self._say(REPLACE)

    def _say(self, what: bytes) -> None:
        # A full channel means that the parent hears nothing; where it is gone, that is heard of too.
        with contextlib.suppress(OSError):
            self._channel.send(what)
