"""Ticks that come no more, as after half a minute without storage: the sweep has them come again, and soon."""

from datetime import timedelta

import pytest

from shared.core.messages import Queue
from shared.core.settings import Settings
from shared.rollout.machine import RolloutState
from tests.world.strategies import rollout, run_until, start, state, world_with
from tests.world.world import World

PRODUCTION = timedelta(seconds=float(str(Settings.__dataclass_fields__["sweep_grace_s"].default)))


def lose_ticks(world: World) -> None:
    """Every attempt at the tick that waits failed, as the queue counts them."""
    world.queues.messages = [message for message in world.queues.messages if message[1] != Queue.ROLLOUT_TICKS]


@pytest.mark.parametrize(("tick_s", "sent_within_s"), [(1, 61), (15, 76), (60, 241)])
def test_a_tick_that_was_given_up_is_sent_again_long_before_a_drop_would_be(tick_s: int, sent_within_s: int) -> None:
    world = world_with(tick_s=tick_s)
    start(world)
    world.run(seconds=1)
    lose_ticks(world)
    ticked, due_at = rollout(world).tick, rollout(world).next_tick_at
    for _ in range(1_000):
        if world.rollouts.resend_overdue(PRODUCTION):
            break
        world.clock.pass_s(1)
    overdue_s = (world.clock.now() - due_at).total_seconds()
    assert max(60, 3 * tick_s) < overdue_s <= sent_within_s
    assert world.rollouts.resend_overdue(PRODUCTION) == 0, "it was sent a moment ago"
    world.run(seconds=2)
    assert rollout(world).tick > ticked


def test_where_the_sweep_waits_for_less_than_that_a_tick_waits_for_no_more() -> None:
    world = world_with()
    start(world)
    lose_ticks(world)
    world.clock.pass_s(12)
    assert world.rollouts.resend_overdue(timedelta(seconds=10)) > 0
    run_until(world, RolloutState.PROMOTED)


def test_a_candidate_that_fails_while_ticks_are_lost_is_taken_back_by_the_sweeps_next() -> None:
    world = world_with(grace=PRODUCTION)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    lose_ticks(world)
    world.pod.errors[2] = 1.0
    world.run(seconds=130)
    assert state(world) is RolloutState.ROLLED_BACK
