"""Runs copies of requests in spare capacity: on a thread of its own at the lowest priority, and only while nothing else
wants the model server.

Copies are gathered for some milliseconds and run together, since nobody waits for them. A batch begins only when no
request waits or runs and the event loop has time to spare; until then copies wait, in a queue bounded by number, bytes
and age, and what does not fit is shed. What a copy does (fails, hangs, takes long) never reaches a request: a run that
hangs is left to its thread, another thread goes on, and its version is run no more.

The thread's priority holds against other threads and processes. Python's lock, which it needs before and after a run,
it takes like any other thread, for some tens of microseconds a batch.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any
from weakref import WeakKeyDictionary

from aks_serving.batches import BatchKey, LoadedModel, bytes_of
from aks_serving.priority import give_way
from aks_serving.tensors import Array, Feeds
from shared.telemetry.window import ShadowCounts

log = logging.getLogger(__name__)

MAX_COPIES = 1024
MAX_BYTES = 64 * 1024 * 1024
"""What copies hold of inputs and answers, at most."""
MAX_AGE_S = 1.0
"""How long a copy waits for spare capacity."""
GATHER_S = 0.02
HANG_S = 20.0
"""How long a run may take, in ticks: a machine that slept finds nothing hanging."""
TICK_S = 1.0
_MAX_ROWS = 128
_TRICKLE = 16
"""Copies that are kept from one look to the next while there is no time: in a second some batches of them."""
_MAX_SHARE = 0.75
"""Of its time, what the event loop may have worked for capacity to be spare."""
_WAITED = Path("/proc/thread-self/schedstat")


class Copy:
    """A copy of a request, as aks_serving.batches.Inputs, and what was answered. `reread` makes the inputs anew, on the
    thread that runs them, where the version takes others than those that the request was answered from; what it reads
    them from takes `held_bytes`.
    """

    __slots__ = ("feeds", "given", "key", "packed", "queued_s", "reread", "rows", "size_bytes", "subject")

    def __init__(
        self,
        given: Sequence[Array],
        *,
        packed: bytes | None = None,
        feeds: Feeds | None = None,
        rows: int | None = None,
        key: BatchKey = None,
        reread: Callable[[], Feeds] | None = None,
        held_bytes: int = 0,
        subject: str | None = None,
    ) -> None:
        self.given = given
        self.subject = subject
        self.packed = packed
        self.feeds = feeds
        self.rows = rows
        self.key = key
        self.reread = reread
        self.queued_s = perf_counter()
        self.size_bytes = (
            held_bytes
            + bytes_of({str(place): array for place, array in enumerate(given)})
            + (len(packed) if packed else 0)
            + bytes_of(feeds or {})
        )


class Target(ABC):
    """What runs copies. `loaded` is the model that runs them, and `endpoint` whose version it is."""

    loaded: LoadedModel
    endpoint: str

    @abstractmethod
    def run(self, copies: Sequence[Copy]) -> ShadowCounts:
        """Run copies of one key, and say what came of it. On the thread of low priority."""

    @abstractmethod
    def count(self, copies: int, counts: ShadowCounts) -> None:
        """Take note of what became of so many copies. On the event loop."""


class Spare:
    """The queue of copies and the thread that runs them. Used from the event loop alone."""

    def __init__(
        self,
        busy: Callable[[], bool],
        *,
        max_copies: int = MAX_COPIES,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        """`busy` tells whether a request waits or runs."""
        self._busy = busy
        self._max_copies = max_copies
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._queues: dict[tuple[Target, object], deque[Copy]] = {}
        self.waiting = 0
        self._bytes = 0
        self._executor: ThreadPoolExecutor | None = None
        self._running: tuple[Target, list[Copy]] | None = None
        self._hung: list[LoadedModel] = []
        self.used_s: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        """By what the targets are of, when copies for it were last done with (perf_counter)."""
        self._timer: asyncio.Handle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._looked_s = self._worked_s = 0.0
        self._closed = False
        self._most = max_copies
        """How many copies may wait: a few more than did, where there was no time at the last look. Each that is made
        takes time from requests, and most would be shed for their age.
        """

    @property
    def is_full(self) -> bool:
        """Whether any copy would be shed."""
        return self.waiting >= self._most or self._bytes >= self._max_bytes

    def offer(self, target: Target, copy: Copy) -> bool:
        """Have a copy run when there is time to spare. False where it is shed."""
        if (
            self.waiting >= self._most
            or self._bytes + copy.size_bytes > self._max_bytes
            or self._closed
            or self._is_hung(target)
        ):
            return False
        key = (target, copy.key if copy.rows else copy)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(copy)
        self.waiting += 1
        self._bytes += copy.size_bytes
        if self._timer is None and self._running is None:
            self._look()
            self._arm()
        return True

    def close(self) -> None:
        """Shed what waits or runs, and let the thread go. What it runs now is not waited for."""
        self._closed = True
        for timer in (self._timer, self._watchdog):
            if timer is not None:
                timer.cancel()
        if self._running is not None:
            (target, copies), self._running = self._running, None
            target.count(len(copies), ShadowCounts(shed=len(copies)))
        self._shed_older(float("inf"))
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._tick)

    def _tick(self) -> None:
        # Timers come before the batches that the same turn of the event loop runs: those first, then look who waits.
        self._timer = asyncio.get_running_loop().call_soon(self._decide)

    def _decide(self) -> None:
        self._timer = None
        self._shed_older(perf_counter() - self._max_age_s)
        if self._running is not None or not self._queues:
            return
        if self._has_time():
            self._most = self._max_copies
            self._start()
        else:
            self._most = min(self.waiting + _TRICKLE, self._max_copies)
            self._arm()

    def _look(self) -> tuple[float, float]:
        """The time since the last look, and how much of it the event loop worked, or waited for a processor to work."""
        now_s, worked_s = perf_counter(), thread_time() + _waited_s()
        passed = now_s - self._looked_s, worked_s - self._worked_s
        self._looked_s, self._worked_s = now_s, worked_s
        return passed

    def _has_time(self) -> bool:
        passed_s, worked_s = self._look()
        return not self._busy() and worked_s <= _MAX_SHARE * passed_s

    def _start(self) -> None:
        target, copies = self._next_batch()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spare", initializer=give_way)
        loop = asyncio.get_running_loop()
        batch = self._running = (target, copies)
        self._watch(0.0)
        running = self._executor.submit(target.run, copies)

        def done(_: Future[Any]) -> None:
            # From the thread; the loop may be gone by then, at a stop.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._done, batch, running)

        running.add_done_callback(done)

    def _done(self, batch: tuple[Target, list[Copy]], running: Future[ShadowCounts]) -> None:
        if self._running is not batch:
            return  # it was given up
        self._running = None
        if self._watchdog is not None:
            self._watchdog.cancel()
        target, copies = batch
        error = running.exception()
        if error is not None:
            log.error("%s: copies were lost", _named(target), exc_info=error)
            target.count(len(copies), ShadowCounts(errors=len(copies)))
        else:
            target.count(len(copies), running.result())
        if self.waiting >= _MAX_ROWS:
            self._tick()
        elif self._queues:
            self._arm()

    def _watch(self, ran_s: float) -> None:
        if ran_s >= HANG_S:
            self._give_up()
        else:
            self._watchdog = asyncio.get_running_loop().call_later(TICK_S, self._watch, ran_s + TICK_S)

    def _give_up(self) -> None:
        """Leave the thread to what hangs on it."""
        if self._running is None or self._executor is None:
            return
        (target, copies), self._running = self._running, None
        log.error("%s hangs on a copy for %.0f s: it gets no more", _named(target), HANG_S)
        self._hung.append(target.loaded)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None
        target.count(len(copies), ShadowCounts(errors=len(copies)))
        for key in [key for key in self._queues if self._is_hung(key[0])]:
            self._shed(key[0], list(self._queues.pop(key)))
        self._tick()

    def _is_hung(self, target: Target) -> bool:
        return any(loaded is target.loaded for loaded in self._hung)

    def _next_batch(self) -> tuple[Target, list[Copy]]:
        """Copies of the target and key that waited longest since its last turn, up to a batch's rows."""
        key = next(iter(self._queues))
        queue = self._queues.pop(key)
        copies = [queue.popleft()]
        rows = copies[0].rows or _MAX_ROWS
        while queue and rows + (queue[0].rows or _MAX_ROWS) <= _MAX_ROWS:
            copies.append(queue.popleft())
            rows += copies[-1].rows or _MAX_ROWS
        if queue:
            self._queues[key] = queue
        self._forget(copies)
        return key[0], copies

    def _shed_older(self, than_s: float) -> None:
        for key, queue in list(self._queues.items()):
            old: list[Copy] = []
            while queue and queue[0].queued_s < than_s:
                old.append(queue.popleft())
            if not queue:
                del self._queues[key]
            self._shed(key[0], old)

    def _shed(self, target: Target, copies: list[Copy]) -> None:
        if copies:
            self._forget(copies)
            target.count(len(copies), ShadowCounts(shed=len(copies)))

    def _forget(self, copies: list[Copy]) -> None:
        self.waiting -= len(copies)
        self._bytes -= sum([copy.size_bytes for copy in copies])


def _named(target: Target) -> str:
    return f"endpoint {target.endpoint}: version {target.loaded.model.version}"


def _waited_s() -> float:
    """How long this thread waited for a processor so far, where the system tells."""
    try:
        return int(_WAITED.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
