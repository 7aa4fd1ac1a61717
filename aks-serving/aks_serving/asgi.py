"""The API behind ASGI, for whatever server carries that: reads a request whole, within the limit, and answers it.

The server's own transport is aks_serving.http, which is faster and says more of what HTTP asks for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from aks_serving.exchange import Exchange, Response, joined
from aks_serving.http.access import Tokens
from aks_serving.http.answers import INTERNAL_ERROR, refusal
from aks_serving.http.body import too_large
from aks_serving.http.carried import admit
from aks_serving.http.head import RefusedError

log = logging.getLogger(__name__)

type Scope = MutableMapping[str, Any]
type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]


class AsgiApp:
    """An ASGI application of HTTP alone."""

    def __init__(
        self, handle: Callable[[Exchange], None], *, max_body_bytes: int, tokens: Tokens | None = None
    ) -> None:
        self._handle = handle
        self._max_body_bytes = max_body_bytes
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A client that goes away before it sent its body gets no answer."""
        if scope["type"] != "http":
            return
        exchange = _AsgiExchange(scope)
        try:
            admit(exchange, max_body_bytes=self._max_body_bytes, tokens=self._tokens)
            body = await self._body(receive)
        except RefusedError as error:
            response = refusal(error)
            response.extra = ((b"connection", b"close"),)
        else:
            if body is None:
                return
            exchange.body = body
            exchange.received_s = perf_counter()
            self._run(exchange)
            try:
                response = await exchange.answer
            finally:
                exchange.gone = True
        await _write(response, send, head=exchange.method == "HEAD")

    def _run(self, exchange: "_AsgiExchange") -> None:
        try:
            self._handle(exchange)
        except Exception:
            log.exception("%s %s went wrong", exchange.method, exchange.path[:200])
            exchange.reply(INTERNAL_ERROR)

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, or None where the client went away. Raises RefusedError as soon as it is known to be too large."""
        limit = self._max_body_bytes
        body = bytearray()  # parts may be tiny, and an object for each would take far more
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            if len(body) + len(part) > limit:
                raise too_large(limit)
            body += part
            if not message.get("more_body"):
                return bytes(body)


class _AsgiExchange(Exchange):
    __slots__ = ("answer",)

    def __init__(self, scope: Scope) -> None:
        self.method = scope["method"]
        self.path = scope["path"]
        self.query = scope.get("query_string", b"")
        self.headers = {}
        for name, value in scope["headers"]:
            self.headers[name] = joined(name, self.headers[name], value) if name in self.headers else value
        self.gone = False
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def reply(self, response: Response) -> None:
        if not self.answer.done():
            self.answer.set_result(response)


async def _write(response: Response, send: Send, *, head: bool) -> None:
    headers = [*response.head.headers, *response.extra, (b"content-length", b"%d" % len(response.body))]
    await send({"type": "http.response.start", "status": response.head.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else response.body})
