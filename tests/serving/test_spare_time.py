"""Copies run only while the event loop has time to spare, by a clock that the test turns."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from aks_serving import spare as module
from aks_serving.batches import LoadedModel
from aks_serving.model import Model
from aks_serving.spare import Copy, Spare, Target

from shared.telemetry.window import ShadowCounts
from tests.serving import models
from tests.serving.conftest import eventually

pytestmark = pytest.mark.anyio

ONE = models.scaler(1.0)


class _Clock:
    """Time that passes by a millisecond a look, and of which the event loop worked, or waited to work, a share."""

    def __init__(self, *, worked: float, waited: float) -> None:
        self.worked, self.waited = worked, waited
        self.now_s = self._worked_s = self._waited_s = 0.0
        self.looks = 0

    def perf_counter(self) -> float:
        self.now_s += 1e-3
        self._worked_s += 1e-3 * self.worked
        self._waited_s += 1e-3 * self.waited
        return self.now_s

    def thread_time(self) -> float:
        self.looks += 1
        return self._worked_s

    def waited_s(self) -> float:
        return self._waited_s


class _Target(Target):
    endpoint = "churn"

    def __init__(self) -> None:
        self.loaded = LoadedModel(model=Model(version=1, digest=models.digest(ONE), data=ONE), batchable=True)
        self.ran = threading.Event()

    def run(self, copies: Sequence[Copy]) -> ShadowCounts:
        self.ran.set()
        return ShadowCounts(compared=len(copies))

    def count(self, copies: int, counts: ShadowCounts) -> None:
        """Nobody asks."""


@pytest.mark.parametrize(("worked", "waited"), [(0.8, 0.0), (0.0, 0.8), (0.4, 0.4)])
async def test_nothing_runs_while_the_event_loop_is_busy_though_no_request_waits(
    monkeypatch: pytest.MonkeyPatch, worked: float, waited: float
) -> None:
    clock, target = _Clock(worked=worked, waited=waited), _Target()
    monkeypatch.setattr(module, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(module, "thread_time", clock.thread_time)
    monkeypatch.setattr(module, "_waited_s", clock.waited_s)
    spare = Spare(lambda: False, max_age_s=float("inf"))
    try:
        assert spare.offer(target, Copy([np.ones((1, 2), np.float32)], rows=1))
        await eventually(lambda: clock.looks > 4 or target.ran.is_set())
        assert (target.ran.is_set(), spare.waiting) == (False, 1)
        clock.worked, clock.waited = worked * 0.9, waited * 0.9
        await eventually(target.ran.is_set)
        assert spare.waiting == 0
    finally:
        spare.close()


async def test_while_there_is_no_time_few_copies_are_kept_from_one_look_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, target = _Clock(worked=0.8, waited=0.0), _Target()
    monkeypatch.setattr(module, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(module, "thread_time", clock.thread_time)
    monkeypatch.setattr(module, "_waited_s", clock.waited_s)
    spare = Spare(lambda: False, max_copies=150, max_age_s=float("inf"))

    def offered(copies: int) -> int:
        return sum(spare.offer(target, Copy([np.ones((1, 2), np.float32)], rows=1)) for _ in range(copies))

    async def looked() -> None:
        looks = clock.looks
        await eventually(lambda: clock.looks > looks)

    try:
        assert offered(100) == 100
        for kept in (16, 16, 16, 2, 0):  # up to the bound of all
            await looked()
            assert spare.is_full == (kept == 0)
            assert offered(100) == kept
            assert spare.is_full
        clock.worked = 0.1
        await eventually(lambda: spare.waiting == 0)
        assert offered(150) == 150
    finally:
        spare.close()
