"""The workflows of GitHub Actions: what actionlint and zizmor find, our own rules, and the script of models run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aks_serving.http.access import is_open

from cli.main import run
from tests.unit.project.repository import ROOT, text_of

FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.iterdir())
BIN = Path(sys.executable).parent
PIN = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)$")
CHECKOUT = "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0"

EXCESS = "excessive-permissions"

type Workflow = dict[Any, Any]


def workflow(text: str) -> Workflow:
    """A workflow; its `on` is `True` to YAML."""
    found: Workflow = yaml.safe_load(text)
    return found


def jobs(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(text)["jobs"]
    return found


def broken_rules(text: str) -> set[str]:
    """Our own rules that a workflow breaks."""
    found = set()
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    for line in lines:
        if line.startswith("uses: ") and not line.startswith("uses: ./") and not PIN.match(line):
            found.add("an action is not pinned by commit, with its version beside it")
    if "secrets." in text or "secrets: inherit" in text:
        found.add("it uses a secret")
    if workflow(text).get("permissions") != {}:
        found.add("it has permissions that no job asked for")
    for job in jobs(text).values():
        found |= _broken_by(job)
    return found


def _broken_by(job: dict[str, Any]) -> set[str]:
    found = set()
    permissions = job.get("permissions")
    allowed: list[Any] = [{"contents": "read"}, {"contents": "read", "id-token": "write"}]
    if permissions not in allowed:
        found.add("a job may more than read, and sign in")
    steps = job.get("steps", [])
    signs_in = any(str(step.get("uses", "")).startswith(("azure/login@", "sigstore/")) for step in steps)
    if "steps" in job and signs_in != ("id-token" in (permissions or {})):
        found.add("a job may sign in and does not, or the reverse")
    if signs_in and "environment" not in job:
        found.add("a job signs in without an environment, whose rules say who may")
    if "steps" in job and "timeout-minutes" not in job:
        found.add("a job may run for hours")
    for step in steps:
        is_checkout = str(step.get("uses", "")).startswith("actions/checkout@")
        if is_checkout and step.get("with", {}).get("persist-credentials") is not False:
            found.add("a checkout leaves the token on the disk")
        if "${{" in step.get("run", ""):
            found.add("an expression stands in a script")
    return found


def actionlint(text: str) -> str:
    # What shellcheck and pyflakes would find depends on whether they are installed.
    command = [str(BIN / "actionlint"), "-shellcheck=", "-pyflakes=", "-oneline", "-"]
    ended = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    return ended.stdout + ended.stderr


def zizmor(path: Path) -> list[str]:
    """What zizmor finds, by the names of its rules."""
    command = [
        str(BIN / "zizmor"),
        "--offline",
        "--no-progress",
        "--format",
        "json",
        "--config",
        str(ROOT / ".github" / "zizmor.yml"),
    ]
    ended = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=120, check=False)
    return [finding["ident"] for finding in json.loads(ended.stdout)]


@pytest.mark.parametrize("name", NAMES)
def test_actionlint_finds_nothing(name: str) -> None:
    assert actionlint((FOLDER / name).read_text()) == ""


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("needs: build", "needs: bulid", "does not exist"),
        ("${{ matrix.environment }}-plan", "${{ matrix.enviroment }}-plan", "not defined"),
        ("timeout-minutes: 15", "timeout_minutes: 15", "unexpected key"),
        ("branches: [main]", "branch: [main]", "unexpected key"),
        ("github.event_name !=", "github.event_nam !=", "not defined"),
    ],
)
def test_actionlint_finds_what_is_wrong(good: str, bad: str, said: str) -> None:
    text = text_of(".github/workflows/infra.yml")
    assert good in text
    assert said in actionlint(text.replace(good, bad))


def test_zizmor_finds_nothing() -> None:
    assert zizmor(ROOT / ".github") == []


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        (CHECKOUT, "actions/checkout@v5", "unpinned-uses"),
        ("        with:\n          persist-credentials: false\n", "", "artipacked"),
        ("./slipway deploy staging --yes", "echo ${{ github.head_ref }}", "template-injection"),
        (
            "permissions:\n      contents: read # to check it out\n    steps",
            "permissions: write-all\n    steps",
            EXCESS,
        ),
        ("  pull_request:", "  pull_request_target:", "dangerous-triggers"),
    ],
)
def test_zizmor_finds_what_is_wrong(good: str, bad: str, rule: str, tmp_path: Path) -> None:
    text = text_of(".github/workflows/infra.yml")
    assert good in text
    (tmp_path / "infra.yml").write_text(text.replace(good, bad))
    assert rule in zizmor(tmp_path / "infra.yml")


@pytest.mark.parametrize("name", NAMES)
def test_our_own_rules_hold(name: str) -> None:
    assert broken_rules((FOLDER / name).read_text()) == set()


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        (CHECKOUT, CHECKOUT.partition(" #")[0], "pinned by commit"),
        ("${{ vars.AZURE_CLIENT_ID }}", "${{ secrets.AZURE_CLIENT_ID }}", "secret"),
        ("permissions: {}", "permissions: {contents: read}", "no job asked"),
        ("      contents: read", "      contents: write", "more than read"),
        ("      id-token: write # to sign in to Azure\n", "", "the reverse"),
        ("    environment: production\n", "", "without an environment"),
        ("    timeout-minutes: 15\n", "", "for hours"),
        ("persist-credentials: false", "persist-credentials: true", "on the disk"),
        ("run: ./slipway deploy staging", "run: echo ${{ github.sha }}", "in a script"),
    ],
)
def test_our_own_rules_find_what_breaks_them(good: str, bad: str, rule: str) -> None:
    text = text_of(".github/workflows/infra.yml")
    assert good in text
    found = broken_rules(text.replace(good, bad))
    assert any(rule in sentence for sentence in found), found


def test_every_pin_is_told_of_where_people_confirm_them() -> None:
    used = {PIN.search(line) for name in NAMES for line in (FOLDER / name).read_text().splitlines() if "@" in line}
    pins = {(found["action"], found["version"], found["commit"]) for found in used if found}
    rows = re.findall(r"(?m)^\| `([\w./-]+)` \| (v[\d.]+) \| `([0-9a-f]{40})` \|", text_of("docs/releasing.md"))

    assert pins == set(rows)
    assert len(pins) == len({action for action, _, _ in pins}), "one action, one version"


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_names_what_there_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (FOLDER / name).read_text()
    for command in re.findall(r"\./slipway ([a-z][a-z-]*)", text):
        assert run([command, "--help"]) == 0
        capsys.readouterr()
    for path in re.findall(r"(?<![\w/.])(?:aks-serving|infra|\.github|\.ci)/[\w./-]*[\w-]", text):
        assert (ROOT / path).exists() or list(ROOT.glob(f"{path}*")), path
    for job in jobs(text).values():
        if str(job.get("uses", "")).startswith("./"):
            called = workflow((ROOT / job["uses"]).read_text())[True]["workflow_call"]["inputs"]
            assert job["with"].keys() == called.keys()


def test_a_release_is_asked_at_paths_that_the_gateway_routes() -> None:
    (step,) = (
        s
        for s in jobs(text_of(".github/workflows/serving-deploy.yml"))["deploy"]["steps"]
        if "curl" in s.get("run", "")
    )
    asked = re.search(r"for path in ([\w/ ]+); do", step["run"])
    (http,) = (
        route
        for route in yaml.safe_load_all(text_of("aks-serving/k8s/components/gateway/routes.yaml"))
        if route["kind"] == "HTTPRoute"
    )
    matches = [
        match for rule in http["spec"]["rules"] for match in rule["matches"] if match.get("method", "GET") == "GET"
    ]

    assert asked
    for path in asked[1].split():
        assert is_open(f"/{path}"), f"{path} may want a token"
        assert any(_routes(match["path"], f"/{path}") for match in matches), path


def _routes(wanted: dict[str, str], path: str) -> bool:
    value = wanted["value"]
    return path == value or (wanted["type"] == "PathPrefix" and path.startswith(f"{value}/"))


def test_only_pushes_to_main_and_people_deploy() -> None:
    for name in NAMES:
        text = (FOLDER / name).read_text()
        for job in jobs(text).values():
            on = workflow(text)[True]
            environment = job.get("environment", "")
            if "pull_request" in on and environment and not environment.endswith("-plan"):
                assert job["if"] in {"github.event_name != 'pull_request'", "github.event_name == 'push'"}
            assert "push" not in on or on["push"]["branches"] == ["main"]


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
