"""The calls of one version: when its next batch runs and where, and who is told of it.

Each caller gets its own rows. The halves of a batch that fails run as batches of their own, and theirs, until only the
guilty call fails: what is urgent may come between, a call whose caller went away or whose deadline passed runs no more,
and no run takes longer than a batch. A batch that will be short, by the measured times of the version's last runs, runs
on the event loop, where handing it to a thread would cost more than it; a longer one runs on a thread of the engine,
and gathers while each turn brings more of it, up to a part of its time. While that is taken, calls wait here.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import perf_counter

from aks_serving.batches import LoadedModel, Outcome, Results, run_calls
from aks_serving.calls import URGENT, Call
from aks_serving.counts import Runs
from aks_serving.engine import Engine, RunThread
from aks_serving.errors import ExpiredError, LostError, ModelRunError
from aks_serving.queues import MAX_BATCH_ROWS, Queues
from aks_serving.run_times import RunTimes
from aks_serving.values import are_counted
from shared.core.errors import SlipwayError

log = logging.getLogger(__name__)

_INLINE_S = 1e-3
"""A batch that takes less runs on the event loop: handing it to a thread and back costs 0.1 to 0.3 ms of its own."""
_GATHER = 0.25
"""How much of a long run's time its batch may be waited for, while every turn of the event loop brings more of it."""
_WRONG = "the server made an error; its log says which"


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
        self._counts_values = are_counted(loaded.model.signature)
        for input_bytes, took_s in loaded.run_times_s:
            self.times.add(input_bytes, took_s)
        self._engine = engine
        self._queues = Queues()
        self._loop = asyncio.get_running_loop()
        self._due = False
        """Its turn will come, or it wants the thread."""
        self._gathered = 0
        """How many calls waited at the last turn, while a batch gathers; 0 when none does."""
        self._gather_until_s = 0.0
        self._long_s = 0.0
        """How long its last batch was to take, where that was long; 0 elsewhere."""
        self._running: list[Call] | None = None
        self._run: Future[Outcome] | None = None
        self._thread = engine.thread_for(0.0)
        """The thread of its last run beside the event loop."""
        self.last_run_s = 0.0
        """When its last run began (perf_counter); 0 before the first."""

    @property
    def running_beside(self) -> Sequence[Call]:
        """The calls that run on a thread; empty where none do."""
        return self._running or ()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self._running is None and not self._queues

    def urgency(self) -> tuple[int, float]:
        """The less, the sooner its calls are to run."""
        return self._queues.urgency()

    def submit(self, call: Call) -> None:
        """Have a call run in the batch that this turn of the event loop makes. Raises OverloadedError."""
        self._engine.admit(call.input_bytes + call.held_bytes)
        self._queues.of_priority[call.priority].append(call)
        if not self._due and self._running is None:
            self._due = True
            self._loop.call_soon(self.turn)

    def take_back(self, wanted: Callable[[Call], bool], *, halves: bool = False) -> list[Call]:
        """Take what waits, or what waits in `halves` of failed batches, and is wanted elsewhere; what runs goes on."""
        taken = self._queues.take(wanted, halves=halves)
        self._engine.leave(taken)
        return taken

    def expire(self, now_s: float) -> None:
        """Fail what waits and whose deadline passed: for when a run takes long."""
        for call in self._queues.take(lambda call: call.deadline_s < now_s or call.gone):
            self._refuse(call, now_s)

    def give_up(self, error: ModelRunError) -> Future[Outcome]:
        """Fail what runs beside, and leave it to its thread, which was replaced; what waits goes on. The run that goes
        on there.
        """
        batch, run = self._running, self._run
        assert batch is not None and run is not None  # noqa: S101, PT018 - for the type checker
        self._running = self._run = None
        self._engine.leave(batch)
        for call in batch:
            _tell(call, error)
        self._freed()
        return run

    def turn(self) -> None:
        """Run what waits, or the first of it, here or on the thread; where that is taken, want it."""
        self._due = False
        if self._running is not None:
            return
        if self._long_s and self._gathers():
            self._due = True
            self._loop.call_soon(self.turn)
            return
        batch, is_half = self._queues.next_batch(perf_counter(), self._refuse)
        if not batch:
            return
        input_bytes = sum([call.input_bytes for call in batch])
        expected_s = self.times.expected_s(input_bytes)
        if expected_s <= _INLINE_S:
            self._long_s = 0.0
            self._run_here(batch, input_bytes)
            self._again()
            return
        thread = self._engine.thread_for(expected_s)
        if thread.lane is not None and not is_half and (calls := self._calls_for_another(thread, batch)):
            self._queues.put_back(batch[calls:], is_half=False)
            batch = batch[:calls]
            input_bytes = sum([call.input_bytes for call in batch])
            expected_s = self.times.expected_s(input_bytes)
            thread = self._engine.thread_for(expected_s)
        self._long_s = expected_s if expected_s < math.inf else 0.0
        if thread.lane is None:
            self._run_beside(batch, input_bytes, thread)
        else:
            self._queues.put_back(batch, is_half=is_half)
            self._due = True
            thread.want(self)

    def _calls_for_another(self, taken: RunThread, batch: Sequence[Call]) -> int:
        """How many calls of a batch, whose thread is taken, the other thread takes; 0 where not even one. Without it a
        version with many callers would wait for far slower runs, and be asked by all of them together again.
        """
        calls = len(batch) // 2
        while calls:
            expected_s = self.times.expected_s(sum([call.input_bytes for call in batch[:calls]]))
            if self._engine.thread_for(expected_s) is not taken:
                return calls
            calls //= 2
        return 0

    def _gathers(self) -> bool:
        """Whether a long batch waits for what another turn brings. Those who were answered by the last one ask again
        while others wait: without this they would be two batches by turns for ever, each of which costs a run's fixed
        part. Nothing waits for a turn that brought nothing, nor where a call is urgent or another version's are due,
        nor do halves of a batch that failed.
        """
        queues, thread = self._queues, self._engine.thread_for(self._long_s)
        waiting, before = len(queues), self._gathered
        if thread.lane is None and not (thread.wanted or queues.of_priority[URGENT] or queues.has_halves):
            now_s = perf_counter()
            if not before:
                self._gather_until_s = now_s + _GATHER * self._long_s
            if before < waiting < MAX_BATCH_ROWS and now_s < self._gather_until_s:
                self._gathered = waiting
                return True
        self._gathered = 0
        return False

    def _again(self) -> None:
        if not self._due and self._queues:
            self._due = True
            self._loop.call_soon(self.turn)

    def _freed(self) -> None:
        """The thread is wanted again, where more waits, and is for the most urgent."""
        if not self._due and self._queues:
            self._due = True
            self._thread.want(self)
        self._thread.release()

    def _run_here(self, batch: list[Call], input_bytes: int) -> None:
        engine = self._engine
        begun_s = self.last_run_s = perf_counter()
        engine.running_here = self, begun_s
        try:
            outcome = run_calls(self.loaded, batch)
        except Exception:
            log.exception("a batch of version %d was lost", self.model.version)
            outcome = _lost(batch)
        engine.running_here = None
        if isinstance(outcome, Results):
            self.times.add(input_bytes, outcome.took_s)
        self._finish(batch, outcome, perf_counter())

    def _run_beside(self, batch: list[Call], input_bytes: int, thread: RunThread) -> None:
        self._running, self._thread = batch, thread
        self.last_run_s = perf_counter()
        try:
            running = self._run = thread.submit(self, batch)
        except RuntimeError:  # no thread can be started
            log.exception("a batch of version %d was lost", self.model.version)
            self._running = None
            self._finish(batch, _lost(batch), perf_counter())
            self._again()
            return

        # It takes the run from its caller: holding it would keep batch, answers and version until a garbage collection.
        def done(ended: Future[Outcome]) -> None:
            # From the thread; the loop may be gone by then, at a stop.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._done, batch, input_bytes, ended)

        running.add_done_callback(done)

    def _done(self, batch: list[Call], input_bytes: int, running: Future[Outcome]) -> None:
        if running.cancelled():
            outcome: Outcome = _lost(batch)  # the engine was closed
        elif (error := running.exception()) is not None:
            log.error("a batch of version %d was lost", self.model.version, exc_info=error)
            outcome = _lost(batch)
        else:
            outcome = running.result()
            if isinstance(outcome, Results):
                self.times.add(input_bytes, outcome.took_s)
        if self._running is not batch:
            return  # it was given up
        self._running = self._run = None
        self._finish(batch, outcome, perf_counter())
        self._freed()

    def _finish(self, batch: list[Call], outcome: Outcome, now_s: float) -> None:
        if isinstance(outcome, ModelRunError) and len(batch) > 1:
            self._queues.split(batch)
            return
        self._engine.leave(batch)
        if isinstance(outcome, ModelRunError):
            _tell(batch[0], outcome)
            return
        if isinstance(outcome, Results):
            self.runs.ran(self._answer_all(batch, outcome, now_s) or 1, outcome.took_s)
            if self._counts_values:
                self.runs.values.gave(outcome.arrays[0])
            return
        for call, result in zip(batch, outcome, strict=True):
            if isinstance(result, Results):
                self._answer(call, result, 0, call.rows or 0, now_s)
                if self._counts_values:
                    self.runs.values.gave(result.arrays[0])
            else:
                _tell(call, result)

    def _answer_all(self, batch: list[Call], results: Results, now_s: float) -> int:
        """How many rows the batch had."""
        wrong = batch[0].answered_together(batch, results, now_s) if len(batch) > 1 else None
        if wrong is not None:
            for call in wrong:
                _tell(call, SlipwayError(_WRONG))
            return sum([call.rows or 0 for call in batch])
        start = 0
        for call in batch:
            stop = start + (call.rows or 0)
            self._answer(call, results, start, stop, now_s)
            start = stop
        return start

    def _answer(self, call: Call, results: Results, start: int, stop: int, now_s: float) -> None:
        try:
            call.answered(results, start, stop, now_s)
        except Exception:
            log.exception("an answer of version %d went wrong", self.model.version)
            _tell(call, SlipwayError(_WRONG))

    def _refuse(self, call: Call, now_s: float) -> None:
        self._engine.leave((call,))
        if call.gone:
            call.dropped()
        else:
            _tell(call, ExpiredError(now_s - call.started_s))


def _lost(batch: Sequence[Call]) -> list[Results | SlipwayError]:
    """What a batch gets that the server, not the model, failed."""
    return [LostError() for _ in batch]


def _tell(call: Call, error: SlipwayError) -> None:
    try:
        call.failed(error)
    except Exception:
        log.exception("telling a caller of an error went wrong")
