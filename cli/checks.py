"""`slipway test`: every check of this repository, all of them run whatever the first ones say.

Three processes share the tests, also where there are two cores: many tests wait for processes that they started. The
closing lines are pytest's own. With `--json` everything that the checks print goes to standard error.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.outcome import Answer, ExitCode, tell

REPOSITORY = Path(__file__).resolve().parent.parent
_TESTS = (
    "tests/e2e",
    "tests/world",
    "tests/functions",
    "tests/hostile",
    "tests/infra",
    "tests/sandbox",
    "tests/contract",
    "tests/serving",
    "tests/real",
    "tests/unit",
)
# tests/conftest.py says which file comes first: xdist is to leave that order.
_SHARED = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: a command that exits with 0 where all is well."""

    name: str
    argv: tuple[str, ...]


def checks(pytest_arguments: Sequence[str], *, long: bool) -> list[Check]:
    """The checks, in their order; pytest comes last, so that its summary closes the output.

    With arguments of the caller's, pytest runs by those alone.
    """
    selection = () if long or _selects_markers(pytest_arguments) else ("-m", "not long")
    pytest = (sys.executable, "-m", "pytest", *selection)
    return [
        Check(name="ruff check", argv=(_tool("ruff"), "check", ".")),
        Check(name="ruff format", argv=(_tool("ruff"), "format", "--check", ".")),
        Check(name="mypy", argv=(_tool("mypy"),)),
        Check(name="import-linter", argv=(_tool("lint-imports"),)),
        Check(name="pytest", argv=(*pytest, *(pytest_arguments or (*_SHARED, *_TESTS)))),
    ]


def run(pytest_arguments: Sequence[str], *, long: bool, json_output: bool) -> int:
    """Run the checks, and return the exit code."""
    results = []
    out = sys.stderr if json_output else sys.stdout
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    for check in checks(pytest_arguments, long=long):
        print(f"slipway test: {check.name}", file=sys.stderr, flush=True)
        started_s = time.monotonic()
        ended = subprocess.run(check.argv, cwd=REPOSITORY, env=environment, stdout=out, check=False)
        seconds = time.monotonic() - started_s
        results.append({"check": check.name, "passed": ended.returncode == 0, "seconds": round(seconds, 1)})
        if not check.name.startswith("pytest"):
            word = "passed" if ended.returncode == 0 else "FAILED"
            print(f"slipway test: {check.name} {word} in {seconds:.1f} s", file=sys.stderr, flush=True)
    failed = [result["check"] for result in results if not result["passed"]]
    if failed:
        print(f"slipway test: failed: {', '.join(map(str, failed))}", file=sys.stderr)
    value = {"passed": not failed, "checks": results}
    answer = Answer(value=value, show=lambda: None, exit_code=ExitCode.FAILED if failed else ExitCode.OK)
    return tell(answer, as_json=json_output)


def _selects_markers(pytest_arguments: Sequence[str]) -> bool:
    return any(argument.startswith("-m") for argument in pytest_arguments)


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)
