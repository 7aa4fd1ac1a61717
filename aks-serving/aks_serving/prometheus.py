"""The server's counts as Prometheus text: format 0.0.4, or OpenMetrics 1.0 where the client asks for it.

Nothing is counted for it alone: a scrape reads what the windows are made of. Counters are of the time since the
server's start. The label `variant` says what the version was to its endpoint (stable, candidate, shadow) when that was
counted: where that changes, counters go on under another. What it is now stands in model_version_variant.

The latency histograms are read from the windows' logarithmic buckets, so a value within 2 % of a boundary may be
counted on its other side.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from aks_serving.counts import Latencies, Variant, VersionTally
from aks_serving.exposition import (
    Family,
    Label,
    Sample,
    counter,
    end,
    gauge,
    histogram,
    powers,
    written,
)
from aks_serving.serving import Serving
from aks_serving.values import BOUNDS, Values
from shared.telemetry.histogram import GAMMA
from shared.telemetry.window import ShadowCounts

_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUND_INDEX = tuple(math.floor(math.log(bound * 1e3) / math.log(GAMMA)) for bound in _BOUNDS_S)
_SIZES = tuple(range(8))
"""Batches of up to 1, 2, 4, ... 128 rows."""
_TIMES = tuple(range(4, 25))
"""Runs of less than 16, 32, ... microseconds, up to 17 seconds."""


class Transport(Protocol):
    """What is asked of the HTTP transport."""

    @property
    def connections(self) -> int:
        """Connections that are open."""
        ...

    @property
    def refused(self) -> Mapping[int, int]:
        """Requests that the transport answered itself, by status."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a scrape tells of. `totals` are counts since the start by endpoint and variant, `refused` those by endpoint
    and why, `in_flight` requests by endpoint, `tripped` versions by endpoint, and why; `transport` is None where no
    transport of ours carries the API.
    """

    totals: Mapping[str, Mapping[Variant, VersionTally]]
    servings: Mapping[str, Serving]
    refused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waiting: int = 0
    windows_lost: int = 0
    memory_bytes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    in_flight: Mapping[str, int] = field(default_factory=dict)
    tripped: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    transport: Transport | None = None


def text(facts: Facts, *, openmetrics: bool = False) -> bytes:
    """All metrics, in one of the two formats."""
    return written(families(facts), openmetrics=openmetrics)


def families(facts: Facts) -> Iterator[Family]:
    """All metrics."""
    each = [
        ((("model", model), ("version", str(version)), ("variant", role)), tally)
        for model, tallies in facts.totals.items()
        for (version, role), tally in sorted(tallies.items())
    ]
    yield counter(
        "model_prediction_requests",
        "Requests by what became of them at a version.",
        (((*labels, ("outcome", outcome)), n) for labels, tally in each for outcome, n in _outcomes(tally)),
    )
    yield histogram(
        "model_prediction_latency_seconds",
        "Time from a request to its answer, or to the version's failure, by outcome.",
        (
            s
            for labels, tally in each
            for outcome, found in _latencies(tally)
            for s in _latency((*labels, ("outcome", outcome)), found)
        ),
    )
    yield from _predicted([(labels, tally.runs.values) for labels, tally in each if tally.runs.values.counts])
    yield counter(
        "model_feature_rows",
        "Rows whose features were to be counted for the watch over drift, by what became of them.",
        (((*labels, ("outcome", fate)), n) for labels, tally in each for fate, n in sorted(tally.looked.items())),
    )
    yield from _runs(each)
    yield from _shadows([(labels, tally.shadow) for labels, tally in each if tally.shadow is not None])
    yield from _served(facts)
    yield from _server(facts)


def _outcomes(tally: VersionTally) -> tuple[tuple[str, int], ...]:
    return (
        ("success", tally.requests - tally.errors),
        ("error", tally.errors),
        ("fallback", tally.fallbacks),
        ("pinned", tally.pinned - tally.pinned_errors),
        ("pinned_error", tally.pinned_errors),
    )


def _latencies(tally: VersionTally) -> Iterator[tuple[str, Latencies]]:
    assigned = Latencies()
    assigned.buckets, assigned.sum_ms = tally.latency_ms, tally.latency_ms_sum
    yield "success", assigned
    yield from sorted(tally.others.items())


def _predicted(each: Sequence[tuple[tuple[Label, ...], Values]]) -> Iterator[Family]:
    yield histogram(
        "model_prediction_values",
        "Finite numbers that a version answered with, of its first output, where that has few a row.",
        (s for labels, values in each for s in _values(labels, values)),
    )
    # A sum that may fall is no counter.
    yield gauge(
        "model_prediction_values_added",
        "Sum of those numbers since the start.",
        ((labels, values.sum) for labels, values in each),
    )


def _runs(each: Sequence[tuple[tuple[Label, ...], VersionTally]]) -> Iterator[Family]:
    yield histogram(
        "model_batch_rows",
        "Rows of the batches that a version ran.",
        (s for labels, tally in each for s in powers(labels, tally.runs.sizes, _SIZES, 1.0, tally.runs.rows)),
    )
    yield histogram(
        "model_run_seconds",
        "Processor time of a version's runs.",
        (s for labels, tally in each for s in powers(labels, tally.runs.times, _TIMES, 1e-6, tally.runs.took_s)),
    )


def _shadows(each: Sequence[tuple[tuple[Label, ...], ShadowCounts]]) -> Iterator[Family]:
    yield counter(
        "model_shadow_requests",
        "Copies of requests that a shadow was to get, by what became of them.",
        (((*labels, ("outcome", outcome)), n) for labels, counts in each for outcome, n in _compared(counts)),
    )
    yield counter(
        "model_shadow_mirrored",
        "Requests of which a shadow was to get a copy.",
        ((labels, counts.mirrored) for labels, counts in each),
    )
    yield counter(
        "model_shadow_numbers",
        "Numbers of a shadow that were compared with those that were answered.",
        ((labels, counts.numbers) for labels, counts in each),
    )
    # A sum that may fall is no counter.
    yield gauge(
        "model_shadow_difference",
        "Sum of the differences, a shadow's number less the answer's, since the start.",
        ((labels, counts.difference) for labels, counts in each),
    )
    yield counter(
        "model_shadow_difference_squared",
        "Sum of the squared differences.",
        ((labels, counts.difference_squared) for labels, counts in each),
    )


def _compared(counts: ShadowCounts) -> tuple[tuple[str, int], ...]:
    return (
        ("agreed", counts.compared - counts.disagreements),
        ("disagreed", counts.disagreements),
        ("error", counts.errors),
        ("shed", counts.shed),
    )


def _served(facts: Facts) -> Iterator[Family]:
    servings = facts.servings
    yield gauge(
        "model_loaded",
        "Whether a version of the plan is loaded.",
        (
            ((("model", model), ("version", str(version))), state)
            for model, serving in servings.items()
            for version, state in sorted((dict.fromkeys(serving.failed, 0) | dict.fromkeys(serving.lanes, 1)).items())
        ),
    )
    routes = [(model, serving, route) for model, serving in servings.items() for route in serving.plan.routes]
    yield gauge(
        "model_version_variant",
        "1 for what a version is to its endpoint now.",
        (
            ((("model", model), ("version", str(route.version)), ("variant", route.role)), 1)
            for model, _, route in routes
        ),
    )
    yield gauge(
        "model_version_weight_ratio",
        "The share of requests that the plan assigns to a version.",
        (((("model", m), ("version", str(r.version))), s.planned_bp(r) / 10_000) for m, s, r in routes),
    )
    yield gauge(
        "model_version_tripped",
        "Whether this pod's guard took a version out of traffic.",
        (
            ((("model", m), ("version", str(r.version))), int(r.version in facts.tripped.get(m, {})))
            for m, _, r in routes
        ),
    )
    yield gauge(
        "model_memory_bytes",
        "Memory that loading a version took.",
        (
            ((("model", model), ("version", str(version))), size)
            for model, sizes in facts.memory_bytes.items()
            for version, size in sorted(sizes.items())
        ),
    )
    yield gauge(
        "model_plan_generation",
        "The generation of the route plan that is served.",
        (((("model", model),), serving.plan.generation) for model, serving in servings.items()),
    )
    yield gauge(
        "model_in_flight_requests",
        "Requests, and copies for shadows, whose outcome is not known yet.",
        (((("model", model),), count) for model, count in facts.in_flight.items()),
    )


def _server(facts: Facts) -> Iterator[Family]:
    yield counter(
        "model_requests_refused",
        "Requests that no version ran, by why.",
        (
            ((("model", model), ("reason", why)), n)
            for model, whys in facts.refused.items()
            for why, n in sorted(whys.items())
        ),
    )
    yield gauge("model_server_waiting_requests", "Requests that wait for a model or run.", [((), facts.waiting)])
    yield counter("model_server_windows_lost", "Telemetry windows that storage never got.", [((), facts.windows_lost)])
    if facts.transport is not None:
        yield gauge("http_server_connections", "Connections that are open.", [((), facts.transport.connections)])
        yield counter(
            "http_server_refused",
            "Requests that were answered before they reached the API, by status.",
            (((("status", str(status)),), n) for status, n in sorted(facts.transport.refused.items())),
        )


def _latency(labels: tuple[Label, ...], latencies: Latencies) -> Iterator[Sample]:
    counts = [0] * (len(_BOUND_INDEX) + 1)
    for index, n in latencies.buckets.items():
        counts[bisect_left(_BOUND_INDEX, index)] += n
    *within, count = accumulate(counts)
    for bound, n in zip(_BOUNDS_S, within, strict=True):
        yield "_bucket", (*labels, ("le", repr(bound))), n
    yield from end(labels, count, latencies.sum_ms / 1e3)


def _values(labels: tuple[Label, ...], values: Values) -> Iterator[Sample]:
    within = 0
    for place, bound in enumerate(BOUNDS):
        within += values.counts.get(place, 0)
        yield "_bucket", (*labels, ("le", repr(bound))), within
    # No sum, which may fall where numbers are negative, and thus no count (OpenMetrics 1.0, "Histogram").
    yield "_bucket", (*labels, ("le", "+Inf")), sum(values.counts.values())
