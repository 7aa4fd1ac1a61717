"""One thing has one name: what the admin API does, and the options of a command, are called as the API calls them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer._click import Command
from typer.core import TyperGroup

from cli.main import build_app

# tests/functions/test_app.py holds that its calls are the app's.
REFERENCE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
POSTS = re.findall(r"^\| `POST /api/([^`?]+)", REFERENCE, re.MULTILINE)
READ = set(re.findall(r"^\| `GET /api/([^`?]+)", REFERENCE, re.MULTILINE))
# What is posted to a list is a new part of it, and what ends with a parameter has no word of its own.
ACTIONS = sorted({path.rpartition("/")[2] for path in POSTS if path not in READ and not path.endswith("}")})


def _commands(command: Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    if isinstance(command, TyperGroup):
        for name, part in command.commands.items():
            yield from _commands(part, (*path, name))
    else:
        yield path, command


COMMANDS = dict(_commands(typer.main.get_command(build_app())))


@pytest.mark.parametrize("action", ACTIONS)
def test_what_the_api_does_is_a_command_of_that_name(action: str) -> None:
    words = {name.removesuffix("s") for path in COMMANDS for name in (path[-1], "-".join(path))}
    # Where a group has another thing than its own, the command names it: `alerts expire-silence`.
    assert any(word == action.removesuffix("s") or word.startswith(f"{action}-") for word in words), sorted(words)


def test_one_of_a_kind_is_shown_by_one_word() -> None:
    assert [path for path in COMMANDS if path[-1] == "get"] == []


def test_what_is_expected_is_one_option() -> None:
    named = {option for command in COMMANDS.values() for one in command.params for option in one.opts}
    assert {option for option in named if "expected" in option} == {"--expected-version"}
