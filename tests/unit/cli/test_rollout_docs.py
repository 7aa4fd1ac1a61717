"""What the guides on rollouts show can be done: each command line is one. Policies: tests/simulation."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import build_app
from shared.rollout import standing
from shared.rollout.machine import RolloutState

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "choosing-a-strategy.md").read_text()
RUNBOOK = (DOCS / "runbooks" / "a-rollout-is-stuck.md").read_text()
PAGES = {
    "choosing-a-strategy.md": GUIDE,
    "runbooks/a-rollout-is-stuck.md": RUNBOOK,
    "runbooks/an-alert-fired.md": (DOCS / "runbooks" / "an-alert-fired.md").read_text(),
    "approvals.md": (DOCS / "approvals.md").read_text(),
    "events.md": (DOCS / "events.md").read_text(),
    "operations.md": (DOCS / "operations.md").read_text(),
    "policy-dry-run.md": (DOCS / "policy-dry-run.md").read_text(),
    "README.md": (DOCS.parent / "README.md").read_text(),
    "rollouts.md": (DOCS / "rollouts.md").read_text(),
}


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


@cache
def commands() -> Any:
    """All commands; none is changed by being looked at."""
    return typer.main.get_command(build_app())


def found(page: str, line: str) -> tuple[Any, list[str]]:
    """The command that a line gives, and what stands after its name."""
    words = shlex.split(line, comments=True)[1:]
    command = commands()
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


def waits_for() -> set[str]:
    """How each sentence begins that says what a rollout waits for: up to what varies, or to a colon."""
    found = set()
    for function in ast.walk(ast.parse(Path(standing.__file__).read_text("utf-8"))):
        if isinstance(function, ast.FunctionDef) and function.name.startswith("_waiting"):
            kept = [node.value for node in ast.walk(function) if isinstance(node, ast.Assign) and _is_told(node)]
            given = [node.value.elts[1] for node in ast.walk(function) if _is_answer(node)]  # type: ignore[attr-defined]
            found |= {start for value in (*kept, *given) for start in _starts(value)}
    return found


def _is_told(node: ast.Assign) -> bool:
    return [target.id for target in node.targets if isinstance(target, ast.Name)] == ["said"]


def _is_answer(node: ast.AST) -> bool:
    return isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)


def _starts(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from (*_starts(value.body), *_starts(value.orelse))
    first = value.values[0] if isinstance(value, ast.JoinedStr) else value
    if isinstance(first, ast.Constant):
        yield re.split(r"[:;,]", str(first.value))[0].removesuffix("the ").strip()


def test_the_runbook_has_each_sentence_of_what_is_waited_for() -> None:
    table = RUNBOOK.split("## Pods", 1)[0]
    found = waits_for() - {"nothing"}
    assert {"the Gateway to hear it", "somebody to resume it", "its"} <= found
    assert {start for start in found if f"| {start}" not in table} == set()
