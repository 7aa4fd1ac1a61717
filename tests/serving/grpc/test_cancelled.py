"""A call that its caller cancels before it ran never runs."""

import asyncio

import grpc
import pytest
from aks_serving.grpc.server import serve_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.grpc.cases import request
from tests.serving.grpc.conftest import refused
from tests.serving.handled import HandServer, Watched

pytestmark = pytest.mark.anyio


async def test_a_call_that_is_cancelled_before_it_ran_never_runs() -> None:
    scaler = models.scaler(2.0)
    model = Watched(scaler)
    server = HandServer(models.plan(1, models.route(1, scaler)), {1: model})
    served = await serve_grpc(server, address="127.0.0.1", port=0, max_message_bytes=2**20, max_calls=2)
    model.open.clear()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def has_place() -> bool:
                try:
                    return bool((await stub.ServerLive(service_pb2.ServerLiveRequest())).live)
                except grpc.aio.AioRpcError:
                    return False

            runs = asyncio.ensure_future(stub.ModelInfer(request(1, 1)))
            assert await asyncio.to_thread(model.began.wait, 30)
            cancelled = stub.ModelInfer(request(2, 2))
            await eventually(lambda: server.engine.waiting == 2)
            assert (await refused(stub.ServerLive(service_pb2.ServerLiveRequest())))[0] == "RESOURCE_EXHAUSTED"
            cancelled.cancel()
            await eventually(has_place)  # by now the server knows
            model.open.set()
            await runs
            await stub.ModelInfer(request(3, 3))
            assert model.ran == [[[1, 1]], [[3, 3]]]
            assert server.engine.waiting == 0
    finally:
        model.open.set()
        await served.drain(within_s=1)
        server.close()
