"""Stages begin when the pods have applied them: pods that fail, lag, fall silent, or come anew."""

from datetime import timedelta

import pytest

from shared.core.messages import CommandKind
from shared.registry.rollout_policy import Otherwise, Stage, Strategy, Triggers
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Trigger
from shared.telemetry.window import Deaths
from tests.world.strategies import SLOW_STAGES, give, published, rollout, run_until, start, state, weight_bp, world_with
from tests.world.world import ENDPOINT, Pod, World


def test_a_stage_s_time_begins_when_the_quorum_has_applied_its_plan() -> None:
    world = world_with(pods=4, quorum=0.75)
    start(world)
    world.others[0].is_stuck = world.others[1].is_stuck = True
    world.run(seconds=40)
    assert (state(world), weight_bp(world)) == (RolloutState.LOADING, 0)
    assert "2 of 4 pods that report have version 2 ready" in rollout(world).reason
    world.others[1].is_stuck = False
    run_until(world, RolloutState.PROGRESSING, within_s=5)
    world.others[1].is_stuck = True
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=60)
    assert (rollout(world).stage, rollout(world).stage_started_at) == (1, None)
    world.others[1].is_stuck = False
    run_until(world, RolloutState.PROMOTED)


@pytest.mark.parametrize(
    ("otherwise", "end"), [(Otherwise.ABORT, RolloutState.ROLLED_BACK), (Otherwise.HOLD, RolloutState.HELD)]
)
def test_a_plan_that_a_pod_does_not_apply_in_time_is_taken_back_or_held(
    otherwise: Otherwise, end: RolloutState
) -> None:
    world = world_with(pods=2, load_timeout_s=40, on_load_failure=otherwise)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.others[0].is_stuck = True
    run_until(world, end, within_s=60)
    assert "1 of 2 pods that report have version 2 ready" in rollout(world).reason
    if end is RolloutState.HELD:
        give(world, CommandKind.RESUME)
        world.run(seconds=20)
        assert state(world) is RolloutState.PROGRESSING
        world.others[0].is_stuck = False
        run_until(world, RolloutState.PROMOTED)


def test_a_candidate_that_fails_is_taken_back_though_a_pod_has_not_applied_its_stage() -> None:
    world = world_with(pods=2)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.others[0].is_stuck = True
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.pod.errors[2] = world.others[0].errors[2] = 0.5
    run_until(world, RolloutState.ROLLED_BACK, within_s=3)


def test_a_pod_that_cannot_load_says_why_and_takes_the_candidate_back() -> None:
    world = world_with(pods=3)
    world.others[1].unloadable[2] = "its digest differs"
    start(world)
    run_until(world, RolloutState.ROLLED_BACK, within_s=5)
    assert "pod pod-3 cannot load version 2: its digest differs" in rollout(world).reason
    assert world.rollouts.rollbacks(ENDPOINT)[-1].trigger is Trigger.LOADING


def test_where_policy_holds_a_candidate_that_a_pod_cannot_load_it_goes_on_once_it_can() -> None:
    world = world_with(pods=2, on_load_failure=Otherwise.HOLD)
    world.others[0].unloadable[2] = "no memory"
    start(world)
    world.run(seconds=60)
    assert state(world) is RolloutState.LOADING
    assert "pod pod-2 cannot load version 2: no memory" in rollout(world).reason
    world.others[0].unloadable.clear()
    run_until(world, RolloutState.PROGRESSING, within_s=5)


def test_a_pod_that_falls_silent_is_not_waited_for_and_is_told_of() -> None:
    world = world_with(pods=3)
    world.others[0].is_stuck = True
    start(world)
    world.run(seconds=5)
    assert state(world) is RolloutState.LOADING
    world.others[0].is_silent = True
    run_until(world, RolloutState.PROGRESSING, within_s=40)
    started = [e.data for e in world.audit.events(f"endpoint:{ENDPOINT}") if e.kind == "stage_started"]
    assert started[-1]["reason"].endswith("have version 2 ready; 1 fell silent")


def test_a_stage_whose_pods_fell_silent_goes_nowhere_though_they_told_enough_before() -> None:
    world = world_with(stages=SLOW_STAGES, triggers=Triggers(healthy_share=None))
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.run(seconds=5)
    world.pod.is_silent = True
    world.run(seconds=100)
    assert (state(world), weight_bp(world)) == (RolloutState.PROGRESSING, 1_000)
    assert "0 of 0 pods that report have version 2 ready; 1 fell silent" in rollout(world).reason
    world.pod.is_silent = False
    run_until(world, RolloutState.PROGRESSING, stage=1, within_s=5)


def test_a_pod_that_comes_anew_is_waited_for_like_the_others() -> None:
    world = world_with()
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    late = Pod(name="pod-late", is_stuck=True, plan=published(world))
    world.others.append(late)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=20)
    assert rollout(world).stage_started_at is None
    late.is_stuck = False
    run_until(world, RolloutState.PROMOTED)


def test_a_trip_that_is_read_after_the_next_stage_began_ends_the_rollout_all_the_same() -> None:
    world = world_with(pods=2)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.others[0].is_stuck = True
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.others[0].tripped[2] = "it failed 9 of 9 requests"
    run_until(world, RolloutState.ROLLED_BACK, within_s=3)
    (found,) = world.rollouts.rollbacks(ENDPOINT)
    assert found.trigger is Trigger.GUARD
    assert "pod pod-2: it failed 9 of 9 requests" in found.reason


def test_ticks_read_what_came_since_the_last_one_however_long_the_rollout_has_lasted() -> None:
    world = world_with(strategy=Strategy.SPLIT, tick_s=30)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.run(seconds=40)
    for _ in range(3):
        world.clock.pass_s(timedelta(hours=2).total_seconds())
        world.run(seconds=70)
    taken = rollout(world).progress.of(2).requests
    world.blobs.reads.clear()
    world.run(seconds=60)
    read = [name for name in world.blobs.reads if name.startswith(f"{ENDPOINT}/")]
    assert rollout(world).progress.of(2).requests == taken + 100 * len(read)
    assert 30 <= len(read) <= 90


@pytest.mark.parametrize("memory_share", [None, 0.99])
def test_a_candidate_that_awaits_its_first_stage_is_watched_for_what_it_does_to_its_pods(
    memory_share: float | None,
) -> None:
    stages = (Stage(weight_bp=1_000, duration_s=10, approval=True),)
    world = world_with(stages=stages, pods=2, triggers=Triggers(memory_share=0.9))
    start(world)
    run_until(world, RolloutState.AWAITING)
    world.run(seconds=5)
    assert state(world) is RolloutState.AWAITING
    if memory_share is None:
        world.pod.unloadable[2] = "it was evicted"
    world.pod.memory_share = memory_share
    run_until(world, RolloutState.ROLLED_BACK, within_s=10)


def crash(world: World, number: int) -> None:
    """Every pod's process ends at once, and what it had not told; another follows it, which counts those before it."""
    found = rollout(world)
    deaths = Deaths(rollout_id=found.rollout_id, processes={1: number, 2: number})
    world.pod = Pod(name=f"pod-1-{number:06x}-0", deaths=deaths)
    world.others = [Pod(name=f"pod-{n}-{number:06x}-0", deaths=deaths) for n in range(2, 2 + len(world.others))]


def test_a_candidate_under_which_every_process_dies_is_taken_back_though_each_window_is_good() -> None:
    world = world_with(pods=3, stages=SLOW_STAGES, watch_s=40)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    for number in range(1, 37):
        crash(world, number)
        world.run(seconds=5)
        if state(world).is_over:
            break
    assert state(world) is RolloutState.ROLLED_BACK
    assert "processes or more ended unbidden" in rollout(world).reason
    assert world.rollouts.rollbacks(ENDPOINT)[-1].trigger is Trigger.HEALTH


def test_one_place_of_several_whose_processes_die_takes_nothing_back() -> None:
    world = world_with(pods=4, stages=SLOW_STAGES, watch_s=40)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    rollout_id = rollout(world).rollout_id
    for number in range(20):
        world.pod = Pod(
            name=f"pod-1-{number:06x}-0", deaths=Deaths(rollout_id=rollout_id, processes={1: number, 2: number})
        )
        world.run(seconds=5)
    run_until(world, RolloutState.PROMOTED, within_s=200)


def test_a_restart_of_every_pod_takes_nothing_back_though_none_could_say_so_nor_does_a_silence() -> None:
    world = world_with(pods=4, stages=SLOW_STAGES, watch_s=40)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    crash(world, 1)
    world.run(seconds=10)
    crash(world, 2)
    for pod in (world.pod, *world.others):
        pod.is_silent = True
    world.run(seconds=60)
    for pod in (world.pod, *world.others):
        pod.is_silent = False
        world.run(seconds=5)
    run_until(world, RolloutState.PROMOTED, within_s=300)
