"""ModelStreamInfer: requests over one stream, run side by side, answered in the order in which they came.

A failed request is answered with its error, and the stream goes on; a client that says so (metadata
`triton_grpc_error: true`) has the stream end with the error's status instead. A client that does not read its answers
is not read from: at most MAX_UNANSWERED requests of a stream are in the server. When the server stops, what was read is
answered, and the stream ends with UNAVAILABLE.

A stream takes a place of the calls that may run at once: one whose first message does not come in time, or after which
none came for IDLE_S, is answered what it asked, and ends with DEADLINE_EXCEEDED.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import grpc

from aks_serving.awaited import Prediction
from aks_serving.grpc.caller import Authorize, Caller
from aks_serving.grpc.calls import end, next_message, status_for
from aks_serving.grpc.leaving import Leaving, StoppingError
from aks_serving.grpc.messages import INFERENCE, ModelInferRequest, ModelStreamInferResponse
from aks_serving.grpc.request import InferRequest, parsed
from aks_serving.grpc.spans import Spans
from aks_serving.grpc.status import SilentError, Status, status_of
from shared.core.tracing import Span

MAX_UNANSWERED = 64
IDLE_S = 300.0

type Infer = Callable[[InferRequest, Caller, float, Span | None], Awaitable[tuple[Any, Prediction]]]
"""Answers a request that came at a time of perf_counter, as a ModelInferResponse, in a span. Raises SlipwayError."""

_INFER = f"/{INFERENCE}.GRPCInferenceService/ModelStreamInfer"


class Streams:
    """The open streams. Used from the event loop alone."""

    def __init__(self, infer: Infer, *, leaving: Leaving, message_s: float, idle_s: float, spans: Spans) -> None:
        self._infer = infer
        self._leaving = leaving
        self._spans = spans
        self._message_s = message_s
        self._idle_s = idle_s
        self._readers: set[asyncio.Task[Status | None]] = set()
        self._stopping = False

    def method(self, authorize: Authorize | None) -> grpc.RpcMethodHandler:
        """The method, as a gRPC server takes it."""

        async def handle(_: Any, context: Any) -> None:  # noqa: ANN401 - grpc has no types
            try:
                async with self._leaving.call():
                    caller = Caller(context)
                    caller.check(authorize)
                    status = await self._serve(context, caller)
            except Exception as error:  # noqa: BLE001 - by contract, as in aks_serving.grpc.calls
                status = status_for(error)
            if status is not None:
                await end(context, status)

        return grpc.stream_stream_rpc_method_handler(handle)

    def stop(self) -> None:
        """Read no more, answer what was read, and end every stream."""
        self._stopping = True
        for reader in self._readers:
            reader.cancel()

    async def _serve(self, context: Any, caller: Caller) -> Status | None:  # noqa: ANN401 - a grpc.aio.ServicerContext
        """Answer a stream's requests until it ends; with which status, where that is not OK."""
        ends_on_error = caller.headers.get(b"triton_grpc_error") == b"true"
        answers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        places = asyncio.Semaphore(MAX_UNANSWERED)
        tasks: set[asyncio.Task[Any]] = set()
        reader = asyncio.create_task(self._read(context, caller, answers, places, tasks))
        self._readers.add(reader)
        if self._stopping:
            reader.cancel()
        try:
            while (task := await answers.get()) is not None:
                message = await task
                if isinstance(message, _Failure):
                    if ends_on_error:
                        return message.status
                    message = message.message
                await context.write(message.SerializeToString())
                places.release()
            if self._stopping:
                return status_of(StoppingError())
            return await reader
        finally:
            self._readers.discard(reader)
            for left in (reader, *tasks):
                left.cancel()

    async def _read(
        self,
        context: Any,  # noqa: ANN401 - a grpc.aio.ServicerContext
        caller: Caller,
        answers: asyncio.Queue[asyncio.Task[Any] | None],
        places: asyncio.Semaphore,
        tasks: set[asyncio.Task[Any]],
    ) -> Status | None:
        """Read requests until there are no more; with which status the stream is then to end, where that is not OK."""
        patience_s = self._message_s
        try:
            while True:
                await places.acquire()
                data = await next_message(context, patience_s)
                patience_s = self._idle_s
                if data is None:
                    return None
                task = asyncio.create_task(self._answer(data, caller))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                answers.put_nowait(task)
        except SilentError as error:
            return status_of(error)
        finally:
            answers.put_nowait(None)

    async def _answer(self, data: bytes, caller: Caller) -> Any:  # noqa: ANN401 - a message or a failure
        request_id = ""
        try:
            with self._spans(caller, _INFER) as span:
                message = parsed(ModelInferRequest, data)
                request_id = message.id
                answer, _ = await self._infer(InferRequest(message, len(data)), caller, perf_counter(), span)
        except Exception as error:  # noqa: BLE001 - by contract, as in aks_serving.grpc.calls
            return _Failure(status_for(error), request_id)
        answer.parameters["triton_final_response"].bool_param = True
        return ModelStreamInferResponse(infer_response=answer)


class _Failure:
    """A request of a stream that was not answered."""

    __slots__ = ("message", "status")

    def __init__(self, status: Status, request_id: str) -> None:
        self.status = status
        self.message = ModelStreamInferResponse(error_message=status.details)
        self.message.infer_response.id = request_id
