"""A version that the plan names and that is not loaded may be asked for again; any other is not there."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from shared.routing.plan import Role
from tests.serving import models
from tests.serving.conftest import Running, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import request
from tests.serving.grpc.conftest import Reach

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}


async def _by_http(running: Running, version: int) -> list[httpx.Response]:
    """What every path answers to one who names a version; whether it is ready comes last."""
    path = f"/v2/models/churn/versions/{version}"
    return [
        await running.predict([[1, 1]], model_version=version),
        await running.infer(TENSOR, path=f"churn/versions/{version}"),
        *[await running.client.get(path + tail) for tail in ("", "/config", "/stats", "/ready")],
    ]


async def _by_grpc(channel: grpc.aio.Channel, version: int) -> list[tuple[str, str, str | None]]:
    """The code, the details and the pushback of every method, likewise."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    named = {"name": "churn", "version": str(version)}
    calls: list[Awaitable[Any]] = [
        stub.ModelInfer(request(1, 2, model_version=str(version))),
        stub.ModelMetadata(service_pb2.ModelMetadataRequest(**named)),
        stub.ModelConfig(service_pb2.ModelConfigRequest(**named)),
        stub.ModelStatistics(service_pb2.ModelStatisticsRequest(**named)),
    ]
    found = []
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        told = dict(caught.value.trailing_metadata() or ())
        found.append((caught.value.code().name, caught.value.details() or "", told.get("grpc-retry-pushback-ms")))
    return found


async def _is_to_come(reached: Any, version: int, reason: str) -> None:
    *answers, ready = await _by_http(reached.running, version)
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.url
        assert reason in answer.json()["error"]
    assert (ready.status_code, ready.headers["retry-after"], ready.json()["ready"]) == (503, "1", False)
    for code, details, pushback in await _by_grpc(reached.channel, version):
        assert (code, pushback) == ("UNAVAILABLE", "1000")
        assert reason in details


async def _is_not_there(reached: Any, version: int) -> None:
    for answer in await _by_http(reached.running, version):
        assert (answer.status_code, "retry-after" in answer.headers) == (404, False), answer.url
        assert "does not exist: loaded: 1" in answer.json()["error"]
    for code, details, pushback in await _by_grpc(reached.channel, version):
        assert (code, pushback) == ("NOT_FOUND", None)
        assert "does not exist: loaded: 1" in details


async def test_a_version_that_is_being_loaded_may_be_asked_for_again(reach: Reach, storage: MemoryStorage) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with reach() as reached:
        arrives = storage.held[models.digest(TWO)] = threading.Event()
        await _is_not_there(reached, 2)
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 5_000)))
        polled = asyncio.create_task(reached.running.reload())
        try:
            await eventually(lambda: storage.artifact_reads == 2)
            await _is_to_come(reached, 2, "version 2 of endpoint 'churn' is unavailable: it is being loaded")
            await _is_not_there(reached, 9)
            # A plan that takes it back: it comes no more.
            storage.publish(models.plan(3, models.route(1, ONE)))
            await reached.running.server._poller.poll()
            await _is_not_there(reached, 2)
        finally:
            arrives.set()
        await polled


async def test_a_version_that_cannot_be_loaded_is_told_of_with_the_reason(reach: Reach, storage: MemoryStorage) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), 0)))
    async with reach() as reached:
        await _is_to_come(reached, 2, "missing: ")
        await _is_not_there(reached, 9)


async def test_of_the_versions_that_come_one_that_failed_says_why_while_others_are_loaded(
    reach: Reach, storage: MemoryStorage
) -> None:
    async def says(why: str) -> bool:
        return why in (await reached.running.predict([[1, 1]], model_version=2)).text

    three = models.scaler(3.0)
    storage.put(ONE, three)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with reach() as reached:
        arrives = storage.held[models.digest(three)] = threading.Event()
        storage.outages[models.digest(three)] = 1  # whichever is first, version 2 is not kept waiting
        shadow = models.route(3, three, role=Role.SHADOW, weight=0)
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 5_000), shadow))
        polled = asyncio.create_task(reached.running.reload())
        try:
            await eventually(lambda: says("missing: "))
            await _is_to_come(reached, 2, "missing: ")
            await _is_to_come(reached, 3, "it is being loaded")
        finally:
            arrives.set()
        await polled


async def test_where_the_main_version_is_not_loaded_the_model_is_described_once_it_is(
    reach: Reach, storage: MemoryStorage
) -> None:
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with reach() as reached:
        for tail in ("", "/config"):
            answer = await reached.running.client.get(f"/v2/models/churn{tail}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "missing: " in answer.json()["error"]
