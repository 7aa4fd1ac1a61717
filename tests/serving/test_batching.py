"""Batches: everyone gets their own, and nobody harms anybody."""

import asyncio
import random
from typing import Any

import numpy as np
import pytest
from aks_serving.counts import Kind, Tally
from aks_serving.engine import MAX_BATCH_ROWS, Engine, Lane
from aks_serving.errors import ModelRunError, OverloadedError
from aks_serving.loader import LoadedModel
from aks_serving.model import Model
from aks_serving.probe import rows_are_independent
from aks_serving.tensors import Feeds

from tests.serving import models
from tests.serving.conftest import Start
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio


class _Watched(Model):
    """A real model that remembers how many rows each of its runs had."""

    def __init__(self, data: bytes) -> None:
        super().__init__(version=1, digest=models.digest(data), data=data)
        self.runs: list[int] = []

    def run(self, feeds: Feeds) -> Any:
        self.runs.append(next(iter(feeds.values())).shape[0])
        return super().run(feeds)


def _lane(model: Model, *, max_queue: int = 1024) -> Lane:
    return Lane(LoadedModel(model=model, batchable=True), Engine(max_queue=max_queue))


async def _ask(lane: Lane, feeds: Feeds, tally: Tally) -> Any:
    return await lane.run(feeds, kind=Kind.ASSIGNED, tally=tally, started_s=0.0)


async def test_calls_of_one_turn_run_as_one_batch_and_each_gets_its_rows() -> None:
    model = _Watched(models.scaler(3.0))
    lane, tally = _lane(model), Tally()
    inputs = [np.full((rows, 2), number, np.float32) for number, rows in enumerate([1, 3, 2, 1, 1])]
    answers = await asyncio.gather(*(_ask(lane, {"x": array}, tally) for array in inputs))
    for array, (output,) in zip(inputs, answers, strict=True):
        assert np.array_equal(output, array * 3)
    assert model.runs == [8]
    assert tally.versions[1].requests == 5
    assert tally.in_flight == 0


async def test_calls_of_different_shapes_run_as_a_batch_each() -> None:
    model = _Watched(models.scaler(3.0, width="m"))
    lane, tally = _lane(model), Tally()
    inputs = [np.full((1, 1 + number % 2), number, np.float32) for number in range(9)]
    answers = await asyncio.gather(*(_ask(lane, {"x": array}, tally) for array in inputs))
    assert all(np.array_equal(output, array * 3) for array, (output,) in zip(inputs, answers, strict=True))
    assert model.runs == [5, 4]


async def test_a_batch_has_a_largest_size_that_a_single_larger_call_may_exceed() -> None:
    model = _Watched(models.scaler(1.0))
    lane, tally = _lane(model), Tally()
    sizes = [MAX_BATCH_ROWS, 1, MAX_BATCH_ROWS + 5, 1]
    await asyncio.gather(*(_ask(lane, {"x": np.zeros((rows, 2), np.float32)}, tally) for rows in sizes))
    assert sorted(model.runs) == sorted([MAX_BATCH_ROWS, 2, MAX_BATCH_ROWS + 5])


async def test_only_the_guilty_call_of_a_failing_batch_fails() -> None:
    model = _Watched(models.picky(limit=4))
    lane, tally = _lane(model), Tally()
    indices = [0, 1, 99, 3, 2]
    answers: list[Any] = await asyncio.gather(
        *(_ask(lane, {"x": np.array([[index]], np.int64)}, tally) for index in indices), return_exceptions=True
    )
    assert isinstance(answers[2], ModelRunError)
    for position in (0, 1, 3, 4):
        assert answers[position][0].tolist() == [[indices[position] * 10.0]]
    assert model.runs == [5, 1, 1, 1, 1, 1]
    assert (tally.versions[1].requests, tally.versions[1].errors) == (5, 1)


async def test_a_cancelled_caller_harms_no_one_and_is_not_run() -> None:
    model = _Watched(models.scaler(2.0))
    lane, tally = _lane(model), Tally()
    calls = [asyncio.create_task(_ask(lane, {"x": np.full((1, 2), n, np.float32)}, tally)) for n in range(6)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[3].cancel()
    answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, asyncio.CancelledError)] == [0, 3]
    assert [answers[n][0].tolist() for n in (1, 2, 4, 5)] == [[[n * 2.0] * 2] for n in (1, 2, 4, 5)]
    assert model.runs == [4]
    assert (tally.versions[1].requests, tally.in_flight) == (4, 0)


async def test_more_calls_than_the_queue_holds_are_refused_and_room_comes_back() -> None:
    lane, tally = _lane(_Watched(models.scaler(2.0)), max_queue=5), Tally()
    feeds = {"x": np.ones((1, 2), np.float32)}
    answers = await asyncio.gather(*(_ask(lane, feeds, tally) for _ in range(8)), return_exceptions=True)
    assert [isinstance(answer, OverloadedError) for answer in answers] == [False] * 5 + [True] * 3
    assert (await _ask(lane, feeds, tally))[0].tolist() == [[2.0, 2.0]]
    assert tally.versions[1].requests == 6


async def test_overload_is_answered_503_with_retry_after(start: Start, storage: MemoryStorage) -> None:
    data = models.scaler(2.0)
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start(max_queue=1) as running:
        await running.reload()
        answers = await asyncio.gather(*(running.predict([[1, 1]]) for _ in range(40)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert any(answer.status_code == 200 for answer in answers)
        assert running.server.waiting == 0


def _columns() -> bytes:
    """Two inputs of any width, strings and floats, row by row."""
    from onnx import TensorProto, helper

    return models.graph(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=1),
            helper.make_node("Identity", ["s"], ["label"]),
        ],
        [("x", models.FLOAT, ["n", "m"]), ("s", TensorProto.STRING, ["n", 1])],
        [("total", models.FLOAT, ["n", 1]), ("label", TensorProto.STRING, ["n", 1])],
        {"axes": np.array([1], np.int64)},
    )


async def test_two_thousand_mixed_requests_equal_unbatched_ones(start: Start, storage: MemoryStorage) -> None:
    data = _columns()
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    rng = random.Random(7)

    async def one(running: Any, number: int) -> bool:
        rows, width = rng.randint(1, 5), rng.randint(1, 4)
        x = [[float(rng.randint(-99, 99)) for _ in range(width)] for _ in range(rows)]
        s = [[f"{number}/{row}"] for row in range(rows)]
        answer = (await running.predict({"x": x, "s": s}, user_id=number)).json()
        good: bool = answer["outputs"] == {"total": [[sum(row)] for row in x], "label": s}
        return good

    async with start(max_queue=3000) as running:
        await running.reload()
        assert running.server.servings["churn"].lanes[1].batchable
        for _ in range(4):
            assert all(await asyncio.gather(*(one(running, number) for number in range(500))))


@pytest.mark.parametrize(
    ("data", "batchable"),
    [
        (models.scaler(2.0), True),
        (models.identity("BYTES"), True),
        (models.picky(), True),
        (models.column_softmax(), False),
        (models.identity("FP32", (1, 2)), False),
        (models.identity("FP32", ()), False),
        (_columns(), True),
    ],
    ids=["rows", "strings", "table", "softmax over rows", "fixed", "scalar", "two inputs"],
)
async def test_only_models_that_keep_rows_apart_are_batched(data: bytes, *, batchable: bool) -> None:
    model = Model(version=1, digest="", data=data)
    assert rows_are_independent(model, ()) is batchable


async def test_golden_rows_show_what_made_up_rows_do_not() -> None:
    model = Model(version=1, digest="", data=models.column_softmax())
    assert rows_are_independent(model, [{"x": np.array([[1, 2], [3, 4]], np.float32)}]) is False
    model = Model(version=1, digest="", data=models.scaler(1.0))
    assert rows_are_independent(model, [{"x": np.array([[1, 2], [3, 4]], np.float32)}]) is True


async def test_a_model_whose_rows_influence_each_other_answers_callers_apart(
    start: Start, storage: MemoryStorage
) -> None:
    data = models.column_softmax()
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        await running.reload()
        answers = await asyncio.gather(*(running.predict([[n, n]]) for n in range(20)))
        assert all(answer.json()["predictions"] == [[1.0, 1.0]] for answer in answers)
