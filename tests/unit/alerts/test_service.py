"""Alerts: one for a rule and subject, fired and resolved by whoever looks, however often."""

from shared.alerts.documents import Alert, AlertRule, AlertState
from shared.registration.documents import NO_MODEL
from tests.world.world import World

RULE = AlertRule.DEAD_LETTERS


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
