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

ASKING = DriftPolicy(retraining=RetrainingPolicy(enabled=True))
QUIET_H = SLOW_LEARNS_H + 4
SMALL = {"income": 0.5}
"""A PSI of about 0.02 in the hours that it takes to be found: far below any limit."""


def figures(watched: Watched) -> SlowFigures | None:
    """What the stable version's latest report says of slow drift."""
    details = json.loads(watched.world.watching.reports.json(MODEL, watched.latest.report_id))
    return SlowFigures.model_validate(details["slow"]) if details["slow"] else None


@cache
def _quiet() -> Watched:
    watched = Watched(policy=ASKING)
    for hour in range(QUIET_H):
        watched.hour(rows=400)
        found = figures(watched)
        assert (found.windows if found else 0) == max(0, hour + 1 - SLOW_LEARNS_H)
    assert watched.firing() == {}
    return watched


def quiet() -> Watched:
    """An endpoint of which all is known that is learned first, and nothing is wrong."""
    watched = copy.copy(_quiet())
    watched.world = copy_of(watched.world)
    watched.rng, watched.sequences = copy.deepcopy(watched.rng), dict(watched.sequences)
    return watched


def test_a_small_drift_that_lasts_is_found_by_and_by_told_once_and_leads_to_one_request() -> None:
    watched = quiet()
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
    assert 2 <= len(evidence) <= 6
    assert watched.latest.findings[0].outcome is Outcome.PASS
    assert watched.firing() == {"slow_drift": 1}
    (alert,) = watched.world.alerts.firing(AlertRule.SLOW_DRIFT)
    assert (
        f"small drifts have lasted: income (mean), found after {QUIET_H - SLOW_LEARNS_H + len(evidence)} hours"
        in alert.sentence
    )
    for _ in range(3):
        watched.hour(rows=400, moved=SMALL)
    assert watched.firing() == {"slow_drift": 1}
    (request,) = watched.world.watching.requests(MODEL).requests
    assert (request.alarm, request.features) == (Alarm.SLOW_DRIFT, ("income",))
    assert [message["request_id"] for message in queued(watched)] == [request.request_id]


def test_killed_at_any_call_of_the_look_that_finds_it_the_next_one_finds_the_same() -> None:
    watched = quiet()
    world = watched.world
    while True:
        world.clock.pass_s(1_800)
        watched.write({"1:stable": counted(watched.profile, rows_of(watched.rng, 400, SMALL))})
        world.clock.pass_s(1_800 + 240)
        documents, blobs, messages = dict(world.documents.held), dict(world.blobs.held), list(world.queues.messages)
        before = world.fuse.calls
        world.watching.watch()
        if watched.firing():
            break
        world.clock.pass_s(-240)
    calls = world.fuse.calls - before
    world.sweep.sweep()
    wanted = told(watched)
    assert Alarm.SLOW_DRIFT in watched.report().alarms
    for call in range(1, calls + 1, 16):
        world.documents.held, world.blobs.held = dict(documents), dict(blobs)
        world.queues.messages = list(messages)
        world.fuse.at = world.fuse.calls + call
        with pytest.raises((Killed, BaseExceptionGroup)):
            world.watching.watch()
        world.fuse.at = None
        world.watching.watch()
        world.sweep.sweep()
        assert told(watched) == wanted, f"killed at call {call}"
