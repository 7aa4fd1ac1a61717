"""The metrics of the sinks of alerts: what waits for each, and for how long."""

from datetime import timedelta

from shared.observing.sinks import sinks
from tests.unit.observing.test_metrics import values
from tests.world.noticed import fire, mailbox, pass_s, sink, world_with
from tests.world.test_notices_given_up import silence
from tests.world.world import World


def metrics(world: World, *, news_age_s: float = 0.0) -> dict[str, float]:
    since = world.clock.now() - timedelta(seconds=news_age_s) if news_age_s else None
    found = values(*sinks(world.notifications.mailboxes(), since, world.clock.now()))
    return {name.removeprefix("slipway_sink_").partition("{")[0]: value for name, value in found.items()}


def test_a_sink_that_is_told_has_nothing_waiting() -> None:
    world = world_with()
    fire(world)
    pass_s(world, 60)
    assert metrics(world) == {"age_seconds": 0, "waiting": 0, "failed_tries": 0, "notices_dropped_total": 0}


def test_the_oldest_news_that_a_sink_is_to_be_told_says_since_when_and_what_is_silenced_does_not() -> None:
    world = world_with()
    world.alert_sinks["ops"].is_down = True
    silence(world, "quiet")
    fire(world, "quiet")
    pass_s(world, 600)
    assert metrics(world)["age_seconds"] == metrics(world)["waiting"] == 0
    fire(world, "a")
    pass_s(world, 300)
    fire(world, "b")
    pass_s(world, 60)
    assert 300 <= metrics(world)["age_seconds"] <= 360
    # The sink's own alert waits for it too.
    assert metrics(world)["waiting"] == 3
    assert metrics(world)["failed_tries"] == 3
    world.alert_sinks["ops"].is_down = False
    pass_s(world, 1_800)
    assert metrics(world)["age_seconds"] == metrics(world)["failed_tries"] == 0


def test_news_that_is_in_no_mailbox_yet_counts_too() -> None:
    world = world_with()
    world.notifications.settle()
    assert metrics(world, news_age_s=120)["age_seconds"] == 120


def test_a_mailbox_of_a_sink_that_is_gone_is_left_out() -> None:
    world = world_with(sink("ops"))
    fire(world)
    pass_s(world, 60)
    assert mailbox(world).sink == "ops"
    other = world_with(sink("other"))
    other.documents.held = dict(world.documents.held)
    other.notifications.settle()
    assert set(other.notifications.mailboxes()) == {"other"}
