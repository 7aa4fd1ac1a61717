"""An endpoint that is not counted is told of: no alert on its traffic could be."""

from datetime import timedelta

from shared.alerts.documents import AlertRule, AlertState
from shared.alerts.rules import BEHIND
from tests.world.test_traffic_alerts import pass_minutes, serving
from tests.world.world import World


def behind(world: World) -> list[AlertState]:
    return [alert.state for alert in world.alerts.holding(AlertRule.COUNTING_BEHIND)]


def test_an_endpoint_that_is_not_counted_for_five_minutes_is_told_of_until_it_is() -> None:
    world = serving()
    pass_minutes(world, 1)
    assert behind(world) == []
    world.clock.pass_s(BEHIND.total_seconds())
    world.control_alerts.settle()
    assert behind(world) == []
    world.clock.pass_s(1)
    world.control_alerts.settle()
    assert behind(world) == [AlertState.FIRING]
    world.budgets.count()
    world.control_alerts.settle()
    assert behind(world) == []


def test_an_endpoint_that_never_was_counted_is_told_of_when_it_is_old_enough() -> None:
    world = World()
    world.event(world.drop("one takes:x"))
    world.run(seconds=20)
    world.control_alerts.settle()
    assert behind(world) == [AlertState.PENDING]
    world.clock.pass_s((BEHIND + timedelta(seconds=1)).total_seconds())
    world.control_alerts.settle()
    assert behind(world) == [AlertState.FIRING]
