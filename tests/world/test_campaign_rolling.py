"""Rolling stages whose pods go away, or that come to every pod: found by the campaign."""

from shared.registry.rollout_policy import Stage, Strategy
from shared.rollout.machine import RolloutState
from tests.world.strategies import published, rollout, run_until, start, state, world_with
from tests.world.world import ENDPOINT, MODEL, Pod, World

WIDE = (Stage(weight_bp=5_000, duration_s=50),)


def restart(world: World, name: str) -> None:
    """Have a pod go away, and another come under a new name."""
    gone = next(pod for pod in (world.pod, *world.others) if pod.name == name)
    gone.is_silent = True
    world.others.append(Pod(name=f"{name}-again"))


def test_pods_that_are_gone_are_replaced_in_a_rolling_stage_once_no_more_are_missing_than_may_be() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=2, max_unavailable=1, stages=WIDE)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    first = published(world).pods
    assert first is not None
    restart(world, first[0])
    run_until(world, RolloutState.WATCHING, within_s=90)
    (event,) = [event for event in world.audit.events(f"endpoint:{MODEL}") if event.kind == "pods_replaced"]
    assert event.data["gone"] == list(first)
    assert first[0] not in event.data["pods"]
    run_until(world, RolloutState.PROMOTED)


def test_while_pods_are_missing_that_may_not_be_no_other_gets_the_candidate_lest_it_ends_that_too() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=2, max_unavailable=0, stages=WIDE)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    before = published(world)
    assert before.pods is not None
    restart(world, before.pods[0])
    world.run(seconds=200)
    assert published(world) == before
    run_until(world, RolloutState.PROMOTED, within_s=200)


def test_a_stage_s_longest_time_goes_on_while_its_pods_are_replaced() -> None:
    world = world_with(
        strategy=Strategy.ROLLING, pods=2, max_unavailable=1, stages=WIDE, min_requests=1_000_000, max_stage_s=90
    )
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    for _ in range(2):
        pods = published(world).pods
        assert pods is not None
        restart(world, pods[0])
        world.run(seconds=40)
    world.run(seconds=20)
    assert state(world) is RolloutState.ROLLED_BACK
    assert rollout(world).reason.startswith("no conclusion after")


def test_a_rolling_rollout_of_a_single_pod_is_judged_by_what_stable_did_before() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=1, stages=WIDE)
    start(world)
    run_until(world, RolloutState.PROMOTED)
    assert world.rollouts.endpoint(ENDPOINT).quarantined == []


def test_a_rolling_rollout_of_a_single_pod_that_errs_is_taken_back() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=1, stages=WIDE)
    world.pod.errors = {2: 0.5}
    start(world)
    run_until(world, RolloutState.ROLLED_BACK)
