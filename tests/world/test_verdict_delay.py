"""How soon a verdict comes: on a candidate at the first call after its window, on the stable version with the hour."""

from datetime import datetime, timedelta

from shared.core.verdict import Outcome
from shared.registry.drift_policy import DriftPolicy
from shared.watching.rolling import SETTLE
from shared.watching.rollups import hour_of
from tests.world.test_watching import with_candidate
from tests.world.watched import Watched, counted, rows_of
from tests.world.world import MODEL

CALL_S = 60
"""The timer's, as it is deployed."""


def called_until(watched: Watched, rule: str, *, most: int = 70) -> datetime | None:
    """The timer's calls, minute by minute, up to the first that has the alert fire: when that was."""
    for _ in range(most):
        watched.world.clock.pass_s(CALL_S)
        watched.world.watching.watch()
        if rule in watched.firing():
            return watched.now
    return None


def test_a_candidate_that_drifted_is_told_of_by_the_first_call_after_the_window_that_shows_it() -> None:
    watched = Watched()
    watched.hour()
    with_candidate(watched, hours=9)
    moved = {"income": 2.0}
    for by in ({}, moved):
        assert called_until(watched, "concurrent_drift", most=3) is None
        watched.world.clock.pass_s(30)
        stable, own = rows_of(watched.rng, 1_200), rows_of(watched.rng, 400, by)
        watched.write({"1:stable": counted(watched.profile, stable), "2:candidate": counted(watched.profile, own)})
    written = watched.now
    assert called_until(watched, "concurrent_drift") == written + timedelta(seconds=CALL_S)
    report = watched.report(2, "candidate").latest
    assert report is not None
    assert report.made_at == watched.now


def drifting() -> Watched:
    """A stable version that drifts five minutes after an hour was over."""
    watched = Watched(policy=DriftPolicy(span_h=1))
    watched.hour()
    watched.world.clock.pass_s(300)
    watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 600, {"income": 2.0}))})
    return watched


def test_the_stable_version_is_told_of_shortly_after_the_hour_and_at_once_where_it_is_asked_for() -> None:
    watched, asked = drifting(), drifting()
    assert called_until(watched, "data_drift") == hour_of(watched.now) + SETTLE
    assert watched.now - asked.now < timedelta(hours=1)
    (found,) = asked.world.watching.report_now(MODEL)
    assert found.latest is not None
    assert found.latest.outcome is Outcome.FAIL
    assert asked.firing() == {"data_drift": 1}
