"""Shadows get copies in spare capacity, are compared with what was answered, and never touch an answer."""

import asyncio
import math
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aks_serving.asks import PlainAsk
from aks_serving.batches import LoadedModel, Results
from aks_serving.counts import Tally
from aks_serving.engine import Engine
from aks_serving.lanes import Lane
from aks_serving.model import Model
from aks_serving.serving import Face
from aks_serving.shadow import ATOL, RTOL, Mirror, compared
from aks_serving.spare import HANG_S, MAX_COPIES, TICK_S, Copy, Spare, Target
from aks_serving.tensors import Array, Feeds
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.routing.assignment import bucket
from shared.routing.plan import Role, Route
from shared.telemetry.window import ShadowCounts, merge_counts
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import HandServer, Watched, plain, turn

pytestmark = pytest.mark.anyio

ONE, ALSO_ONE, HALF_MORE = models.scaler(1.0), models.scaler(1.00001), models.scaler(1.5)
EVERYTHING = 10_000


def _shadow(version: int, data: bytes, share_bp: int = EVERYTHING) -> Route:
    return models.route(version, data, role=Role.SHADOW, weight=0).model_copy(update={"mirror_bp": share_bp})


def _publish(storage: MemoryStorage, *shadows: tuple[int, bytes], generation: int = 1, stable: bytes = ONE) -> None:
    storage.put(stable, *(data for _, data in shadows))
    routes = [_shadow(version, data) for version, data in shadows]
    storage.publish(models.plan(generation, models.route(1, stable), *routes))


def _counts(running: Running, version: int) -> ShadowCounts:
    tally = running.server.totals().get("churn", {}).get(version)
    return ShadowCounts() if tally is None or tally.shadow is None else tally.shadow


def _over(counts: ShadowCounts, n: int) -> bool:
    return counts.mirrored == n and counts.shed + counts.errors + counts.compared == n


async def test_every_answer_is_compared_with_what_each_shadow_gives(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, (2, ALSO_ONE), (3, HALF_MORE))
    async with start() as running:
        await running.reload()
        answers = await asyncio.gather(*(running.predict([[n, 2 * n]], user_id=n) for n in range(1, 41)))
        assert [answer.json()["predictions"] for answer in answers] == [[[n, 2.0 * n]] for n in range(1, 41)]
        assert {answer.json()["model_version"] for answer in answers} == {1}
        for version in (2, 3):
            await eventually(lambda version=version: _over(_counts(running, version), 40))  # type: ignore[misc]
        alike, other = _counts(running, 2), _counts(running, 3)
        assert (alike.compared, alike.disagreements, alike.numbers) == (40, 0, 80)
        assert (other.compared, other.disagreements, other.numbers) == (40, 40, 80)
        wanted = [0.5 * n * side for n in range(1, 41) for side in (1, 2)]
        assert other.difference == pytest.approx(sum(wanted))
        assert other.difference_squared == pytest.approx(sum(value**2 for value in wanted))
    windows = storage.windows()
    merged = merge_counts([window.versions[3] for window in windows if 3 in window.versions])
    assert merged.shadow == other
    assert (merged.requests, merged.pinned) == (0, 0)


async def test_the_inference_protocol_and_awaited_requests_are_copied_alike(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, (2, HALF_MORE))
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    async with start() as running:
        await running.reload()
        assert (await running.infer(tensor)).status_code == 200
        named = {**tensor, "data": [[1, 2], [3, 4]]}  # nested: not of the usual form
        assert (await running.infer(named)).status_code == 200
        await eventually(lambda: _over(_counts(running, 2), 2))
        assert (_counts(running, 2).disagreements, _counts(running, 2).difference) == (2, 10.0)


async def test_what_the_caller_named_or_sent_wrong_is_not_copied(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, (2, HALF_MORE))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1, 2]], model_version=1)).status_code == 200
        assert (await running.predict([[1, 2]], model_version=2)).json()["predictions"] == [[1.5, 3.0]]
        assert (await running.predict([["no number", 2]])).status_code == 400
        assert (await running.predict([[1, 2]])).status_code == 200
        await eventually(lambda: _over(_counts(running, 2), 1))


async def test_a_shadow_that_fails_is_counted_and_nobody_notices(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, (2, models.picky(limit=4)), stable=models.table())
    async with start() as running:
        await running.reload()
        answers = await asyncio.gather(*(running.predict([[n]]) for n in range(8)))
        assert [answer.json()["predictions"] for answer in answers] == [[[10.0 * n]] for n in range(8)]
        await eventually(lambda: _over(_counts(running, 2), 8))
        counts = _counts(running, 2)
        assert (counts.errors, counts.compared, counts.disagreements) == (4, 4, 0)
    assert all(not window.failed for window in storage.windows())


async def test_a_shadow_that_takes_other_inputs_reads_the_request_itself(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, (2, models.identity("FP64", ["n", 2])), (3, models.scaler(1.0, name="z")))
    async with start() as running:
        await running.reload()
        assert (await running.predict({"x": [[1, 2]]})).status_code == 200
        for version in (2, 3):
            await eventually(lambda version=version: _over(_counts(running, version), 1))  # type: ignore[misc]
        assert (_counts(running, 2).compared, _counts(running, 2).disagreements) == (1, 0)
        assert _counts(running, 3).errors == 1  # it has no input x


async def test_copies_are_accounted_for_over_a_change_of_plan_and_a_stop(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, (2, HALF_MORE))
    async with start(window_s=0.05) as running:
        await running.reload()
        await asyncio.gather(*(running.predict([[n, n]]) for n in range(30)))
        _publish(storage, (2, HALF_MORE), generation=2)
        await running.reload()
        await asyncio.gather(*(running.predict([[n, n]]) for n in range(30)))
    found = [window.versions[2].shadow for window in storage.windows() if 2 in window.versions]
    total = [sum(getattr(c, n) for c in found if c) for n in ("mirrored", "shed", "errors", "compared")]
    assert total[0] == 60
    assert total[1] + total[2] + total[3] == 60


@pytest.mark.parametrize("share_bp", [EVERYTHING, 5_000])
async def test_answers_of_one_batch_are_copied_while_there_is_room_and_counted_as_shed_beyond(share_bp: int) -> None:
    plan = models.plan(1, models.route(1, ONE), _shadow(2, HALF_MORE, share_bp), _shadow(3, ONE))
    versions = {version: Watched(data, version=version) for version, data in ((1, ONE), (2, HALF_MORE), (3, ONE))}
    server = HandServer(plan, versions, inline=True, max_queue=2 * MAX_COPIES)
    users = [f"user-{n}" for n in range(MAX_COPIES + 500)]
    asked = [plain([[n, 1.0]], user_id=user) for n, user in enumerate(users)]
    server.ask(*asked)
    await server.idle()
    server.close()
    assert [one.json()["predictions"] for one in asked] == [[[n, 1.0]] for n in range(len(asked))]
    server.serving.count_runs()
    chooses = _mirror(share_bp, plan.salt).chooses
    for version, copied in ((2, sum(chooses(user) for user in users)), (3, len(users))):
        counts = server.serving.tally.of(version).counts().shadow
        assert counts is not None
        assert _over(counts, copied)
        assert counts.shed > 0
        assert counts.compared > 0
        assert counts.disagreements == (counts.compared if version == 2 else 0)


@pytest.mark.parametrize("is_full", [False, True])
async def test_of_a_batch_only_what_was_answered_is_copied(monkeypatch: pytest.MonkeyPatch, *, is_full: bool) -> None:
    if is_full:
        monkeypatch.setattr(Spare, "is_full", True)
    plan = models.plan(1, models.route(1, ONE), _shadow(2, ONE))
    shadow = Watched(ONE, version=2)
    server = HandServer(plan, {1: Watched(ONE), 2: shadow}, inline=True)
    write = PlainAsk.write

    def failing(ask: PlainAsk, face: Face, number: bytes, results: Results, start: int, *rest: Any) -> None:
        if start == 1:
            raise LookupError("the server has a defect, says the test")
        if start == 2:
            raise InvalidInputError("it cannot be given, says the test")
        write(ask, face, number, results, start, *rest)

    monkeypatch.setattr(PlainAsk, "write", failing)
    asked = [plain([[n, 1.0]]) for n in range(5)]
    server.ask(*asked)
    await server.idle()
    server.ask(plain([[5, 1.0]], model_version=1), plain([[6, 1.0]], model_version=1))
    await server.idle()
    server.close()
    assert [one.status for one in asked] == [200, 500, 400, 200, 200]
    server.serving.count_runs()
    counts = server.serving.tally.of(2).counts().shadow
    assert counts is not None
    assert _over(counts, 3)
    assert shadow.ran == ([] if is_full else [[[0.0, 1.0], [3.0, 1.0], [4.0, 1.0]]])


async def test_a_shadow_that_is_not_loaded_is_reported_and_gets_nothing(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, (2, b"no model"))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1, 2]])).status_code == 200
    assert "ONNX Runtime cannot load" in storage.windows()[0].failed[2]
    assert all(2 not in window.versions for window in storage.windows())


class _Model(Target):
    """A target that runs what the test wants it to, and keeps what it is told."""

    endpoint = "churn"

    def __init__(self, data: bytes = ONE) -> None:
        model = Model(version=1, digest=models.digest(data), data=data)
        self.loaded = LoadedModel(model=model, batchable=True)
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self.batches: list[int] = []
        self.niceness: set[int] = set()
        self.counted = ShadowCounts()
        self.copies = 0

    def run(self, copies: Sequence[Copy]) -> ShadowCounts:
        self.batches.append(len(copies))
        self.niceness.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.began.set()
        assert self.go.wait(30)
        return ShadowCounts(compared=len(copies))

    def count(self, copies: int, counts: ShadowCounts) -> None:
        self.copies += copies
        for name in ("compared", "shed", "errors"):
            setattr(self.counted, name, getattr(self.counted, name) + getattr(counts, name))


class _Requests:
    """Whether requests wait, as the test says."""

    def __init__(self, *, waiting: bool = False) -> None:
        self.waiting = waiting

    def __call__(self) -> bool:
        return self.waiting


@asynccontextmanager
async def _spare(busy: _Requests | None = None, **limits: Any) -> AsyncIterator[Spare]:
    spare = Spare(busy or _Requests(), **limits)
    try:
        yield spare
    finally:
        spare.close()


def _copy(rows: int | None = 1, size: int = 2) -> Copy:
    data = np.ones((rows or 1, size), np.float32)
    return Copy([data], packed=data.tobytes(), rows=rows)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_copies_run_in_batches_on_a_thread_of_the_lowest_priority() -> None:
    target = _Model()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    async with _spare() as spare:
        assert all(spare.offer(target, _copy()) for _ in range(300))
        await eventually(lambda: target.counted.compared == 300)
        assert target.batches == [128, 128, 44]
        assert target.niceness == {19}
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


async def test_a_copy_that_must_run_alone_does() -> None:
    target = _Model()
    async with _spare() as spare:
        assert all(spare.offer(target, _copy(rows)) for rows in (None, 100, 100, None, 20))
        await eventually(lambda: target.copies == 5)
        assert sorted(target.batches) == [1, 1, 1, 2]


async def test_nothing_runs_while_a_request_waits_and_what_waits_too_long_is_shed() -> None:
    target, busy = _Model(), _Requests(waiting=True)
    async with _spare(busy, max_age_s=0.1) as spare:
        assert spare.offer(target, _copy())
        await eventually(lambda: target.copies == 1)
        assert (target.counted.shed, target.batches) == (1, [])
        assert spare.waiting == 0
        busy.waiting = False
        assert spare.offer(target, _copy())
        await eventually(lambda: target.counted.compared == 1)


async def test_the_queue_is_bounded_by_number_and_by_bytes() -> None:
    target = _Model()
    async with _spare(_Requests(waiting=True), max_copies=3) as spare:
        assert [spare.offer(target, _copy()) for _ in range(5)] == [True] * 3 + [False] * 2
    assert target.counted.shed == 3  # at its end it sheds what waits
    async with _spare(_Requests(waiting=True), max_bytes=10_000) as spare:
        # A copy of 1,000 values holds 4,000 bytes of inputs and as many of the answer.
        assert [spare.offer(target, _copy(size=1000)) for _ in range(2)] == [True, False]
        assert spare.offer(target, _copy())
    texts = np.array(["x" * 6_000], np.object_)
    small = _copy().given
    for copies in (
        [Copy(small, feeds={"text": texts}) for _ in range(2)],
        [Copy([texts]) for _ in range(2)],
        [Copy(small, held_bytes=6_000) for _ in range(2)],
    ):
        async with _spare(_Requests(waiting=True), max_bytes=10_000) as spare:
            # Texts count by their lengths, and what a copy is read from anew counts as well.
            assert [spare.offer(target, copy) for copy in copies] == [True, False]


class _LoopClock:
    """The event loop's clock, which jumps ahead when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._jumped_s, time = 0.0, loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self._jumped_s)

    async def jump(self, by_s: float) -> None:
        self._jumped_s += by_s
        await turn()  # what is due comes


async def test_a_run_that_hangs_is_left_alone_and_others_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _LoopClock(monkeypatch)
    hanging, other = _Model(), _Model(HALF_MORE)
    hanging.go.clear()
    try:
        async with _spare() as spare:
            assert spare.offer(hanging, _copy())
            await eventually(hanging.began.is_set)
            assert spare.offer(hanging, _copy())
            assert spare.offer(other, _copy())
            for _ in range(math.ceil(HANG_S / TICK_S)):
                await clock.jump(TICK_S)
            await eventually(lambda: other.counted.compared == 1)
            assert (hanging.counted.errors, hanging.counted.shed, hanging.copies) == (1, 1, 2)
            assert "endpoint churn: version 1 hangs on a copy" in caplog.text
            assert not spare.offer(hanging, _copy())
            assert len(hanging.batches) == 1
            hanging.go.set()
            assert spare.offer(other, _copy())
            await eventually(lambda: other.counted.compared == 2)
            assert hanging.counted.compared == 0  # what came too late counts once, as the error that it was
    finally:
        hanging.go.set()


async def test_a_machine_that_slept_finds_no_copy_hanging(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, target = _LoopClock(monkeypatch), _Model()
    target.go.clear()
    try:
        async with _spare() as spare:
            assert spare.offer(target, _copy())
            await eventually(target.began.is_set)
            await clock.jump(86_400.0)
            target.go.set()
            await eventually(lambda: target.copies == 1)
            assert target.counted.compared == 1
            assert spare.offer(target, _copy())
            await eventually(lambda: target.counted.compared == 2)
    finally:
        target.go.set()
    assert caplog.messages == []


async def test_what_runs_at_the_end_is_accounted_for_as_shed() -> None:
    target = _Model()
    target.go.clear()
    try:
        async with _spare() as spare:
            assert spare.offer(target, _copy())
            await eventually(target.began.is_set)
            assert spare.offer(target, _copy())
        assert (target.counted.shed, target.copies) == (2, 2)
        assert not spare.offer(target, _copy())
    finally:
        target.go.set()


async def test_a_target_that_raises_loses_its_batch_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(_Model):
        def run(self, copies: Sequence[Copy]) -> ShadowCounts:
            if len(self.batches) == 0:
                self.batches.append(len(copies))
                raise RuntimeError("says the test")
            return super().run(copies)

    target = Raising()
    async with _spare() as spare:
        assert spare.offer(target, _copy())
        await eventually(lambda: target.counted.errors == 1)
        assert "endpoint churn: version 1: copies were lost" in caplog.text
        assert spare.offer(target, _copy())
        await eventually(lambda: target.counted.compared == 1)


def _mirror(share_bp: int, salt: str = "salt", version: int = 2) -> Mirror:
    loaded = LoadedModel(model=Model(version=version, digest=models.digest(ONE), data=ONE), batchable=True)
    lane = Lane(loaded, Engine(max_queue=1))
    route = _shadow(version, ONE, share_bp)
    return Mirror(route, lane, Tally(), lane.spare, plan=models.plan(1, route, salt=salt))


async def test_the_share_is_drawn_by_subject_apart_from_the_assignment() -> None:
    subjects = [f"user-{n}" for n in range(4000)]
    some, more, other = _mirror(2_500), _mirror(5_000), _mirror(2_500, version=3)
    chosen = {s for s in subjects if some.chooses(s)}
    assert chosen == {s for s in subjects if some.chooses(s)}
    assert chosen < {s for s in subjects if more.chooses(s)}, "a larger share only adds"
    # 4,000 draws at 25 % have a standard deviation of 27; five of them on either side.
    assert 863 <= len(chosen) <= 1137
    on_candidate = {s for s in subjects if bucket("salt", s) < 2_500}
    both = {s for s in subjects if other.chooses(s)}
    # Independent: a quarter of a quarter, 250 with a standard deviation of 15.
    assert 175 <= len(chosen & on_candidate) <= 325
    assert 175 <= len(chosen & both) <= 325
    without = sum(some.chooses(None) for _ in range(4000))
    assert 700 <= without <= 1300
    assert not any(_mirror(0).chooses(s) for s in (*subjects, None))


def _floats(*values: float) -> Array:
    return np.array([values], np.float32).reshape(-1, 1)


@pytest.mark.parametrize(
    ("answer", "shown", "disagrees"),
    [
        (_floats(1.0), _floats(1.0 + 0.9 * RTOL), False),
        (_floats(1.0), _floats(1.0 + 1.2 * RTOL), True),
        (_floats(0.0), _floats(0.9 * ATOL), False),
        (_floats(0.0), _floats(1.2 * ATOL), True),
        (_floats(math.nan), _floats(math.nan), False),
        (_floats(math.nan), _floats(1.0), True),
        (_floats(math.inf), _floats(math.inf), False),
        (_floats(math.inf), _floats(1.0), True),
        (_floats(1.0), _floats(-math.inf), True),
        (_floats(1.0), _floats(1.0, 1.0), True),
        (np.array([1, 0]), np.array([1, 0]), False),
        (np.array([1, 0]), np.array([1, 1]), True),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), False),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), True),
        (np.array(["1"], object), np.array([1]), True),
        (np.array(1.0, np.float32), np.array(2.0, np.float32), True),
        (np.array([1.0], np.float16), np.array([1.0], np.float64), False),
    ],
)
def test_when_answers_agree(answer: Array, shown: Array, *, disagrees: bool) -> None:
    counts = compared([[answer]], [shown])
    assert (counts.compared, counts.disagreements) == (1, int(disagrees))
    assert math.isfinite(counts.difference)
    assert math.isfinite(counts.difference_squared)


def test_values_without_a_finite_difference_enter_no_sum() -> None:
    answer = np.array([[1.0, math.nan, math.inf, 1e300, 2.0]])
    shown = np.array([[1.5, 1.0, math.inf, -1e300, 1.0]])
    counts = compared([[answer]], [shown])
    assert (counts.numbers, counts.difference, counts.difference_squared) == (2, -0.5, 1.25)


def test_a_classifiers_label_decides_and_its_probabilities_are_summed() -> None:
    answer = [np.array([0, 1]), np.array([[0.75, 0.25], [0.25, 0.75]])]
    shown = [np.array([0, 1]), np.array([[0.5, 0.5], [0.25, 0.75]])]
    counts = compared([answer], shown)
    assert (counts.disagreements, counts.numbers, counts.difference, counts.difference_squared) == (0, 4, 0.0, 0.125)


_NUMBERS = st.floats(-1e16, 1e16) | st.floats(-3, 3)
"""Of which squares of millionths are beyond what a float sums exactly, and differences beyond what is summed."""


@given(
    requests=st.lists(
        st.lists(
            st.tuples(st.sampled_from([0.0, 1.0, math.nan]), st.sampled_from([0.0, 1.0, math.inf]) | _NUMBERS),
            min_size=1,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_comparing_together_equals_comparing_one_by_one(requests: list[list[tuple[float, float]]]) -> None:
    given_ = [[np.array([[a] for a, _ in rows])] for rows in requests]
    shown = [np.array([[b] for _, b in rows]) for rows in requests]
    together = compared(given_, [np.concatenate(shown)])
    single = [compared([part], [show]) for part, show in zip(given_, shown, strict=True)]
    for name in ShadowCounts.__struct_fields__:
        assert getattr(together, name) == sum(getattr(part, name) for part in single)


async def test_a_shadow_hangs_in_a_running_server_and_answers_go_on(start: Start, storage: MemoryStorage) -> None:
    class Hanging(Model):
        def run(self, feeds: Feeds) -> Sequence[Array]:
            assert go.wait(30)
            return super().run(feeds)

    go = threading.Event()
    _publish(storage, (2, HALF_MORE))
    async with start() as running:
        await running.reload()
        mirrors = running.server.servings["churn"].mirrors
        assert mirrors is not None
        data = Hanging(version=2, digest=models.digest(HALF_MORE), data=HALF_MORE)
        (mirror,) = mirrors._mirrors
        mirror.loaded = LoadedModel(model=data, batchable=True)
        try:
            for _ in range(3):
                answers = await asyncio.gather(*(running.predict([[n, n]]) for n in range(20)))
                assert all(answer.status_code == 200 for answer in answers)
                await asyncio.sleep(0)
            assert _counts(running, 2).mirrored == 60
            assert _counts(running, 2).compared == 0
        finally:
            go.set()
        await eventually(lambda: _over(_counts(running, 2), 60))
