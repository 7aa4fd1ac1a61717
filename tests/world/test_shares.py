"""Shares of the traffic in the world: who keeps which version, how many were assigned to which, who named one, and what
a share of nothing proves.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from functions._views import rollout_view
from shared.core.errors import ConflictError
from shared.core.messages import CommandKind
from shared.registry.rollout_policy import Gates, Otherwise, Strategy
from shared.rollout.machine import RolloutState
from shared.routing.assignment import bucket, route_for
from shared.routing.plan import Role, Route, RoutePlan
from shared.telemetry.window import VersionCounts
from tests.world.strategies import (
    SLOW_STAGES,
    STAGES,
    alter,
    give,
    published,
    rollout,
    run_until,
    start,
    state,
    weight_bp,
    world_with,
)
from tests.world.world import ENDPOINT, Pod, World

SUBJECTS = [f"user {n}" for n in range(2_000)]


def under_way(**fields: Any) -> World:
    world = world_with(**fields)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    return world


def enrolled(plan: RoutePlan) -> set[str]:
    """The subjects whom the plan gives the candidate."""
    found = {subject: route_for(plan, bucket(plan.salt, subject)) for subject in SUBJECTS}
    return {subject for subject, route in found.items() if route is not None and route.role is Role.CANDIDATE}


def test_whoever_has_the_candidate_keeps_it_while_its_share_grows_however_it_comes_to_grow() -> None:
    world = under_way(strategy=Strategy.CANARY)
    plans = [published(world)]
    for command, weight in ((CommandKind.SET_WEIGHT, 2_500), (CommandKind.SKIP, None), (CommandKind.SET_WEIGHT, 8_000)):
        give(world, command, f"{command}-{weight}", weight_bp=weight)
        plans.append(published(world))
    run_until(world, RolloutState.WATCHING)
    plans.append(published(world))
    shares = [enrolled(plan) for plan in plans]
    assert shares[0] < shares[1] < shares[2] < shares[3] < shares[4] == set(SUBJECTS)
    assert [len(share) / len(SUBJECTS) for share in shares[:4]] == pytest.approx([0.1, 0.25, 0.5, 0.8], abs=0.03)


def test_whoever_keeps_the_candidate_when_its_share_is_lowered_had_it_and_gets_it_back_with_the_share() -> None:
    world = under_way(strategy=Strategy.SPLIT)
    first = enrolled(published(world))
    give(world, CommandKind.SET_WEIGHT, "less", weight_bp=300)
    less = enrolled(published(world))
    give(world, CommandKind.SET_WEIGHT, "again", weight_bp=1_000)
    assert less < first == enrolled(published(world))


# A share of nothing.


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.ROLLING])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_share_that_somebody_set_to_nothing_proves_nothing_and_leads_nowhere(strategy: Strategy, stage: int) -> None:
    world = under_way(strategy=strategy, pods=2, max_stage_s=40, on_inconclusive=Otherwise.HOLD)
    run_until(world, RolloutState.PROGRESSING, stage=stage)
    give(world, CommandKind.SET_WEIGHT, weight_bp=0)
    world.run(seconds=30)
    assert (state(world), rollout(world).stage, weight_bp(world)) == (RolloutState.PROGRESSING, stage, 0)
    assert "each needs 50" in rollout(world).reason or "50 are needed" in rollout(world).reason
    run_until(world, RolloutState.HELD, within_s=20)
    assert weight_bp(world) == 0


def test_an_altered_candidate_is_given_no_larger_share_by_hand_and_may_be_given_a_smaller_one() -> None:
    world = under_way(stages=SLOW_STAGES, tick_s=100)
    alter(world, 2)
    with pytest.raises(ConflictError, match=r"version 2 of digits cannot be given more traffic: .*abort the rollout"):
        give(world, CommandKind.SET_WEIGHT, "more", weight_bp=2_000)
    give(world, CommandKind.SET_WEIGHT, "less", weight_bp=500)
    assert weight_bp(world) == 500


def test_a_rolling_stage_that_began_while_no_pod_reported_takes_pods_once_they_do() -> None:
    world = world_with(strategy=Strategy.ROLLING, pods=4, stages=SLOW_STAGES, max_unavailable=4, max_stage_s=600)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    pods = (world.pod, *world.others)
    for pod in pods:
        pod.is_silent = True
    world.run(seconds=40)
    give(world, CommandKind.SKIP)
    assert (rollout(world).stage, published(world).pods) == (1, ())
    for pod in pods:
        pod.is_silent = False
    world.run(seconds=3)
    chosen = published(world).pods
    assert chosen is not None
    assert len(chosen) == 2
    run_until(world, RolloutState.PROMOTED, within_s=200)


# How many were assigned to which.


def test_a_split_counts_who_was_assigned_to_which_side_and_what_its_shares_call_for() -> None:
    world = under_way(strategy=Strategy.SPLIT)
    world.run(seconds=20)
    give(world, CommandKind.SET_WEIGHT, weight_bp=5_000)
    world.run(seconds=20)
    found = rollout(world).progress.exposures
    # Each window has 1,000 requests, and of two plans the last window may be lost.
    assert 38_000 <= found.candidate + found.stable <= 40_000
    assert found.candidate == found.expected
    assert 0.28 < found.candidate / (found.candidate + found.stable) < 0.32
    give(world, CommandKind.PROMOTE)
    run_until(world, RolloutState.PROMOTED)
    over = world.rollouts.rollouts(ENDPOINT)[-1].progress.exposures
    assert (over.stable - found.stable, over.candidate - found.candidate) in {(0, 0), (500, 500)}
    shown = rollout_view(world.endpoint(), rollout(world), world.clock.now())["exposures"]
    assert shown == over.model_dump(mode="json")


def test_what_came_before_the_candidate_had_a_share_is_no_exposure() -> None:
    world = world_with(strategy=Strategy.SHADOW, shadow_s=10, shadow_then=Strategy.CANARY)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    world.run(seconds=5)
    assert rollout(world).progress.exposures.stable == 0
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=5)
    found = rollout(world).progress.exposures
    assert (found.candidate, found.stable) == (500, 4_500)


# Who named one.


@dataclass
class Named(Pod):
    """A pod to which signed overrides come, `signers` to the version."""

    signers: dict[int, dict[str, int]] = field(default_factory=dict)

    def _counts(self, route: Route) -> VersionCounts:
        signers = self.signers.get(route.version, {})
        return super()._counts(route).model_copy(update={"pinned": sum(signers.values()), "overrides": signers})


def test_who_reaches_a_warm_candidate_by_a_signed_header_is_on_record_and_its_answers_let_it_go_on() -> None:
    world = world_with(strategy=Strategy.BLUE_GREEN, gates=Gates(smoke_requests=6))
    pod = Named(name="pod-1", sequence=world.pod.sequence)
    world.pod = pod
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    world.run(seconds=10)
    assert (state(world), weight_bp(world)) == (RolloutState.PROGRESSING, 0)
    pod.signers = {2: {"ann": 3, "ci": 1}}
    world.run(seconds=1)
    pod.signers = {}
    world.run(seconds=5)
    assert state(world) is RolloutState.PROGRESSING
    pod.signers = {2: {"ann": 2}, 1: {"bob": 1}}
    world.run(seconds=1)
    pod.signers = {}
    run_until(world, RolloutState.WATCHING, within_s=5)
    told = [event.data for event in world.audit.events(f"endpoint:{ENDPOINT}") if event.kind == "override_used"]
    assert [(one["version"], one["by"], one["requests"]) for one in told] == [
        (2, "ann", 3),
        (2, "ci", 1),
        (1, "bob", 1),
        (2, "ann", 2),
    ]
    assert {one["rollout_id"] for one in told} == {rollout(world).rollout_id}
    assert world.audit.verify().problems == []


def test_an_override_that_is_told_of_after_the_next_plan_was_made_is_on_record_all_the_same() -> None:
    world = world_with(strategy=Strategy.CANARY, stages=STAGES)
    pod = Named(name="pod-1", sequence=world.pod.sequence)
    world.pod = pod
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    pod.is_stuck, pod.signers = True, {2: {"ann": 1}}
    give(world, CommandKind.SKIP)
    world.run(seconds=1)
    pod.is_stuck, pod.signers = False, {}
    world.run(seconds=3)
    told = [event.data for event in world.audit.events(f"endpoint:{ENDPOINT}") if event.kind == "override_used"]
    assert [(one["version"], one["by"], one["requests"]) for one in told] == [(2, "ann", 1)]
