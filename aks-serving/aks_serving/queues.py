"""The calls of one version that wait: in what order they run, and which of them make a batch.

They run by priority, and of one priority the oldest first. A batch that failed comes back as two halves, each a batch
of its own, before what waits of its priority: joined with other calls, what is wrong in it would spoil theirs too. What
is more urgent goes before halves, and then waits for one of them: a batch takes no later call past them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from aks_serving.batches import BatchKey
from aks_serving.calls import LOW, NORMAL, URGENT, Call

MAX_BATCH_ROWS = 128


class _Queue(deque[Call]):
    """Calls of one priority, or a batch that is half of one that failed."""

    __slots__ = ("is_half", "priority")

    def __init__(self, priority: int, calls: Iterable[Call] = (), *, is_half: bool = False) -> None:
        super().__init__(calls)
        self.priority = priority
        self.is_half = is_half


class Queues:
    """What waits of one version. Used from the event loop alone."""

    __slots__ = ("_all", "_passed", "has_halves", "of_priority")

    def __init__(self) -> None:
        self.of_priority = (_Queue(URGENT), _Queue(NORMAL), _Queue(LOW))
        """Where calls are put that come."""
        self._all: list[_Queue] = list(self.of_priority)
        self.has_halves = False
        """Whether halves of batches that failed wait."""
        self._passed = False
        """The last batch went before halves."""

    def __len__(self) -> int:
        """How many calls wait."""
        return sum(map(len, self._all))

    def __bool__(self) -> bool:
        """Whether any waits."""
        return any(self._all)

    def urgency(self) -> tuple[int, float]:
        """The less, the sooner the calls are to run."""
        heads = ((queue.priority, queue[0].started_s) for queue in self._all if queue)
        return next(heads, (len(self.of_priority), 0.0))

    def take(self, wanted: Callable[[Call], bool], *, halves: bool = False) -> list[Call]:
        """Take what is wanted elsewhere, of all that waits or of `halves` of failed batches alone."""
        taken: list[Call] = []
        for queue in self._all:
            if halves and not queue.is_half:
                continue
            calls = list(queue)
            queue.clear()
            for call in calls:
                (taken if wanted(call) else queue).append(call)
        return taken

    def split(self, batch: Sequence[Call]) -> None:
        """Put a batch that failed back, as two halves."""
        middle = len(batch) // 2
        self._put_half(batch[middle:])
        self._put_half(batch[:middle])

    def put_back(self, batch: Sequence[Call], *, is_half: bool) -> None:
        """Put a batch back that does not run yet, as `next_batch` gave it."""
        self._passed = is_half  # as it was: its turn is still to come
        if is_half:
            self._put_half(batch)
            return
        for call in reversed(batch):
            self.of_priority[call.priority].appendleft(call)

    def next_batch(self, now_s: float, refuse: Callable[[Call, float], None]) -> tuple[list[Call], bool]:
        """Take the oldest call of the highest priority, and those that can run with it, up to a batch's rows; whether
        they are a half of a batch that failed. Calls that are late, or whose caller is gone, are refused.
        """
        batch: list[Call] = []
        is_half = False
        rows = 0
        key: BatchKey = None
        queues = self._in_turn()
        self._passed = False
        for queue in queues:
            if batch and queue.is_half:
                self._passed = True
                break
            skipped: list[Call] = []
            while queue and rows < MAX_BATCH_ROWS:
                call = queue.popleft()
                if call.deadline_s < now_s or call.gone:
                    refuse(call, now_s)
                elif not batch:
                    batch.append(call)
                    rows, key = call.rows or MAX_BATCH_ROWS, call.key
                elif call.rows and rows + call.rows <= MAX_BATCH_ROWS and call.key == key:
                    batch.append(call)
                    rows += call.rows
                else:
                    skipped.append(call)
            if skipped:
                queue.extendleft(reversed(skipped))
            if queue.is_half and batch:
                is_half = True
                break
        if self.has_halves:
            self._all = [queue for queue in self._all if queue or not queue.is_half]
            self.has_halves = len(self._all) > len(self.of_priority)
        return batch, is_half

    def _in_turn(self) -> list[_Queue]:
        queues = [queue for queue in self._all if queue]
        if self._passed:
            queues.sort(key=lambda queue: not queue.is_half)
        return queues

    def _put_half(self, calls: Sequence[Call]) -> None:
        priority = calls[0].priority
        place = next(place for place, queue in enumerate(self._all) if queue.priority >= priority)
        self._all.insert(place, _Queue(priority, calls, is_half=True))
        self.has_halves = True
