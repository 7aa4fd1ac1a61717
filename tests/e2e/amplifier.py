"""A proxy before Azurite's queue service that delivers every message several times, at random moments.

It forwards what it gets, byte for byte, and repeats each request that puts a message on a queue. Where a sender puts
the same one there again, as those may that do not know of each other, that is forwarded and no reason for more copies:
a queue would grow faster than it is worked off, and the slower the machine, the longer. Nothing in the system knows of
it: what reaches the hosts is what an at-least-once queue may do on its worst day. While the service is down it answers
503, and the copies that were due are lost.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.plain import NO_TLS

COPIES = 10
_LATEST_S = 2.0
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "content-encoding"}


class Amplifier:
    """The proxy's application. `repeated` counts the messages that were delivered `copies` times, or more.

    Each copy comes within `latest_s` seconds after the message.
    """

    def __init__(self, target: str, seed: int, *, copies: int = COPIES, latest_s: float = _LATEST_S) -> None:
        self._target = httpx.URL(target)
        self._client = httpx.AsyncClient(timeout=30.0, verify=NO_TLS)
        self._rng = random.Random(seed)
        self._more, self._latest_s = copies - 1, latest_s
        self._copies: set[asyncio.Task[None]] = set()
        self._met: set[tuple[str, bytes]] = set()
        self.repeated = 0
        methods = ["GET", "POST", "PUT", "DELETE", "HEAD"]
        self.app = Starlette(routes=[Route("/{path:path}", self._forward, methods=methods)], lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        async with self._client:
            yield
            for copy in self._copies:
                copy.cancel()
            await asyncio.gather(*self._copies, return_exceptions=True)

    async def _forward(self, request: Request) -> Response:
        body = await request.body()
        try:
            answer = await self._send(request, body)
        except httpx.TransportError as error:
            return Response(f"the queue service does not answer: {error!r}", 503)
        message = (request.url.path, body)
        if request.method == "POST" and request.url.path.endswith("/messages") and message not in self._met:
            self._met.add(message)
            self.repeated += 1
            for _ in range(self._more):
                copy = asyncio.create_task(self._repeat(request, body, self._rng.uniform(0, self._latest_s)))
                self._copies.add(copy)
                copy.add_done_callback(self._copies.discard)
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Response(answer.content, answer.status_code, headers)

    async def _repeat(self, request: Request, body: bytes, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        with contextlib.suppress(httpx.TransportError):
            (await self._send(request, body)).raise_for_status()

    async def _send(self, request: Request, body: bytes) -> httpx.Response:
        # The path and query go as they came: the request's signature covers them.
        target = request.scope["raw_path"] + (
            b"?" + request.scope["query_string"] if request.scope["query_string"] else b""
        )
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in {b"host", b"connection"}]
        url = self._target.copy_with(raw_path=target)
        return await self._client.request(request.method, url, headers=headers, content=body)


@contextmanager
def amplified(
    queue_port: int, *, port: int, seed: int, copies: int = COPIES, latest_s: float = _LATEST_S
) -> Generator[Amplifier]:
    """Run the proxy on `port` before the queue service on `queue_port`."""
    amplifier = Amplifier(f"http://127.0.0.1:{queue_port}", seed, copies=copies, latest_s=latest_s)
    server = uvicorn.Server(
        uvicorn.Config(amplifier.app, host="127.0.0.1", port=port, log_level="warning", loop="asyncio")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the amplifier did not start")
            threading.Event().wait(0.02)
        yield amplifier
    finally:
        server.should_exit = True
        thread.join(20)
