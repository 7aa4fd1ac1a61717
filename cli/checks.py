"""`slipway test`: every check of this repository, all of them run whatever the first ones say.

Three processes share the tests, all or those of folders that are named, also where there are two cores: many tests wait
for processes that they started. The closing lines are pytest's own. With `--coverage` they are slower, and it fails as
well where fewer lines are run than FLOOR says. With `--json` everything that the checks print goes to standard error.

The tests start some hundred processes, which all import the same packages. So those are compiled once, while the first
checks run, whatever PYTHONDONTWRITEBYTECODE says: many container images set it, and without bytecode a host takes three
times as long to start. A sandboxed process could not keep what it compiles: it may not write.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

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
    "tests/simulation",
    "tests/processes",
    "tests/unit",
)
# tests/conftest.py says which file comes first: xdist is to leave that order.
_SHARED = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
_SOURCES = tuple(str(REPOSITORY / folder) for folder in ("aks-serving", "cli", "functions", "local", "shared"))
_FOREIGN = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}

FLOOR = 60
"""Of the lines of shared, functions, cli, local and aks_serving, how many of a hundred the tests run at least.

tests/unit alone was measured to run 63; raise it to what the first whole run shows."""
_MEASURED = ("shared", "functions", "cli", "local", "aks_serving")
_REPORTS = ("term", "xml:coverage.xml", "html:htmlcov")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: a command that exits with 0 where all is well."""

    name: str
    argv: tuple[str, ...]


def checks(pytest_arguments: Sequence[str], *, long: bool, coverage: bool = False) -> list[Check]:
    """The checks, in their order; pytest comes last, so that its summary closes the output.

    With arguments of the caller's, pytest runs by those alone, and a part of the tests is held to no floor. Where they
    are folders and nothing else, processes share their tests as they do in the whole run; who gives an option or a file
    looks at few tests, or at one process.
    """
    selection = () if long or _selects_markers(pytest_arguments) else ("-m", "not long")
    measured = _coverage(floor=0 if pytest_arguments else FLOOR) if coverage else ()
    shared = _SHARED if all((REPOSITORY / argument).is_dir() for argument in pytest_arguments) else ()
    pytest = (sys.executable, "-m", "pytest", *selection, *measured, *shared)
    return [
        Check(name="ruff check", argv=(_tool("ruff"), "check", ".")),
        Check(name="ruff format", argv=(_tool("ruff"), "format", "--check", ".")),
        Check(name="mypy", argv=(_tool("mypy"),)),
        Check(name="import-linter", argv=(_tool("lint-imports"),)),
        Check(name="pytest", argv=(*pytest, *(pytest_arguments or _TESTS))),
    ]


def run(pytest_arguments: Sequence[str], *, long: bool, coverage: bool, json_output: bool) -> int:
    """Run the checks, and return the exit code."""
    results = []
    out = sys.stderr if json_output else sys.stdout
    environment = check_environment(os.environ)
    *first, last = checks(pytest_arguments, long=long, coverage=coverage)
    with compiling([sysconfig.get_path("purelib"), *_SOURCES], environment):
        for check in first:
            result = _run(check, environment, out)
            results.append(result)
            word = "passed" if result["passed"] else "FAILED"
            print(f"slipway test: {check.name} {word} in {result['seconds']:.1f} s", file=sys.stderr, flush=True)
    results.append(_run(last, environment, out))
    failed = [result["check"] for result in results if not result["passed"]]
    if failed:
        print(f"slipway test: failed: {', '.join(map(str, failed))}", file=sys.stderr)
    value = {"passed": not failed, "checks": results}
    answer = Answer(value=value, show=lambda: None, exit_code=ExitCode.FAILED if failed else ExitCode.OK)
    return tell(answer, as_json=json_output)


def check_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the checks are given of an environment: nothing that leads to other packages, or has none compiled."""
    return {name: value for name, value in environment.items() if name not in _FOREIGN}


@contextmanager
def compiling(folders: Sequence[str], environment: Mapping[str, str]) -> Generator[None]:
    """Compile the modules of some folders meanwhile. One that cannot be compiled is left as it is."""
    command = [sys.executable, "-m", "compileall", "-qq", *folders]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as compiler:
        try:
            yield
        except BaseException:
            compiler.terminate()
            raise


def _run(check: Check, environment: Mapping[str, str], out: TextIO) -> dict[str, Any]:
    print(f"slipway test: {check.name}", file=sys.stderr, flush=True)
    started_s = time.monotonic()
    ended = subprocess.run(check.argv, cwd=REPOSITORY, env=environment, stdout=out, check=False)
    return {
        "check": check.name,
        "passed": ended.returncode == 0,
        "seconds": round(time.monotonic() - started_s, 1),
    }


def _coverage(*, floor: int) -> tuple[str, ...]:
    packages = (f"--cov={name}" for name in _MEASURED)
    return (*packages, *(f"--cov-report={kind}" for kind in _REPORTS), f"--cov-fail-under={floor}")


def _selects_markers(pytest_arguments: Sequence[str]) -> bool:
    return any(argument.startswith("-m") for argument in pytest_arguments)


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)
