"""The API behind ASGI: reads a request whole, within the limit, and writes the response. Knows nothing else."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from aks_serving.api import Api, Request, Response, failure
from aks_serving.errors import BodyTooLargeError

type Scope = MutableMapping[str, Any]
type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]


class AsgiApp:
    """An ASGI application of HTTP alone."""

    def __init__(self, api: Api, *, max_body_bytes: int) -> None:
        self._api = api
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A client that goes away before it sent its body gets no answer."""
        if scope["type"] != "http":
            return
        user = encoding = length = b""
        for name, value in scope["headers"]:
            if name == b"x-slipway-user":
                user = value
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding":
                encoding = value
        try:
            body = await self._body(receive, length)
        except BodyTooLargeError as error:
            response = failure(error)
            response.headers.append((b"connection", b"close"))
        else:
            if body is None:
                return
            response = await self._api.handle(
                Request(method=scope["method"], path=scope["path"], body=body, user=user, encoding=encoding)
            )
        await _write(response, send, head=scope["method"] == "HEAD")

    async def _body(self, receive: Receive, length: bytes) -> bytes | None:
        """The body, or None where the client went away. Raises BodyTooLargeError as soon as that is known."""
        limit = self._max_body_bytes
        if length.isdigit() and int(length) > limit:
            raise BodyTooLargeError(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLargeError(limit)
            if not message.get("more_body"):
                return b"".join((*parts, part)) if parts else part
            parts.append(part)


async def _write(response: Response, send: Send, *, head: bool) -> None:
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else response.body})
