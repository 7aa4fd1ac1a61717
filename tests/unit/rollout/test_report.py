"""The rollback report: what is counted, over which time, and how the seconds are summed up."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.core.errors import InvalidInputError
from shared.rollout.report import report_of
from shared.rollout.rollbacks import Rollback, Trigger

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def rollback(
    number: int, *, trigger: Trigger = Trigger.ERROR_RATE, to_detect_s: float = 5, to_zero_s: float | None = 2
) -> Rollback:
    """The rollback detected at minute `number`."""
    detected = START + timedelta(minutes=number)
    return Rollback(
        rollback_id=f"rollback-{number:06d}",
        rollout_id="r",
        trigger=trigger,
        from_version=2,
        to_version=1,
        generation=number,
        fault_at=detected - timedelta(seconds=to_detect_s),
        detected_at=detected,
        zero_traffic_at=None if to_zero_s is None else detected + timedelta(seconds=to_zero_s),
        by="slipway",
        reason="errors",
    )


def test_of_no_rollbacks_there_is_no_share_and_no_time() -> None:
    report = report_of([])
    assert (report.rollbacks, report.success_share, report.from_fault.mean_s, report.from_detection.p95_s) == (
        0,
        None,
        None,
        None,
    )
    assert set(report.by_trigger) == set(Trigger)
    assert sum(report.by_trigger.values()) == 0


def test_triggers_are_counted_and_one_that_the_pods_never_applied_has_no_time() -> None:
    found = [
        rollback(1, to_zero_s=2),
        rollback(2, trigger=Trigger.LATENCY, to_zero_s=4),
        rollback(3, trigger=Trigger.MANUAL, to_detect_s=0, to_zero_s=None),
        rollback(4, to_detect_s=15, to_zero_s=6),
    ]
    report = report_of(found)
    assert {trigger.value: n for trigger, n in report.by_trigger.items() if n} == {
        "error_rate": 2,
        "latency": 1,
        "manual": 1,
    }
    assert (report.rollbacks, report.automatic, report.confirmed, report.success_share) == (4, 3, 3, 0.75)
    assert report.from_detection.model_dump() == {"n": 3, "mean_s": 4.0, "p95_s": 6.0}
    assert report.from_fault.model_dump() == {"n": 3, "mean_s": pytest.approx((7 + 9 + 21) / 3), "p95_s": 21.0}


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (19, 19), (20, 19), (21, 20), (100, 95), (101, 96)])
def test_the_95th_percentile_is_the_nearest_rank(n: int, rank: int) -> None:
    report = report_of(rollback(number, to_zero_s=float(number)) for number in range(n, 0, -1))
    assert report.from_detection.p95_s == rank


def test_the_time_begins_with_since_and_ends_before_until() -> None:
    found = [rollback(number) for number in range(5)]
    report = report_of(found, since=START + timedelta(minutes=1), until=START + timedelta(minutes=3))
    assert report.rollbacks == 2
    with pytest.raises(InvalidInputError, match="not before until"):
        report_of(found, since=START, until=START)
