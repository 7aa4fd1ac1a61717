"""Runs that hang are left behind, their callers answered, the version tripped; and what is merely slow is let be."""

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
from aks_serving.errors import ExpiredError, ModelRunError
from aks_serving.guard import TripGuard
from aks_serving.lanes import Lane
from aks_serving.model import Model
from aks_serving.serving import Serving
from aks_serving.tensors import Feeds
from aks_serving.watchdog import SWEEP_S, LoopWatch, Watchdog

from shared.routing.plan import Guard
from tests.serving import models
from tests.serving.conftest import eventually

pytestmark = pytest.mark.anyio
ONE, TWO = models.scaler(1.0), models.scaler(2.0)
HANG_S = 30.0


class _Stuck(Model):
    """A real model whose runs wait until they are let go."""

    def __init__(self, version: int, data: bytes) -> None:
        super().__init__(version=version, digest=models.digest(data), data=data)
        self.free = threading.Event()
        self.runs = 0

    def run(self, feeds: Feeds) -> Any:
        self.runs += 1
        assert self.free.wait(30)
        return super().run(feeds)


class _World:
    """An endpoint with a stable version 1 and a candidate, 2, that has all traffic and hangs."""

    def __init__(self, *, expected_s: float, stable_weight: int = 0) -> None:
        self.engine = Engine(max_queue=100)
        self.stuck = _Stuck(2, TWO)
        self.lane = Lane(_loaded(self.stuck, expected_s), self.engine)
        stable = Model(version=1, digest="", data=ONE)
        self.stable = Lane(_loaded(stable, 1e-5), self.engine)
        routes = models.canary((1, ONE), (2, TWO), 10_000 - stable_weight)
        self.tripped: dict[int, str] = {}
        self.serving = Serving(
            plan=models.plan(1, *routes),
            lanes={1: self.stable, 2: self.lane},
            failed={},
            guard=TripGuard(Guard(), version=2, on_trip=lambda why: self.tripped.update({2: why})),
            tripped=self.tripped,
        )
        self.replaced = 0
        self.watchdog = Watchdog(
            self.engine, servings=lambda: {"churn": self.serving}, hang_s=HANG_S, replace=self._replace
        )
        self.watchdog.watch(self.lane)
        self.watchdog.watch(self.stable)
        self.now_s = perf_counter()

    def _replace(self) -> None:
        self.replaced += 1

    def ask(
        self, value: float, *, deadline_s: float = math.inf, version: int | None = None
    ) -> asyncio.Task[Prediction]:
        """Predict; `deadline_s` from now."""
        return asyncio.create_task(
            predict(
                self.serving,
                lambda _: {"x": np.full((1, 2), value, np.float32)},
                version=version,
                subject=None,
                started_s=perf_counter(),
                deadline_s=perf_counter() + deadline_s,
            )
        )

    def ended_apart(self) -> bool:
        """Whether no run goes on apart any more, seen by a sweep for which no time passes."""
        self.watchdog.sweep(self.now_s)
        return self.watchdog._apart is None

    def pass_s(self, seconds: float) -> None:
        """Sweep as often as the watchdog does in so many seconds."""
        for _ in range(math.ceil(seconds / SWEEP_S)):
            self.now_s += SWEEP_S
            self.watchdog.sweep(self.now_s)


def _loaded(model: Model, expected_s: float) -> LoadedModel:
    return LoadedModel(model=model, batchable=True, layout=layout_of(model.signature), run_times_s=((1, expected_s),))


@asynccontextmanager
async def _world(*, expected_s: float = 0.01, stable_weight: int = 0) -> AsyncIterator[_World]:
    world = _World(expected_s=expected_s, stable_weight=stable_weight)
    try:
        yield world
    finally:
        world.stuck.free.set()
        world.engine.close()


async def test_callers_of_a_run_that_hangs_are_answered_by_stable_and_the_version_is_tripped() -> None:
    async with _world() as world:
        asked = [world.ask(float(number)) for number in range(5)]
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(HANG_S - 1)
        assert (world.replaced, world.tripped) == (0, {})
        world.pass_s(2)
        answers = await asyncio.gather(*asked)
        assert [(a.version, a.fallback, a.outputs[0].tolist()) for a in answers] == [
            (1, True, [[n, n]]) for n in range(5)
        ]
        assert world.replaced == 1
        assert "a run of version 2 hung" in world.tripped[2]
        assert (await world.ask(7.0)).version == 1
        assert world.engine.waiting == 0
        world.stuck.free.set()
        await asyncio.sleep(0.05)
        assert world.serving.tally.in_flight == 0


async def test_callers_who_allow_less_are_answered_while_they_still_wait() -> None:
    async with _world() as world:
        asked = world.ask(3.0, deadline_s=6.0)
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(2.5)
        assert not asked.done()
        world.pass_s(1.0)
        assert ((await asked).version, world.replaced, world.tripped) == (1, 0, {})
        assert world.serving.seen == [0, 1, 0, 0]  # stable answered in time: the candidate could have
        world.pass_s(HANG_S - 5)
        assert (world.replaced, world.tripped) == (0, {})
        world.pass_s(3)
        assert world.replaced == 1
        assert "a run of version 2 hung" in world.tripped[2]


async def test_a_sound_version_that_takes_longer_than_its_caller_allows_is_not_tripped() -> None:
    async with _world() as world:
        asked = world.ask(3.0, deadline_s=6.0)
        pinned = world.ask(4.0, deadline_s=6.0, version=2)
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(3.5)
        assert (await asked).fallback
        with pytest.raises(ModelRunError, match="does not wait for long"):
            await pinned
        another = world.ask(5.0)
        await eventually(lambda: world.stuck.runs == 2)
        world.stuck.free.set()
        assert (await another).version == 2
        await eventually(lambda: world.engine.waiting == 0)
        await eventually(world.ended_apart)
        world.pass_s(2 * HANG_S)
        assert (world.replaced, world.tripped) == (0, {})
        assert world.lane.times.expected_s(8) > 0


async def test_the_guard_does_not_hear_of_what_neither_version_answered_in_the_callers_time() -> None:
    async with _world() as world:
        asked = world.ask(3.0, deadline_s=6.0)
        await eventually(lambda: world.stuck.runs == 1)
        world.stable.times.add(1, 10.0)  # long: it waits for the thread
        world.pass_s(3.5)
        world.pass_s(3.5)
        with pytest.raises(ExpiredError):
            await asked
        assert world.serving.seen == [0, 0, 0, 0]


async def test_one_run_at_a_time_goes_on_apart() -> None:
    async with _world() as world:
        first = world.ask(3.0, deadline_s=2.0)
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(1.5)
        assert (await first).version == 1
        second = world.ask(4.0, deadline_s=2.0)
        await eventually(lambda: world.stuck.runs == 2)
        world.pass_s(10.0)
        assert not second.done()
        world.stuck.free.set()
        assert (await second).version == 2


async def test_a_run_that_is_slow_by_nature_does_not_hang() -> None:
    async with _world(expected_s=2.0) as world:
        asked = world.ask(3.0, deadline_s=8.0)
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(15.0)
        assert not asked.done()
        world.stuck.free.set()
        assert (await asked).version == 2
        assert world.replaced == 0


async def test_a_caller_who_named_the_version_gets_its_error() -> None:
    async with _world() as world:
        asked = world.ask(3.0, version=2)
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(HANG_S + 1)
        with pytest.raises(ModelRunError, match="did not end within 30"):
            await asked


async def test_what_waits_behind_a_run_that_hangs_runs_on_the_next_thread() -> None:
    async with _world() as world:
        first = world.ask(1.0)
        await eventually(lambda: world.stuck.runs == 1)
        world.stable.times.add(1, 10.0)  # long: it goes to the thread, behind what hangs
        behind = world.ask(2.0, version=1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (world.stable.idle, world.stable.running_beside) == (False, ())
        world.pass_s(HANG_S + 1)
        async with asyncio.timeout(10):
            assert (await behind).outputs[0].tolist() == [[2.0, 2.0]]
        assert (await first).version == 1


async def test_deadlines_pass_while_a_run_takes_long() -> None:
    async with _world() as world:
        first = world.ask(1.0)
        await eventually(lambda: world.stuck.runs == 1)
        late = world.ask(2.0, deadline_s=0.0)
        await asyncio.sleep(0)
        world.pass_s(0.1)
        with pytest.raises(ExpiredError):
            await late
        assert not first.done()


async def test_a_machine_that_slept_finds_nothing_hanging() -> None:
    async with _world() as world:
        asked = world.ask(1.0)
        await eventually(lambda: world.stuck.runs == 1)
        world.pass_s(0.2)
        world.now_s += 86_400.0
        world.pass_s(1.0)
        assert (world.replaced, asked.done()) == (0, False)
        world.stuck.free.set()
        assert (await asked).version == 2


async def test_a_run_that_holds_the_event_loop_is_seen_from_beside() -> None:
    async with _world(expected_s=1e-5) as world:
        found: list[tuple[Lane, float]] = []
        ended = threading.Event()

        def end() -> None:
            ended.set()
            world.stuck.free.set()  # where a process would end

        watch = LoopWatch(world.engine, hang_s=0.2, found=lambda lane, ran_s: found.append((lane, ran_s)), end=end)
        watch.start()
        assert (await world.ask(4.0)).outputs[0].tolist() == [[8.0, 8.0]]
        assert ended.is_set()
        assert found[0][0] is world.lane
        assert found[0][1] >= 0.2


async def test_a_machine_that_slept_while_a_run_held_the_event_loop_finds_nothing_hanging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with _world(expected_s=1e-5) as world:
        looks = 0

        def slept() -> float:
            """Stands still, but for a day between two looks; after some more looks, the run goes on."""
            nonlocal looks
            if world.stuck.runs:
                looks += 1
            if looks == 8:
                world.stuck.free.set()
            return 86_400.0 if looks > 3 else 0.0

        monkeypatch.setattr("aks_serving.watchdog.perf_counter", slept)
        ended: list[float] = []
        watch = LoopWatch(
            world.engine,
            hang_s=0.2,
            found=lambda _, ran_s: ended.append(ran_s),
            end=world.stuck.free.set,
        )
        watch.start()
        assert (await world.ask(4.0)).outputs[0].tolist() == [[8.0, 8.0]]
        watch.close()
        assert looks >= 8
        assert ended == []


async def test_many_short_runs_on_the_event_loop_are_no_run_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at, and time passes from one to the next."""
    async with _world(expected_s=1e-5) as world:
        looked, run = world.stuck.free, world.stuck.run
        ended: list[float] = []

        def looked_at(feeds: Feeds) -> Any:
            if not ended:
                looked.clear()
            return run(feeds)

        def look() -> float:
            looked.set()
            return 0.02 * world.stuck.runs

        monkeypatch.setattr(world.stuck, "run", looked_at)
        monkeypatch.setattr("aks_serving.watchdog.perf_counter", look)
        watch = LoopWatch(world.engine, hang_s=0.05, found=lambda _, ran_s: ended.append(ran_s), end=looked.set)
        watch.start()
        for number in range(20):
            await world.ask(float(number))
        watch.close()
        assert world.stuck.runs == 20
        assert ended == []
