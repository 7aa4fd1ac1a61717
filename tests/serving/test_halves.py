"""A batch that fails is run again in halves, each a batch like any other: late calls do not run, who is good is told at
once, who is urgent comes between, and the watchdog's clock is each run's own.
"""

import math
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest
from aks_serving.asks import GeneralV2Ask
from aks_serving.calls import LOW, NORMAL, URGENT, Call
from aks_serving.model import Model
from aks_serving.queues import Queues
from aks_serving.run_times import RunTimes
from aks_serving.tensors import Feeds
from aks_serving.watchdog import SWEEP_S, Watchdog

from shared.routing.plan import RoutePlan
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.handled import Asked, HandServer, Jump, Slow, Watched, infer, plain

pytestmark = pytest.mark.anyio

TABLE, PICKY = models.table(), models.picky(limit=4)
BAD = 9
WAYS = pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "beside it"])


class _Stepped(Watched):
    """Each of its runs but the first few, which are `free`, waits to be let go."""

    def __init__(self, data: bytes, *, version: int = 1, free: int = 0) -> None:
        super().__init__(data, version=version)
        self.gate = threading.Semaphore(free)

    def run(self, feeds: Feeds) -> Any:
        self.ran.append(next(iter(feeds.values())).ravel().tolist())
        assert self.gate.acquire(timeout=30)
        return Model.run(self, feeds)


@asynccontextmanager
async def _serving(plan: RoutePlan, *versions: Watched, inline: bool = False) -> AsyncIterator[HandServer]:
    server = HandServer(plan, {model.version: model for model in versions}, inline=inline)
    try:
        yield server
    finally:
        for model in versions:
            if isinstance(model, _Stepped):
                model.gate.release(1_000)
        await server.idle()
        assert (server.waiting, server.engine.waiting_bytes) == (0, 0)
        assert all(lane.idle for lane in server.serving.lanes.values())
        server.close()


def _call(server: HandServer, number: int, priority: int) -> GeneralV2Ask:
    """A call that began at that second."""
    asked = GeneralV2Ask(server.serving, float(number), b"", 1, priority=priority)
    asked.exchange = Asked("/predict")
    return asked


def _only(data: bytes) -> RoutePlan:
    return models.plan(1, models.route(1, data))


def _ask(numbers: Sequence[int], **fields: Any) -> list[Asked]:
    return [plain([[number]], **fields) for number in numbers]


@WAYS
async def test_what_is_late_when_its_batch_has_failed_does_not_run_again(
    monkeypatch: pytest.MonkeyPatch, *, inline: bool
) -> None:
    model = Slow(PICKY, Jump(monkeypatch))
    async with _serving(_only(PICKY), model, inline=inline) as server:
        late, good = _ask([0, 1, BAD, 3], timeout_ms=50_000), _ask([2])
        server.ask(*late, *good)
        await server.idle()
        assert [asked.status for asked in late] == [504] * 4
        assert good[0].json()["predictions"] == [[20.0]]
        assert model.ran == [[[0], [1], [BAD], [3], [2]], [[2]]]
        assert server.refused() == {"churn": {"expired": 4}}


async def test_who_is_gone_when_its_batch_has_failed_does_not_run_again() -> None:
    model = _Stepped(PICKY)
    async with _serving(_only(PICKY), model) as server:
        asked = _ask([0, BAD, 2, 3])
        server.ask(*asked)
        await eventually(lambda: len(model.ran) == 1)
        asked[0].gone = asked[1].gone = asked[3].gone = True
        model.gate.release(9)
        await server.idle()
        assert model.ran == [[0, BAD, 2, 3], [2]]
        assert asked[2].status == 200
        assert server.refused() == {"churn": {"cancelled": 3}}


async def test_a_good_half_is_told_while_the_other_runs_and_the_rest_still_counts_as_waiting() -> None:
    model = _Stepped(PICKY, free=2)
    async with _serving(_only(PICKY), model) as server:
        asked = _ask([0, 1, 2, 3, 0, BAD, 2, 3])
        server.ask(*asked)
        await eventually(lambda: len(model.ran) == 3)
        assert [bool(one.replies) for one in asked] == [True] * 4 + [False] * 4
        assert server.waiting == 4
        model.gate.release(9)
        await server.idle()
        assert [one.status for one in asked] == [200] * 5 + [500, 200, 200]
        assert model.ran == [[0, 1, 2, 3, 0, BAD, 2, 3], [0, 1, 2, 3], [0, BAD, 2, 3], [0, BAD], [0], [BAD], [2, 3]]


async def test_halves_go_before_what_came_later_and_after_what_is_urgent_and_are_joined_with_neither() -> None:
    model = _Stepped(PICKY)
    async with _serving(_only(PICKY), model) as server:
        server.ask(*_ask([0, 1, BAD, 3]))
        await eventually(lambda: len(model.ran) == 1)
        later, urgent = plain([[2]]), infer("INT64", [1, 1], [1], parameters={"priority": 1})
        server.ask(later)
        model.gate.release()
        await eventually(lambda: len(model.ran) == 2)
        server.ask(urgent)
        model.gate.release(9)
        await server.idle()
        assert model.ran == [[0, 1, BAD, 3], [0, 1], [1], [BAD, 3], [BAD], [3], [2]]


@pytest.mark.parametrize(("urgent", "failed"), [(URGENT, NORMAL), (NORMAL, LOW)])
async def test_halves_wait_for_one_batch_of_what_is_more_urgent_and_for_no_later_call(urgent: int, failed: int) -> None:
    def late(_call: Call, _now_s: float) -> None:
        raise AssertionError("none of them is late")

    async with _serving(_only(PICKY), Watched(PICKY)) as server:
        queues, order = Queues(), list[list[float]]()
        queues.split([_call(server, feature, failed) for feature in range(4)])
        for turn in range(5):
            for priority in (urgent, failed):
                queues.of_priority[priority].append(_call(server, 10 * priority + 10 + turn, priority))
            order.append([one.started_s for one in queues.next_batch(0.0, late)[0]])
    u, f = 10 * urgent, 10 * failed + 10
    assert order == [[u + 10], [0, 1], [u + 11, u + 12], [2, 3], [u + 13, u + 14, *range(f, f + 5)]]


async def test_a_half_that_is_put_back_keeps_its_turn() -> None:
    async with _serving(_only(PICKY), Watched(PICKY)) as server:

        def next_batch() -> list[float]:
            batch, is_half = queues.next_batch(0.0, lambda _call, _now_s: None)
            if is_half and not order.count([1]):  # the thread is taken once
                queues.put_back(batch, is_half=is_half)
                queues.of_priority[URGENT].append(_call(server, 11, URGENT))
                batch, is_half = queues.next_batch(0.0, lambda _call, _now_s: None)
            return [one.started_s for one in batch]

        queues, order = Queues(), list[list[float]]()
        queues.split([_call(server, 1, NORMAL), _call(server, 2, NORMAL)])
        queues.of_priority[URGENT].append(_call(server, 10, URGENT))
        order += [next_batch(), next_batch()]
    assert order == [[10], [1]]


async def test_a_half_that_waits_for_the_thread_is_joined_with_nothing() -> None:
    stable, candidate = _Stepped(TABLE), _Stepped(PICKY, version=2, free=9)
    async with _serving(models.plan(1, *models.canary((1, TABLE), (2, PICKY), 5_000)), stable, candidate) as server:
        server.ask(*_ask([7], model_version=1))
        await eventually(lambda: len(stable.ran) == 1)
        times = server.serving.lanes[2].times = RunTimes()
        times.add(8, 1e9)  # of one row: long
        times.add(16, 1e-9)
        server.ask(*_ask([0, BAD], model_version=2))
        await eventually(lambda: len(candidate.ran) == 1)
        server.ask(*_ask([1], model_version=2))
        stable.gate.release()
        await server.idle()
        assert candidate.ran == [[0, BAD], [0], [BAD], [1]]


@pytest.mark.parametrize(
    ("allowed_s", "run_s", "by", "ran", "seen"),
    [
        (math.inf, 24.0, [1, 2, 2, 2], 5, [3, 1, 0, 0]),
        (10.0, 1.9, [1, 1, 1, 1], 3, [0, 1, 0, 0]),
    ],
    ids=["hangs", "late"],
)
async def test_runs_of_halves_are_not_one_run_that_takes_long(
    allowed_s: float, run_s: float, by: list[int], ran: int, seen: list[int]
) -> None:
    """A run hangs after 30 s, and there are five, one by one. What waits in a half as its third begins, and has half of
    the time gone that its caller allows, is stable's: whether the candidate would fail it is not known.
    """
    stable, candidate = Watched(TABLE), _Stepped(PICKY, version=2)
    async with _serving(models.plan(1, *models.canary((1, TABLE), (2, PICKY), 10_000)), stable, candidate) as server:
        lane, done = server.serving.lanes[2], list[str]()
        lane.times = RunTimes()
        for power in range(12):
            lane.times.add(2**power, 0.01)
        watchdog = Watchdog(
            server.engine,
            servings=lambda: server.servings,
            hang_s=30.0,
            replace=lambda: done.append("replaced"),
        )
        watchdog.watch(lane)
        now_s = perf_counter()
        fields = {} if math.isinf(allowed_s) else {"timeout_ms": allowed_s * 1e3}
        asked = _ask([BAD, 1, 2, 3], **fields)
        server.ask(*asked)
        for runs in range(1, ran + 1):
            await eventually(lambda runs=runs: len(candidate.ran) == runs)  # type: ignore[misc]
            for _ in range(int(run_s / SWEEP_S)):
                now_s += SWEEP_S
                watchdog.sweep(now_s)
            candidate.gate.release()
        await server.idle()
        assert (done, len(candidate.ran)) == ([], ran)
        assert [one.status for one in asked] == [200] * 4
        assert [int(one.told[b"x-slipway-version"]) for one in asked] == by
        assert server.serving.seen == seen
