"""Runs models: the calls that reach one version in one turn of the event loop become one batch at the turn's end.

Each caller gets its own rows. A batch that fails is run again one call at a time, so that only the guilty call fails;
a call whose caller went away, or whose deadline passed, does not run. A batch that will be short, by the measured times
of the version's last runs, runs on the event loop, where handing it to a thread would cost more than it; a longer one
runs on the one thread for runs, and calls that come meanwhile make the next batch. What waits or runs is bounded.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any

from aks_serving.batches import BatchKey, LoadedModel, Results, run_calls
from aks_serving.counts import Runs
from aks_serving.errors import ExpiredError, ModelRunError, OverloadedError
from aks_serving.spare import Spare
from aks_serving.tensors import Feeds
from shared.core.errors import SlipwayError

log = logging.getLogger(__name__)

MAX_BATCH_ROWS = 128
_INLINE_S = 0.4e-3
"""A batch that takes less runs on the event loop: handing it to a thread and back costs some 0.1 ms of its own."""
_FORGET = 0.1
URGENT, NORMAL, LOW = range(3)


class Call(ABC):
    """A request's wish to be run by a version; its inputs as aks_serving.batches.Inputs says, its `key` likewise.

    `deadline_s` is a time of perf_counter, or infinity; `priority` 0 runs before 1, and 1 before 2.
    """

    __slots__ = ("deadline_s", "feeds", "key", "packed", "priority", "rows", "started_s")

    packed: bytes | None
    feeds: Feeds | None
    rows: int | None
    key: BatchKey
    deadline_s: float
    priority: int
    started_s: float

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether nobody waits for the result any more."""

    @abstractmethod
    def answered(self, results: Results, start: int, stop: int, now_s: float) -> None:
        """The version ran: the call's are rows `start` to `stop` of the results. Called once, on the event loop."""

    @abstractmethod
    def failed(self, error: SlipwayError) -> None:
        """The version did not run, or failed. Called once, in place of `answered`."""

    @abstractmethod
    def dropped(self) -> None:
        """Nobody waited any more, and it did not run. Called once, in place of `answered`."""


class Engine:
    """The thread on which long runs go, and the bound on what waits or runs. Used from the event loop alone."""

    def __init__(self, *, max_queue: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run")
        self._max_queue = max_queue
        self.spare = Spare(lambda: self.waiting > 0)
        self.waiting = 0
        self.closed = False
        self.running_here: tuple[Lane, float] | None = None
        """The version whose run now holds the event loop, and since when (perf_counter). Other threads may look."""

    def admit(self) -> None:
        """Count one more call. Raises OverloadedError where the queue is full."""
        if self.waiting >= self._max_queue:
            raise OverloadedError(self.waiting)
        self.waiting += 1

    def submit(self, loaded: LoadedModel, calls: Sequence[Call]) -> Future[Any]:
        """Run a batch on the engine's thread."""
        return self._executor.submit(run_calls, loaded, calls)

    def replace_thread(self) -> None:
        """Leave the thread to what hangs on it, and go on with another."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run")

    def close(self) -> None:
        """Let the thread go. What it runs now is not waited for."""
        self.spare.close()
        self.closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)


class RunTimes:
    """How long a version's runs take, by the batch's rows to the next power of two: a mean that forgets."""

    __slots__ = ("_means_s",)

    def __init__(self) -> None:
        self._means_s: list[float] = [0.0] * 32

    def add(self, rows: int, took_s: float) -> None:
        """Learn from a run."""
        place = rows.bit_length()
        mean_s = self._means_s[place]
        self._means_s[place] = took_s if not mean_s else mean_s + _FORGET * (took_s - mean_s)

    def expected_s(self, rows: int) -> float:
        """How long a run will take; infinity where nothing like it was measured. From the nearest size that was."""
        place = rows.bit_length()
        for distance in range(32):
            for near in (place + distance, place - distance):
                if 0 <= near < 32 and self._means_s[near]:
                    return self._means_s[near] * max(1.0, 2.0 ** (place - near))
        return float("inf")


class Lane:
    """The calls of one loaded version."""

    def __init__(self, loaded: LoadedModel, engine: Engine) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.spare = engine.spare
        self.batchable = loaded.batchable
        self.layout = loaded.layout
        self.times = RunTimes()
        self.runs = Runs()
        """What ran since it was last taken into the counts of a snapshot."""
        for rows, took_s in loaded.run_times_s:
            self.times.add(rows, took_s)
        self._engine = engine
        self._queues: tuple[deque[Call], ...] = (deque(), deque(), deque())
        self._loop = asyncio.get_running_loop()
        self._due = False
        self._running: list[Call] | None = None
        self.last_run_s = 0.0
        """When its last run began (perf_counter); 0 before the first."""

    @property
    def running_beside(self) -> Sequence[Call]:
        """The calls that run on the engine's thread, or wait there for another version's; empty where none do."""
        return self._running or ()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self._running is None and not any(self._queues)

    def submit(self, call: Call) -> None:
        """Have a call run in the batch that this turn of the event loop makes. Raises OverloadedError."""
        self._engine.admit()
        self._queues[call.priority].append(call)
        if not self._due and self._running is None:
            self._due = True
            self._loop.call_soon(self._turn)

    def expire(self, now_s: float) -> None:
        """Fail what waits and whose deadline passed: for when a run takes long."""
        for queue in self._queues:
            late = [call for call in queue if call.deadline_s < now_s or call.gone]
            for call in late:
                queue.remove(call)
                self._refuse(call, now_s)

    def give_up(self, error: ModelRunError) -> None:
        """Fail what runs now, which hangs; what waits goes on."""
        batch, self._running = self._running, None
        for call in batch or ():
            self._engine.waiting -= 1
            _tell(call, error)
        self._again()

    def _turn(self) -> None:
        self._due = False
        if self._running is not None:
            return
        batch, rows = self._next_batch()
        if not batch:
            return
        if self.times.expected_s(rows) <= _INLINE_S:
            self._run_here(batch, rows)
            self._again()
        else:
            self._run_beside(batch, rows)

    def _again(self) -> None:
        if not self._due and any(self._queues):
            self._due = True
            self._loop.call_soon(self._turn)

    def _run_here(self, batch: list[Call], rows: int) -> None:
        engine = self._engine
        begun_s = self.last_run_s = perf_counter()
        engine.running_here = self, begun_s
        try:
            outcome: Results | list[Results | ModelRunError] = run_calls(self.loaded, batch)
        except Exception:
            log.exception("a batch of version %d was lost", self.model.version)
            outcome = self._lost(batch)
        engine.running_here = None
        if isinstance(outcome, Results):
            self.times.add(rows, outcome.took_s)
        self._finish(batch, outcome, perf_counter())

    def _run_beside(self, batch: list[Call], rows: int) -> None:
        self._running = batch
        self.last_run_s = perf_counter()
        try:
            running = self._engine.submit(self.loaded, batch)
        except RuntimeError:  # no thread can be started
            log.exception("a batch of version %d was lost", self.model.version)
            self._running = None
            self._finish(batch, self._lost(batch), perf_counter())
            self._again()
            return

        def done(_: Future[Any]) -> None:
            # From the engine's thread; the loop may be gone by then, at a stop.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._done, batch, rows, running)

        running.add_done_callback(done)

    def _done(self, batch: list[Call], rows: int, running: Future[Any]) -> None:
        if self._running is not batch:
            return  # it was given up
        self._running = None
        now_s = perf_counter()
        if running.cancelled() and not self._engine.closed:
            self._run_beside(batch, rows)  # the thread was replaced before it came to these
            return
        error = None if running.cancelled() else running.exception()
        if running.cancelled() or error is not None:
            log.error("a batch of version %d was lost", self.model.version, exc_info=error)
            outcome: Results | list[Results | ModelRunError] = self._lost(batch)
        else:
            outcome = running.result()
            if isinstance(outcome, Results):
                self.times.add(rows, outcome.took_s)
        self._finish(batch, outcome, now_s)
        self._again()

    def _lost(self, batch: Sequence[Call]) -> list[Results | ModelRunError]:
        """What a batch gets that the server, not the model, failed."""
        return [ModelRunError(self.model.version, "the server could not run it")] * len(batch)

    def _finish(self, batch: list[Call], outcome: Results | list[Results | ModelRunError], now_s: float) -> None:
        self._engine.waiting -= len(batch)
        if isinstance(outcome, Results):
            start = 0
            for call in batch:
                stop = start + (call.rows or 0)
                self._answer(call, outcome, start, stop, now_s)
                start = stop
            self.runs.ran(start or 1, outcome.took_s)
            return
        for call, result in zip(batch, outcome, strict=True):
            if isinstance(result, Results):
                self._answer(call, result, 0, call.rows or 0, now_s)
            else:
                _tell(call, result)

    def _answer(self, call: Call, results: Results, start: int, stop: int, now_s: float) -> None:
        try:
            call.answered(results, start, stop, now_s)
        except Exception:
            log.exception("an answer of version %d went wrong", self.model.version)
            _tell(call, SlipwayError("the server made an error; its log says which"))

    def _next_batch(self) -> tuple[list[Call], int]:
        """The oldest call of the highest priority, and those that can run with it, up to a batch's rows."""
        now_s = perf_counter()
        batch: list[Call] = []
        rows = 0
        key: BatchKey = None
        for queue in self._queues:
            skipped: list[Call] = []
            while queue and rows < MAX_BATCH_ROWS:
                call = queue.popleft()
                if call.deadline_s < now_s or call.gone:
                    self._refuse(call, now_s)
                elif not batch:
                    batch.append(call)
                    rows, key = call.rows or MAX_BATCH_ROWS, call.key
                elif call.rows and rows + call.rows <= MAX_BATCH_ROWS and call.key == key:
                    batch.append(call)
                    rows += call.rows
                else:
                    skipped.append(call)
            queue.extendleft(reversed(skipped))
        return batch, rows if batch and batch[0].rows else 1

    def _refuse(self, call: Call, now_s: float) -> None:
        self._engine.waiting -= 1
        if call.gone:
            call.dropped()
        else:
            _tell(call, ExpiredError(now_s - call.started_s))


def _tell(call: Call, error: SlipwayError) -> None:
    try:
        call.failed(error)
    except Exception:
        log.exception("telling a caller of an error went wrong")
