"""gRPC's health service, `grpc.health.v1.Health`: whether the server is ready, asked once or watched.

The service's empty name and the inference service's name are the same thing here. Open to anybody, as probes are.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from aks_serving.api import Server
from aks_serving.grpc.caller import Caller
from aks_serving.grpc.calls import end, status_for, unary
from aks_serving.grpc.messages import HEALTH, HealthCheckRequest, HealthCheckResponse
from aks_serving.grpc.request import parsed
from shared.core.errors import NotFoundError, SlipwayError

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_LOOK_S = 0.5


class Health:
    """The methods. Used from the event loop alone."""

    def __init__(self, server: Server, *, service: str) -> None:
        """`service` is what is served beside."""
        self._server = server
        self._names = ("", service)
        self._stopping = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods, as a gRPC server takes them."""
        methods = {"Check": unary(self._check, None), "Watch": grpc.unary_stream_rpc_method_handler(self._watch)}
        return grpc.method_handlers_generic_handler(f"{HEALTH}.Health", methods)

    def stop(self) -> None:
        """Be not ready, and end every watch once it has said so."""
        self._stopping.set()

    async def _check(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401 - a message
        service = parsed(HealthCheckRequest, data).service
        if service not in self._names:
            raise NotFoundError(f"service {service[:200]!r}")
        return HealthCheckResponse(status=self._status())

    async def _watch(self, data: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - grpc has no types
        try:
            known = parsed(HealthCheckRequest, data).service in self._names
        except SlipwayError as error:
            await end(context, status_for(error))
        told = None
        while True:
            is_last = self._stopping.is_set()
            status = self._status() if known else _SERVICE_UNKNOWN
            if status != told:
                told = status
                yield HealthCheckResponse(status=status).SerializeToString()
            if is_last:
                return
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def _status(self) -> int:
        return _NOT_SERVING if self._stopping.is_set() or self._server.not_ready() else _SERVING
