"""Waiting for what other processes do: until it is so, or a deadline far beyond what it takes."""

import time
from collections.abc import Callable

_POLL_S = 0.05


def eventually[T](found: Callable[[], T], *, what: str, deadline_s: float = 120.0) -> T:
    """Ask until the answer is true (not empty, not None), and return it. Fails the test at the deadline."""
    deadline = time.monotonic() + deadline_s
    while True:
        answer = found()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {deadline_s:g} s: {what}; the last answer was {answer!r}")
        time.sleep(_POLL_S)
