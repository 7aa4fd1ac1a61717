"""Requests over one stream: answered in order, each failure by itself, no more read than can be answered."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from aks_serving.grpc import messages
from aks_serving.grpc.caller import Caller
from aks_serving.grpc.leaving import Leaving
from aks_serving.grpc.request import InferRequest
from aks_serving.grpc.spans import no_spans
from aks_serving.grpc.streams import MAX_UNANSWERED, Streams
from tritonclient.grpc import service_pb2_grpc

from shared.core.errors import InvalidInputError
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import publish, request, tensor
from tests.serving.grpc.conftest import Reach

pytestmark = pytest.mark.anyio


@pytest.fixture
def doubling(storage: MemoryStorage) -> MemoryStorage:
    publish(storage, models.scaler(2.0))
    return storage


def _first(response: Any) -> float:
    return float(np.frombuffer(response.infer_response.raw_output_contents[0], np.float32)[0])


@pytest.mark.usefixtures("doubling")
async def test_a_stream_answers_in_order_and_a_failure_fails_alone(reach: Reach) -> None:
    async def asked() -> AsyncIterator[Any]:
        for number in range(3 * MAX_UNANSWERED):
            bad = number % 5 == 3
            yield request(*([1.0] if bad else [number, 0.0]), id=str(number))

    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        answers = [answer async for answer in stub.ModelStreamInfer(asked())]
        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(3 * MAX_UNANSWERED)]
        for number, answer in enumerate(answers):
            if number % 5 == 3:
                assert "wanted [-1, 2]" in answer.error_message
            else:
                assert not answer.error_message
                assert _first(answer) == 2 * number
                assert answer.infer_response.parameters["triton_final_response"].bool_param
                assert answer.infer_response.parameters["prediction_id"].string_param.startswith("churn.1.1.sa.")


@pytest.mark.usefixtures("doubling")
async def test_bytes_that_are_no_request_fail_alone_in_a_stream(reach: Reach) -> None:
    async with reach() as reached:
        call = reached.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        good = request(1, 2).SerializeToString()
        found = [messages.ModelStreamInferResponse.FromString(a) async for a in call(iter([b"\xff", good]))]
        assert [bool(answer.error_message) for answer in found] == [True, False]


@pytest.mark.usefixtures("doubling")
async def test_a_client_that_says_so_has_its_stream_ended_by_an_error(reach: Reach) -> None:
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        call = stub.ModelStreamInfer(
            iter([request(1, 2), request(1), request(3, 4)]), metadata=(("triton_grpc_error", "true"),)
        )
        assert _first(await call.read()) == 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.usefixtures("doubling")
async def test_the_synchronous_client_asks_and_streams(reach: Reach) -> None:
    def use(address: str) -> list[Any]:
        found: list[Any] = []
        done = threading.Semaphore(0)

        def told(result: Any, error: Any) -> None:
            found.append(error.message() if error else result.as_numpy("y").tolist())
            done.release()

        with triton.InferenceServerClient(address) as client:
            assert client.is_server_ready()
            assert client.get_model_config("churn", as_json=True)["config"]["name"] == "churn"
            found.append(client.infer("churn", [tensor([[1, 2]])]).as_numpy("y").tolist())
            client.async_infer("churn", [tensor([[3, 4]])], told)
            assert done.acquire(timeout=10)
            client.start_stream(told)
            for values in ([[5, 6]], [[7]], [[8, 9]]):
                client.async_stream_infer("churn", [tensor(values)])
            for _ in range(3):
                assert done.acquire(timeout=10)
            client.stop_stream()
        return found

    async with reach() as reached:
        found = await asyncio.to_thread(use, reached.address)
    assert found[:3] == [[[2, 4]], [[6, 8]], [[10, 12]]]
    assert "wanted [-1, 2]" in found[3]
    assert found[4] == [[16, 18]]


@pytest.mark.usefixtures("doubling")
async def test_a_cancelled_stream_leaves_nothing_behind(reach: Reach) -> None:
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        before = len(asyncio.all_tasks())
        for _ in range(10):
            call = stub.ModelStreamInfer()
            for _ in range(5):
                await call.write(request(1, 2))
            await call.read()
            call.cancel()
        assert (await stub.ModelInfer(request(1, 2))).model_name == "churn"
        server = reached.running.server
        await eventually(lambda: len(asyncio.all_tasks()) <= before + 2 and not server.engine.waiting)


class _Context:
    """A stream's context whose client sends without end, and reads nothing until it is let."""

    def __init__(self) -> None:
        self.sent = 0
        self.may_read = asyncio.Event()
        self.written: list[bytes] = []

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def read(self) -> bytes:
        self.sent += 1
        data: bytes = request(self.sent, 0, id=str(self.sent)).SerializeToString()
        return data

    async def write(self, data: bytes) -> None:
        await self.may_read.wait()
        self.written.append(data)

    async def abort(self, code: grpc.StatusCode, details: str, _: Any) -> None:
        raise _AbortedError(code, details)


class _AbortedError(Exception):
    pass


async def test_no_more_is_read_than_may_be_unanswered_and_a_stop_answers_what_was_read() -> None:
    async def infer(asked: InferRequest, _: Caller, __: float, ___: object) -> tuple[Any, Any]:
        if int(asked.message.id) % 2:
            raise InvalidInputError("odd")
        return messages.ModelInferResponse(id=asked.message.id), None

    streams, context = Streams(infer, leaving=Leaving(), message_s=30.0, idle_s=300.0, spans=no_spans), _Context()
    serving = asyncio.ensure_future(streams.method(None).stream_stream(None, context))
    for _ in range(MAX_UNANSWERED * 4):
        await asyncio.sleep(0)
    assert context.sent == MAX_UNANSWERED
    streams.stop()
    context.may_read.set()
    with pytest.raises(_AbortedError) as caught:
        await serving
    assert caught.value.args[0] is grpc.StatusCode.UNAVAILABLE
    answers = [messages.ModelStreamInferResponse.FromString(data) for data in context.written]
    assert [int(answer.infer_response.id) for answer in answers] == list(range(1, MAX_UNANSWERED + 1))
    assert [answer.error_message for answer in answers[:2]] == ["odd", ""]
