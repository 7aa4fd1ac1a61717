"""Deadlines, priorities and full queues: expired work never runs, and whoever is shed is told when to come back.

The models count their runs. Requests that have waited for long say so by when they came: nothing here sleeps.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest
from aks_serving.engine import MAX_BATCH_ROWS
from aks_serving.tensors import Feeds

from shared.routing.plan import RoutePlan
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.handled import Asked, HandServer, Watched, infer, plain, turn

pytestmark = pytest.mark.anyio

SCALER, TABLE, PICKY = models.scaler(2.0), models.table(), models.picky(limit=4)
AGAIN = b"1"
WAYS = pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "beside it"])


@asynccontextmanager
async def serving(plan: RoutePlan, *versions: Watched, **options: Any) -> AsyncIterator[HandServer]:
    server = HandServer(plan, {model.version: model for model in versions}, **options)
    try:
        yield server
    finally:
        for model in versions:
            model.open.set()
        await server.idle()
        assert server.waiting == 0
        server.close()


def _only(data: bytes) -> RoutePlan:
    return models.plan(1, models.route(1, data))


def _canary() -> RoutePlan:
    return models.plan(1, *models.canary((1, TABLE), (2, PICKY), 10_000))


def _ago(asked: Asked, seconds: float) -> Asked:
    asked.received_s -= seconds
    return asked


def _v2(number: float, **parameters: Any) -> Asked:
    return infer("FP32", [1, 2], [number, number], parameters=parameters)


FORMS: dict[str, Callable[[float, float], Asked]] = {
    "plain": lambda number, wait_s: plain([[number, number]], timeout_ms=wait_s * 1e3),
    "plain, by name": lambda number, wait_s: plain({"x": [[number, number]]}, timeout_ms=wait_s * 1e3),
    "V2": lambda number, wait_s: _v2(number, timeout=int(wait_s * 1e6)),
    "V2, with a priority": lambda number, wait_s: _v2(number, timeout=int(wait_s * 1e6), priority=1),
}


def _is_late(asked: Asked) -> bool:
    return (
        asked.status == 504
        and asked.told[b"retry-after"] == AGAIN
        and asked.json()["error"].startswith("the deadline passed after ")
    )


@WAYS
@pytest.mark.parametrize("form", FORMS)
async def test_what_the_caller_waits_for_no_more_never_runs(form: str, *, inline: bool) -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model, inline=inline, timeout_s=1_000.0) as server:
        late, good = _ago(FORMS[form](7.0, 5.0), 10.0), _ago(FORMS[form](8.0, 20.0), 10.0)
        server.ask(late, good)
        await server.idle()
        assert _is_late(late)
        assert good.status == 200
        assert model.ran == [[[8.0, 8.0]]]
        assert server.refused() == {"churn": {"expired": 1}}
        assert server.totals()["churn"][1].requests == 1


@WAYS
async def test_who_names_no_time_waits_as_long_as_the_server_says(*, inline: bool) -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model, inline=inline, timeout_s=5.0) as server:
        late = [_ago(plain([[7.0, 7.0]]), 10.0), _ago(_v2(7.0), 10.0), _ago(_v2(7.0, timeout=0), 10.0)]
        good = [
            _ago(plain([[8.0, 8.0]]), 1.0),
            _ago(FORMS["plain"](9.0, 20.0), 10.0),
            _ago(FORMS["V2"](9.0, 20.0), 10.0),
        ]
        server.ask(*late, *good)
        await server.idle()
        assert all(_is_late(asked) for asked in late)
        assert [asked.status for asked in good] == [200] * 3
        assert model.ran == [[[8.0, 8.0], [9.0, 9.0], [9.0, 9.0]]]


async def test_a_deadline_that_passes_behind_a_long_run_is_kept_too() -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model) as server:
        model.open.clear()
        first = plain([[1.0, 1.0]])
        server.ask(first)
        await eventually(model.began.is_set)
        late, good = FORMS["plain"](2.0, 0.01), FORMS["V2"](3.0, 60.0)
        server.ask(late, good)
        await eventually(lambda: perf_counter() > late.received_s + 0.01)
        model.open.set()
        await server.idle()
        assert (first.status, good.status) == (200, 200)
        assert _is_late(late)
        assert model.ran == [[[1.0, 1.0]], [[3.0, 3.0]]]


async def test_who_is_gone_is_not_run_and_counted_apart() -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model, inline=True) as server:
        gone, late, good = plain([[1.0, 1.0]]), _ago(FORMS["plain"](2.0, 5.0), 10.0), plain([[3.0, 3.0]])
        server.ask(gone, late, good)
        gone.gone = late.gone = True
        await turn()
        assert (gone.replies, late.replies, good.status) == ([], [], 200)
        assert model.ran == [[[3.0, 3.0]]]
        assert server.refused() == {"churn": {"cancelled": 2}}


async def test_what_is_urgent_runs_before_what_came_earlier_and_what_is_late_holds_up_nothing() -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model) as server:
        model.open.clear()
        server.ask(plain([[0.0, 0.0]]))
        await eventually(model.began.is_set)

        def full(number: float, **parameters: Any) -> Asked:
            # Too many rows to run with another.
            return infer("FP32", [MAX_BATCH_ROWS, 2], [number] * MAX_BATCH_ROWS * 2, parameters=parameters)

        late = _ago(full(9.0, priority=1, timeout=1), 10.0)
        plainly = plain([[3.0, 3.0]] * MAX_BATCH_ROWS)
        asked = [full(5.0, priority=9), full(4.0, priority=3), plainly, late, full(2.0), full(1.0, priority=1)]
        server.ask(*asked)
        model.open.set()
        await server.idle()
        assert [run[0][0] for run in model.ran] == [0.0, 1.0, 3.0, 2.0, 5.0, 4.0]
        assert _is_late(late)


async def test_a_full_queue_sheds_says_when_to_come_back_and_recovers() -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model, max_queue=3) as server:
        model.open.clear()
        taken = [plain([[float(n), 0.0]]) for n in range(3)]
        server.ask(*taken)
        await eventually(model.began.is_set)
        shed = [plain([[7.0, 7.0]]), _v2(7.0), _v2(7.0, priority=1)]
        server.ask(*shed)
        for asked in shed:
            assert (asked.status, asked.told[b"retry-after"]) == (429, AGAIN)
            assert asked.json()["error"].startswith("the model server is unavailable: 3 requests are waiting already")
        health = Asked("/health", method="GET")
        server.ask(health)
        assert health.status == 200
        model.open.set()
        await server.idle()
        assert [asked.json()["predictions"] for asked in taken] == [[[n * 2.0, 0.0]] for n in range(3)]
        again = [plain([[5.0, 5.0]]) for _ in range(3)]
        server.ask(*again)
        await server.idle()
        assert [asked.status for asked in again] == [200] * 3
        assert not any([7.0, 7.0] in run for run in model.ran)
        assert server.refused() == {"churn": {"overloaded": 3}}


async def test_where_nothing_serves_a_request_is_told_to_come_back() -> None:
    for plan in (models.plan(1), _only(SCALER)):
        async with serving(plan) as server:
            for asked in (plain([[1.0, 1.0]]), _v2(1.0)):
                server.ask(asked)
                assert (asked.status, asked.told[b"retry-after"]) == (503, AGAIN)


class _Slow(Watched):
    """Runs until a moment has passed."""

    until_s = 0.0

    def run(self, feeds: Feeds) -> Any:
        while perf_counter() < self.until_s:
            pass
        return super().run(feeds)


@WAYS
async def test_a_candidate_that_fails_is_answered_for_by_stable_while_there_is_time(*, inline: bool) -> None:
    stable, candidate = Watched(TABLE), _Slow(PICKY, version=2)
    async with serving(_canary(), stable, candidate, inline=inline) as server:
        asked = [plain([[7]], timeout_ms=60_000), infer("INT64", [1, 1], [9], parameters={"timeout": 60_000_000})]
        server.ask(*asked)
        await server.idle()
        assert asked[0].json()["predictions"] == [[70.0]]
        assert asked[1].json()["outputs"][0]["data"] == [90.0]
        assert [one.told[b"x-slipway-fallback"] for one in asked] == [b"true"] * 2
        assert stable.ran == [[[7], [9]]]


@WAYS
async def test_a_candidate_that_fails_too_late_leaves_stable_nothing_to_answer(*, inline: bool) -> None:
    stable, candidate = Watched(TABLE), _Slow(PICKY, version=2)
    async with serving(_canary(), stable, candidate, inline=inline) as server:
        asked = plain([[7]], timeout_ms=250)
        candidate.until_s = asked.received_s + 0.25
        server.ask(asked)
        await server.idle()
        assert _is_late(asked)
        assert (candidate.ran, stable.ran) == ([[[7]]], [])
        counts = server.totals()["churn"]
        assert (counts[2].requests, counts[2].errors) == (1, 1)
        assert 1 not in counts
        assert server.refused() == {"churn": {"expired": 1}}
