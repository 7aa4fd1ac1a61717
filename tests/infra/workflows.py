"""The workflows of GitHub Actions, read: their jobs and steps, the patterns of their paths, and who may sign in."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.unit.project.repository import ROOT

FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.iterdir())
PIN = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)$")

type Workflow = dict[Any, Any]
type Job = dict[str, Any]


def text(name: str) -> str:
    """A workflow's text, by its file's name without `.yml`."""
    return (FOLDER / f"{name}.yml").read_text("utf-8")


def read(written: str) -> Workflow:
    """A workflow; its `on` is `True` to YAML."""
    found: Workflow = yaml.safe_load(written)
    return found


def jobs(written: str) -> dict[str, Job]:
    """The jobs of a workflow, by their names."""
    found: dict[str, Job] = read(written)["jobs"]
    return found


def steps(job: Job) -> list[dict[str, Any]]:
    """A job's steps; none where it calls another workflow."""
    found: list[dict[str, Any]] = job.get("steps", [])
    return found


def scripts(job: Job) -> str:
    """What a job runs, its steps after one another, each line that goes on in the next joined with it."""
    return re.sub(r"\\\n\s*", "", "\n".join(str(step.get("run", "")) for step in steps(job)))


def environment(job: Job) -> str:
    """The environment whose rules and identity a job has, also by the workflow that it calls; empty without one."""
    return str(job.get("environment", job.get("with", {}).get("environment", "")))


def needs(found: dict[str, Job], name: str) -> set[str]:
    """The jobs that must have gone well before a job, also those that these need."""
    named = found[name].get("needs", [])
    direct = {named} if isinstance(named, str) else set(named)
    return direct.union(*(needs(found, each) for each in direct))


def may_sign_in(job: Job) -> bool:
    """Whether a job may ask for tokens in its own name."""
    return "id-token" in (job.get("permissions") or {})


def starts(patterns: Iterable[str], path: str) -> bool:
    """Whether a changed file starts a workflow with these `paths`, as GitHub reads them: the last that fits decides."""
    decided = False
    for pattern in patterns:
        if re.fullmatch(_expression(pattern.removeprefix("!")), path):
            decided = not pattern.startswith("!")
    return decided


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return "".join(known.get(part, re.escape(part)) for part in parts)


def run_step(script: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a step's script as a runner does: by bash, which ends at what fails."""
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


PROGRAM = """#!{python}
import json, os, sys
from pathlib import Path
here = Path(__file__).resolve().parent
name = Path(sys.argv[0]).name
with (here / "asked").open("a") as file:
    file.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
with (here / "folders").open("a") as file:
    file.write(os.getcwd() + "\\n")
words = " ".join([name, *sys.argv[1:]])
for on, code, out in json.loads((here / "answers").read_text()):
    if on in words:
        print(out)
        sys.exit(code)
"""


class Programs:
    """Programs that do nothing: what each was asked, and what it answers. The last answer given goes first."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self._answers: list[tuple[str, int, str]] = []
        for name in names:
            (folder / name).write_text(PROGRAM.format(python=sys.executable))
            (folder / name).chmod(0o755)
        self._write()

    def answer(self, on: str, code: int, out: str = "") -> None:
        """Answer so to commands that hold `on`."""
        self._answers.insert(0, (on, code, out))
        self._write()

    def asked(self) -> list[str]:
        """Every command, in order."""
        file = self.folder / "asked"
        return [" ".join(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    def folders(self) -> list[Path]:
        """Where each of them was asked."""
        return [Path(line) for line in (self.folder / "folders").read_text().splitlines()]

    def _write(self) -> None:
        (self.folder / "answers").write_text(json.dumps(self._answers))
