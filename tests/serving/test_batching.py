"""Batches: everyone gets their own, and nobody harms anybody."""

import asyncio
import math
import random
import threading
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import pytest
from aks_serving.batches import LoadedModel, Results, bytes_of
from aks_serving.calls import LOW, NORMAL, URGENT, Call
from aks_serving.counts import Kind, VersionTally
from aks_serving.engine import Engine
from aks_serving.errors import ExpiredError, ModelRunError, OverloadedError
from aks_serving.lanes import Lane
from aks_serving.model import Model
from aks_serving.probe import row_count, rows_are_independent
from aks_serving.queues import MAX_BATCH_ROWS
from aks_serving.tensors import Feeds

from shared.core.errors import SlipwayError
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


def _lane(model: Model, *, max_queue: int = 1024, inline: bool = False) -> Lane:
    loaded = LoadedModel(model=model, batchable=True, run_times_s=((1, 1e-6),) if inline else ())
    return Lane(loaded, Engine(max_queue=max_queue))


class _Waiting(Call):
    """A call that a coroutine waits for, and that counts what became of it."""

    def __init__(self, feeds: Feeds, tally: VersionTally, deadline_s: float, priority: int) -> None:
        self.feeds, self.packed, self.rows = feeds, None, row_count(feeds)
        self.input_bytes, self.held_bytes = bytes_of(feeds), 0
        self.key = tuple(array.shape[1:] for array in feeds.values())
        self.deadline_s, self.priority, self.started_s = deadline_s, priority, 0.0
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.tally = tally

    @property
    def gone(self) -> bool:
        return self.future.done()

    def answered(self, results: Results, start: int, stop: int, now_s: float) -> None:
        self.tally.answered(Kind.ASSIGNED, now_s)
        if not self.future.done():
            self.future.set_result(results.of(start, stop))

    def failed(self, error: SlipwayError) -> None:
        self.tally.failed(Kind.ASSIGNED)
        if not self.future.done():
            self.future.set_exception(error)

    def dropped(self) -> None:
        pass


async def _ask(
    lane: Lane, feeds: Feeds, tally: VersionTally, *, deadline_s: float = math.inf, priority: int = NORMAL
) -> Any:
    call = _Waiting(feeds, tally, deadline_s, priority)
    lane.submit(call)
    return await call.future


async def test_calls_of_one_turn_run_as_one_batch_and_each_gets_its_rows() -> None:
    model = _Watched(models.scaler(3.0))
    lane, tally = _lane(model), VersionTally()
    inputs = [np.full((rows, 2), number, np.float32) for number, rows in enumerate([1, 3, 2, 1, 1])]
    answers = await asyncio.gather(*(_ask(lane, {"x": array}, tally) for array in inputs))
    for array, (output,) in zip(inputs, answers, strict=True):
        assert np.array_equal(output, array * 3)
    assert model.runs == [8]
    assert tally.requests == 5
    assert lane.idle


async def test_calls_of_different_shapes_run_as_a_batch_each() -> None:
    model = _Watched(models.scaler(3.0, width="m"))
    lane, tally = _lane(model), VersionTally()
    inputs = [np.full((1, 1 + number % 2), number, np.float32) for number in range(9)]
    answers = await asyncio.gather(*(_ask(lane, {"x": array}, tally) for array in inputs))
    assert all(np.array_equal(output, array * 3) for array, (output,) in zip(inputs, answers, strict=True))
    assert model.runs == [5, 4]


async def test_a_batch_has_a_largest_size_that_a_single_larger_call_may_exceed() -> None:
    model = _Watched(models.scaler(1.0))
    lane, tally = _lane(model), VersionTally()
    sizes = [MAX_BATCH_ROWS, 1, MAX_BATCH_ROWS + 5, 1]
    await asyncio.gather(*(_ask(lane, {"x": np.zeros((rows, 2), np.float32)}, tally) for rows in sizes))
    assert sorted(model.runs) == sorted([MAX_BATCH_ROWS, 2, MAX_BATCH_ROWS + 5])


async def test_only_the_guilty_call_of_a_failing_batch_fails() -> None:
    model = _Watched(models.picky(limit=4))
    lane, tally = _lane(model), VersionTally()
    indices = [0, 1, 99, 3, 2]
    answers: list[Any] = await asyncio.gather(
        *(_ask(lane, {"x": np.array([[index]], np.int64)}, tally) for index in indices), return_exceptions=True
    )
    assert isinstance(answers[2], ModelRunError)
    for position in (0, 1, 3, 4):
        assert answers[position][0].tolist() == [[indices[position] * 10.0]]
    assert model.runs == [5, 2, 3, 1, 2]
    assert (tally.requests, tally.errors) == (5, 1)


async def test_of_a_batch_with_rows_that_give_no_finite_number_only_their_calls_fail_and_nothing_runs_again() -> None:
    model = _Watched(models.scaler(3.0))
    lane = Lane(LoadedModel(model=model, batchable=True, allow_nan=False), Engine(max_queue=64))
    tally = VersionTally()
    inputs = [np.full((1 + number % 2, 2), number, np.float32) for number in range(20)]
    inputs[7][1, 0] = np.nan
    inputs[12][0, 1] = np.inf
    answers: list[Any] = await asyncio.gather(*(_ask(lane, {"x": x}, tally) for x in inputs), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, ModelRunError)] == [7, 12]
    assert all(np.array_equal(answers[n][0], inputs[n] * 3) for n in range(20) if n not in {7, 12})
    assert model.runs == [30]
    assert (tally.requests, tally.errors) == (20, 2)


async def test_one_guilty_call_of_many_costs_few_runs() -> None:
    model = _Watched(models.picky(limit=64))
    lane, tally = _lane(model), VersionTally()
    answers: list[Any] = await asyncio.gather(
        *(_ask(lane, {"x": np.array([[99 if n == 37 else n]], np.int64)}, tally) for n in range(64)),
        return_exceptions=True,
    )
    assert [n for n, answer in enumerate(answers) if isinstance(answer, ModelRunError)] == [37]
    assert all(answers[n][0].tolist() == [[n * 10.0]] for n in range(64) if n != 37)
    assert len(model.runs) == 13


async def test_a_large_call_that_must_run_alone_goes_beside_the_loop() -> None:
    threads: list[str] = []

    class Told(_Watched):
        def run(self, feeds: Feeds) -> Any:
            threads.append(threading.current_thread().name)
            return super().run(feeds)

    model = Told(models.column_softmax())
    lane = Lane(LoadedModel(model=model, batchable=False, run_times_s=((8, 1e-5),)), Engine(max_queue=9))
    tally = VersionTally()
    for rows in (1, 200_000):
        call = _Waiting({"x": np.ones((rows, 2), np.float32)}, tally, math.inf, NORMAL)
        call.rows = None
        lane.submit(call)
        await call.future
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("slow-run")


async def test_a_cancelled_caller_harms_no_one_and_is_not_run() -> None:
    model = _Watched(models.scaler(2.0))
    lane, tally = _lane(model), VersionTally()
    calls = [asyncio.create_task(_ask(lane, {"x": np.full((1, 2), n, np.float32)}, tally)) for n in range(6)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[3].cancel()
    answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, asyncio.CancelledError)] == [0, 3]
    assert [answers[n][0].tolist() for n in (1, 2, 4, 5)] == [[[n * 2.0] * 2] for n in (1, 2, 4, 5)]
    assert model.runs == [4]
    assert (tally.requests, lane.idle) == (4, True)


async def test_more_calls_than_the_queue_holds_are_refused_and_room_comes_back() -> None:
    lane, tally = _lane(_Watched(models.scaler(2.0)), max_queue=5), VersionTally()
    feeds = {"x": np.ones((1, 2), np.float32)}
    answers = await asyncio.gather(*(_ask(lane, feeds, tally) for _ in range(8)), return_exceptions=True)
    assert [isinstance(answer, OverloadedError) for answer in answers] == [False] * 5 + [True] * 3
    assert (await _ask(lane, feeds, tally))[0].tolist() == [[2.0, 2.0]]
    assert tally.requests == 6


@pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "beside it"])
async def test_expired_work_never_runs(*, inline: bool) -> None:
    model = _Watched(models.scaler(2.0))
    lane, tally = _lane(model, inline=inline), VersionTally()
    feeds = {"x": np.ones((1, 2), np.float32)}
    answers: Any = await asyncio.gather(
        _ask(lane, feeds, tally, deadline_s=perf_counter()), _ask(lane, feeds, tally), return_exceptions=True
    )
    late, good = answers
    assert isinstance(late, ExpiredError)
    assert good[0].tolist() == [[2.0, 2.0]]
    assert model.runs == [1]
    assert lane.idle


async def test_what_is_urgent_runs_before_what_came_earlier() -> None:
    model = _Watched(models.scaler(2.0))
    lane, tally = _lane(model), VersionTally()
    order: list[int] = []

    async def one(priority: int) -> None:
        # Too many rows to run with another.
        await _ask(lane, {"x": np.ones((MAX_BATCH_ROWS, 2), np.float32)}, tally, priority=priority)
        order.append(priority)

    await asyncio.gather(*(one(priority) for priority in (LOW, NORMAL, URGENT, NORMAL, URGENT)))
    assert order == [URGENT, URGENT, NORMAL, NORMAL, LOW]


async def test_short_runs_stay_on_the_loop_and_long_ones_go_beside_it() -> None:
    class Slow(_Watched):
        """Takes a thousandth of a second of the processor a run, or less by wish."""

        work = True
        threads: list[str]

        def run(self, feeds: Feeds) -> Any:
            self.threads.append(threading.current_thread().name)
            begun_s = thread_time()
            while self.work and thread_time() - begun_s < 2e-3:
                pass
            return super().run(feeds)

    model = Slow(models.scaler(2.0))
    model.threads = []
    lane, tally = _lane(model, inline=True), VersionTally()
    feeds = {"x": np.ones((1, 2), np.float32)}
    for _ in range(10):
        await _ask(lane, feeds, tally)
    assert model.threads[0] == threading.main_thread().name
    assert all(name.startswith("run") for name in model.threads[-3:])
    model.work = False
    for _ in range(60):
        await _ask(lane, feeds, tally)
    assert model.threads[-1] == threading.main_thread().name


async def test_overload_is_answered_429_with_retry_after(start: Start, storage: MemoryStorage) -> None:
    data = models.scaler(2.0)
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start(max_queue=1) as running:
        await running.reload()
        answers = await asyncio.gather(*(running.predict([[1, 1]]) for _ in range(40)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert any(answer.status_code == 200 for answer in answers)
        assert running.server.engine.waiting == 0


async def test_two_thousand_mixed_requests_equal_unbatched_ones(start: Start, storage: MemoryStorage) -> None:
    data = models.totals()
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
        (models.totals(), True),
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


async def test_a_long_batch_gathers_while_every_turn_brings_more_of_it() -> None:
    model = _Watched(models.scaler(3.0))
    loaded = LoadedModel(model=model, batchable=True, run_times_s=((1, 3600.0),))
    lane, tally = Lane(loaded, Engine(max_queue=1024)), VersionTally()

    async def one_after_the_other(count: int) -> list[asyncio.Task[Any]]:
        asks = []
        for _ in range(count):
            asks.append(asyncio.ensure_future(_ask(lane, {"x": np.ones((1, 2), np.float32)}, tally)))
            await asyncio.sleep(0)
        return asks

    await asyncio.gather(*await one_after_the_other(1))  # from now on its runs are known to be long
    before = list(model.runs)
    await asyncio.gather(*await one_after_the_other(9))
    assert model.runs[len(before) :] == [9]
    # One that is urgent, and those that fill a batch, are not waited with.
    urgent = asyncio.ensure_future(_ask(lane, {"x": np.ones((1, 2), np.float32)}, tally, priority=URGENT))
    await asyncio.gather(urgent, *await one_after_the_other(4))
    assert model.runs[len(before) + 1] < 5
    assert lane.idle
