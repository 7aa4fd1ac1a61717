"""Waiting for what other processes do: until it is so, or a deadline far beyond what it takes."""

import time
from collections.abc import Callable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.1
_GROWTH = 1.3


def eventually[T](found: Callable[[], T], *, what: str, deadline_s: float = 120.0) -> T:
    """Ask until the answer is true (not empty, not None), and return it. Fails the test at the deadline.

    What takes long is asked for less and less often: asking takes time from what is waited for.
    """
    deadline = time.monotonic() + deadline_s
    pause_s = _FIRST_PAUSE_S
    while True:
        answer = found()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {deadline_s:g} s: {what}; the last answer was {answer!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)
