"""The API behind RSGI, the interface of Granian, for where TLS or HTTP/2 must end in the pod.

The server that carries it reads requests, keeps the connections' limits and writes the answers; this hands each whole
request, within the size taken, to the same handler as our own transport does, and holds the same tokens.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Protocol

from aks_serving.exchange import Exchange, Response, joined
from aks_serving.http.access import Tokens
from aks_serving.http.answers import INTERNAL_ERROR, refusal
from aks_serving.http.body import too_large
from aks_serving.http.carried import admit
from aks_serving.http.head import RefusedError

log = logging.getLogger(__name__)


class Headers(Protocol):
    """RSGI's headers: names in lower case, one pair for each that came."""

    def items(self) -> list[tuple[str, str]]: ...


class Scope(Protocol):
    """What RSGI tells of a request."""

    @property
    def proto(self) -> str: ...
    @property
    def http_version(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query_string(self) -> str: ...
    @property
    def headers(self) -> Headers: ...


class HttpProtocol(Protocol):
    """RSGI's way to the body and the answer."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def client_disconnect(self) -> Awaitable[None]: ...
    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class RsgiApp:
    """An RSGI application of HTTP alone: `RsgiApp(api.handle, max_body_bytes=...)`."""

    def __init__(
        self, handle: Callable[[Exchange], None], *, max_body_bytes: int, tokens: Tokens | None = None
    ) -> None:
        self._handle = handle
        self._max_body_bytes = max_body_bytes
        self._tokens = tokens
        self.retiring = False
        """Set to have each answer from now on be its connection's last, and say so, where it is of HTTP/1."""

    async def __rsgi__(self, scope: Scope, protocol: HttpProtocol) -> None:
        """Answer one request. Returns once it is answered, or its client is gone."""
        if scope.proto != "http":
            return
        exchange = _RsgiExchange(scope, protocol, self)
        try:
            admit(exchange, max_body_bytes=self._max_body_bytes, tokens=self._tokens)
            exchange.body = await self._body(protocol)
        except RefusedError as error:
            # The body may be unread: Granian then closes the connection, and would not tell the client.
            exchange.is_last = True
            exchange.reply(refusal(error))
            return
        exchange.received_s = perf_counter()
        try:
            self._handle(exchange)
        except Exception:
            log.exception("%s %s went wrong", exchange.method, exchange.path[:200])
            if not exchange.answered.is_set():
                exchange.reply(INTERNAL_ERROR)
        if not exchange.answered.is_set():
            await _answered_or_gone(exchange, protocol)

    async def _body(self, protocol: HttpProtocol) -> bytes:
        body = bytearray()  # parts may be tiny, and an object for each would take far more
        async for part in protocol:
            if len(body) + len(part) > self._max_body_bytes:
                raise too_large(self._max_body_bytes)
            body += part
        return bytes(body)


class _RsgiExchange(Exchange):
    __slots__ = ("_app", "_is_http1", "_protocol", "answered", "is_last")

    def __init__(self, scope: Scope, protocol: HttpProtocol, app: RsgiApp) -> None:
        self.method = scope.method
        self.path = scope.path
        self.query = scope.query_string.encode()
        self.headers = {}
        for name, value in scope.headers.items():
            key, sent = name.encode(), value.encode()
            earlier = self.headers.get(key)
            self.headers[key] = sent if earlier is None else joined(key, earlier, sent)
        self.body = b""
        self.received_s = 0.0
        self.gone = False
        self.answered = asyncio.Event()
        self.is_last = False
        self._is_http1 = scope.http_version.startswith("1")
        self._protocol = protocol
        self._app = app

    def reply(self, response: Response) -> None:
        if self.answered.is_set():
            raise RuntimeError(f"{self.method} {self.path} was answered twice")
        self.answered.set()
        if self.gone:
            return
        pairs = [(name.decode(), value.decode()) for name, value in (*response.head.headers, *response.extra)]
        if self._is_http1 and (self.is_last or self._app.retiring):
            pairs.append(("connection", "close"))
        if self.method == "HEAD":
            pairs.append(("content-length", str(len(response.body))))
            self._protocol.response_empty(response.head.status, pairs)
        else:
            self._protocol.response_bytes(response.head.status, pairs, response.body)


async def _answered_or_gone(exchange: _RsgiExchange, protocol: HttpProtocol) -> None:
    answered = asyncio.ensure_future(exchange.answered.wait())
    gone = asyncio.ensure_future(protocol.client_disconnect())
    try:
        await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        exchange.gone = not exchange.answered.is_set()
        answered.cancel()
        gone.cancel()
