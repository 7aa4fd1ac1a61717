"""Alerts on traffic and on the control plane, from the windows that pods write to what a sink is told."""

import json
from datetime import timedelta
from typing import Any

import pytest

from shared.alerts.documents import Alert, AlertRule, AlertState
from shared.alerts.rules import STANDARD
from shared.budgets.sums import SUMS_ID
from shared.core.alert_settings import AlertSettings, AlertSink, SinkKind
from shared.core.ids import ModelName
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Strategy
from shared.rollout.endpoint import ENDPOINT_ID
from shared.store.ports import Container
from shared.watching.documents import drift_report_id
from tests.unit.observing.test_metrics import report
from tests.world.fakes import Fuse, Killed
from tests.world.twins import twin
from tests.world.world import MODEL, World

SINK = AlertSink.model_validate({"name": "ops", "kind": SinkKind.SLACK, "url": "https://hooks.example/x"})
ROLLOUT = RolloutPolicy(strategy=Strategy.ALL_AT_ONCE, automatic=True, watch_s=0, tick_s=1)


def serving(*rules: AlertRulePolicy) -> World:
    """A world whose version 1 serves, and whose alerts are told."""
    world = World(alert_settings=AlertSettings(sinks=(SINK,), group_wait_s=0))
    world.put_policy(Policy(rollout=ROLLOUT, alerts=rules))
    world.event(world.drop("one takes:x"))
    world.run(seconds=20)
    assert world.stable == 1
    # From here on it is counted.
    world.budgets.count()
    return world


def pass_minutes(world: World, minutes: int) -> None:
    """Let minutes pass, in each of which the pod reports, and the timers look."""
    for _ in range(minutes):
        for _ in range(4):
            world.pod.report(world.blobs, world.clock, MODEL)
            world.clock.pass_s(15)
        world.budgets.count()
        world.traffic_alerts.settle()
        world.control_alerts.settle()
        while world.step():
            pass


def holding(world: World) -> list[tuple[AlertRule, AlertState]]:
    rules = (*STANDARD, AlertRule.POLICY, AlertRule.STAGE_OVERDUE, AlertRule.DECISION_LATE, AlertRule.OUTBOX_STUCK)
    found = [alert for rule in rules for alert in world.alerts.holding(rule)]
    return [(alert.rule, alert.state) for alert in found]


def said(world: World) -> list[tuple[str, str]]:
    return [(line.news.value, line.rule) for notice in world.alert_sinks["ops"].told for line in notice.lines]


def test_an_endpoint_whose_requests_fail_is_told_once_and_its_end_once() -> None:
    world = serving()
    pass_minutes(world, 3)
    assert holding(world) == []
    world.pod.errors = {1: 0.07}
    pass_minutes(world, 20)
    assert holding(world) == [(AlertRule.ERROR_RATE, AlertState.FIRING)]
    world.pod.errors = {}
    pass_minutes(world, 7)
    assert holding(world) == []
    assert said(world) == [("firing", "error_rate"), ("resolved", "error_rate")]
    assert world.audit.verify().verified


def test_slow_answers_full_memory_and_a_version_that_cannot_be_loaded_are_told() -> None:
    world = serving()
    world.pod.latency_ms, world.pod.memory_share = {1: 3_000}, 0.97
    world.pod.unloadable = {1: "it is damaged"}
    pass_minutes(world, 1)
    assert (AlertRule.RESOURCES, AlertState.PENDING) in holding(world)
    assert (AlertRule.UNHEALTHY, AlertState.PENDING) in holding(world)
    pass_minutes(world, 3)
    assert {rule for rule, state in holding(world) if state is AlertState.FIRING} == {
        AlertRule.SLOW,
        AlertRule.RESOURCES,
        AlertRule.UNHEALTHY,
    }
    world.pod.latency_ms, world.pod.memory_share, world.pod.unloadable = {}, 0.2, {}
    pass_minutes(world, 7)
    assert holding(world) == []


def test_pods_that_fall_silent_are_told() -> None:
    world = serving()
    pass_minutes(world, 1)
    world.pod.is_silent = True
    pass_minutes(world, 6)
    assert holding(world) == [(AlertRule.UNHEALTHY, AlertState.FIRING)]


def test_a_policys_own_rule_fires_and_is_over_when_the_policy_has_it_no_more() -> None:
    world = serving(AlertRulePolicy(name="busy", metric=AlertMetric.REQUESTS_PER_S, above=1.0))
    pass_minutes(world, 2)
    (alert,) = world.alerts.firing(AlertRule.POLICY)
    assert alert.subject == f"endpoint:{MODEL}:busy"
    world.put_policy(Policy(rollout=ROLLOUT))
    pass_minutes(world, 1)
    assert holding(world) == []


def drifting(version: int, role: str, *, psi: float) -> dict[str, Any]:
    """The document of a version whose latest report found this."""
    one = report(id=drift_report_id(version, role), model=MODEL, endpoint=MODEL, version=version, role=role)
    assert one.latest is not None
    return one.model_copy(
        update={"latest": one.latest.model_copy(update={"psi": {"age": psi}, "psi_noise": {"age": 0.0}})}
    ).to_body()


def test_a_policys_own_rule_may_ask_for_drift_by_the_report_on_the_version_that_is_stable() -> None:
    world = serving(AlertRulePolicy(name="far", metric=AlertMetric.DRIFT_PSI, above=0.3))
    pass_minutes(world, 1)
    assert holding(world) == []
    for version, role, psi in ((1, "stable", 0.31), (2, "stable", 0.9), (1, "shadow", 0.9)):
        world.documents.create(Container.REPORTS, drifting(version, role, psi=psi))
    pass_minutes(world, 1)
    (alert,) = world.alerts.firing(AlertRule.POLICY)
    assert (alert.subject, "drift_psi is 0.31 (of age" in alert.sentence) == (f"endpoint:{MODEL}:far", True)
    stored = world.documents.get(Container.REPORTS, MODEL, drift_report_id(1, "stable"))
    assert stored is not None
    world.documents.replace(Container.REPORTS, drifting(1, "stable", psi=0.1), etag=stored.etag)
    pass_minutes(world, 1)
    assert holding(world) == []


@pytest.mark.parametrize("is_promoted", [True, False])
def test_drift_that_no_report_tells_of_now_is_over(*, is_promoted: bool) -> None:
    world = serving(AlertRulePolicy(name="far", metric=AlertMetric.DRIFT_PSI, above=0.3))
    world.documents.create(Container.REPORTS, drifting(1, "stable", psi=0.9))
    pass_minutes(world, 1)
    assert holding(world) == [(AlertRule.POLICY, AlertState.FIRING)]
    if is_promoted:
        world.event(world.drop("two takes:x", name="two.onnx"))
        world.run(seconds=120)
        assert world.stable == 2
    else:
        world.clock.pass_s(24 * 3_600)
    pass_minutes(world, 1)
    assert holding(world) == []
    (alert,) = [one for one in world.alerts.alerts().items if one.rule is AlertRule.POLICY]
    assert f"no report of the last day on version {1 + is_promoted}" in alert.sentence


def test_what_cannot_be_told_leaves_an_alert_as_it_is() -> None:
    world = serving()
    world.pod.errors = {1: 0.5}
    pass_minutes(world, 2)
    assert holding(world) == [(AlertRule.ERROR_RATE, AlertState.FIRING)]
    # Nothing is counted any more.
    world.clock.pass_s(3_600)
    world.traffic_alerts.settle()
    assert holding(world) == [(AlertRule.ERROR_RATE, AlertState.FIRING)]
    body = world.documents.held[Container.ENDPOINTS, MODEL, SUMS_ID].body
    stored = world.documents.get(Container.ENDPOINTS, MODEL, SUMS_ID)
    assert stored is not None
    world.documents.replace(Container.ENDPOINTS, body | {"hours": "lost"}, etag=stored.etag)
    world.traffic_alerts.settle()
    assert holding(world) == [(AlertRule.ERROR_RATE, AlertState.FIRING)]


def test_an_endpoint_that_an_older_release_stored_with_a_shadow_keeps_none_from_being_judged_and_counted() -> None:
    world = serving()
    stored = world.documents.get(Container.ENDPOINTS, MODEL, ENDPOINT_ID)
    assert stored is not None
    body = json.loads(json.dumps(stored.body))
    former = {"mirrored": 5, "compared": 5, "numbers": 5, "difference": 0.5, "difference_squared": 0.25}
    body["rollout"]["progress"]["counts"] = {"2": {"requests": 5, "shadow": former}}
    world.documents.replace(Container.ENDPOINTS, body, etag=stored.etag)
    world.pod.errors = {1: 0.5}
    pass_minutes(world, 2)
    assert holding(world) == [(AlertRule.ERROR_RATE, AlertState.FIRING)]


def test_a_rollout_that_nobody_looks_at_and_what_is_not_delivered_are_told() -> None:
    world = serving()
    slow = Policy(rollout=RolloutPolicy(automatic=True, tick_s=5, max_stage_s=100_000))
    world.put_policy(slow)
    world.event(world.drop("two takes:x", name="two.onnx"))
    world.run(seconds=20)
    assert world.endpoint().active is not None
    # The queue loses the tick, and nothing sweeps.
    world.queues.messages.clear()
    world.queues.loses = lambda: True
    stuck = world.registry.model(ModelName(MODEL))
    stuck.record("check_failed", world.clock.now())
    held = world.documents.get(Container.MODELS, stuck.partition, stuck.id)
    assert held is not None
    world.documents.replace(Container.MODELS, stuck.to_body(), etag=held.etag)
    pass_minutes(world, 12)
    firing = {rule for rule, state in holding(world) if state is AlertState.FIRING}
    assert {AlertRule.DECISION_LATE, AlertRule.OUTBOX_STUCK} <= firing
    world.queues.loses = lambda: False
    world.sweep.sweep()
    world.run(seconds=20)
    pass_minutes(world, 1)
    assert not {rule for rule, _ in holding(world)} & {AlertRule.DECISION_LATE, AlertRule.OUTBOX_STUCK}


def test_a_container_in_which_something_else_waits_at_each_look_is_not_stuck() -> None:
    world = serving()
    for minute in range(15):
        changed = world.registry.model(ModelName(MODEL))
        changed.outbox, changed.outbox_pending = [], False
        changed.record("check_failed", world.clock.now(), minute=minute)
        held = world.documents.get(Container.MODELS, changed.partition, changed.id)
        assert held is not None
        world.documents.replace(Container.MODELS, changed.to_body(), etag=held.etag)
        world.control_alerts.settle()
        world.clock.pass_s(60)
    assert holding(world) == []
    # The last of them stays.
    world.clock.pass_s(600)
    world.control_alerts.settle()
    assert holding(world) == [(AlertRule.OUTBOX_STUCK, AlertState.FIRING)]


@pytest.mark.parametrize("is_over", [False, True])
def test_a_look_that_is_killed_anywhere_is_made_good_by_the_next(is_over: bool) -> None:  # noqa: FBT001 - a parameter
    before = serving()
    before.pod.errors = {1: 0.5}
    pass_minutes(before, 1)
    world = twin(before)
    if is_over:
        assert holding(world) == [(AlertRule.ERROR_RATE, AlertState.FIRING)]
    before.clock.pass_s(60)
    if is_over:
        before.pod.errors = {}
        before.clock.pass_s(600)
        before.pod.report(before.blobs, before.clock, MODEL)
    before.budgets.count()
    at, died = 0, True
    while died:
        at += 1
        world = twin(before)
        world.documents.fuse = world.queues.fuse = Fuse(at=at)
        died = False
        try:
            world.traffic_alerts.settle()
        except Killed:
            died = True
        world.documents.fuse = world.queues.fuse = Fuse()
        world.traffic_alerts.settle()
        world.sweep.sweep()
        found = world.alerts.alerts("firing").items
        assert [alert.rule for alert in found] == ([] if is_over else [AlertRule.ERROR_RATE])
        alert = next(one for one in world.alerts.alerts().items if one.rule is AlertRule.ERROR_RATE)
        assert kinds(world, alert) == ["alert_fired", "alert_resolved"][: 1 + is_over]
    assert at > 3


def kinds(world: World, alert: Alert) -> list[str]:
    return [event.kind for event in world.audit.events(alert.stream)]


def test_a_model_without_a_policy_that_can_be_read_keeps_no_other_from_being_judged() -> None:
    world = serving()
    world.pod.errors = {1: 0.5}
    pass_minutes(world, 1)
    held = world.documents.held
    key = next(key for key in held if key[0] is Container.MODELS and key[2] == "model")
    stored = world.documents.get(*key)
    assert stored is not None
    world.documents.replace(Container.MODELS, stored.body | {"policy": "lost"}, etag=stored.etag)
    world.clock.pass_s(timedelta(minutes=1).total_seconds())
    world.traffic_alerts.settle()
    assert [rule for rule, _ in holding(world)] == [AlertRule.ERROR_RATE]
