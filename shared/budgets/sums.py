"""How many of an endpoint's requests failed, by the hour: what an error budget is counted over. Beside it, of late and
by the minute, what alerts are judged by.

Each window is counted once: a pod's windows are numbered and come in order, so its highest number is the mark, which is
stored with the sums by one conditional write. A window counts in the hour of its end, however late it comes, up to
LATE; what comes later is left out. A request that one version failed and another then answered did not fail. Requests
whose caller named the version count neither way.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.budgets.labels import LabelSum, with_labels
from shared.budgets.recent import MinuteSum, trouble_of, with_windows
from shared.registry.rollout_policy import ErrorBudget
from shared.telemetry.names import CLOCK_SKEW
from shared.telemetry.window import Window

SUMS_ID = "request-sums"
LATE = timedelta(hours=2)
BEHIND = timedelta(minutes=10)
"""How long ago all windows were counted for the last time at most, for a budget to be told."""
TOLD = timedelta(minutes=15)
"""For how long it is kept how a pod was: then it is taken for gone."""
MOST_MARKS = 8_000
"""Marks that are kept, for the document to be stored: of a thousand pods, two starts an hour of each. Of more, those
that reported last; what was written up to LATE after the others' last words is then looked at no more but by an hour's
turn, lest it count twice.
"""
_KEPT = timedelta(hours=721)
"""The longest error budget, and the hour that it begins in."""


class HourSum(BaseModel):
    """The requests of an hour, and how many of them failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int = 0
    failed: int = 0


class Mark(BaseModel):
    """How far a pod's windows were counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int
    ended_at: AwareDatetime
    memory_share: float | None = None
    """As its latest window has it."""
    trouble: str = ""
    """What ailed it at the end of that window."""
    is_last: bool = False
    """Whether it stopped with that window, as it was told to."""


class RequestSums(BaseModel):
    """The sums of one endpoint, a document beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Literal["request-sums"] = "request-sums"
    kind: Literal["request_sums"] = "request_sums"
    endpoint: str
    hours: dict[str, HourSum] = Field(default_factory=dict)
    """By the hour's beginning in UTC, as in 2026-11-21T08."""
    minutes: dict[str, MinuteSum] = Field(default_factory=dict)
    """Of late, by the minute."""
    labels: dict[str, LabelSum] = Field(default_factory=dict)
    """By version and the day of the predictions, as in 3:2026-11-21."""
    marks: dict[str, Mark] = Field(default_factory=dict)
    """By pod."""
    since: AwareDatetime
    """Windows from then on are to be looked at; of earlier ones none is left to count."""
    begun_at: AwareDatetime | None = None
    """When the endpoint was first seen: what was written before is not counted. None: all its hours are."""
    whole_at: AwareDatetime | None = None
    """When every window that was written by then was last counted; None: never yet."""

    def within(self, hours: int, now: datetime) -> HourSum:
        """The sum of the last hours, the one in which they begin being counted whole."""
        first = _hour(now - timedelta(hours=hours))
        found = [total for hour, total in self.hours.items() if hour >= first]
        return HourSum(requests=sum(one.requests for one in found), failed=sum(one.failed for one in found))


def counted(
    sums: RequestSums, windows: Iterable[Window], now: datetime, *, is_all: bool, is_from_since: bool = True
) -> RequestSums:
    """The sums with windows counted that were not. `is_all`: none is left to count that was written by `now`.
    `is_from_since`: they are of all hours from `since` on, and not of the latest alone.
    """
    hours, marks = dict(sums.hours), dict(sums.marks)
    latest, new = sums.since, list[Window]()
    for window in sorted(windows, key=lambda window: (window.pod, window.sequence)):
        mark = marks.get(window.pod)
        if mark and window.sequence <= mark.sequence:
            continue
        marks[window.pod] = Mark(
            sequence=window.sequence,
            ended_at=window.ended_at,
            memory_share=window.memory_share,
            trouble=trouble_of(window),
            is_last=window.is_last,
        )
        new.append(window)
        hour = _hour(window.ended_at)
        hours[hour] = _plus(hours.get(hour, HourSum()), window)
        latest = max(latest, window.ended_at)
    since = sums.since
    if is_all:
        since = max(since, now - LATE)
    elif is_from_since:
        # They are read an hour after the other, so that of the hours before the latest one none is left.
        since = max(since, latest.replace(minute=0, second=0, microsecond=0) - CLOCK_SKEW)
    # What ended long before `since` lies in hours that are not looked at again.
    kept, forgotten = _kept({pod: mark for pod, mark in marks.items() if mark.ended_at > since - LATE})
    if forgotten:
        since = max(since, min(now, forgotten + LATE))
    oldest = _hour(now - _KEPT)
    return RequestSums(
        endpoint=sums.endpoint,
        hours={hour: total for hour, total in sorted(hours.items()) if hour >= oldest},
        minutes=with_windows(sums.minutes, new, now),
        labels=with_labels(sums.labels, new, now),
        marks={pod: _lasting(mark, now) for pod, mark in kept.items()},
        since=since,
        begun_at=sums.begun_at,
        whole_at=now if is_all else sums.whole_at,
    )


def why_spent(budget: ErrorBudget, sums: RequestSums | None, now: datetime) -> str:
    """Why an error budget is spent or cannot be told, in words; empty where it is neither.

    What was not counted may have failed: sums that are absent or behind are no proof that the budget is not spent.
    """
    found = sums.within(budget.hours, now) if sums else HourSum()
    # As the objective is written: 1 - 0.9995 in floats is less than 0.0005.
    allowed = 1 - Decimal(str(budget.objective))
    if found.failed <= allowed * found.requests:
        return _why_unknown(sums, now)
    begun_at = sums.begun_at if sums else None
    is_short = begun_at is not None and begun_at > now - timedelta(hours=budget.hours)
    since = f", counted since {begun_at:%Y-%m-%d %H:%M} UTC" if is_short else ""
    return (
        f"the error budget is spent: {found.failed} of {found.requests} requests failed in the last {budget.hours} h "
        f"({found.failed / found.requests:.3%}), and {allowed:.3%} may{since}"
    )


def _why_unknown(sums: RequestSums | None, now: datetime) -> str:
    if sums and sums.whole_at and now - sums.whole_at <= BEHIND:
        return ""
    last = f"they were last at {sums.whole_at:%Y-%m-%d %H:%M} UTC" if sums and sums.whole_at else "they never were yet"
    return (
        f"the error budget cannot be told: its endpoint's requests are not all counted, {last} "
        "(the function count_requests counts them every minute: its log says what keeps it)"
    )


def _kept(marks: dict[str, Mark]) -> tuple[dict[str, Mark], datetime | None]:
    """The latest of them, and when the last of the others ended."""
    if len(marks) <= MOST_MARKS:
        return marks, None
    by_age = sorted(marks, key=lambda pod: (marks[pod].ended_at, pod), reverse=True)
    kept = set(by_age[:MOST_MARKS])
    return {pod: mark for pod, mark in marks.items() if pod in kept}, marks[by_age[MOST_MARKS]].ended_at


def _lasting(mark: Mark, now: datetime) -> Mark:
    """A mark without what is told of a pod that reports."""
    return mark if now - mark.ended_at <= TOLD else Mark(sequence=mark.sequence, ended_at=mark.ended_at)


def _plus(total: HourSum, window: Window) -> HourSum:
    counts = window.versions.values()
    failed = sum(one.errors for one in counts) - sum(one.fallbacks for one in counts)
    return HourSum(requests=total.requests + sum(one.requests for one in counts), failed=total.failed + max(0, failed))


def _hour(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H}"
