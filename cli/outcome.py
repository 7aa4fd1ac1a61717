"""How a command ends: an answer or an error, told to a person or as JSON, and an exit code.

With `--json` standard output holds exactly one JSON value, also for an error: {"error": {"code", "message"}}; of a
command that follows something, one a line. Otherwise an error is one sentence on standard error.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from cli.printable import escaped, printable
from shared.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SlipwayError,
    UnavailableError,
)

JSON_OPTION = "--json"

type Json = Any


class ExitCode(IntEnum):
    """The exit codes, documented in `slipway --help`."""

    OK = 0
    FAILED = 1
    """The job was done and its result is bad, or it was refused."""
    USAGE = 2
    """The command line, or a file that it names, cannot be used."""
    NOT_REACHABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    TAKEN_BACK = 6
    """The rollout that was watched ended without its candidate."""
    INTERRUPTED = 130


class CliError(SlipwayError):
    """A command's error with the exit code and the code word that go with it."""

    def __init__(self, message: str, exit_code: ExitCode, code: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command found out: a JSON value, how to show it to a person, and whether it is good."""

    value: Json
    show: Callable[[], None]
    exit_code: ExitCode = ExitCode.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What a command sees while it follows something.

    `values` are at least one; `show` shows them to a person as they come; the last one says how the command ends.
    """

    values: Iterator[Json]
    show: Callable[[Iterator[Json]], None]
    exit_code: Callable[[Json], ExitCode]


_CODES: tuple[tuple[type[SlipwayError], ExitCode, str], ...] = (
    (InvalidInputError, ExitCode.USAGE, "invalid_input"),
    (NotFoundError, ExitCode.NOT_FOUND, "not_found"),
    (ConflictError, ExitCode.CONFLICT, "conflict"),
    (UnavailableError, ExitCode.NOT_REACHABLE, "unavailable"),
)


def tell(answer: Answer | Following, *, as_json: bool) -> int:
    """Tell an answer, and return the exit code."""
    if isinstance(answer, Following):
        return _tell_all(answer, as_json=as_json)
    if as_json:
        _print_json(answer.value)
    else:
        answer.show()
    sys.stdout.flush()
    return answer.exit_code


def _tell_all(following: Following, *, as_json: bool) -> int:
    last: Json = None

    def seen() -> Iterator[Json]:
        nonlocal last
        for value in following.values:
            last = value
            yield value

    if not as_json:
        following.show(seen())
        return following.exit_code(last)
    try:
        for value in seen():
            print(escaped(json.dumps(value, ensure_ascii=False)), flush=True)
    except SlipwayError as error:
        return tell_error(error, as_json=True, indent=None)
    return following.exit_code(last)


def tell_error(error: SlipwayError, *, as_json: bool, indent: int | None = 2) -> int:
    """Tell an error, and return the exit code."""
    exit_code, code = ExitCode.FAILED, "failed"
    if isinstance(error, CliError):
        exit_code, code = error.exit_code, error.code
    else:
        for kind, kind_exit_code, kind_code in _CODES:
            if isinstance(error, kind):
                exit_code, code = kind_exit_code, kind_code
                break
    if as_json:
        _print_json({"error": {"code": code, "message": str(error)}}, indent=indent)
    else:
        print(printable(f"slipway: {error}"), file=sys.stderr)
    return exit_code


def _print_json(value: Json, *, indent: int | None = 2) -> None:
    print(escaped(json.dumps(value, indent=indent, ensure_ascii=False)))
