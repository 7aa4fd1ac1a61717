"""The rollback report: how many rollbacks there were, of what, and how long traffic took to leave the bad version.

Pure. Times are from the fault, and from its detection, to the moment at which the last pod that reports had applied
the plan that takes the version out of traffic; rollbacks of which that was not seen count as not confirmed, and enter
no time.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from math import ceil

from pydantic import BaseModel, ConfigDict

from shared.core.errors import InvalidInputError
from shared.rollout.rollbacks import Rollback, Trigger


class Times(BaseModel):
    """Seconds: how many rollbacks they are of, their mean, and the 95th percentile (nearest rank)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    mean_s: float | None
    p95_s: float | None


class RollbackReport(BaseModel):
    """What became of the rollbacks that were detected within a time. `until` is not part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: datetime | None
    until: datetime | None
    rollbacks: int
    by_trigger: dict[Trigger, int]
    """Every trigger, those that did not occur with 0."""
    automatic: int
    """Those that nobody asked for."""
    confirmed: int
    """Those after which every pod that reports was seen without the version."""
    success_share: float | None
    """Of all, those confirmed; None where there were none."""
    from_fault: Times
    from_detection: Times


def report_of(
    rollbacks: Iterable[Rollback], *, since: datetime | None = None, until: datetime | None = None
) -> RollbackReport:
    """The report of the rollbacks that were detected from `since` to before `until`. Raises InvalidInputError."""
    if since is not None and until is not None and since >= until:
        raise InvalidInputError(f"since is {since.isoformat()}, not before until, {until.isoformat()}: swap them")
    found = [
        rollback
        for rollback in rollbacks
        if (since is None or rollback.detected_at >= since) and (until is None or rollback.detected_at < until)
    ]
    counted = Counter(rollback.trigger for rollback in found)
    confirmed = [(rollback, rollback.zero_traffic_at) for rollback in found if rollback.zero_traffic_at is not None]
    return RollbackReport(
        since=since,
        until=until,
        rollbacks=len(found),
        by_trigger={trigger: counted[trigger] for trigger in Trigger},
        automatic=sum(rollback.trigger is not Trigger.MANUAL for rollback in found),
        confirmed=len(confirmed),
        success_share=len(confirmed) / len(found) if found else None,
        from_fault=_times((zero - rollback.fault_at).total_seconds() for rollback, zero in confirmed),
        from_detection=_times((zero - rollback.detected_at).total_seconds() for rollback, zero in confirmed),
    )


def _times(seconds: Iterable[float]) -> Times:
    ordered = sorted(seconds)
    if not ordered:
        return Times(n=0, mean_s=None, p95_s=None)
    # The nearest rank, in whole numbers: 0.95 * 20 is not 19 in floating point everywhere.
    rank = ceil(95 * len(ordered) / 100)
    return Times(n=len(ordered), mean_s=sum(ordered) / len(ordered), p95_s=ordered[rank - 1])
