"""gRPC's health service, `grpc.health.v1.Health`: whether the server is ready, asked once or watched.

The service's empty name and the inference service's name are the same thing here. Open to anybody, as probes are:
therefore at most MAX_WATCHES are open at once, lest they take the places of calls, and one look at the server, every
half second while any is open, is for all of them.
"""

import asyncio
from typing import Any

import grpc

from aks_serving.api import Server
from aks_serving.grpc.caller import Caller
from aks_serving.grpc.calls import end, only_message, status_for, unary
from aks_serving.grpc.leaving import Leaving
from aks_serving.grpc.messages import HEALTH, HealthCheckRequest, HealthCheckResponse
from aks_serving.grpc.request import parsed
from aks_serving.grpc.status import Status
from shared.core.errors import NotFoundError

MAX_WATCHES = 16

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_LOOK_S = 0.5
_TOO_MANY = Status(
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    details=f"{MAX_WATCHES} watches of this server's health are open, and it takes no more: call Check",
)


class Health:
    """The methods. Used from the event loop alone."""

    def __init__(self, server: Server, *, service: str, leaving: Leaving, message_s: float) -> None:
        """`service` is what is served beside."""
        self._server = server
        self._leaving = leaving
        self._message_s = message_s
        self._names = ("", service)
        self._stopping = False
        self._open = 0
        """Watches that are open."""
        self._seen = _NOT_SERVING
        """What they were told, or are about to be."""
        self._timer: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        """Set when that changes, and another put in its place."""

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods, as a gRPC server takes them."""
        methods = {
            "Check": unary(self._check, None, leaving=self._leaving, message_s=self._message_s),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watched),
        }
        return grpc.method_handlers_generic_handler(f"{HEALTH}.Health", methods)

    def stop(self) -> None:
        """Be not ready, and end every watch once it has said so."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self._seen = _NOT_SERVING
        self._tell()

    async def _check(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401 - a message
        service = parsed(HealthCheckRequest, data).service
        if service not in self._names:
            raise NotFoundError(f"service {service[:200]!r}")
        return HealthCheckResponse(status=self._status())

    async def _watched(self, _: Any, context: Any) -> None:  # noqa: ANN401 - grpc has no types
        if self._open >= MAX_WATCHES:
            await end(context, _TOO_MANY)
        self._open += 1
        try:
            if self._timer is None:
                self._look_on()
            await self._watch(await only_message(context, self._message_s), context)
        except Exception as error:  # noqa: BLE001 - by contract, as in aks_serving.grpc.calls
            status = status_for(error)
        else:
            return
        finally:
            self._open -= 1
        await end(context, status)

    async def _watch(self, data: bytes, context: Any) -> None:  # noqa: ANN401 - grpc has no types
        known = parsed(HealthCheckRequest, data).service in self._names
        told = None
        while True:
            is_last, news = self._stopping, self._news
            status = self._seen if known else _SERVICE_UNKNOWN
            if status != told:
                told = status
                await context.write(HealthCheckResponse(status=status).SerializeToString())
            if is_last:
                return
            await news.wait()

    def _look_on(self) -> None:
        """See how the server is, tell where that changed, and look again while any watch is open."""
        self._timer = None
        if not self._open or self._stopping:
            return
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look_on)
        status = self._status()
        if status != self._seen:
            self._seen = status
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _status(self) -> int:
        return _NOT_SERVING if self._stopping or self._server.not_ready() else _SERVING
