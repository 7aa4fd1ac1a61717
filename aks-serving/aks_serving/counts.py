"""What happened to the requests of one endpoint under one generation of its plan, counted as it happens.

Used from the event loop alone. A batch's calls are added in one go; the windows, the statistics since the start and
the Prometheus text are all sums of these counts, so that a request is counted once and in one place.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum

from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import VersionCounts


class Kind(IntEnum):
    """Why a version was asked: the plan assigned the caller, another version failed, or the caller named it."""

    ASSIGNED = 0
    FALLBACK = 1
    PINNED = 2


class VersionTally:
    """Counts of one version, as shared.telemetry.window.VersionCounts defines them, and the sum of the latencies."""

    __slots__ = ("errors", "fallbacks", "latency_ms", "latency_ms_sum", "pinned", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.fallbacks = 0
        self.pinned = 0
        self.latency_ms: dict[int, int] = {}
        self.latency_ms_sum = 0.0

    def add(self, other: "VersionTally") -> None:
        """Add another tally to this one."""
        self.requests += other.requests
        self.errors += other.errors
        self.fallbacks += other.fallbacks
        self.pinned += other.pinned
        self.latency_ms_sum += other.latency_ms_sum
        for index, count in other.latency_ms.items():
            self.latency_ms[index] = self.latency_ms.get(index, 0) + count

    def counts(self) -> VersionCounts:
        """As a window carries them."""
        return VersionCounts(
            requests=self.requests,
            errors=self.errors,
            fallbacks=self.fallbacks,
            pinned=self.pinned,
            latency_ms=dict(self.latency_ms),
        )


class Tally:
    """Counts of one endpoint under one generation, since its window opened. `in_flight` calls are yet to be counted."""

    __slots__ = ("in_flight", "versions")

    def __init__(self) -> None:
        self.in_flight = 0
        self.versions: dict[int, VersionTally] = {}

    def answered(self, version: int, kind: Kind, latency_ms: float) -> None:
        """A call that the version answered."""
        tally = self._of(version)
        if kind is Kind.ASSIGNED:
            tally.requests += 1
            tally.latency_ms_sum += latency_ms
            index = bucket_index(latency_ms)
            tally.latency_ms[index] = tally.latency_ms.get(index, 0) + 1
        elif kind is Kind.FALLBACK:
            tally.fallbacks += 1
        else:
            tally.pinned += 1

    def failed(self, version: int, kind: Kind) -> None:
        """A call that the version failed. A failed fallback counts nowhere: the first version's error stands for it."""
        if kind is Kind.ASSIGNED:
            tally = self._of(version)
            tally.requests += 1
            tally.errors += 1
        elif kind is Kind.PINNED:
            self._of(version).pinned += 1

    def take(self) -> dict[int, VersionTally]:
        """The counts so far; counting begins anew."""
        versions, self.versions = self.versions, {}
        return versions

    def _of(self, version: int) -> VersionTally:
        tally = self.versions.get(version)
        if tally is None:
            tally = self.versions[version] = VersionTally()
        return tally


def added(parts: Iterable[Mapping[int, VersionTally]]) -> dict[int, VersionTally]:
    """The sum of counts by version."""
    total: dict[int, VersionTally] = {}
    for part in parts:
        for version, tally in part.items():
            total.setdefault(version, VersionTally()).add(tally)
    return total
