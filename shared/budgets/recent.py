"""What an endpoint's pods reported of late, by the minute: what alerts on its traffic are judged by.

Sums by the minute of a window's end, for a little over half an hour. They add up to what the pods counted, whatever
the order that windows come in; each window is counted once, by the marks of shared.budgets.sums.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from shared.telemetry.histogram import merged
from shared.telemetry.window import Window

KEPT = timedelta(minutes=35)


class MinuteSum(BaseModel):
    """The requests of a minute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int = 0
    """Those that a version ran."""
    failed: int = 0
    """Those of them that nobody answered."""
    refused: int = 0
    """Those that no version ran, for want of capacity."""
    latency_ms: dict[int, int] = Field(default_factory=dict)
    """Counted per bucket (shared.telemetry.histogram)."""
    valued: int = 0
    """Pieces of feedback with a value."""
    value_millionths: int = 0
    """The sum of their values."""

    def __add__(self, other: "MinuteSum") -> "MinuteSum":
        return MinuteSum(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            refused=self.refused + other.refused,
            latency_ms=merged([self.latency_ms, other.latency_ms]),
            valued=self.valued + other.valued,
            value_millionths=self.value_millionths + other.value_millionths,
        )


def with_windows(minutes: dict[str, MinuteSum], windows: Iterable[Window], now: datetime) -> dict[str, MinuteSum]:
    """The sums with windows added that were not, without what is too long ago."""
    found = dict(minutes)
    for window in windows:
        key = minute_of(window.ended_at)
        found[key] = found.get(key, MinuteSum()) + _sum(window)
    oldest = minute_of(now - KEPT)
    return {key: one for key, one in sorted(found.items()) if key >= oldest}


def minute_of(at: datetime) -> str:
    """The minute of a time, as in 2026-11-21T08:05."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M}"


def trouble_of(window: Window) -> str:
    """What ails a pod, in words; empty where nothing does."""
    told = [f"cannot load version {version}: {why}" for version, why in sorted(window.failed.items())]
    told += [f"took version {version} out of traffic: {why}" for version, why in sorted(window.tripped.items())]
    dead = max(window.deaths.processes.values(), default=0) if window.deaths else 0
    # One may be chance; a process that dies again is being started again and again.
    told += [f"{dead} processes died in its place within an hour"] if dead > 1 else []
    return "; ".join(told)[:200]


def _sum(window: Window) -> MinuteSum:
    counts = list(window.versions.values())
    failed = sum(one.errors for one in counts) - sum(one.fallbacks for one in counts)
    return MinuteSum(
        requests=sum(one.requests for one in counts),
        failed=max(0, failed),
        refused=window.refused.get("overloaded", 0),
        latency_ms=merged(one.latency_ms for one in counts),
        valued=sum(one.valued for one in window.feedback),
        value_millionths=sum(one.value_millionths for one in window.feedback),
    )
