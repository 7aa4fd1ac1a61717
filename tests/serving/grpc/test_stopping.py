"""A stop: no caller is cancelled, busy callers go elsewhere, and what does not end in time is told so."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from aks_serving.grpc.leaving import Leaving, StoppingError
from aks_serving.grpc.server import RunningGrpc, serve_grpc
from aks_serving.model import Model
from tritonclient.grpc import service_pb2_grpc

from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.grpc.cases import request
from tests.serving.grpc.conftest import refused
from tests.serving.handled import HandServer, Watched

pytestmark = pytest.mark.anyio

_CALLERS = 8
_SCALER = models.scaler(2.0)


@asynccontextmanager
async def _serving(model: Model, *, inline: bool, port: int = 0) -> AsyncIterator[RunningGrpc]:
    server = HandServer(models.plan(1, models.route(1, _SCALER)), {1: model}, inline=inline)
    served = await serve_grpc(server, address="127.0.0.1", port=port, max_message_bytes=2**20, share_port=True)
    try:
        yield served
    finally:
        await served.drain(within_s=1)
        server.close()


@asynccontextmanager
async def _hanging() -> AsyncIterator[tuple[Watched, RunningGrpc, Any]]:
    """A model whose runs hang until it is let go, who serves it, and a stub to ask them."""
    model = Watched(_SCALER)
    model.open.clear()
    async with _serving(model, inline=False) as served:
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
                yield model, served, service_pb2_grpc.GRPCInferenceServiceStub(channel)
        finally:
            model.open.set()


def _call_on(port: int, seen: Counter[str], over: threading.Event) -> None:
    """Call again and again over one channel, each call as soon as the last is answered."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while not over.is_set():
            try:
                stub.ModelInfer(request(1, 2))
                seen["answered"] += 1
            except grpc.RpcError as error:
                seen[f"{error.code().name}: {error.details()}"] += 1


async def test_busy_callers_of_a_server_that_stops_are_answered_by_the_other_one() -> None:
    model = Model(version=1, digest="", data=_SCALER)
    seen: Counter[str] = Counter()
    over = threading.Event()
    async with _serving(model, inline=True) as stopping, _serving(model, inline=True, port=stopping.port):
        callers = [asyncio.to_thread(_call_on, stopping.port, seen, over) for _ in range(_CALLERS)]
        calling = asyncio.gather(*callers)
        try:
            await eventually(lambda: seen["answered"] >= 20 * _CALLERS)
            await stopping.drain(within_s=20)
            answered = seen["answered"]
            await eventually(lambda: seen["answered"] >= answered + 20 * _CALLERS or len(seen) > 1)
        finally:
            over.set()
            await calling
    assert seen.keys() == {"answered"}


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_a_call_that_does_not_end_in_time_is_told_to_ask_another_server(method: str) -> None:
    async with _hanging() as (model, served, stub):
        if method == "ModelStreamInfer":
            stream = stub.ModelStreamInfer()
            await stream.write(request(1, 2))
            call = asyncio.ensure_future(stream.read())
        else:
            call = asyncio.ensure_future(stub.ModelInfer(request(1, 2)))
        assert await asyncio.to_thread(model.began.wait, 30)
        async with asyncio.timeout(30):
            await served.drain(within_s=0.05)
        code, details = await refused(call)
        assert (code, "it is stopping: ask another server" in details) == ("UNAVAILABLE", True)


async def test_a_call_that_runs_when_the_server_is_told_to_stop_is_answered() -> None:
    async with _hanging() as (model, served, stub):
        call = asyncio.ensure_future(stub.ModelInfer(request(1, 2)))
        assert await asyncio.to_thread(model.began.wait, 30)
        draining = asyncio.create_task(served.drain(within_s=60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(draining), 0.3)
        model.open.set()
        assert (await call).model_name == "churn"
        async with asyncio.timeout(30):
            await draining


async def test_an_answer_waits_while_answers_are_held() -> None:
    leaving = Leaving()
    ended = []

    async def call() -> None:
        async with leaving.call():
            pass
        ended.append(True)

    holding = asyncio.create_task(leaving.hold())
    await asyncio.sleep(0)
    calling = asyncio.create_task(call())
    await holding
    assert not ended
    leaving.release(60)
    await calling
    assert ended


async def test_a_call_that_begins_once_the_time_is_over_does_not_run() -> None:
    leaving = Leaving()
    leaving.release(0)
    with pytest.raises(StoppingError):
        async with leaving.call():
            await asyncio.sleep(60)
