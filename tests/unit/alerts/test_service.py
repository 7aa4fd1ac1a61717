"""Alerts: one for a rule and subject, fired and resolved by whoever looks, however often."""

from datetime import datetime, timedelta
from typing import Any

from shared.alerts.documents import Alert, AlertRule, AlertState
from shared.registration.documents import NO_MODEL
from tests.world.world import World

RULE = AlertRule.DEAD_LETTERS
YEAR_S = 365 * 86_400.0


def fire(world: World, sentence: str = "trouble", *, subject: str = "queue:x", waiting: int = 1) -> Alert:
    return world.alerts.fire(RULE, subject, sentence, model=NO_MODEL, evidence={"waiting": waiting})


def kinds(world: World, alert: Alert) -> list[str]:
    return [event.kind for event in world.audit.events(alert.stream)]


def test_the_same_finding_again_is_nothing_new_and_another_counts() -> None:
    world = World()
    first = fire(world)
    world.clock.pass_s(60)
    assert fire(world) == first
    assert fire(world, "trouble, worded anew") == first
    more = fire(world, waiting=2)
    assert (more.id, more.count, more.since, more.evidence) == (first.id, 2, first.since, {"waiting": 2})
    assert more.changed_at == world.clock.now()
    assert kinds(world, more) == ["alert_fired", "alert_fired"]
    assert world.audit.verify(more.stream).verified


def test_one_that_was_resolved_fires_anew_from_then_on() -> None:
    world = World()
    fire(world)
    world.clock.pass_s(60)
    resolved = world.alerts.resolve(RULE, "queue:x", "over", model=NO_MODEL)
    assert resolved is not None
    assert (resolved.state, resolved.sentence) == (AlertState.RESOLVED, "over")
    assert list(world.alerts.firing(RULE)) == []
    world.clock.pass_s(60)
    # Whatever the last sentence was: what holds again fires again.
    again = fire(world, "over")
    assert (again.state, again.count, again.since) == (AlertState.FIRING, 1, world.clock.now())
    assert kinds(world, again) == ["alert_fired", "alert_resolved", "alert_fired"]


def test_resolving_what_does_not_fire_changes_nothing() -> None:
    world = World()
    assert world.alerts.resolve(RULE, "queue:x", "over", model=NO_MODEL) is None
    fire(world)
    world.alerts.resolve(RULE, "queue:x", "over", model=NO_MODEL)
    held = dict(world.documents.held)
    world.alerts.resolve(RULE, "queue:x", "over again", model=NO_MODEL)
    assert world.documents.held == held


def test_rules_and_subjects_tell_alerts_apart_and_states_are_listed() -> None:
    world = World()
    fire(world)
    fire(world, subject="queue:y")
    world.alerts.fire(AlertRule.ARTIFACT_ALTERED, "queue:x", "trouble", model="digits")
    world.alerts.resolve(RULE, "queue:y", "over", model=NO_MODEL)
    assert len(world.alerts.alerts().items) == 3
    assert [(alert.rule, alert.subject) for alert in world.alerts.alerts("resolved").items] == [(RULE, "queue:y")]
    assert [alert.subject for alert in world.alerts.firing(RULE)] == ["queue:x"]


def test_what_a_long_look_finds_for_the_first_time_is_pending_from_its_beginning() -> None:
    world = World()
    began = world.clock.now()

    def look(looked_at: datetime) -> AlertState:
        return world.alerts.fire(RULE, "queue:x", "slow", model=NO_MODEL, for_s=60, looked_at=looked_at).state

    world.clock.pass_s(90)
    assert look(began) is AlertState.PENDING
    assert look(began + timedelta(seconds=59)) is AlertState.PENDING
    assert look(began + timedelta(seconds=60)) is AlertState.FIRING


def test_an_alert_by_a_clock_that_was_far_ahead_goes_by_the_looks_that_come_after_it_was_set() -> None:
    world = World()

    def look(waiting: int) -> Alert | None:
        about: Any = {"model": NO_MODEL, "looked_at": world.clock.now()}
        if not waiting:
            return world.alerts.resolve(RULE, "queue:x", "over", **about)
        return world.alerts.fire(RULE, "queue:x", "trouble", evidence={"waiting": waiting}, **about)

    world.clock.pass_s(YEAR_S)
    look(1)
    world.clock.pass_s(-YEAR_S)
    found = look(2)
    assert found is not None
    assert (found.evidence, found.changed_at) == ({"waiting": 2}, world.clock.now())
    world.clock.pass_s(YEAR_S)
    look(3)
    world.clock.pass_s(-YEAR_S)
    found = look(0)
    assert found is not None
    assert found.state is AlertState.RESOLVED
