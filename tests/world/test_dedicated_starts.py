"""When a candidate begins in pods of its own: once the Gateway has heard that they have nothing, whatever else is."""

from datetime import datetime
from typing import Any

import pytest

from shared.core.errors import ConflictError
from shared.core.messages import CommandKind
from shared.core.slots import Slot
from shared.registry.rollout_policy import Placement, Strategy, WhenBusy
from shared.rollout.documents import automatic_command_id
from shared.rollout.machine import RolloutState
from tests.world.strategies import give, policy, rollout, run_until, start, state
from tests.world.test_dedicated import BLUE, GREEN, SHARED, dedicated, heard, placed, slot_of_stable
from tests.world.world import MODEL, Gateway, Pod, World


def pod_of(world: World, slot: Slot) -> Pod:
    return next(pod for pod in world.others if pod.slot is slot)


def put(world: World, **fields: Any) -> None:
    told: dict[str, Any] = {"placement": Placement.DEDICATED, "strategy": Strategy.ALL_AT_ONCE, "watch_s": 1}
    world.put_policy(policy(**(told | fields)))


def test_a_rollback_that_stable_s_pods_cannot_apply_keeps_no_other_version_waiting() -> None:
    world = dedicated()
    placed(world, 2)
    placed(world, 3)
    # As the server does where the older version does not fit beside the one that fails.
    pod_of(world, GREEN).is_stuck = True
    give(world, CommandKind.ROLLBACK, "back")
    world.run(seconds=5)
    assert (world.stable, slot_of_stable(world)) == (2, GREEN)
    assert world.endpoint().rollback is not None
    put(world)
    with pytest.raises(ConflictError, match="cannot load it beside version 3 do so once restarted"):
        start(world, 2, "again")
    assert start(world, 4) is not None
    assert rollout(world).candidate.slot is BLUE
    # What is started anew has nothing to load it beside.
    world.others.append(Pod(name="green-2", slot=GREEN))
    world.run(seconds=2)
    world.others.remove(pod_of(world, GREEN))
    run_until(world, RolloutState.PROMOTED)
    assert (world.stable, slot_of_stable(world)) == (4, BLUE)
    assert world.gateway.failed == []


def test_a_shared_pod_that_goes_on_with_an_older_plan_keeps_no_candidate_from_pods_of_its_own() -> None:
    world = dedicated(lag_s=0)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.pod.is_stuck = True
    give(world, CommandKind.ABORT)
    assert start(world, 3) is None
    world.run(seconds=200)
    assert world.endpoint().unapplied is not None
    assert (rollout(world).candidate.version, world.endpoint().queued_version) == (3, None)


def test_policy_ends_no_rollout_where_what_somebody_asked_for_would_come_next() -> None:
    world = dedicated(when_busy=WhenBusy.QUEUE)
    placed(world, 2)
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    assert start(world, 1, "asked-for") is None
    put(world, when_busy=WhenBusy.SUPERSEDE, automatic=True)
    assert start(world, 4, command_id=automatic_command_id(MODEL, 4)) is None
    assert (state(world), rollout(world).candidate.version) == (RolloutState.PROGRESSING, 3)
    assert world.endpoint().queued_version == 1
    give(world, CommandKind.ABORT)
    heard(world)
    world.sweep.sweep()
    world.run(seconds=2)
    assert (rollout(world).candidate.version, world.endpoint().queued_version) == (1, None)
    # With nobody waiting it ends what is under way, and waits for the pods.
    assert start(world, 4, command_id=automatic_command_id(MODEL, 4)) is None
    assert (state(world), world.endpoint().queued_version) == (RolloutState.ABORTED, 4)


def test_a_rollout_in_the_shared_pods_in_between_makes_nobody_forget_what_the_gateway_still_sends() -> None:
    world = dedicated(lag_s=90)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.clock.pass_s(90)
    world.run(seconds=2)
    world.gateway.is_deaf = True
    give(world, CommandKind.ABORT)
    put(world, placement=Placement.SHARED, watch_s=60)
    assert start(world, 3) is not None
    give(world, CommandKind.ABORT, "abort-2")
    put(world)
    assert start(world, 4) is None
    for _ in range(12):
        world.clock.pass_s(18)
        world.run(seconds=2)
        world.sweep.sweep()
        assert (rollout(world).candidate.version, world.endpoint().queued_version) == (3, 4)
    assert world.gateway.shares(world.clock.now())[BLUE] > 0


class Leaking(Gateway):
    """A Gateway that sends some of the requests to the shared pods, whatever it hears."""

    def shares(self, now: datetime) -> dict[Slot | None, int]:
        """See Gateway."""
        return {**super().shares(now), SHARED: 1_000}


def test_what_is_still_sent_to_other_pods_than_its_own_keeps_no_candidate_waiting() -> None:
    world = dedicated(lag_s=0)
    placed(world, 2)
    world.gateway = Leaking()
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    give(world, CommandKind.ABORT)
    assert start(world, 4) is None
    world.run(seconds=200)
    assert world.endpoint().unapplied is not None
    assert rollout(world).candidate.version == 4
    assert rollout(world).candidate.slot is GREEN
