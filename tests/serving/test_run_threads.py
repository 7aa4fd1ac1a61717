"""Runs that take long go on a thread, those that take very long on another: neither kind waits for the other."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from aks_serving.awaited import Prediction, predict
from aks_serving.batches import LoadedModel, layout_of
from aks_serving.engine import Engine
from aks_serving.lanes import Lane
from aks_serving.model import Model
from aks_serving.run_times import RunTimes
from aks_serving.serving import Serving
from aks_serving.tensors import Feeds
from aks_serving.watchdog import SWEEP_S, Watchdog

from tests.serving import models
from tests.serving.conftest import eventually

pytestmark = pytest.mark.anyio

DATA = models.scaler(2.0)
LONG_S, VERY_LONG_S = 0.005, 0.2


class _Gated(Model):
    """A real model; each of its runs waits until it is let go."""

    def __init__(self, version: int) -> None:
        super().__init__(version=version, digest=models.digest(DATA), data=DATA)
        self.gate = threading.Semaphore(0)
        self.began: list[float] = []

    def run(self, feeds: Feeds) -> Any:
        self.began.append(float(next(iter(feeds.values()))[0, 0]))
        assert self.gate.acquire(timeout=30)
        return super().run(feeds)


class _Pod:
    """Endpoints of one version each, whose runs take so long."""

    def __init__(self, takes_s: list[float]) -> None:
        self.engine = Engine(max_queue=100)
        self.models = [_Gated(1) for _ in takes_s]
        self.servings: list[Serving] = []
        for number, (model, run_s) in enumerate(zip(self.models, takes_s, strict=True)):
            loaded = LoadedModel(
                model=model, batchable=True, layout=layout_of(model.signature), run_times_s=((8, run_s),)
            )
            plan = models.plan(1, models.route(1, DATA), endpoint=f"endpoint-{number}")
            self.servings.append(Serving(plan=plan, lanes={1: Lane(loaded, self.engine)}, failed={}))

    def ask(self, number: int, value: float) -> asyncio.Task[Prediction]:
        asked = predict(
            self.servings[number],
            lambda _: {"x": np.full((1, 2), value, np.float32)},
            version=None,
            subject=None,
            started_s=perf_counter(),
            deadline_s=math.inf,
        )
        return asyncio.create_task(asked)

    async def begins(self, number: int, value: float) -> None:
        await eventually(lambda: self.models[number].began[-1:] == [value])


@asynccontextmanager
async def _pod(*takes_s: float) -> AsyncIterator[_Pod]:
    pod = _Pod(list(takes_s))
    try:
        yield pod
    finally:
        for model in pod.models:
            model.gate.release(100)
        pod.engine.close()


async def test_a_long_run_waits_for_no_very_long_one_nor_the_other_way_round() -> None:
    async with _pod(VERY_LONG_S, LONG_S) as pod:
        very_long, long = pod.models
        slow = pod.ask(0, 1)
        await pod.begins(0, 1)
        for value in (2, 3):
            quick = pod.ask(1, value)
            await pod.begins(1, value)
            long.gate.release()
            assert (await quick).outputs[0].tolist() == [[2.0 * value] * 2]
        quick = pod.ask(1, 4)
        await pod.begins(1, 4)
        very_long.gate.release()
        assert (await slow).outputs[0].tolist() == [[2.0, 2.0]]
        assert not quick.done()


@pytest.mark.parametrize("run_s", [LONG_S, VERY_LONG_S])
async def test_runs_of_a_kind_wait_for_each_other_and_go_in_turn(run_s: float) -> None:
    async with _pod(run_s, run_s) as pod:
        first = pod.ask(0, 1)
        await pod.begins(0, 1)
        second = pod.ask(1, 2)
        await asyncio.sleep(0)
        third = pod.ask(0, 3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert pod.models[1].began == []
        pod.models[0].gate.release()
        await first
        await pod.begins(1, 2)  # it waited longer than the third
        assert pod.models[0].began == [1]
        pod.models[1].gate.release()
        await second
        await pod.begins(0, 3)
        pod.models[0].gate.release()
        await third


async def test_what_of_a_large_batch_is_short_enough_waits_for_no_very_long_run() -> None:
    async with _pod(VERY_LONG_S, LONG_S) as pod:
        times = pod.servings[1].lanes[1].times
        for rows, run_s in ((8, 2 * LONG_S), (16, 4 * LONG_S), (32, VERY_LONG_S)):
            times.add(rows * 8, run_s)
        slow = pod.ask(0, 1)
        await pod.begins(0, 1)
        quick = [pod.ask(1, value) for value in range(32)]
        pod.models[1].gate.release(100)
        for value, one in enumerate(quick):
            assert (await one).outputs[0].tolist() == [[2.0 * value] * 2]
        assert not slow.done()
        assert sorted(pod.models[1].began) == pod.models[1].began
        assert len(pod.models[1].began) > 1


async def test_what_nobody_measured_waits_for_no_very_long_run() -> None:
    async with _pod(VERY_LONG_S, LONG_S) as pod:
        pod.servings[1].lanes[1].times = RunTimes()
        slow, quick = pod.ask(0, 1), pod.ask(1, 2)
        pod.models[1].gate.release()
        assert (await quick).outputs[0].tolist() == [[4.0, 4.0]]
        assert not slow.done()


async def test_a_version_is_run_by_one_thread_at_a_time_whatever_its_runs_take() -> None:
    async with _pod(VERY_LONG_S) as pod:
        (model,) = pod.models
        lane = pod.servings[0].lanes[1]
        first = pod.ask(0, 1)
        await pod.begins(0, 1)
        lane.times.add(8, -100.0)  # as if it took next to nothing from now on
        second = pod.ask(0, 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert model.began == [1]
        model.gate.release(2)
        assert [(await one).outputs[0].tolist() for one in (first, second)] == [[[2.0] * 2], [[4.0] * 2]]


async def test_a_run_that_hangs_on_each_thread_is_left_behind_by_itself() -> None:
    async with _pod(VERY_LONG_S, LONG_S) as pod:
        watchdog = Watchdog(
            pod.engine,
            servings=lambda: {serving.plan.endpoint: serving for serving in pod.servings},
            hang_s=30.0,
            replace=lambda: None,
        )
        now_s = perf_counter()
        slow = pod.ask(0, 1)
        await pod.begins(0, 1)
        for _ in range(int(20 / SWEEP_S)):
            now_s += SWEEP_S
            watchdog.sweep(now_s)
        quick = pod.ask(1, 2)
        await pod.begins(1, 2)
        for hung, waits in ((slow, quick), (quick, None)):
            for _ in range(int(16 / SWEEP_S)):
                now_s += SWEEP_S
                watchdog.sweep(now_s)
            await asyncio.wait([hung], timeout=30)
            assert "it did not end within 30." in str(hung.exception())
            assert waits is None or not waits.done()
            now_s += SWEEP_S
        for number in (0, 1):
            pod.models[number].gate.release(2)
            assert (await pod.ask(number, 5)).outputs[0].tolist() == [[10.0, 10.0]]
