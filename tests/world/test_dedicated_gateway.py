"""A Gateway that does not hear, and pods that go: what the control plane sees of it in the requests that pods count."""

import pytest

from shared.alerts.documents import AlertRule
from shared.core.messages import CommandKind
from shared.registry.rollout_policy import Placement, Stage
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Trigger
from shared.rollout.standing import standing
from shared.routing.plan import Route
from shared.telemetry.window import VersionCounts
from tests.world.strategies import give, policy, rollout, run_until, start, state
from tests.world.test_dedicated import BLUE, GREEN, LAG_S, SHARED, dedicated, heard, placed
from tests.world.test_replay import check_same
from tests.world.world import ENDPOINT, Pod, World


class Sparse(Pod):
    """A pod with so little traffic that three of four windows have none."""

    def _counts(self, route: Route) -> VersionCounts:
        return super()._counts(route) if self.sequence % 4 == 0 else VersionCounts()


def go_on(world: World, *, seconds: int, step_s: int = 20) -> None:
    """Let the world go on by steps of so many seconds, of which it plays two."""
    for _ in range(seconds // step_s):
        world.clock.pass_s(step_s - 2)
        world.run(seconds=2)
        world.sweep.sweep()
    world.run(seconds=2)
    world.rollout_alerts.settle()


def told(world: World) -> list[str]:
    """What the alerts on plans that are not applied say."""
    return [alert.sentence for alert in world.alerts.firing(AlertRule.PLAN_UNAPPLIED)]


def at_half(world: World, version: int) -> None:
    """Have a version take half of the traffic, of which the Gateway has heard; and nothing from then on."""
    start(world, version)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=LAG_S + 1)
    world.gateway.is_deaf = True


@pytest.mark.parametrize("where", [RolloutState.PROGRESSING, RolloutState.WATCHING])
def test_a_candidate_of_which_no_pod_reports_any_more_is_taken_back(where: RolloutState) -> None:
    world = dedicated(lag_s=0, stages=(Stage(weight_bp=5_000, duration_s=30),), watch_s=120)
    placed(world, 2)
    start(world, 3)
    run_until(world, where)
    world.run(seconds=2)
    for pod in world.others:
        pod.is_silent = pod.slot is GREEN
    world.clock.pass_s(28)
    world.run(seconds=4)
    assert state(world) is RolloutState.ROLLED_BACK
    assert rollout(world).reason.startswith("no pod of slot green reports any more")
    found = world.endpoint().rollback
    assert found is not None
    assert found.trigger is Trigger.HEALTH
    assert world.gateway.shares(world.clock.now()) == {SHARED: 0, BLUE: 10_000, GREEN: 0}
    check_same(world)


def test_a_candidate_that_nobody_is_sent_to_may_be_without_pods() -> None:
    world = dedicated(lag_s=0, stages=(Stage(weight_bp=5_000, duration_s=30),))
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING)
    give(world, CommandKind.SET_WEIGHT, weight_bp=0)
    for pod in world.others:
        pod.is_silent = True
    world.run(seconds=60)
    assert state(world) is RolloutState.PROGRESSING


def test_where_stable_reports_no_more_either_nobody_knows_who_answers() -> None:
    world = dedicated(lag_s=0, stages=(Stage(weight_bp=5_000, duration_s=30),), watch_s=120)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING)
    for pod in (world.pod, *world.others):
        pod.is_silent = True
    world.run(seconds=60)
    assert state(world) is RolloutState.PROGRESSING


def test_no_candidate_is_promoted_before_the_gateway_sends_it_everything() -> None:
    world = dedicated(lag_s=0)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    world.run(seconds=2)
    world.gateway.is_deaf = True
    go_on(world, seconds=400)
    assert (state(world), world.stable) == (RolloutState.WATCHING, 1)
    assert rollout(world).stage_started_at is None
    assert rollout(world).reason == "the Gateway still sends requests to version 1 (pod pod-1)"
    found = standing(world.endpoint(), rollout(world), world.clock.now())
    assert found.sentence == f"the Gateway to hear it: {rollout(world).reason}"
    assert found.stage_limit_s is None
    (said,) = told(world)
    assert said.startswith("the Gateway still sends requests of digits to pod pod-1, whose version has no share")
    world.gateway.is_deaf = False
    go_on(world, seconds=160)
    assert (state(world), world.stable, told(world)) == (RolloutState.PROMOTED, 2, [])
    assert world.gateway.failed == []
    check_same(world)


def test_one_request_in_a_minute_shows_that_stable_is_still_sent_some() -> None:
    world = dedicated(lag_s=0)
    world.pod = Sparse(plan=world.pod.plan, sequence=world.pod.sequence)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    world.run(seconds=2)
    world.gateway.is_deaf = True
    go_on(world, seconds=400)
    assert (state(world), world.stable, len(told(world))) == (RolloutState.WATCHING, 1, 1)
    check_same(world)


def test_pods_that_are_seldom_sent_requests_are_still_sent_them() -> None:
    world = dedicated()
    world.others = [Sparse(name=pod.name, slot=pod.slot) for pod in world.others]
    placed(world, 2)
    at_half(world, 3)
    give(world, CommandKind.ROLLBACK)
    assert start(world, 4) is None
    go_on(world, seconds=320)
    assert world.gateway.shares(world.clock.now())[GREEN] == 5_000
    assert (rollout(world).candidate.version, len(told(world))) == (3, 1)
    assert world.rollouts.rollbacks(ENDPOINT)[-1].zero_traffic_at is None
    world.gateway.is_deaf = False
    heard(world)
    go_on(world, seconds=80)
    found = world.rollouts.rollbacks(ENDPOINT)[-1]
    # The latest request that the tick found is some time before the Gateway heard: three of four windows have none.
    assert found.zero_traffic_at is not None
    assert (found.zero_traffic_at - found.detected_at).total_seconds() > 240
    assert (rollout(world).candidate.version, told(world)) == (4, [])


def test_a_rollout_that_began_since_sees_too_whether_the_gateway_has_heard_the_end_of_the_one_before() -> None:
    world = dedicated()
    placed(world, 2)
    at_half(world, 3)
    give(world, CommandKind.ABORT)
    world.put_policy(policy(stages=(Stage(weight_bp=5_000, duration_s=600),)))
    start(world, 4)
    (green,) = (pod for pod in world.others if pod.slot is GREEN)
    while rollout(world).candidate.version == 3:
        green.requests = 1_000
        world.clock.pass_s(18)
        world.run(seconds=2)
        green.requests = 0
        world.sweep.sweep()
        world.run(seconds=1)
    assert (rollout(world).candidate.slot, world.endpoint().unapplied is None) == (SHARED, False)
    go_on(world, seconds=40)
    green.requests = 1_000
    world.run(seconds=2)
    green.requests = 0
    go_on(world, seconds=40)
    assert world.endpoint().unapplied is not None
    go_on(world, seconds=40)
    assert world.endpoint().unapplied is None


def test_a_candidate_that_is_not_to_be_watched_has_had_all_traffic_too() -> None:
    world = dedicated(lag_s=0, stages=(Stage(weight_bp=10_000, duration_s=2),), watch_s=0)
    world.gateway.is_deaf = True
    start(world, 2)
    world.run(seconds=30)
    assert (state(world), world.stable) == (RolloutState.PROGRESSING, 1)


def test_somebody_may_promote_whatever_the_gateway_sends_stable() -> None:
    world = dedicated(lag_s=0)
    at_half(world, 2)
    give(world, CommandKind.PROMOTE)
    world.run(seconds=2)
    give(world, CommandKind.PROMOTE, "promote-2")
    assert (state(world), world.stable) == (RolloutState.PROMOTED, 2)


def test_pods_that_have_nothing_left_and_refuse_what_they_are_sent_are_still_sent_it() -> None:
    world = dedicated()
    placed(world, 2)
    at_half(world, 3)
    give(world, CommandKind.ABORT)
    assert start(world, 4) is None
    world.run(seconds=4)
    for pod in world.others:
        # It was restarted, or its memory was needed.
        pod.plan = None if pod.slot is GREEN else pod.plan
    go_on(world, seconds=320)
    assert (rollout(world).candidate.version, world.endpoint().unapplied is None) == (3, False)
    assert len(told(world)) == 1
    world.gateway.is_deaf = False
    heard(world)
    go_on(world, seconds=80)
    assert (rollout(world).candidate.version, told(world)) == (4, [])


def test_the_end_of_a_candidate_whose_share_was_taken_before_is_waited_for_too() -> None:
    world = dedicated()
    placed(world, 2)
    at_half(world, 3)
    give(world, CommandKind.SET_WEIGHT, weight_bp=0)
    world.run(seconds=1)
    give(world, CommandKind.ABORT)
    assert start(world, 4) is None
    go_on(world, seconds=320)
    assert (rollout(world).candidate.version, len(told(world))) == (3, 1)


@pytest.mark.parametrize("placement", Placement)
def test_a_stage_with_all_traffic_is_held_against_what_stable_did_when_it_had_a_share(placement: Placement) -> None:
    stages = (Stage(weight_bp=5_000, duration_s=8), Stage(weight_bp=10_000, duration_s=8))
    world = dedicated(lag_s=3, stages=stages, placement=placement)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    before = rollout(world).progress.both
    assert before[1].requests > 0
    world.run(seconds=5)
    assert (rollout(world).weight_bp, rollout(world).progress.both) == (10_000, before)
