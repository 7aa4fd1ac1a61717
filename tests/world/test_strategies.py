"""Each strategy from its start to its end, over ports in memory."""

import pytest

from shared.core.errors import ConflictError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind
from shared.registry.rollout_policy import Gates, Otherwise, QueryGate, Stage, Strategy
from shared.rollout.machine import RolloutState
from shared.routing.plan import Role
from tests.world.strategies import (
    SLOW_STAGES,
    STAGES,
    give,
    published,
    rollout,
    run_until,
    start,
    state,
    weight_bp,
    weights_of,
    world_with,
)
from tests.world.world import MODEL, Pod


def test_all_at_once_switches_once_loaded_and_keeps_stable_warm_while_it_watches() -> None:
    world = world_with(strategy=Strategy.ALL_AT_ONCE)
    start(world)
    run_until(world, RolloutState.WATCHING)
    plan = published(world)
    assert plan.stable is not None
    assert (plan.stable.version, plan.stable.weight_bp, weight_bp(world)) == (1, 0, 10_000)
    assert world.stable == 1
    run_until(world, RolloutState.PROMOTED)
    assert world.stable == 2


def test_a_canary_goes_through_as_many_stages_as_it_has_each_under_its_own_terms() -> None:
    stages = (
        Stage(weight_bp=100, duration_s=5, min_requests=10),
        Stage(weight_bp=1_000, duration_s=5),
        Stage(weight_bp=2_500, duration_s=20, gates=Gates(error_rate=0.2)),
        Stage(weight_bp=7_500, duration_s=5),
    )
    world = world_with(strategy=Strategy.CANARY, stages=stages)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=2)
    assert rollout(world).gates.error_rate == 0.2
    begun = world.clock.now()
    run_until(world, RolloutState.PROGRESSING, stage=3)
    assert (world.clock.now() - begun).total_seconds() >= 20
    assert weights_of(world) == [7_500, 10_000, 0]
    assert state(world) is RolloutState.PROMOTED


def test_a_canary_s_weights_follow_its_stages() -> None:
    world = world_with()
    start(world)
    assert weights_of(world) == [0, 1_000, 5_000, 10_000, 0]


@pytest.mark.parametrize("stage", [0, 1])
def test_a_canary_that_errs_in_any_stage_is_taken_back_and_quarantined(stage: int) -> None:
    world = world_with()
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=stage)
    world.pod.errors[2] = 0.5
    run_until(world, RolloutState.ROLLED_BACK, within_s=5)
    assert weight_bp(world) == 0
    with pytest.raises(ConflictError, match="version 2 of digits is quarantined"):
        start(world, command_id="again")


def test_a_stage_that_needs_an_approval_waits_for_it_at_the_weight_before() -> None:
    stages = (STAGES[0], Stage(weight_bp=5_000, duration_s=5, approval=True))
    world = world_with(stages=stages)
    start(world)
    run_until(world, RolloutState.AWAITING)
    assert weight_bp(world) == 1_000
    world.run(seconds=60)
    assert state(world) is RolloutState.AWAITING
    with pytest.raises(ConflictError, match="ann asked for the rollout"):
        give(world, CommandKind.APPROVE, by="ann")
    give(world, CommandKind.APPROVE)
    assert weights_of(world) == [5_000, 10_000, 0]


def test_blue_green_is_previewed_without_traffic_switched_watched_and_rolled_back_at_once() -> None:
    gates = Gates(smoke_requests=5)
    world = world_with(strategy=Strategy.BLUE_GREEN, preview_s=5, gates=gates)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.run(seconds=20)
    assert (state(world), weight_bp(world)) == (RolloutState.PROGRESSING, 0)
    world.pod.pinned = 1
    run_until(world, RolloutState.WATCHING, within_s=10)
    assert weight_bp(world) == 10_000
    at = world.clock.now()
    give(world, CommandKind.ROLLBACK)
    assert world.clock.now() == at
    plan = published(world)
    assert [(route.version, route.role, route.weight_bp) for route in plan.routes] == [(1, Role.STABLE, 10_000)]
    assert (state(world), world.stable) == (RolloutState.ROLLED_BACK, 1)


def test_a_watched_candidate_that_fails_is_taken_back_to_the_warm_version() -> None:
    world = world_with(strategy=Strategy.BLUE_GREEN)
    start(world)
    run_until(world, RolloutState.WATCHING)
    world.pod.errors[2] = 0.5
    run_until(world, RolloutState.ROLLED_BACK, within_s=10)
    assert world.stable == 1


def test_rolling_gives_a_growing_share_of_the_pods_all_their_traffic() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=10)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    first = published(world).pods
    run_until(world, RolloutState.PROGRESSING, stage=1)
    second = published(world).pods
    assert first is not None
    assert second is not None
    assert (len(first), len(second)) == (1, 5)
    assert set(first) < set(second)
    # What is new serves stable until the next step.
    world.others.append(Pod(name="pod-new"))
    world.run(seconds=2)
    plan = published(world)
    assert plan.for_pod("pod-new").stable == plan.stable.model_copy(update={"weight_bp": 10_000}) if plan.stable else 0
    run_until(world, RolloutState.WATCHING)
    assert published(world).pods is None
    run_until(world, RolloutState.PROMOTED)


def test_rolling_waits_while_more_pods_are_missing_than_it_may_miss() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=4, max_unavailable=1, stages=SLOW_STAGES)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    world.others[0].is_silent = world.others[1].is_silent = True
    world.run(seconds=60)
    assert (state(world), rollout(world).stage) == (RolloutState.PROGRESSING, 0)
    assert "2 pods are silent or failing (pod-2, pod-3), max_unavailable is 1" in rollout(world).reason
    world.others[0].is_silent = False
    run_until(world, RolloutState.PROGRESSING, stage=1, within_s=5)


def test_a_rolling_rollout_that_is_paused_or_resumed_changes_no_pods() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=10, stages=SLOW_STAGES)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    before = published(world)
    world.others[3].is_silent = True
    world.run(seconds=35)
    give(world, CommandKind.PAUSE)
    assert published(world) == before
    give(world, CommandKind.RESUME)
    assert published(world) == before


def test_a_shadow_mirrors_and_concludes_without_a_promotion() -> None:
    world = world_with(strategy=Strategy.SHADOW, shadow_s=10, mirror_bp=5_000)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    (shadow,) = published(world).shadows
    assert (shadow.version, shadow.mirror_bp, shadow.weight_bp) == (2, 5_000, 0)
    run_until(world, RolloutState.CONCLUDED)
    assert (world.stable, published(world).shadows) == (1, ())
    assert world.endpoint().quarantined == []


def test_a_shadow_may_lead_into_a_canary_and_is_taken_back_where_it_disagrees() -> None:
    world = world_with(strategy=Strategy.SHADOW, shadow_s=10, shadow_then=Strategy.CANARY)
    start(world)
    assert weights_of(world) == [0, 1_000, 5_000, 10_000, 0]
    assert world.stable == 2
    other = world_with(strategy=Strategy.SHADOW, shadow_s=10, shadow_then=Strategy.CANARY)
    other.pod.disagreements[2] = 0.4
    start(other)
    run_until(other, RolloutState.ROLLED_BACK)
    assert other.endpoint().is_quarantined(2)


def test_further_shadows_get_copies_beside_the_candidate_and_are_in_use() -> None:
    world = world_with(versions=4, strategy=Strategy.SHADOW, shadow_s=10)
    start(world, 2, shadows=(3, 4))
    run_until(world, RolloutState.PROGRESSING)
    assert [route.version for route in published(world).shadows] == [2, 3, 4]
    with pytest.raises(ConflictError, match="version 3 of digits is a shadow"):
        world.rollouts.archive(MODEL, VersionNumber(3), by="ann", reason="old")
    run_until(world, RolloutState.CONCLUDED)
    assert published(world).shadows == ()


def test_a_split_is_held_open_until_somebody_ends_it_and_fails_all_the_same() -> None:
    world = world_with(strategy=Strategy.SPLIT, max_stage_s=30)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.run(seconds=90)
    assert (state(world), weight_bp(world)) == (RolloutState.PROGRESSING, 1_000)
    give(world, CommandKind.SET_WEIGHT, weight_bp=5_000)
    assert (weight_bp(world), published(world).salt) == (5_000, rollout(world).rollout_id)
    give(world, CommandKind.PROMOTE)
    run_until(world, RolloutState.PROMOTED)
    assert rollout(world).promoted_by == "bob"
    other = world_with(strategy=Strategy.SPLIT)
    start(other)
    run_until(other, RolloutState.PROGRESSING)
    other.pod.errors[2] = 0.5
    run_until(other, RolloutState.ROLLED_BACK, within_s=5)


def test_a_stage_without_traffic_is_extended_and_then_taken_back_or_held() -> None:
    for otherwise, end in ((Otherwise.ABORT, RolloutState.ROLLED_BACK), (Otherwise.HOLD, RolloutState.HELD)):
        world = world_with(on_inconclusive=otherwise, max_stage_s=30)
        world.pod.requests = 0
        start(world)
        run_until(world, RolloutState.PROGRESSING)
        world.run(seconds=25)
        assert state(world) is RolloutState.PROGRESSING
        run_until(world, end, within_s=15)


def test_a_metrics_store_that_cannot_be_asked_holds_the_stage_which_goes_on_when_somebody_says_so() -> None:
    query = QueryGate(name="revenue", query="x", at_least=1)
    world = world_with(gates=Gates(queries=(query,)), error_limit=3)
    start(world)
    run_until(world, RolloutState.HELD)
    assert "3 ticks in a row: the query could not be asked" in rollout(world).reason
    world.run(seconds=30)
    assert (state(world), weight_bp(world)) == (RolloutState.HELD, 1_000)
    give(world, CommandKind.RESUME)
    assert state(world) is RolloutState.PROGRESSING
