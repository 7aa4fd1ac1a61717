"""What every gRPC method here has in common: bytes in and out, errors as statuses, access checked first.

To gRPC's own server every method is one of a stream of requests, so that it hands a call over before it has a message:
a caller without access is refused at once, and one that sends nothing is not waited for longer than MESSAGE_S. A call
takes a place of those that may run at once, and so does a call of nobody.

Requests are parsed by the methods and not by the transport, whose answer to bytes that it cannot read is an error of
the server's; here it is the caller's. Nothing that a caller sends raises out of a method; what goes wrong unexpectedly
is logged, and answered with INTERNAL and no detail. A cancelled call raises CancelledError through everything.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc

from aks_serving.errors import WRONG
from aks_serving.grpc.caller import Authorize, Caller
from aks_serving.grpc.leaving import Leaving
from aks_serving.grpc.status import SilentError, Status, UnsupportedError, status_of
from shared.core.errors import InvalidInputError, SlipwayError

log = logging.getLogger(__name__)

MESSAGE_S = 30.0
"""How long a call may take to send its first message, whole."""

type Answer = Callable[[bytes, Caller], Awaitable[Any]]
"""From a request's bytes to a message of protobuf. Raises SlipwayError."""


def unary(answer: Answer, authorize: Authorize | None, *, leaving: Leaving, message_s: float) -> grpc.RpcMethodHandler:
    """A method of one request and one response. `authorize` is None where anybody may call it."""

    async def handle(_: Any, context: Any) -> bytes:  # noqa: ANN401 - grpc has no types
        try:
            async with leaving.call():
                caller = Caller(context)
                caller.check(authorize)
                message = await answer(await only_message(context, message_s), caller)
                serialized: bytes = message.SerializeToString()
        except Exception as error:  # noqa: BLE001 - by contract
            status = status_for(error)
        else:
            return serialized
        return await end(context, status)

    return grpc.stream_unary_rpc_method_handler(handle)


async def only_message(context: Any, within_s: float) -> bytes:  # noqa: ANN401 - a grpc.aio.ServicerContext
    """The message of a call that has one. Raises SilentError, or InvalidInputError where it ends without any."""
    data = await next_message(context, within_s)
    if data is None:
        raise InvalidInputError("the call ended without a message: send one")
    return data


async def next_message(context: Any, within_s: float) -> bytes | None:  # noqa: ANN401 - a grpc.aio.ServicerContext
    """The next message of a call; None where there are no more. Raises SilentError."""
    try:
        async with asyncio.timeout(within_s):
            data = await context.read()
    except TimeoutError as error:
        raise SilentError(within_s) from error
    return None if data is grpc.aio.EOF else data


def unsupported(method: str, reason: str) -> grpc.RpcMethodHandler:
    """A method that is answered with UNIMPLEMENTED and the reason."""

    async def handle(_: Any, context: Any) -> bytes:  # noqa: ANN401 - grpc has no types
        await end(context, status_of(UnsupportedError(method, reason)))

    return grpc.stream_unary_rpc_method_handler(handle)


async def end(context: Any, status: Status) -> NoReturn:  # noqa: ANN401 - a grpc.aio.ServicerContext
    """End a call with a status."""
    await context.abort(status.code, status.details, status.metadata)
    raise AssertionError("abort raises")


def status_for(error: Exception) -> Status:
    """The status that tells of an error. One that nobody foresaw is logged, unless there is nobody to tell."""
    if isinstance(error, SlipwayError):
        return status_of(error)
    if not _is_gone(error):
        log.error("a call went wrong", exc_info=error)
    return SERVER_ERROR


def tells_of_more_than_a_gone_call(record: logging.LogRecord) -> bool:
    """Whether a line of gRPC's own log tells of anything but an answer to a caller that is gone.

    gRPC mostly says nothing of those itself; where it hears that an answer could not be sent before it hears why, as it
    does of some calls whose deadline passes, it logs a traceback.
    """
    return record.exc_info is None or not _is_gone(record.exc_info[1])


def _is_gone(error: BaseException | None) -> bool:
    # By its name: of its classes, public is only the base, which others have too.
    return isinstance(error, grpc.aio.InternalError) and type(error).__name__ == "ExecuteBatchError"


SERVER_ERROR = status_of(SlipwayError(WRONG))
