"""Runs models: the calls that reach one version in one turn of the event loop become one batch at the turn's end.

A version's calls are its lane's (aks_serving.lanes). What they share is here: the threads on which long runs go, and a
bound, in number and in bytes, on what waits or runs. There are two threads, each of which runs one batch at a time: a
run that takes very long is on one of its own, so that it holds up none but its like. Where several versions want a
thread, it is the turn of the one that has the most urgent call, and of those, the oldest.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from aks_serving.batches import Outcome, run_calls
from aks_serving.calls import Call
from aks_serving.errors import OverloadedError
from aks_serving.spare import Spare

if TYPE_CHECKING:
    from aks_serving.lanes import Lane

MAX_QUEUE_BYTES = 256 * 1024 * 1024
_SLOW_S = 0.02
"""A run that takes longer is on the thread of slow ones; others wait for each other no longer than this."""


class Engine:
    """The threads on which long runs go, and the bound on what waits or runs. Used from the event loop alone."""

    def __init__(
        self, *, max_queue: int, max_queue_bytes: int = MAX_QUEUE_BYTES, begin: Callable[[], None] | None = None
    ) -> None:
        """`begin` is called on each thread before it runs anything."""
        self._max_queue = max_queue
        self._max_queue_bytes = max_queue_bytes
        self._quick, self._slow = self.threads = RunThread("run", begin), RunThread("slow-run", begin)
        self.spare = Spare(lambda: self.waiting > 0)
        self.waiting = 0
        self.waiting_bytes = 0
        self.closed = False
        self.running_here: tuple[Lane, float] | None = None
        """The version whose run now holds the event loop, and since when (perf_counter). Other threads may look."""

    def admit(self, size_bytes: int) -> None:
        """Count one more call. Raises OverloadedError where the queue is full. One call alone always fits."""
        total_bytes = self.waiting_bytes + size_bytes
        if self.waiting >= self._max_queue or (total_bytes > self._max_queue_bytes and self.waiting):
            raise OverloadedError(self.waiting)
        self.waiting += 1
        self.waiting_bytes = total_bytes

    def leave(self, calls: Sequence[Call]) -> None:
        """Count no more what neither waits nor runs."""
        self.waiting -= len(calls)
        self.waiting_bytes -= sum([call.input_bytes + call.held_bytes for call in calls])

    def thread_for(self, expected_s: float) -> "RunThread":
        """The thread for a run that is to take so long; infinity: nobody knows."""
        return self._slow if _SLOW_S < expected_s < math.inf else self._quick

    def close(self) -> None:
        """Let the threads go. What they run now is not waited for."""
        self.spare.close()
        self.closed = True
        for thread in self.threads:
            thread.close()


class RunThread:
    """A thread that runs a batch at a time, and the versions that want it. Used from the event loop alone."""

    def __init__(self, name: str, begin: Callable[[], None] | None) -> None:
        self._name = name
        self._begin = begin
        self._executor = self._started()
        self._wanting: dict[Lane, None] = {}
        self.lane: Lane | None = None
        """The version that has it."""

    @property
    def wanted(self) -> bool:
        """Whether any version waits for it."""
        return bool(self._wanting)

    def submit(self, lane: "Lane", calls: Sequence[Call]) -> Future[Outcome]:
        """Run a batch; the thread is free. Raises RuntimeError where none can be started."""
        running = self._executor.submit(run_calls, lane.loaded, calls)
        self.lane = lane
        return running

    def want(self, lane: "Lane") -> None:
        """Have a version that has calls take its turn once the thread is free."""
        self._wanting[lane] = None

    def release(self) -> None:
        """It has nothing to run. Who has it next is settled at the end of this turn of the event loop."""
        asyncio.get_running_loop().call_soon(self._free)

    def replace(self) -> None:
        """Leave the thread to what runs or hangs on it, and go on with another."""
        self._executor.shutdown(wait=False)
        self._executor = self._started()

    def close(self) -> None:
        """Let it go. What it runs now is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _free(self) -> None:
        """The most urgent of those that want it take their turns, until one takes it."""
        self.lane = None
        while self._wanting and self.lane is None:
            lane = min(self._wanting, key=lambda one: one.urgency())
            del self._wanting[lane]
            lane.turn()

    def _started(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name, initializer=self._begin)
