"""What the tests of this directory look at: the files that git tracks, or would."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PYTHON_ROOTS = ("function_app.py", "functions", "shared", "local", "cli", "aks-serving", "tests", "benchmarks")


@cache
def tracked_files() -> tuple[str, ...]:
    """The paths of all files but ignored ones, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return tuple(sorted(path for path in set(listed.split("\0")) if path and (ROOT / path).is_file()))


def python_files() -> list[str]:
    """The Python files of the project."""
    return [path for path in tracked_files() if path.endswith(".py") and path.split("/")[0] in PYTHON_ROOTS]


def text_of(path: str) -> str:
    """A file's text; empty for one that holds none."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
