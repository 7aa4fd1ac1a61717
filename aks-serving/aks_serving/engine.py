"""Runs models: the calls that reach one version in one turn of the event loop become one batch at the turn's end.

A version's calls are its lane's (aks_serving.lanes). What they share is here: the one thread on which long runs go, one
at a time, and a bound, in number and in bytes, on what waits or runs. Where several versions want the thread, it is the
turn of the one that has the most urgent call, and of those, the oldest.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from aks_serving.batches import Outcome, run_calls
from aks_serving.calls import Call
from aks_serving.errors import OverloadedError
from aks_serving.spare import Spare

if TYPE_CHECKING:
    from aks_serving.lanes import Lane

MAX_QUEUE_BYTES = 256 * 1024 * 1024


class Engine:
    """The thread on which long runs go, and the bound on what waits or runs. Used from the event loop alone."""

    def __init__(self, *, max_queue: int, max_queue_bytes: int = MAX_QUEUE_BYTES) -> None:
        self._executor = _executor()
        self._max_queue = max_queue
        self._max_queue_bytes = max_queue_bytes
        self._wanting: dict[Lane, None] = {}
        self.spare = Spare(lambda: self.waiting > 0)
        self.waiting = 0
        self.waiting_bytes = 0
        self.closed = False
        self.beside: Lane | None = None
        """The version that has the thread."""
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

    @property
    def wanted(self) -> bool:
        """Whether any version waits for the thread."""
        return bool(self._wanting)

    def submit(self, lane: "Lane", calls: Sequence[Call]) -> Future[Outcome]:
        """Run a batch on the engine's thread, which is free. Raises RuntimeError where no thread can be started."""
        running = self._executor.submit(run_calls, lane.loaded, calls)
        self.beside = lane
        return running

    def want(self, lane: "Lane") -> None:
        """Have a version that has calls take its turn once the thread is free."""
        self._wanting[lane] = None

    def release(self) -> None:
        """The thread has nothing to run. Who has it next is settled at the end of this turn of the event loop."""
        asyncio.get_running_loop().call_soon(self._free)

    def _free(self) -> None:
        """The most urgent of those that want the thread take their turns, until one takes it."""
        self.beside = None
        while self._wanting and self.beside is None:
            lane = min(self._wanting, key=lambda one: one.urgency())
            del self._wanting[lane]
            lane.turn()

    def replace_thread(self) -> None:
        """Leave the thread to what runs or hangs on it, and go on with another."""
        self._executor.shutdown(wait=False)
        self._executor = _executor()

    def close(self) -> None:
        """Let the thread go. What it runs now is not waited for."""
        self.spare.close()
        self.closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)


def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="run")
