"""An alert goes by the latest look: who looked before a trouble was over, and says so after, pages nobody anew."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import pytest

from shared.alerts.documents import AlertRule
from shared.alerts.plans import PlanAlerts
from shared.core.ids import ModelName
from shared.core.messages import CommandKind
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.registry.policy import Policy
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.stored_plans import StoredPlans
from shared.routing.plan import plan_blob_name
from shared.store.ports import BlobContainer, Container
from shared.watching.alarms import end_all
from shared.watching.documents import Alarm, DriftReport, Episode, drift_report_id
from tests.world import noticed
from tests.world.interleaving import interleaved
from tests.world.strategies import give, run_until, start, world_with
from tests.world.twins import twin
from tests.world.watched import Watched
from tests.world.world import ENDPOINT, MODEL, World


def plans(world: World) -> StoredPlans:
    return StoredPlans(endpoints=world.rollouts._endpoints, blobs=world.blobs, clock=world.clock)


def look_at_plans(world: World) -> None:
    PlanAlerts(plans=plans(world), alerts=world.alerts, clock=world.clock).settle()


@cache
def rolling() -> World:
    world = world_with(tick_s=5)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING)
    world.queues.messages.clear()
    world.clock.pass_s(600)
    return world


@cache
def held() -> World:
    world = twin(rolling())
    give(world, CommandKind.PAUSE)
    endpoint = world.endpoint()
    assert endpoint.rollout is not None
    endpoint.rollout.state = RolloutState.HELD
    stored = world.documents.held[Container.ENDPOINTS, MODEL, endpoint.id]
    world.documents.replace(Container.ENDPOINTS, endpoint.to_body(), etag=stored.etag)
    return world


@cache
def busy() -> World:
    world = twin(rolling())
    world.put_policy(Policy(alerts=(AlertRulePolicy(name="long", metric=AlertMetric.STAGE_AGE_S, above=1.0),)))
    return world


@cache
def astray() -> World:
    world = twin(rolling())
    del world.blobs.held[BlobContainer.ROUTES, plan_blob_name(MODEL)]
    return world


@cache
def drifting() -> World:
    world = Watched().world
    now = world.clock.now()
    found = Episode(since=now, seen=now, sentence="it drifts", features=("age",), report_id="one")
    report = DriftReport(
        id=drift_report_id(1, "stable"),
        model=MODEL,
        endpoint=MODEL,
        version=1,
        role="stable",
        hourly_until=now + timedelta(hours=1),
        alarms={Alarm.DATA_DRIFT: found},
        is_alarming=True,
    )
    world.documents.create(Container.REPORTS, report.to_body())
    world.watching.watch()
    for alert in world.alerts.alerts().items:
        world.documents.held.pop((Container.REPORTS, MODEL, alert.id))
    world.documents.held = {key: one for key, one in world.documents.held.items() if key[0] is not Container.AUDIT}
    return world


def end_drift(world: World) -> None:
    world.watching._documents.change(
        MODEL, drift_report_id(1, "stable"), lambda one: end_all(one, "it is over", world.clock.now())
    )


@dataclass(frozen=True)
class Case:
    rule: AlertRule
    world: Callable[[], World]
    look: Callable[[World], object]
    end: Callable[[World], object]
    """It ends the trouble."""


def abort(world: World) -> None:
    give(world, CommandKind.ABORT)


CASES = [
    Case(AlertRule.ROLLOUT_HELD, held, lambda world: world.rollout_alerts.settle(), abort),
    Case(AlertRule.DECISION_LATE, rolling, lambda world: world.control_alerts.settle(), abort),
    Case(AlertRule.POLICY, busy, lambda world: world.traffic_alerts.settle(), lambda world: world.put_policy(Policy())),
    Case(
        AlertRule.PLAN_ASTRAY,
        astray,
        look_at_plans,
        lambda world: plans(world).republish(ENDPOINT, by="ann", reason="it was deleted"),
    ),
    Case(AlertRule.DATA_DRIFT, drifting, lambda world: world.watching.watch(), end_drift),
]


def said(world: World, rule: AlertRule) -> list[str]:
    """What was made known of the alerts of a rule, in order."""
    return [
        event.kind
        for alert in world.alerts.alerts().items
        if alert.rule is rule
        for event in world.audit.events(alert.stream)
    ]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule.value)
def test_a_look_that_began_before_a_trouble_was_over_tells_nobody_of_it_after(case: Case, *, is_known: bool) -> None:
    def world() -> World:
        made = twin(case.world())
        if is_known:
            case.look(made)
            assert said(made, case.rule) == ["alert_fired"]
        return made

    def end_and_look(world: World) -> None:
        case.end(world)
        case.look(world)

    found = []
    for after in interleaved(world, case.look, end_and_look):
        case.look(after)
        found.append(said(after, case.rule))
        assert found[-1] in ([], ["alert_fired", "alert_resolved"]), found
    # It is told of where the look came first.
    assert ["alert_fired", "alert_resolved"] in found


def test_a_look_at_sinks_that_began_while_one_was_down_does_not_say_so_after_it_is_back() -> None:
    # The mailbox of another is read after its own.
    down = noticed.world_with(noticed.sink(), noticed.sink("pager"))
    noticed.fire(down)
    down.alert_sinks["ops"].is_down = True
    noticed.pass_s(down, 600)
    assert said(down, AlertRule.SINK_DOWN) == ["alert_fired"]

    def world() -> World:
        made = twin(down)
        made.alert_sinks["ops"].is_down = True
        return made

    def look(world: World) -> None:
        world.notifications.settle()

    def be_back(world: World) -> None:
        world.alert_sinks["ops"].is_down = False
        world.clock.pass_s(3_600)
        world.notifications.settle()

    for after in interleaved(world, look, be_back):
        assert said(after, AlertRule.SINK_DOWN) == ["alert_fired", "alert_resolved"]


def test_a_plan_that_is_published_while_the_one_before_is_looked_at_is_not_astray() -> None:
    def world() -> World:
        made = twin(astray())
        look_at_plans(made)
        (alert,) = made.alerts.holding(AlertRule.PLAN_ASTRAY)
        made.alerts.acknowledge(alert.id, by="ann")
        plans(made).republish(ENDPOINT, by="ann", reason="it was deleted")
        return made

    for after in interleaved(world, look_at_plans, abort):
        assert said(after, AlertRule.PLAN_ASTRAY) == ["alert_fired", "alert_acknowledged", "alert_resolved"]


def test_an_endpoint_that_others_had_looked_at_long_before_is_not_late_for_that() -> None:
    def world() -> World:
        made = twin(rolling())
        made.put_policy(Policy(alerts=(AlertRulePolicy(name="late", metric=AlertMetric.DECISION_LAG_S, above=630.0),)))
        # One that is looked at before.
        made.registry.put_policy(ModelName("a"), Policy(), by="test")
        made.documents.create(Container.ENDPOINTS, Endpoint(endpoint="a").to_body())
        return made

    def take_long(world: World) -> None:
        """A minute passes, in which others look at the rollout."""
        world.clock.pass_s(60)
        abort(world)

    for after in interleaved(world, lambda world: world.traffic_alerts.settle(), take_long):
        assert said(after, AlertRule.POLICY) == []
