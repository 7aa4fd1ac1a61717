"""What happened to the requests of one endpoint under one generation of its plan, counted as it happens.

Used from the event loop alone. The windows, the statistics since the start and the Prometheus text are all sums of
these counts, so that a request is counted once and in one place. A latency is kept as it is until some thousands have
come, and then counted into buckets at once: nothing is lost, and memory is bounded.

Latencies of answers that the plan assigned are `latency_ms`; those of the rare other outcomes are kept apart by outcome
(`error`, `fallback`, `pinned`, `pinned_error`), for the metrics alone. What was predicted is for the windows alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

import msgspec
import numpy as np

from aks_serving.tensors import Array
from aks_serving.values import Values
from shared.routing.prediction import Reason
from shared.telemetry.feedback import FeedbackTally
from shared.telemetry.histogram import GAMMA, bucket_index
from shared.telemetry.predictions import PredictionTally
from shared.telemetry.window import MAX_NAMES, ShadowCounts, VersionCounts, added_names

_MAX_FRESH = 2048
"""Latencies that are counted at once: 0.12 ms in which nothing is answered. Of four times as many it would be 0.44."""
_LOG_GAMMA = math.log(GAMMA)
_FLOOR_INDEX = bucket_index(0.0)

type Variant = tuple[int, str]
"""A version, and what it was to its endpoint when it was counted: its role."""


class Kind(IntEnum):
    """Why a version was asked: see shared.routing.prediction.Reason."""

    ASSIGNED = 0
    FALLBACK = 1
    PINNED = 2

    @property
    def reason(self) -> Reason:
        """As a prediction id says it."""
        return _REASONS[self]


_REASONS = (Reason.ASSIGNED, Reason.FALLBACK, Reason.PINNED)


class Latencies:
    """Milliseconds counted per bucket (shared.telemetry.histogram), and their sum."""

    __slots__ = ("buckets", "sum_ms")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.sum_ms = 0.0

    def observe(self, latency_ms: float) -> None:
        """Count one."""
        index = bucket_index(max(0.0, latency_ms))
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self.sum_ms += latency_ms

    def add(self, other: "Latencies") -> None:
        """Add others to these."""
        _add_buckets(self.buckets, other.buckets)
        self.sum_ms += other.sum_ms


class Runs:
    """Batches that ran without fault: how many rows they had, and how long they took the processor.

    `sizes` counts batches by the rows' power of two, rounded up; `times` by that of their microseconds; `values` what
    they gave.
    """

    __slots__ = ("rows", "sizes", "times", "took_s", "values")

    def __init__(self) -> None:
        self.rows = 0
        self.took_s = 0.0
        self.sizes: dict[int, int] = {}
        self.times: dict[int, int] = {}
        self.values = Values()

    @property
    def any(self) -> bool:
        """Whether anything was counted."""
        return bool(self.sizes or self.values.counts)

    def ran(self, rows: int, took_s: float) -> None:
        """Count a batch."""
        self.rows += rows
        self.took_s += took_s
        size, time = (rows - 1).bit_length(), int(took_s * 1e6).bit_length()
        self.sizes[size] = self.sizes.get(size, 0) + 1
        self.times[time] = self.times.get(time, 0) + 1

    def add(self, other: "Runs") -> None:
        """Add others to these."""
        self.rows += other.rows
        self.took_s += other.took_s
        _add_buckets(self.sizes, other.sizes)
        _add_buckets(self.times, other.times)
        self.values.add(other.values)


class VersionTally:
    """Counts of one version, as shared.telemetry.window.VersionCounts defines them, and the sum of the latencies.

    `runs` are the batches that the version ran, for whatever reason; `predictions` what it answered to those whom the
    plan assigned, and `overrides` who signed what named it: neither is held by a sum of tallies.
    """

    __slots__ = (
        "_fresh_ms",
        "_latency_ms",
        "errors",
        "fallbacks",
        "latency_ms_sum",
        "looked",
        "others",
        "overrides",
        "pinned",
        "pinned_errors",
        "predictions",
        "requests",
        "runs",
        "shadow",
    )

    def __init__(self) -> None:
        self.others: dict[str, Latencies] = {}
        self.runs = Runs()
        self.requests = 0
        self.errors = 0
        self.fallbacks = 0
        self.pinned = 0
        self.pinned_errors = 0
        self.predictions = PredictionTally()
        self.overrides: dict[str, int] = {}
        self.looked: dict[str, int] = {}
        """Rows whose features were to be counted, by what became of them (aks_serving.taking.Fate)."""
        self.latency_ms_sum = 0.0
        self.shadow: ShadowCounts | None = None
        self._latency_ms: dict[int, int] = {}
        self._fresh_ms: list[float] = []

    @property
    def latency_ms(self) -> dict[int, int]:
        """Milliseconds of assigned requests that were answered, counted per bucket (shared.telemetry.histogram)."""
        self._fold()
        return self._latency_ms

    def answered(self, kind: Kind, latency_ms: float) -> None:
        """A call that the version answered."""
        if kind is Kind.ASSIGNED:
            self.requests += 1
            self._fresh_ms.append(latency_ms)
            if len(self._fresh_ms) >= _MAX_FRESH:
                self._fold()
        elif kind is Kind.FALLBACK:
            self.fallbacks += 1
            self._other("fallback", latency_ms)
        else:
            self.pinned += 1
            self._other("pinned", latency_ms)

    def answered_together(self, latencies_ms: list[float], first: Array) -> None:
        """Assigned calls that the version answered in one batch, whose first output is `first`."""
        self.predictions.gave(first)
        self.requests += len(latencies_ms)
        self._fresh_ms += latencies_ms
        if len(self._fresh_ms) >= _MAX_FRESH:
            self._fold()

    def failed(self, kind: Kind, latency_ms: float = 0.0) -> None:
        """A call that the version failed. A failed fallback counts nowhere: the first version's error stands for it."""
        if kind is Kind.ASSIGNED:
            self.requests += 1
            self.errors += 1
            self._other("error", latency_ms)
        elif kind is Kind.PINNED:
            self.pinned += 1
            self.pinned_errors += 1
            self._other("pinned_error", latency_ms)

    def overridden(self, by: str) -> None:
        """A request whose override, signed by `by`, names the version."""
        self.overrides[by] = self.overrides.get(by, 0) + 1
        if len(self.overrides) > MAX_NAMES:
            self.overrides = added_names([self.overrides])

    def looked_at(self, fate: str, rows: int) -> None:
        """Rows whose features were to be counted."""
        self.looked[fate] = self.looked.get(fate, 0) + rows

    def shadowed(self) -> ShadowCounts:
        """The counts of the version as a shadow, to be added to."""
        if self.shadow is None:
            self.shadow = ShadowCounts()
        return self.shadow

    def add(self, other: "VersionTally") -> None:
        """Add another tally to this one."""
        self.requests += other.requests
        self.errors += other.errors
        self.fallbacks += other.fallbacks
        self.pinned += other.pinned
        self.pinned_errors += other.pinned_errors
        _add_buckets(self._latency_ms, other.latency_ms)
        self.latency_ms_sum += other.latency_ms_sum
        for outcome, latencies in other.others.items():
            self.others.setdefault(outcome, Latencies()).add(latencies)
        self.runs.add(other.runs)
        for fate, rows in other.looked.items():
            self.looked_at(fate, rows)
        if other.shadow is not None:
            add_shadow(self.shadowed(), other.shadow)

    def counts(self) -> VersionCounts:
        """As a window carries them."""
        return VersionCounts(
            requests=self.requests,
            errors=self.errors,
            fallbacks=self.fallbacks,
            pinned=self.pinned,
            pinned_errors=self.pinned_errors,
            latency_ms=dict(self.latency_ms),
            predictions=dict(self.predictions.counts),
            overrides=dict(self.overrides),
            shadow=None if self.shadow is None else msgspec.structs.replace(self.shadow),
        )

    def _other(self, outcome: str, latency_ms: float) -> None:
        self.others.setdefault(outcome, Latencies()).observe(latency_ms)

    def _fold(self) -> None:
        fresh = self._fresh_ms
        if not fresh:
            return
        self._fresh_ms = []
        values = np.asarray(fresh)
        self.latency_ms_sum += float(values.sum())
        indices = np.ceil(np.log(np.maximum(values, 1e-9)) / _LOG_GAMMA).astype(np.int64)
        found, counts = np.unique(np.maximum(indices, _FLOOR_INDEX), return_counts=True)
        _add_buckets(self._latency_ms, dict(zip(found.tolist(), counts.tolist(), strict=True)))


type Asked = tuple[Sequence[str | None], Sequence[int]]
"""The subjects of requests, and the rows of each; of one request these need not be told."""


class Tally:
    """Counts of one endpoint under one generation, since its window opened.

    `in_flight` requests are yet to be counted; `refused` were run by no version, by why. `feedback` is what came while
    the window was open, on predictions under whatever plan; it is taken by itself.
    """

    __slots__ = ("feedback", "in_flight", "refused", "versions")

    def __init__(self) -> None:
        self.feedback = FeedbackTally()
        self.in_flight = 0
        self.refused: dict[str, int] = {}
        self.versions: dict[int, VersionTally] = {}

    def of(self, version: int) -> VersionTally:
        """The counts of a version, to be added to."""
        tally = self.versions.get(version)
        if tally is None:
            tally = self.versions[version] = VersionTally()
        return tally

    def refuse(self, why: str) -> None:
        """A request that no version ran."""
        self.refused[why] = self.refused.get(why, 0) + 1

    def take(self) -> tuple[dict[int, VersionTally], dict[str, int]]:
        """The counts so far, by version, and the refusals; counting begins anew."""
        taken = self.versions, self.refused
        self.versions, self.refused = {}, {}
        return taken


def added[Key](parts: Iterable[Mapping[Key, VersionTally]]) -> dict[Key, VersionTally]:
    """The sum of counts by version, or by variant."""
    total: dict[Key, VersionTally] = {}
    for part in parts:
        for key, tally in part.items():
            total.setdefault(key, VersionTally()).add(tally)
    return total


def add_shadow(mine: ShadowCounts, other: ShadowCounts) -> None:
    """Add counts of copies to others."""
    for name in ShadowCounts.__struct_fields__:
        setattr(mine, name, getattr(mine, name) + getattr(other, name))


def by_version(tallies: Mapping[Variant, VersionTally]) -> dict[int, VersionTally]:
    """The sum of counts by version, whatever it was to its endpoint."""
    return added({version: tally} for (version, _), tally in tallies.items())


def _add_buckets(mine: dict[int, int], others: Mapping[int, int]) -> None:
    for index, count in others.items():
        mine[index] = mine.get(index, 0) + count
