"""Sees model runs that hang, and deadlines that pass while a run takes long.

A run on a thread of the engine that hangs is left to it: its callers are answered by stable where it may stand in,
another thread goes on, and the process asks to be replaced, since the thread and what it holds are lost. A run on the
event loop that hangs stops everything: a thread of the watchdog's own sees it and ends the process, and its parent
starts another. Either way the version, unless it is stable, is tripped first, and the trip outlives the process.

Where a run takes long and its callers allow little time, stable answers them while they wait, and the run goes on
apart, one at a time: only when it takes as long as a run that hangs is it one. Stable also answers what waits for long
in a half of a batch that failed. What time a caller allows trips nothing.

Time is counted in the watchdog's own ticks, each for no more than a few times its length, so that a process or machine
that stood still finds nothing hanging when it goes on.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from time import perf_counter
from weakref import WeakSet

from aks_serving.batches import Outcome
from aks_serving.engine import Engine, RunThread
from aks_serving.errors import LateError, ModelRunError
from aks_serving.lanes import Lane
from aks_serving.predictor import divert_late_halves
from aks_serving.serving import Serving
from shared.routing.plan import Role

log = logging.getLogger(__name__)

SWEEP_S = 0.05
_STOOD_STILL = 4
"""A tick counts for at most so many times its length."""
_IMPATIENT_S, _IMPATIENT_FACTOR = 1.0, 10.0
"""A run of a version that stable can stand in for is left apart where half of a caller's time is gone, if it took at
least so long, and so many times what such runs took before."""


class Watchdog:
    """Watches the lanes of one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        servings: Callable[[], Mapping[str, Serving]],
        hang_s: float,
        replace: Callable[[], None],
    ) -> None:
        """`replace` is called, on the loop, when a run was left behind."""
        self._engine = engine
        self._servings = servings
        self._hang_s = hang_s
        self._replace = replace
        self._lanes: WeakSet[Lane] = WeakSet()
        self._timer: asyncio.TimerHandle | None = None
        self._swept_s = perf_counter()
        self._heads: dict[RunThread, _Head] = {}
        """The run of each thread, as of the last sweep."""
        self._apart: _Apart | None = None
        """What was left to its thread, and may yet end."""

    def watch(self, lane: Lane) -> None:
        """Watch a lane for as long as it lives."""
        self._lanes.add(lane)

    def start(self) -> None:
        """Begin to sweep, on the running event loop."""
        self._swept_s = perf_counter()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._swept)

    def close(self) -> None:
        """Stop sweeping."""
        if self._timer is not None:
            self._timer.cancel()

    def sweep(self, now_s: float) -> None:
        """Fail what waits and is late, give stable what a candidate's failed batch holds up, and leave behind what
        hangs. Called by itself, every `SWEEP_S`.
        """
        passed_s = min(now_s - self._swept_s, SWEEP_S * _STOOD_STILL)
        self._swept_s = now_s
        if self._apart is not None:
            self._look_apart(self._apart, passed_s)
        if not self._engine.waiting:
            self._heads.clear()
            return
        for lane in tuple(self._lanes):
            if not lane.idle:
                lane.expire(now_s)
                divert_late_halves(lane, now_s)
        for thread in self._engine.threads:
            self._look_at_thread(thread, passed_s)

    def _swept(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._swept)
        try:
            self.sweep(perf_counter())
        except Exception:
            log.exception("a sweep over what runs went wrong")

    def _look_at_thread(self, thread: RunThread, passed_s: float) -> None:
        lane, head = thread.lane, self._heads.pop(thread, None)
        if lane is None or not lane.running_beside:
            return
        if head is None or head.lane is not lane or head.begun_s != lane.last_run_s:
            self._heads[thread] = _Head(lane)
            return
        head.ran_s += passed_s
        ran_s = head.ran_s
        if ran_s >= self._hang_s:
            thread.replace()
            self._convict(lane, ran_s)
            lane.give_up(ModelRunError(lane.model.version, f"it did not end within {ran_s:.1f} s"))
        elif self._apart is None and ran_s >= self._patience_s(lane):
            log.warning("a run of version %d takes long, %.1f s so far; it goes on apart", lane.model.version, ran_s)
            thread.replace()
            self._apart = _Apart(lane, lane.give_up(LateError(lane.model.version, ran_s)), ran_s)
        else:
            self._heads[thread] = head

    def _look_apart(self, apart: "_Apart", passed_s: float) -> None:
        apart.ran_s += passed_s
        if apart.run.done():
            self._apart = None
        elif apart.ran_s >= self._hang_s:
            self._apart = None
            self._convict(apart.lane, apart.ran_s)

    def _patience_s(self, lane: Lane) -> float:
        found = _serving_of(self._servings(), lane)
        stable = None if found is None else found.stable
        if found is None or stable is None or found.lanes.get(stable.version) in {None, lane}:
            return self._hang_s
        calls = lane.running_beside
        expected_s = lane.times.expected_s(sum(call.input_bytes for call in calls))
        allowed_s = min(call.deadline_s - call.started_s for call in calls) / 2
        return max(_IMPATIENT_S, _IMPATIENT_FACTOR * expected_s, allowed_s)

    def _convict(self, lane: Lane, ran_s: float) -> None:
        """Take a version that hangs out of traffic, and have the process replaced, since its thread is lost."""
        log.error("a run of version %d hangs, since %.1f s; it is left behind", lane.model.version, ran_s)
        for serving, why in convicted(self._servings(), lane, ran_s):
            if serving.guard is not None:
                serving.guard.trip(why)
        self._replace()


class _Head:
    """A run on a thread, and how long it was seen to go on."""

    __slots__ = ("begun_s", "lane", "ran_s")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.begun_s = lane.last_run_s
        self.ran_s = 0.0


class _Apart:
    """A run that goes on apart."""

    __slots__ = ("lane", "ran_s", "run")

    def __init__(self, lane: Lane, run: Future[Outcome], ran_s: float) -> None:
        self.lane = lane
        self.run = run
        self.ran_s = ran_s


class LoopWatch:
    """A thread that sees when a model's run holds the event loop for too long. Only in a process that may be ended."""

    def __init__(
        self, engine: Engine, *, hang_s: float, found: Callable[[Lane, float], None], end: Callable[[], None]
    ) -> None:
        """On the thread, `found` is called with what hangs and for how long, and then `end`, which ends the process."""
        self._engine = engine
        self._hang_s = hang_s
        self._found = found
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()

    def _run(self) -> None:
        tick_s = min(self._hang_s / 10, 1.0)
        seen: tuple[Lane, float] | None = None
        looked_s, ran_s = perf_counter(), 0.0
        while not self._stop.wait(tick_s):
            running, now_s = self._engine.running_here, perf_counter()
            passed_s, looked_s = now_s - looked_s, now_s
            if running is None or running is not seen:
                seen, ran_s = running, 0.0
                continue
            ran_s += min(passed_s, tick_s * _STOOD_STILL)
            if ran_s >= self._hang_s:
                log.error("a run of version %d holds the event loop since %.1f s", running[0].model.version, ran_s)
                try:
                    self._found(running[0], ran_s)
                except Exception:
                    log.exception("that a run hangs cannot be kept")
                self._end()
                return


def convicted(servings: Mapping[str, Serving], lane: Lane, ran_s: float) -> list[tuple[Serving, str]]:
    """The endpoints, at most one, of which a version that hung is to get no more traffic, and why: never a stable."""
    serving, version = _serving_of(servings, lane), lane.model.version
    if serving is None or serving.routes[version].role is Role.STABLE:
        return []
    return [(serving, f"a run of version {version} hung: it did not end within {ran_s:.1f} s")]


def _serving_of(servings: Mapping[str, Serving], lane: Lane) -> Serving | None:
    """What answers an endpoint with this lane, or None where it was replaced meanwhile."""
    return next((s for s in servings.values() if s.lanes.get(lane.model.version) is lane), None)
