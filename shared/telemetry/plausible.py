"""Which windows can be a pod's: numbers that it could have counted to, and no more names than its plan leads to.

What is taken in of windows is summed in documents. One window of other numbers would keep such a document from being
saved for as long as it is evidence: an endpoint's would not be looked at, and nothing would take a failing candidate
back.
"""

from collections.abc import Iterator

from shared.telemetry.window import VersionCounts, Window

_MOST = 10**9
"""A window is of a minute at most, and what all windows of an hour add up to must stay a JSON number."""
_MOST_NAMES = 200
"""Versions, of which a plan names a dozen, and reasons given for them."""
_LONGEST_NAME = 1_000
"""Characters of a label, of who signs overrides, and of a rollout's id."""
_BUCKETS = range(-1_000, 10_001)
"""Of latencies, from a nanosecond to more than any clock tells."""


def is_plausible(window: Window) -> bool:
    """Whether a window can be what a pod counted."""
    named = [window.loaded, window.failed, window.tripped, window.versions]
    named += [window.deaths.processes] if window.deaths else []
    return (
        all(len(names) <= _MOST_NAMES for names in named)
        and all(0 <= number <= _MOST for number in _numbers(window))
        and all(bucket in _BUCKETS for counts in window.versions.values() for bucket in counts.latency_ms)
        and all(len(name) <= _LONGEST_NAME for name in _names(window))
    )


def _numbers(window: Window) -> Iterator[int]:
    yield from (window.sequence, window.generation, *window.loaded, *window.failed, *window.tripped, *window.versions)
    if window.deaths:
        yield from (*window.deaths.processes, *window.deaths.processes.values())
    for row in window.feedback:
        yield from (row.version, row.generation, row.count, row.valued)
    for counts in window.versions.values():
        yield from _counted(counts)


def _counted(counts: VersionCounts) -> Iterator[int]:
    yield from (counts.requests, counts.errors, counts.fallbacks, counts.pinned, counts.pinned_errors)
    for by_name in (counts.latency_ms, counts.predictions, counts.overrides):
        yield from by_name.values()
    if shadow := counts.shadow:
        yield from (shadow.mirrored, shadow.shed, shadow.errors, shadow.compared, shadow.disagreements, shadow.numbers)


def _names(window: Window) -> Iterator[str]:
    if window.deaths:
        yield window.deaths.rollout_id
    for counts in window.versions.values():
        yield from counts.predictions
        yield from counts.overrides
