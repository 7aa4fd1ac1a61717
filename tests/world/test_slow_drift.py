"""Slow drift through the service: evidence that gathers from hour to hour, across calls and kills, and what follows."""

import copy
import json
from functools import cache

import pytest

from shared.alerts.documents import AlertRule
from shared.core.verdict import Outcome
from shared.registry.drift_policy import DriftPolicy, RetrainingPolicy
from shared.watching.assessing import SLOW_LEARNS_H
from shared.watching.documents import Alarm
from shared.watching.report import SlowFigures
from tests.world.copies import copy_of
from tests.world.fakes import Killed
from tests.world.test_watching import queued, told
from tests.world.watched import Watched, counted, rows_of
from tests.world.world import MODEL

ASKING = DriftPolicy(psi=1.0, retraining=RetrainingPolicy(enabled=True))
QUIET_H = SLOW_LEARNS_H + 2
SMALL = {"income": 0.5}
"""Below the limit, also where all rows of the span are of it."""


def figures(watched: Watched) -> SlowFigures | None:
    """What the stable version's latest report says of slow drift."""
    details = json.loads(watched.world.watching.reports.json(MODEL, watched.latest.report_id))
    return SlowFigures.model_validate(details["slow"]) if details["slow"] else None


@cache
def quiet() -> Watched:
    """An endpoint of which all is known that is learned first, and nothing is wrong."""
    watched = Watched(policy=ASKING)
    for hour in range(QUIET_H):
        watched.hour(rows=400)
        found = figures(watched)
        assert (found.windows if found else 0) == max(0, hour + 1 - SLOW_LEARNS_H)
    assert watched.firing() == {}
    return watched


def again(watched: Watched) -> Watched:
    """Another one of which all is as of this one."""
    found = copy.copy(watched)
    found.world = copy_of(watched.world)
    found.rng, found.sequences = copy.deepcopy(watched.rng), dict(watched.sequences)
    return found


def test_a_small_drift_that_lasts_is_found_by_and_by_told_once_and_leads_to_one_request() -> None:
    watched = again(quiet())
    evidence: list[float] = []
    while not watched.firing():
        watched.hour(rows=400, moved=SMALL)
        found = figures(watched)
        assert found is not None
        assert found.log_evidence is not None
        evidence.append(found.log_evidence)
        assert found.windows == QUIET_H - SLOW_LEARNS_H + len(evidence), "the state is kept"
    # No hour by itself would do, and none is a drift by its effect.
    assert evidence == sorted(evidence)
    assert 2 <= len(evidence) <= 72
    assert watched.latest.findings[0].outcome is Outcome.PASS
    assert watched.firing() == {"slow_drift": 1}
    (alert,) = watched.world.alerts.firing(AlertRule.SLOW_DRIFT)
    assert (
        f"small drifts have lasted: income (mean), found after {QUIET_H - SLOW_LEARNS_H + len(evidence)} hours"
        in alert.sentence
    )
    for _ in range(2):
        watched.hour(rows=400, moved=SMALL)
    assert watched.firing() == {"slow_drift": 1}
    (request,) = watched.world.watching.requests(MODEL).requests
    assert (request.alarm, request.features) == (Alarm.SLOW_DRIFT, ("income",))
    assert [message["request_id"] for message in queued(watched)] == [request.request_id]


def test_killed_at_any_call_of_the_look_that_finds_it_the_next_one_finds_the_same() -> None:
    whole = again(quiet())
    while not whole.firing():
        whole.world.clock.pass_s(1_800)
        whole.write({"1:stable": counted(whole.profile, rows_of(whole.rng, 400, SMALL))})
        whole.world.clock.pass_s(1_800)
        before, calls = again(whole), whole.world.fuse.calls
        whole.look()
    calls = whole.world.fuse.calls - calls
    whole.world.sweep.sweep()
    assert Alarm.SLOW_DRIFT in whole.report().alarms
    for call in range(1, calls + 1, 24):
        killed = again(before)
        killed.world.fuse.at = call
        killed.world.clock.pass_s(240)
        with pytest.raises((Killed, BaseExceptionGroup)):
            killed.world.watching.watch()
        killed.world.fuse.at = None
        killed.world.watching.watch()
        killed.world.sweep.sweep()
        killed.world.clock.pass_s(-240)
        assert told(killed) == told(whole), f"killed at call {call}"
