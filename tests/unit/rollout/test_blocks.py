"""Freeze windows by the clock on the wall: over midnight, both changes of summer time, and the end of a year."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.budgets.sums import HourSum, RequestSums
from shared.registry.policy import Policy
from shared.registry.rollout_policy import ErrorBudget, FreezeWindow, RolloutPolicy, Weekday
from shared.rollout.blocks import is_frozen, why_blocked

FRI, SAT, SUN, THU = Weekday.FRI, Weekday.SAT, Weekday.SUN, Weekday.THU
VIENNA = ZoneInfo("Europe/Vienna")


def weekly(*days: Weekday, start: str = "00:00", end: str = "00:00", timezone: str = "UTC") -> FreezeWindow:
    return FreezeWindow(name="quiet", days=days, start=start, end=end, timezone=timezone)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "at", "frozen"),
    [
        # 2026-11-20 is a Friday.
        (weekly(FRI, start="16:00", end="18:00"), "2026-11-20T15:59:59", False),
        (weekly(FRI, start="16:00", end="18:00"), "2026-11-20T16:00:00", True),
        (weekly(FRI, start="16:00", end="18:00"), "2026-11-20T17:59:59", True),
        (weekly(FRI, start="16:00", end="18:00"), "2026-11-20T18:00:00", False),
        (weekly(FRI, start="16:00", end="18:00"), "2026-11-21T17:00:00", False),
        # Over midnight it is the day of its beginning that counts.
        (weekly(FRI, start="22:00", end="06:00"), "2026-11-20T21:59:59", False),
        (weekly(FRI, start="22:00", end="06:00"), "2026-11-20T22:00:00", True),
        (weekly(FRI, start="22:00", end="06:00"), "2026-11-21T05:59:59", True),
        (weekly(FRI, start="22:00", end="06:00"), "2026-11-21T06:00:00", False),
        (weekly(FRI, start="22:00", end="06:00"), "2026-11-20T05:00:00", False),
        # Whole days, that one or those together.
        (weekly(SAT), "2026-11-20T23:59:59", False),
        (weekly(SAT), "2026-11-21T00:00:00", True),
        (weekly(SAT), "2026-11-21T23:59:59", True),
        (weekly(SAT), "2026-11-22T00:00:00", False),
        (weekly(SAT, SUN), "2026-11-22T12:00:00", True),
        # From noon to noon.
        (weekly(SAT, start="12:00", end="12:00"), "2026-11-22T11:59:59", True),
        (weekly(SAT, start="12:00", end="12:00"), "2026-11-22T12:00:00", False),
        # The last day of a year is a Thursday; the night belongs to it.
        (weekly(THU, start="20:00", end="08:00"), "2027-01-01T07:59:00", True),
        (weekly(THU, start="20:00", end="08:00"), "2027-01-01T08:00:00", False),
        # By the clock of Vienna, an hour ahead in winter and two in summer.
        (weekly(FRI, start="16:00", end="18:00", timezone="Europe/Vienna"), "2026-11-20T15:00:00", True),
        (weekly(FRI, start="16:00", end="18:00", timezone="Europe/Vienna"), "2026-11-20T17:00:00", False),
        (weekly(FRI, start="16:00", end="18:00", timezone="Europe/Vienna"), "2026-07-17T14:00:00", True),
        (weekly(FRI, start="16:00", end="18:00", timezone="Europe/Vienna"), "2026-07-17T16:00:00", False),
        # There a Friday begins while it is Thursday in UTC.
        (weekly(FRI, timezone="Pacific/Kiritimati"), "2026-11-19T10:00:00", True),
        # On 2026-03-29 the clock goes from 02:00 to 03:00: what begins between begins at 03:00.
        (weekly(SUN, start="02:30", end="04:00", timezone="Europe/Vienna"), "2026-03-29T00:59:59", False),
        (weekly(SUN, start="02:30", end="04:00", timezone="Europe/Vienna"), "2026-03-29T01:00:00", True),
        (weekly(SUN, start="02:30", end="04:00", timezone="Europe/Vienna"), "2026-03-29T02:00:00", False),
        # On 2026-10-25 the hour from 02:00 comes twice, and is frozen twice.
        (weekly(SUN, start="02:00", end="03:00", timezone="Europe/Vienna"), "2026-10-24T23:59:59", False),
        (weekly(SUN, start="02:00", end="03:00", timezone="Europe/Vienna"), "2026-10-25T00:30:00", True),
        (weekly(SUN, start="02:00", end="03:00", timezone="Europe/Vienna"), "2026-10-25T01:30:00", True),
        (weekly(SUN, start="02:00", end="03:00", timezone="Europe/Vienna"), "2026-10-25T02:00:00", False),
    ],
)
def test_weekly_windows(window: FreezeWindow, at: str, frozen: bool) -> None:  # noqa: FBT001 - a case
    assert is_frozen(window, utc(at)) is frozen


def test_a_window_that_is_once_holds_from_its_first_instant_to_before_its_last_over_the_years_end() -> None:
    since, until = utc("2026-12-24T12:00:00"), utc("2027-01-07T06:00:00").astimezone(VIENNA)
    window = FreezeWindow(name="christmas", since=since, until=until)
    second = timedelta(seconds=1)
    assert [is_frozen(window, at) for at in (since - second, since, until - second, until)] == [
        False,
        True,
        True,
        False,
    ]
    assert why_blocked(RolloutPolicy(freezes=(window,)), since) == "freeze window christmas is on"


@given(
    at=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    minute=st.integers(0, 1_439),
    timezone=st.sampled_from(["UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_a_window_and_its_complement_are_never_both_on_nor_both_off(at: datetime, minute: int, timezone: str) -> None:
    start = f"{minute // 60:02d}:{minute % 60:02d}"
    noon = "12:00" if start != "12:00" else "13:00"
    one = weekly(*Weekday, start=start, end=noon, timezone=timezone)
    other = weekly(*Weekday, start=noon, end=start, timezone=timezone)
    assert is_frozen(one, at) is not is_frozen(other, at)


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/localtime", "Europe", "Vienna\0"])
def test_a_policy_with_a_time_zone_that_nobody_knows_is_refused_by_name(timezone: str) -> None:
    body = {"rollout": {"freezes": [{"name": "quiet", "days": ["fri"], "timezone": timezone}]}}
    with pytest.raises(ValidationError, match=r"freeze window quiet is in the time zone .*, which is not known: use a"):
        Policy.model_validate(body)


def test_what_blocks_is_told_together_and_nothing_blocks_without_a_cause() -> None:
    now = utc("2026-11-20T17:00:00")
    hours = {"2026-11-20T16": HourSum(requests=1_000, failed=11)}
    sums = RequestSums(endpoint="m", hours=hours, since=now, whole_at=now)
    budget = ErrorBudget(objective=0.99, hours=24)
    said = "the error budget is spent: 11 of 1000 requests failed in the last 24 h (1.100%), and 1.000% may"
    assert why_blocked(RolloutPolicy(error_budget=budget), now, sums) == said
    both = RolloutPolicy(error_budget=budget, freezes=(weekly(FRI), weekly(SAT)))
    assert why_blocked(both, now, sums) == f"freeze window quiet is on; {said}"
    assert why_blocked(RolloutPolicy(), now, sums) == ""
    assert "the error budget cannot be told" in why_blocked(RolloutPolicy(error_budget=budget), now, None)
