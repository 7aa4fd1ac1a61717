"""What every gRPC method here has in common: bytes in and out, errors as statuses, access checked first.

Requests are parsed by the methods and not by the transport, whose answer to bytes that it cannot read is an error of
the server's; here it is the caller's. Nothing that a caller sends raises out of a method; what goes wrong unexpectedly
is logged, and answered with INTERNAL and no detail. A cancelled call raises CancelledError through everything.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

from aks_serving.grpc.caller import Authorize, Caller
from aks_serving.grpc.status import Status, UnsupportedError, status_of
from shared.core.errors import SlipwayError

log = logging.getLogger(__name__)

type Answer = Callable[[bytes, Caller], Awaitable[Any]]
"""From a request's bytes to a message of protobuf. Raises SlipwayError."""


def unary(answer: Answer, authorize: Authorize | None) -> grpc.RpcMethodHandler:
    """A method of one request and one response. `authorize` is None where anybody may call it."""

    async def handle(data: bytes, context: Any) -> bytes:  # noqa: ANN401 - a grpc.aio.ServicerContext
        try:
            caller = Caller(context)
            caller.check(authorize)
            message = await answer(data, caller)
            serialized: bytes = message.SerializeToString()
        except Exception as error:  # noqa: BLE001 - by contract
            status = status_for(error)
        else:
            return serialized
        return await end(context, status)

    return grpc.unary_unary_rpc_method_handler(handle)


def unsupported(method: str, reason: str) -> grpc.RpcMethodHandler:
    """A method that is answered with UNIMPLEMENTED and the reason."""

    async def handle(_: bytes, context: Any) -> bytes:  # noqa: ANN401 - a grpc.aio.ServicerContext
        await end(context, status_of(UnsupportedError(method, reason)))

    return grpc.unary_unary_rpc_method_handler(handle)


async def end(context: Any, status: Status) -> NoReturn:  # noqa: ANN401 - a grpc.aio.ServicerContext
    """End a call with a status."""
    await context.abort(status.code, status.details, status.metadata)
    raise AssertionError("abort raises")


def status_for(error: Exception) -> Status:
    """The status that tells of an error. One that nobody foresaw is logged."""
    if isinstance(error, SlipwayError):
        return status_of(error)
    log.error("a call went wrong", exc_info=error)
    return SERVER_ERROR


SERVER_ERROR = status_of(SlipwayError("the server made an error; its log says which"))
