"""Request sums: each window once, in its hour, however they come; and when a budget is spent."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from shared.budgets.sums import BEHIND, LATE, MOST_MARKS, TOLD, HourSum, Mark, RequestSums, counted, why_spent
from shared.registry.rollout_policy import ErrorBudget
from shared.store.documents import MAX_DOCUMENT_BYTES
from shared.telemetry.window import VersionCounts, Window

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def window(pod: str, sequence: int, at: datetime, **versions: VersionCounts) -> Window:
    return Window(
        endpoint="m",
        pod=pod,
        sequence=sequence,
        generation=1,
        started_at=at,
        ended_at=at,
        loaded=[1],
        versions={int(name[1:]): counts for name, counts in versions.items()},
    )


def empty() -> RequestSums:
    return RequestSums(endpoint="m", since=START - timedelta(hours=24))


def test_every_version_counts_and_what_another_answered_did_not_fail_and_the_pinned_count_neither_way() -> None:
    stable = VersionCounts(requests=900, errors=3, fallbacks=40, pinned=7, pinned_errors=7)
    candidate = VersionCounts(requests=100, errors=45)
    found = counted(empty(), [window("a", 0, START, v1=stable, v2=candidate)], START, is_all=True)
    assert found.hours == {"2026-11-21T08": HourSum(requests=1_000, failed=8)}


def test_windows_in_any_portions_doubled_and_out_of_order_come_to_one_sum() -> None:
    rng = random.Random(5)
    windows = [
        window(pod, number, START + timedelta(minutes=7 * number), v1=VersionCounts(requests=10, errors=number % 3))
        for pod in "abc"
        for number in range(20)
    ]
    now = START + timedelta(hours=3)
    whole = counted(empty(), windows, now, is_all=True)
    assert sum(one.requests for one in whole.hours.values()) == 600
    sums, queue = empty(), sorted(windows, key=lambda one: (f"{one.ended_at:%H}", one.pod, one.sequence))
    while queue:
        portion, queue = queue[:7], queue[7:]
        shuffled = portion * 2
        rng.shuffle(shuffled)
        sums = counted(sums, shuffled, now, is_all=not queue)
        # Nothing that is still to be counted lies before what is looked at again.
        assert all(one.ended_at >= sums.since for one in queue)
    assert sums.hours == whole.hours
    assert counted(sums, windows, now, is_all=True).hours == whole.hours


def test_hours_and_pods_of_long_ago_are_forgotten_and_no_window_is_counted_again_for_it() -> None:
    late = START + timedelta(hours=800)
    sums = counted(empty(), [window("a", 3, START, v1=VersionCounts(requests=5))], START, is_all=True)
    after = counted(sums, [window("b", 0, late, v1=VersionCounts(requests=7))], late, is_all=True)
    assert after.hours == {f"{late:%Y-%m-%dT%H}": HourSum(requests=7)}
    assert set(after.marks) == {"b"}
    # The forgotten pod's windows lie in hours that are not looked at again.
    assert after.since == late - LATE > START


def test_a_window_counts_in_the_hour_of_its_end_in_utc() -> None:
    at = datetime.fromisoformat("2026-11-21T09:30:00+02:00")
    found = counted(empty(), [window("a", 0, at, v1=VersionCounts(requests=1))], START, is_all=True)
    assert list(found.hours) == ["2026-11-21T07"]


@pytest.mark.parametrize("objective", [0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99995])
def test_as_many_failures_as_the_objective_leaves_are_within_the_budget(objective: float) -> None:
    requests = 200_000
    may_fail = round(requests * (1 - objective))
    for failed, is_spent in ((may_fail, False), (may_fail + 1, True)):
        hours = {"2026-11-21T08": HourSum(requests=requests, failed=failed)}
        sums = RequestSums(endpoint="m", since=START, whole_at=START, hours=hours)
        assert bool(why_spent(ErrorBudget(objective=objective, hours=24), sums, START)) is is_spent


@pytest.mark.parametrize(
    ("failed", "requests", "hours_ago", "spent"),
    [(10, 1_000, 0, False), (11, 1_000, 0, True), (11, 1_000, 23, True), (1_000, 1_000, 26, False), (1, 1, 0, True)],
)
def test_a_budget_is_spent_by_more_than_its_share_within_its_hours(
    failed: int,
    requests: int,
    hours_ago: int,
    spent: bool,  # noqa: FBT001 - a case
) -> None:
    hour = f"{START - timedelta(hours=hours_ago):%Y-%m-%dT%H}"
    hours = {hour: HourSum(requests=requests, failed=failed)}
    sums = RequestSums(endpoint="m", hours=hours, since=START, whole_at=START)
    said = why_spent(ErrorBudget(objective=0.99, hours=24), sums, START)
    assert bool(said) is spent
    assert not spent or f"{failed} of {requests} requests failed in the last 24 h" in said


def test_without_sums_and_with_sums_that_are_behind_a_budget_cannot_be_told() -> None:
    whole = counted(empty(), [], START, is_all=True)
    assert why_spent(ErrorBudget(), whole, START + BEHIND) == ""
    later = START + BEHIND + timedelta(seconds=1)
    assert "cannot be told: its endpoint's requests are not all counted, they were last at 2026-11-21 08:00 UTC" in (
        why_spent(ErrorBudget(), whole, later)
    )
    # A part that was counted does not make the sums whole.
    part = counted(whole, [window("a", 0, later, v1=VersionCounts(requests=9))], later, is_all=False)
    assert part.whole_at == START
    assert "cannot be told" in why_spent(ErrorBudget(), part, later)
    for never in (None, empty(), counted(empty(), [], START, is_all=False)):
        assert "cannot be told: its endpoint's requests are not all counted, they never were" in (
            why_spent(ErrorBudget(), never, START)
        )
    # What is counted of it may be enough to tell.
    spent = counted(empty(), [window("a", 0, START, v1=VersionCounts(requests=9, errors=9))], START, is_all=False)
    assert "is spent: 9 of 9" in why_spent(ErrorBudget(), spent, START)


def test_a_budget_whose_hours_have_not_passed_says_since_when_it_is_counted() -> None:
    begun = empty().model_copy(update={"begun_at": START})
    spent = counted(begun, [window("a", 0, START, v1=VersionCounts(requests=9, errors=9))], START, is_all=True)
    assert why_spent(ErrorBudget(), spent, START).endswith("0.100% may, counted since 2026-11-21 08:00 UTC")
    assert why_spent(ErrorBudget(), spent, START + timedelta(hours=24)).endswith("0.100% may")


def test_the_document_of_a_month_and_a_thousand_pods_stays_small() -> None:
    hours = {f"{START - timedelta(hours=n):%Y-%m-%dT%H}": HourSum(requests=10**9, failed=10**6) for n in range(721)}
    sums = RequestSums(endpoint="m", hours=hours, since=START)
    pods = [window(f"model-server-7f9c4d-{n:05d}", 10**6, START) for n in range(1_000)]
    assert len(counted(sums, pods, START, is_all=True).model_dump_json()) < 200_000


def test_more_pods_than_marks_leave_the_latest_and_what_the_others_wrote_is_not_looked_at_again() -> None:
    times = [START + timedelta(seconds=number) for number in range(MOST_MARKS + 600)]
    pods = [
        window(f"model-server-7f9c4d-{n:05d}-0123ab", 0, at, v1=VersionCounts(requests=1)) for n, at in enumerate(times)
    ]
    now = times[-1]
    found = counted(empty(), pods, now, is_all=True)
    assert [mark.ended_at for mark in found.marks.values()] == times[600:]
    assert found.since == min(now, times[599] + LATE) > times[599]
    assert len(found.model_dump_json()) < MAX_DOCUMENT_BYTES
    assert found.within(24, now).requests == len(pods)
    assert counted(found, [], now, is_all=True).since == found.since


def test_what_ailed_a_pod_is_kept_while_it_may_be_there_and_its_mark_for_longer() -> None:
    ill = window("a", 4, START).model_copy(update={"failed": {1: "no memory"}, "memory_share": 0.9})
    sums = counted(empty(), [ill], START + TOLD, is_all=True)
    assert (sums.marks["a"].trouble, sums.marks["a"].memory_share) == ("cannot load version 1: no memory", 0.9)
    later = counted(sums, [], START + TOLD + timedelta(seconds=1), is_all=True)
    assert later.marks == {"a": Mark(sequence=4, ended_at=START)}
