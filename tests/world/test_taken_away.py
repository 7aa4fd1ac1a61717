"""What takes traffic from a candidate without a fault is followed until the pods that report have applied it."""

import pytest

from shared.alerts.documents import AlertRule
from shared.core.messages import CommandKind
from shared.registry.rollout_policy import Stage, WhenBusy
from shared.rollout.machine import RolloutState
from shared.rollout.standing import Waiting, standing
from tests.world.strategies import SLOW_STAGES, give, rollout, run_until, start, state, world_with
from tests.world.world import World


def stuck(world: World) -> None:
    """The second pod applies no further plan."""
    world.others[0].is_stuck = True


def alerts(world: World) -> list[str]:
    world.rollout_alerts.settle()
    return [alert.sentence for alert in world.alerts.firing(AlertRule.PLAN_UNAPPLIED)]


def waits_for(world: World) -> tuple[Waiting, str]:
    found = standing(world.endpoint(), rollout(world), world.clock.now())
    return found.waiting, found.sentence


@pytest.mark.parametrize("kind", [CommandKind.ABORT, CommandKind.REJECT, CommandKind.ROLLBACK])
def test_a_pod_that_goes_on_with_the_candidate_is_waited_for_and_told_of(kind: CommandKind) -> None:
    world = world_with(pods=2, stages=(SLOW_STAGES[0], SLOW_STAGES[1].model_copy(update={"approval": True})))
    start(world)
    run_until(world, RolloutState.AWAITING if kind is CommandKind.REJECT else RolloutState.PROGRESSING, stage=0)
    world.run(seconds=3)
    stuck(world)
    give(world, kind)
    world.run(seconds=50)
    assert alerts(world) == [], "within a minute"
    world.run(seconds=30)
    waiting, sentence = waits_for(world)
    assert waiting is Waiting.PODS
    assert "1 of 2 pods that report have applied the plan" in sentence
    assert [said.partition(" reports")[0] for said in alerts(world)] == ["pod pod-2 of digits"]
    if kind is not CommandKind.ROLLBACK:
        world.run(seconds=3_700)
        assert alerts(world), "however long that lasts"
    world.others[0].is_stuck = False
    world.run(seconds=35)
    assert waits_for(world)[0] is Waiting.NOTHING
    assert (world.endpoint().ticking, alerts(world)) == (None, [])
    world.run(seconds=5)
    assert world.queues.messages == []


def test_an_end_that_every_pod_applies_is_looked_at_twice_at_most() -> None:
    world = world_with(pods=2, stages=SLOW_STAGES)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    give(world, CommandKind.ABORT)
    assert world.endpoint().unapplied is not None
    ticks = rollout(world).tick
    world.run(seconds=10)
    assert world.endpoint().unapplied is None
    assert rollout(world).tick <= ticks + 2


def test_where_no_pod_reports_an_end_is_not_waited_for_for_ever() -> None:
    world = world_with(stages=SLOW_STAGES)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.pod.is_silent = True
    give(world, CommandKind.ABORT)
    world.run(seconds=3_500)
    assert world.endpoint().unapplied is not None
    assert alerts(world) == []
    world.run(seconds=200)
    assert (world.endpoint().unapplied, world.endpoint().ticking) == (None, None)


def test_a_candidate_without_traffic_is_taken_from_nobody() -> None:
    world = world_with(stages=(Stage(weight_bp=1_000, duration_s=10, approval=True),))
    start(world)
    run_until(world, RolloutState.AWAITING)
    give(world, CommandKind.ABORT)
    assert world.endpoint().ticking is None


def test_what_the_next_rollout_superseded_is_followed_while_that_goes_on() -> None:
    world = world_with(versions=3, pods=2, stages=SLOW_STAGES, when_busy=WhenBusy.SUPERSEDE, quorum=0.5)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    stuck(world)
    start(world, 3)
    world.run(seconds=70)
    assert (state(world), rollout(world).candidate.version) == (RolloutState.PROGRESSING, 3)
    assert len(alerts(world)) == 1
    world.others[0].is_stuck = False
    world.run(seconds=35)
    assert (world.endpoint().unapplied, alerts(world)) == (None, [])
