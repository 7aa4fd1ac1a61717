"""Turns: in one process, one thread at a time works at a drop.

The events of a folder's files come together, and each is a reason to look at all of it; without turns each would fetch
gigabytes. Between processes there are no turns: the documents keep those apart, at the cost of work done twice.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    # The same thread may come again while it is at it.
    lock: threading.RLock = field(default_factory=threading.RLock)
    wanted: int = 0


class Turns:
    """Locks by name, of which none is kept that nobody wants."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Wait for one's turn at `name`, and have it."""
        with self._guard:
            turn = self._turns.setdefault(name, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._guard:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[name]

    def wanted(self, name: str) -> int:
        """How many have their turn or wait for it."""
        with self._guard:
            turn = self._turns.get(name)
            return turn.wanted if turn else 0
