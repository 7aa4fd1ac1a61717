"""Deadlines, priorities and full queues: expired work never runs, and whoever is shed is told when to come back.

The models count their runs. Requests that have waited for long say so by when they came: nothing here sleeps.
"""

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from aks_serving.awaited import predict
from aks_serving.model import Signature
from aks_serving.queues import MAX_BATCH_ROWS
from aks_serving.serving import Servings
from aks_serving.tensors import Feeds

from shared.core.errors import SlipwayError
from shared.routing.plan import RoutePlan
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.handled import Asked, HandServer, Jump, Slow, Watched, infer, plain, turn

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


@WAYS
async def test_a_candidate_that_fails_is_answered_for_by_stable_while_there_is_time(*, inline: bool) -> None:
    stable, candidate = Watched(TABLE), Watched(PICKY, version=2)
    async with serving(_canary(), stable, candidate, inline=inline) as server:
        asked = [plain([[7]], timeout_ms=60_000), infer("INT64", [1, 1], [9], parameters={"timeout": 60_000_000})]
        server.ask(*asked)
        await server.idle()
        assert asked[0].json()["predictions"] == [[70.0]]
        assert asked[1].json()["outputs"][0]["data"] == [90.0]
        assert [one.told[b"x-slipway-fallback"] for one in asked] == [b"true"] * 2
        assert sorted(number for run in stable.ran for (number,) in run) == [7, 9]


@WAYS
async def test_a_candidate_that_fails_too_late_leaves_stable_nothing_to_answer(
    monkeypatch: pytest.MonkeyPatch, *, inline: bool
) -> None:
    stable, candidate = Watched(TABLE), Slow(PICKY, Jump(monkeypatch), version=2)
    async with serving(_canary(), stable, candidate, inline=inline) as server:
        asked = plain([[7]], timeout_ms=50_000)
        server.ask(asked)
        await server.idle()
        assert _is_late(asked)
        assert (candidate.ran, stable.ran) == ([[[7]]], [])
        counts = server.totals()["churn"]
        assert (counts[2].requests, counts[2].errors) == (1, 1)
        assert 1 not in counts
        assert server.refused() == {"churn": {"expired": 1}}
        assert server.serving.seen == [0, 1, 0, 0]  # the guard hears of it all the same


async def test_the_guard_does_not_hear_of_what_stable_fails_too() -> None:
    stable, candidate = Watched(PICKY), Watched(PICKY, version=2)
    async with serving(_canary(), stable, candidate, inline=True) as server:
        asked = plain([[7]])
        server.ask(asked)
        await server.idle()
        assert asked.status == 500
        assert server.serving.seen == [0, 0, 0, 0]


async def test_work_that_expires_behind_another_versions_run_never_runs() -> None:
    stable, candidate = Watched(TABLE), Watched(PICKY, version=2)
    async with serving(_canary(), stable, candidate) as server:
        candidate.open.clear()
        long = plain([[1]], model_version=2)
        late, gone = plain([[2]], model_version=1, timeout_ms=50), plain([[3]], model_version=1)
        server.ask(long)
        await eventually(candidate.began.is_set)
        server.ask(late, gone)
        await eventually(lambda: perf_counter() > late.received_s + 0.05)
        gone.gone = True
        candidate.open.set()
        await server.idle()
        assert _is_late(late)
        assert (long.status, gone.replies) == (200, [])
        assert stable.ran == []


async def test_what_is_urgent_goes_before_what_another_version_waits_with() -> None:
    order: list[int] = []

    class Ordered(Watched):
        def run(self, feeds: Feeds) -> Any:
            order.append(self.version)
            return super().run(feeds)

    stable, candidate = Ordered(TABLE), Ordered(PICKY, version=2)
    async with serving(_canary(), stable, candidate) as server:
        candidate.open.clear()
        server.ask(plain([[1]], model_version=2))
        await eventually(candidate.began.is_set)
        server.ask(plain([[2]], model_version=1))
        await turn()
        server.ask(infer("INT64", [1, 1], [3], parameters={"priority": 1}))
        candidate.open.set()
        await server.idle()
        assert order == [2, 2, 1]


@pytest.mark.parametrize(
    "features", [[[1.5, 2.5]] * 500, {"x": [[1.5, 2.5]] * 500}], ids=["read at once", "in general"]
)
async def test_what_waits_is_bounded_in_bytes_and_one_alone_always_fits(features: Any) -> None:
    model = Watched(SCALER)
    async with serving(_only(SCALER), model, max_queue_bytes=2_000) as server:
        model.open.clear()
        large, small, again = plain(features), plain([[1, 1]]), plain(features)
        server.ask(large)
        await eventually(model.began.is_set)
        assert server.engine.waiting_bytes >= 4_000
        assert large.body == b""
        server.ask(small)
        assert (small.status, small.told[b"retry-after"]) == (429, AGAIN)
        model.open.set()
        await server.idle()
        assert (large.status, server.engine.waiting_bytes) == (200, 0)
        server.ask(again)
        await server.idle()
        assert again.status == 200


async def test_a_packed_body_is_unpacked_once() -> None:
    class Counting(Asked):
        reads = 0

        @property
        def body(self) -> bytes:
            self.reads += 1
            return self.kept

        @body.setter
        def body(self, body: bytes) -> None:
            self.kept = body

    body = gzip.compress(infer("FP32", [1, 2], [1, 2]).body)
    async with serving(_only(SCALER), Watched(SCALER), inline=True) as server:
        asked = Counting("/v2/models/churn/versions/1/infer", body, {b"content-encoding": b"gzip"})
        server.ask(asked)
        await server.idle()
        assert (asked.status, asked.reads) == (200, 1)


async def test_a_path_of_two_lines_writes_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(HandServer):
        def totals(self) -> dict[str, Any]:
            raise RuntimeError("a defect, says the test")

    plan = models.plan(1, models.route(1, SCALER))
    server = Broken(plan, {1: Watched(SCALER)})
    server.servings = Servings({"churn\nERROR forged": server.serving})
    asked = Asked("/v2/models/churn\nERROR forged/stats", method="GET")
    server.ask(asked)
    server.close()
    assert asked.status == 500
    assert [record.getMessage() for record in caplog.records] == [
        r"GET '/v2/models/churn\nERROR forged/stats' went wrong"
    ]


async def test_a_request_whose_inputs_cannot_be_read_again_for_stable_is_answered() -> None:
    reads: list[Signature] = []

    def read(signature: Signature) -> Feeds:
        reads.append(signature)
        if len(reads) > 1:
            raise MemoryError
        return {"x": np.array([[7]], np.int64)}

    async with serving(_canary(), Watched(TABLE), Watched(PICKY, version=2), inline=True) as server:
        with pytest.raises(SlipwayError, match="the server made an error"):
            await predict(server.serving, read, version=None, subject=None, started_s=perf_counter())
        assert len(reads) == 2


@WAYS
async def test_what_the_server_loses_is_no_error_of_the_candidates(*, inline: bool) -> None:
    class Lost(Watched):
        def run(self, feeds: Feeds) -> Any:  # noqa: ARG002 - as the model has it
            raise RuntimeError("a defect of the server's own, says the test")

    async with serving(_canary(), Watched(TABLE), Lost(PICKY, version=2), inline=inline) as server:
        asked = [plain([[1]]), plain([[2]])]
        server.ask(*asked)
        await server.idle()
        assert [one.told[b"x-slipway-fallback"] for one in asked] == [b"true", b"true"]
        assert server.serving.seen == [0, 0, 0, 0]
        assert all(counts.errors == 0 for counts in server.totals()["churn"].values())
