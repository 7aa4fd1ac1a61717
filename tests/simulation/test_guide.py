"""What the guide on strategies shows can be done: each of its policies is rolled out, to its end."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.core.messages import CommandKind
from shared.core.slots import Slot
from shared.registry.policy import Policy
from shared.registry.rollout_policy import Placement, Stage, Strategy
from shared.rollout.machine import RolloutState
from tests.world import strategies
from tests.world.world import Pod, World

GUIDE = (Path(__file__).parents[2] / "docs" / "choosing-a-strategy.md").read_text()
POLICIES = [Policy.model_validate(yaml.safe_load(text)) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
QUICKER = 60
"""A minute of the guide is a second of the test."""


def quicker(policy: Policy) -> dict[str, Any]:
    """The fields of a policy's rollout, its times shortened alike."""
    rollout = policy.rollout
    stages = tuple(
        Stage.model_validate(
            stage.model_dump()
            | {
                "duration_s": stage.duration_s / QUICKER,
                "max_duration_s": stage.max_duration_s and stage.max_duration_s / QUICKER,
            }
        )
        for stage in rollout.stages
    )
    times = {name: getattr(rollout, name) / QUICKER for name in ("preview_s", "shadow_s", "watch_s", "max_stage_s")}
    kept = {name: getattr(rollout, name) for name in type(rollout).model_fields}
    return kept | times | {"stages": stages, "automatic": False, "tick_s": 1}


def test_the_guide_shows_a_policy_of_each_strategy() -> None:
    assert {policy.rollout.strategy for policy in POLICIES} == set(Strategy)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.rollout.strategy.value)
def test_a_good_version_comes_as_far_as_the_guide_says_and_a_bad_one_does_not(policy: Policy) -> None:
    good = world_of(policy)
    for pod in (good.pod, *good.others):
        pod.requests = 20_000
    is_split = policy.rollout.strategy is Strategy.SPLIT
    assert outcome_of(good) is (RolloutState.PROGRESSING if is_split else RolloutState.PROMOTED)
    bad = world_of(policy)
    for pod in (bad.pod, *bad.others):
        pod.errors, pod.disagreements = {2: 0.5}, {2: 0.5}
    assert outcome_of(bad) is RolloutState.ROLLED_BACK
    assert bad.stable == 1


def world_of(policy: Policy) -> World:
    """A world with the pods that a policy needs."""
    world = strategies.world_with(**quicker(policy))
    if policy.rollout.placement is Placement.DEDICATED:
        world.others += [Pod(name=f"{slot}-1", slot=slot) for slot in Slot]
    return world


def outcome_of(world: World) -> RolloutState:
    """What becomes of version 2 where somebody tries it by its header, and approves of whatever waits for that."""
    for pod in (world.pod, *world.others):
        pod.pinned = 20
    # A guide's error budget can be told once it was counted.
    world.budgets.count()
    strategies.start(world)
    for second in range(130):
        if strategies.state(world) is RolloutState.AWAITING:
            strategies.give(world, CommandKind.APPROVE, by="dora", command_id=f"approve-{second}")
        if strategies.state(world).is_over:
            break
        world.run(seconds=1)
    return strategies.state(world)
