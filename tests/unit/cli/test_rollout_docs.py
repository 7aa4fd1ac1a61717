"""What the guides on rollouts show can be done: each policy is rolled out, each command line is one."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import build_app
from shared.core.messages import CommandKind
from shared.core.slots import Slot
from shared.registry.policy import Policy
from shared.registry.rollout_policy import Placement, Stage, Strategy
from shared.rollout.machine import RolloutState
from tests.world import strategies
from tests.world.world import Pod, World

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "choosing-a-strategy.md").read_text()
RUNBOOK = (DOCS / "runbooks" / "a-rollout-is-stuck.md").read_text()
POLICIES = [Policy.model_validate(yaml.safe_load(text)) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
QUICKER = 60
"""A minute of the guide is a second of the test."""
PAGES = {
    "choosing-a-strategy.md": GUIDE,
    "runbooks/a-rollout-is-stuck.md": RUNBOOK,
    "approvals.md": (DOCS / "approvals.md").read_text(),
    "events.md": (DOCS / "events.md").read_text(),
    "operations.md": (DOCS / "operations.md").read_text(),
    "policy-dry-run.md": (DOCS / "policy-dry-run.md").read_text(),
    "README.md": (DOCS.parent / "README.md").read_text(),
    "rollouts.md": (DOCS / "rollouts.md").read_text(),
}


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


def blocks() -> list[tuple[str, str]]:
    """Each command line that a page shows in a block of its own, and the page."""
    return [
        (page, line.strip())
        for page, text in PAGES.items()
        for line in text.splitlines()
        if re.match(r"( {4}| {7})(\./)?slipway ", line)
    ]


def mentions() -> list[tuple[str, str]]:
    """Each command that a page names in its text, and the page."""
    return [
        (page, f"slipway {line}")
        for page, text in PAGES.items()
        for line in re.findall(r"`(?:\./)?slipway ([^`]+)`", text)
    ]


@pytest.mark.parametrize(("page", "line"), sorted(set(blocks())))
def test_each_command_line_that_is_shown_can_be_given_as_it_stands(page: str, line: str) -> None:
    command, words = found(page, line)
    try:
        # Parses what stands there, all that the command needs included, and does nothing.
        command.make_context("slipway", words)
    except typer.TyperException as error:
        pytest.fail(f"{page}: {line}: {error.format_message()}")


@pytest.mark.parametrize(("page", "line"), sorted(set(mentions())))
def test_each_command_that_is_named_is_one_and_has_the_options_named(page: str, line: str) -> None:
    command, words = found(page, line)
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, f"{page}: {line}"


def found(page: str, line: str) -> tuple[Any, list[str]]:
    """The command that a line gives, and what stands after its name."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(build_app())
    while getattr(command, "commands", None):
        if not words or words[0].startswith("-"):
            assert hasattr(command, "meant"), f"{page}: {line} names a group of commands"
            words.insert(0, command.meant)
        name = words.pop(0)
        assert name in command.commands, f"{page}: {line}: there is no {name}"
        command = command.commands[name]
    return command, words


def test_the_runbook_knows_every_state_that_can_be_stuck() -> None:
    told = set(re.findall(r"^\| (.*?) \|", RUNBOOK, re.MULTILINE))
    named = {state for cell in told for state in re.findall(r"`(\w+)`", cell)}
    assert {state.value for state in RolloutState if not state.is_over} <= named
