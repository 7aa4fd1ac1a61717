"""The script of the workflow `model`, run over a repository with models and a `slipway` that answers as it is told."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from functions._views import endpoint_view
from shared.registry.documents import ModelVersion
from shared.registry.policy import Policy
from shared.rollout.machine import RolloutState
from tests.unit.cli.test_rollout_docs import found
from tests.unit.functions.test_rollout_metrics import endpoint
from tests.unit.observing.exposed import NOW
from tests.unit.project.repository import ROOT

SLIPWAY = """#!{python}
import json, sys
from pathlib import Path
here = Path(__file__).parent
with (here / "asked").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
for on, code, out in json.loads((here / "answers").read_text()):
    if on in " ".join(sys.argv[1:]):
        print(out)
        sys.exit(code)
"""


class Models:
    """A repository with models, a `slipway` that answers as it is told, and the script of the workflow over both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.folder.mkdir()
        self._program = folder / "slipway"
        self._program.write_text(SLIPWAY.format(python=sys.executable))
        self._program.chmod(0o755)
        self._asked = folder / "asked"
        self.git("init", "--quiet", "--initial-branch", "main")
        self.base = self.commit({"models/iris/model.onnx": "1", "models/old/model.onnx": "1", "README.md": ""})
        self.answer()

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
        ended = subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True, timeout=60
        )
        return ended.stdout.strip()

    def commit(self, files: dict[str, str | None]) -> str:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink() if content is None else path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "m")
        return self.git("rev-parse", "HEAD")

    def answer(self, *earlier: tuple[str, int, str], automatic: bool = True, version: int = 7) -> None:
        usual = [
            ("push", 0, json.dumps({"version": {"version": 7}})),
            ("policy show", 0, json.dumps({"rollout": {"automatic": automatic}})),
            ("rollout status", 0, json.dumps({"endpoint": {"rollout": {"version": version}}})),
        ]
        (self._program.parent / "answers").write_text(json.dumps([*earlier, *usual]))

    def run(self, mode: str, base: str | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [ROOT / ".github" / "scripts" / "models.sh", mode, base or self.base],
            env={"PATH": os.environ["PATH"], "SLIPWAY": str(self._program), "STARTS_WITHIN_S": "0", **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in self._asked.read_text().splitlines()] if self._asked.exists() else []


@pytest.fixture
def repository(tmp_path: Path) -> Models:
    return Models(tmp_path)


def test_a_changed_model_is_validated_beside_what_it_replaces(repository: Models) -> None:
    repository.commit({"models/iris/model.onnx": "2", "models/iris.policy.json": "{}", "README.md": "x"})

    assert repository.run("validate").returncode == 0

    ((verb, path, *options),) = repository.asked()
    assert (verb, path) == ("validate", "models/iris")
    assert options[options.index("--policy") + 1] == "models/iris.policy.json"
    champion = Path(options[options.index("--champion") + 1])
    assert (champion / "model.onnx").read_text() == "1"


def test_a_new_model_has_no_champion_and_one_taken_away_is_left_alone(repository: Models) -> None:
    repository.commit({"models/fraud/model.onnx": "1", "models/old/model.onnx": None})

    assert repository.run("validate").returncode == 0

    (call,) = repository.asked()
    assert call[:2] == ["validate", "models/fraud"]
    assert not {"--champion", "--policy"} & set(call)


def test_on_a_new_branch_every_model_is_changed(repository: Models) -> None:
    assert repository.run("validate", "0" * 40).returncode == 0
    assert [call[1] for call in repository.asked()] == ["models/iris", "models/old"]


def test_all_models_are_gone_through_whatever_becomes_of_one(repository: Models) -> None:
    repository.commit({"models/iris/model.onnx": "2", "models/old/model.onnx": "2"})
    repository.answer(("validate models/iris", 1, "rejected"))

    assert repository.run("validate").returncode == 1
    assert [call[1] for call in repository.asked()] == ["models/iris", "models/old"]


def test_a_dropped_model_is_followed_to_the_end_of_its_rollout(repository: Models) -> None:
    repository.commit({"models/iris/model.onnx": "2"})

    ended = repository.run("drop")

    assert ended.returncode == 0, ended.stderr
    assert [" ".join(call[:2]) for call in repository.asked()] == [
        *("push models/iris", "policy show", "rollout status", "rollout watch"),
    ]


@pytest.mark.parametrize("mode", ["validate", "drop"])
def test_each_command_that_it_gives_is_one_of_the_command_lines_as_it_stands(
    mode: str, repository: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"models/iris/model.onnx": "2", "models/iris.policy.json": "{}"})
    repository.run(mode)
    monkeypatch.chdir(repository.folder)

    assert repository.asked()
    for call in repository.asked():
        command, words = found("models.sh", shlex.join(["slipway", *call]))
        command.make_context("slipway", words)


def test_what_it_reads_of_their_answers_is_there() -> None:
    text = (ROOT / ".github" / "scripts" / "models.sh").read_text()
    answers = {
        "version": ModelVersion.model_fields,
        "rollout": Policy().rollout.model_dump(mode="json"),
        "endpoint": endpoint_view(endpoint(RolloutState.PROGRESSING), NOW),
    }
    read = re.findall(r"'(\.[a-z_.]+)[ ']", text)

    assert read == [".version.version", ".rollout.automatic", ".endpoint.rollout.version"]
    for path in read:
        value: Any = answers
        for part in path[1:].split("."):
            value = value[part]


@pytest.mark.parametrize(
    ("answer", "code", "last"),
    [
        (("push", 1, "{}"), 1, "push"),  # rejected, or refused
        (("push", 0, "{}"), 1, "push"),  # no version
        (("rollout watch", 6, ""), 6, "rollout"),  # taken back
        (("rollout status", 3, ""), 1, "rollout"),  # nobody answers
        (("policy show", 3, ""), 3, "policy"),
    ],
)
def test_what_is_not_well_fails(repository: Models, answer: tuple[str, int, str], code: int, last: str) -> None:
    repository.commit({"models/iris/model.onnx": "2"})
    repository.answer(answer)

    assert repository.run("drop").returncode == code
    assert repository.asked()[-1][0] == last


def test_a_rollout_of_another_version_is_not_taken_for_its_own(repository: Models) -> None:
    repository.commit({"models/iris/model.onnx": "2"})
    repository.answer(version=6)

    ended = repository.run("drop")

    assert (ended.returncode, "no rollout of version 7 began" in ended.stdout) == (1, True)


def test_where_the_policy_starts_none_a_person_is_told_how(repository: Models) -> None:
    repository.commit({"models/iris/model.onnx": "2"})
    repository.answer(automatic=False)

    ended = repository.run("drop")

    assert (ended.returncode, "slipway rollout start iris 7" in ended.stdout) == (0, True)


def test_another_word_is_refused(repository: Models) -> None:
    assert repository.run("rm").returncode == 2
