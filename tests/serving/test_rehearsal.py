"""A version answers by the whole way of a request before it serves, and nothing counts that."""

import asyncio
import gc
import logging
import os
import re
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from time import thread_time
from typing import Any

import numpy as np
import pytest
from aks_serving import rehearsal
from aks_serving.batches import LoadedModel, layout_of
from aks_serving.model import Model
from aks_serving.rehearsal import AT_ONCE, ROUNDS, rehearse
from aks_serving.tensors import Feeds
from onnx import TensorProto, helper

from shared.routing.plan import RoutePlan, SubjectSource
from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Watched, turn

pytestmark = pytest.mark.anyio

SCALER = models.scaler(2.0)
FORMS = 3
PLAN = models.plan(7, models.route(3, SCALER)).model_copy(update={"subject": SubjectSource(cookie="who")})
_WRONG = re.compile("went wrong")


def _loaded(model: Model, sample: Feeds | None, *, batchable: bool = True, took_s: float = 1e-9) -> LoadedModel:
    layout = layout_of(model.signature) if batchable else None
    times = tuple((2**power, took_s) for power in range(12))
    return LoadedModel(model=model, batchable=batchable, layout=layout, run_times_s=times, sample=sample)


def _row() -> Feeds:
    return {"x": np.array([[1, 2]], np.float32)}


@pytest.fixture(autouse=True)
def _has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take long over a rehearsal, which then ends early."""
    monkeypatch.setattr(rehearsal, "_ENOUGH_S", 600.0)
    monkeypatch.setattr(rehearsal, "_WITHIN_S", 600.0)


async def test_every_form_is_answered_alone_and_several_at_once() -> None:
    model = Watched(SCALER, version=3)
    statuses = await rehearse(PLAN, PLAN.routes[0], _loaded(model, _row()))
    assert statuses == {200: FORMS * (ROUNDS + AT_ONCE)}
    assert {len(batch) for batch in model.ran} > {1}, "those that come at once run as one batch"
    assert sum(len(batch) for batch in model.ran) == FORMS * (ROUNDS + AT_ONCE)
    assert all(row == [1, 2] for batch in model.ran for row in batch)


async def test_a_version_that_runs_long_is_rehearsed_beside_the_event_loop_too() -> None:
    model = Watched(SCALER, version=3)
    statuses = await rehearse(PLAN, PLAN.routes[0], _loaded(model, _row(), took_s=1e9))
    assert set(statuses) == {200}
    assert model.ran


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_what_runs_beside_the_event_loop_gives_way_to_requests() -> None:
    niceness = set()

    class Model(Watched):
        def run(self, feeds: Feeds) -> Any:
            niceness.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().run(feeds)

    await rehearse(PLAN, PLAN.routes[0], _loaded(Model(SCALER, version=3), _row(), took_s=1e9))
    assert niceness == {19}


@pytest.mark.parametrize("took_s", [1e-9, 1e9], ids=["here", "beside"])
async def test_nothing_of_a_rehearsal_holds_the_version(took_s: float) -> None:
    """A version that is unloaded gives its memory back at once, not at the next garbage collection."""
    loaded = _loaded(Model(version=3, digest=models.digest(SCALER), data=SCALER), _row(), took_s=took_s)
    before = sys.getrefcount(loaded), sys.getrefcount(loaded.model)
    gc.collect()
    gc.disable()
    try:
        assert set(await rehearse(PLAN, PLAN.routes[0], loaded)) == {200}
        # The transport hears of its end, and the thread that gives way of what it ran.
        await eventually(lambda: (sys.getrefcount(loaded), sys.getrefcount(loaded.model)) == before)
    finally:
        gc.enable()


async def test_several_inputs_and_texts_are_rehearsed() -> None:
    text = models.graph(
        [helper.make_node("Identity", ["city"], ["where"]), helper.make_node("Neg", ["age"], ["minus"])],
        [("city", TensorProto.STRING, ["n", 1]), ("age", TensorProto.INT64, ["n"])],
        [("where", TensorProto.STRING, ["n", 1]), ("minus", TensorProto.INT64, ["n"])],
    )
    model = Model(version=3, digest=models.digest(text), data=text)
    sample = {"city": np.array([["Köln"]], object), "age": np.array([31])}
    statuses = await rehearse(PLAN, PLAN.routes[0], _loaded(model, sample, batchable=False))
    assert statuses == {200: FORMS * (ROUNDS + AT_ONCE)}


async def test_a_version_that_fails_its_rehearsal_is_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    picky = models.picky(limit=4)
    model = Model(version=3, digest=models.digest(picky), data=picky)
    statuses = await rehearse(PLAN, PLAN.routes[0], _loaded(model, {"x": np.array([[9]])}))
    assert set(statuses) == {500}
    assert await rehearse(PLAN, PLAN.routes[0], _loaded(model, None)) == {}
    assert {record.name for record in caplog.records} <= {"aks_serving.faults"}  # that it failed is told, nothing else
    wrong = {"another": np.array([[1]])}
    assert await rehearse(PLAN, PLAN.routes[0], _loaded(model, wrong)) == {}
    assert [record.levelname for record in caplog.records if _WRONG.search(record.getMessage())] == ["ERROR"]


async def test_a_version_that_is_slow_is_told_as_no_fault(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "_WITHIN_S", 0.05)
    caplog.set_level(logging.INFO)
    model = Watched(SCALER, version=3)
    model.open.clear()
    assert await rehearse(PLAN, PLAN.routes[0], _loaded(model, _row(), took_s=1e9)) == {}
    model.open.set()
    (record,) = [record for record in caplog.records if record.name == rehearsal.__name__]
    assert (record.levelname, record.exc_info) == ("INFO", None)
    assert record.getMessage().startswith("endpoint churn: version 3 is slow: ")


async def test_large_bodies_are_not_rehearsed() -> None:
    for width, binary in ((200_000, 0), (7_000, ROUNDS)):
        wide = models.scaler(2.0, width=width)
        model = Watched(wide, version=3)
        statuses = await rehearse(PLAN, PLAN.routes[0], _loaded(model, {"x": np.full((1, width), 0.1, np.float32)}))
        # Of that width, one is sent at a time.
        assert sum(statuses.values()) == len(model.ran) == (binary + 1 if binary else 0)


async def test_no_more_is_asked_of_a_version_whose_answers_are_large() -> None:
    broad = models.graph(
        [helper.make_node("Tile", ["x", "times"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("y", TensorProto.FLOAT, ["n", 20_000])],
        {"times": np.array([1, 10_000])},
    )
    model = Watched(broad, version=3)
    assert await rehearse(PLAN, PLAN.routes[0], _loaded(model, _row())) == {200: 1}


class _Slow(Watched):
    """A model of which each run takes the processor some 30 ms."""

    def run(self, feeds: Feeds) -> Any:
        until_s = thread_time() + 0.03
        while thread_time() < until_s:
            pass
        return super().run(feeds)


async def test_a_slow_version_is_run_once_in_each_form() -> None:
    model = _Slow(SCALER, version=3)
    assert await rehearse(PLAN, PLAN.routes[0], _loaded(model, _row(), took_s=1e9)) == {200: FORMS}
    assert len(model.ran) == FORMS


async def test_a_rehearsal_that_took_long_enough_asks_for_no_further_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_ENOUGH_S", 0.0)
    statuses = await rehearse(PLAN, PLAN.routes[0], _loaded(Watched(SCALER, version=3), _row()))
    assert statuses == {200: FORMS * (1 + AT_ONCE)}


async def test_a_rehearsal_ends_where_it_is_cancelled() -> None:
    model = Watched(SCALER, version=3)
    model.open.clear()
    rehearsal = asyncio.create_task(rehearse(PLAN, PLAN.routes[0], _loaded(model, _row(), took_s=1e9)))
    try:
        assert await asyncio.to_thread(model.began.wait, 30)
        rehearsal.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rehearsal
    finally:
        model.open.set()
    await turn()
    assert len(model.ran) == 1


async def test_the_event_loop_turns_between_any_two_requests_of_a_rehearsal() -> None:
    model = Watched(SCALER, version=3)
    turns: list[int] = []
    rehearsal = asyncio.create_task(rehearse(PLAN, PLAN.routes[0], _loaded(model, _row())))
    while not rehearsal.done():
        turns.append(len(model.ran))
        await asyncio.sleep(0)
    runs = [after - before for before, after in pairwise(turns)]
    assert max(runs) == 1
    assert sum(runs) > FORMS * ROUNDS


async def test_a_version_is_rehearsed_before_it_serves_and_nothing_counts_it(
    start: Start, storage: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = models.scaler(1.0), models.scaler(2.0)
    storage.put(one, two)
    plan: RoutePlan = models.plan(1, *models.canary((1, one), (2, two), 5_000))
    storage.publish(plan)
    caplog.set_level(logging.INFO)
    async with start(rehearsal_rounds=ROUNDS) as running:
        await running.reload()
        said = [record.getMessage() for record in caplog.records]
        served = next(place for place, line in enumerate(said) if line.startswith("endpoint churn: generation 1"))
        for version in (1, 2):
            answered = {200: FORMS * (ROUNDS + AT_ONCE)}
            line = f"endpoint churn: version {version} is rehearsed, answers by status: {answered}"
            assert said.index(line) < served
        serving = running.server.servings["churn"]
        for lane in serving.lanes.values():
            statuses = await rehearse(plan, serving.routes[lane.model.version], replace(lane.loaded))
            assert statuses[200] == FORMS * (ROUNDS + AT_ONCE), "the loader kept a sample that the version takes"
            assert not lane.runs.any
            assert lane.last_run_s == 0.0
        assert running.server.totals() == {"churn": {}}
        assert running.server.facts().refused == {"churn": {}}
        assert (running.server.engine.waiting, serving.tally.in_flight, serving.seen) == (0, 0, [0, 0, 0, 0])
        text = (await running.client.get("/metrics")).text
        assert "model_prediction_requests_total{" not in text
    assert [window.versions for window in storage.windows()] == [{}] * len(storage.windows())
    assert all(record.levelno < logging.WARNING for record in caplog.records)
