"""The workflows of GitHub Actions: what actionlint and zizmor find, and our own rules, each broken on purpose."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.infra.workflows import FOLDER, NAMES, PIN, jobs, read, scripts
from tests.unit.project.repository import ROOT, text_of

BIN = Path(sys.executable).parent
CHECKOUT = "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0"
EXCESS = "excessive-permissions"
# Whose actions may run where a job may sign in: GitHub's, Azure's, and Sigstore's, which sign.
TRUSTED = ("./", "actions/", "azure/", "sigstore/")
BUILDS = re.compile(r"\bdocker build\b|\bpip3? install\b|\bnpm (ci|install)\b|\bcurl\b[^\n|]*\| *(ba)?sh\b")


def broken_rules(text: str) -> set[str]:
    """Our own rules that a workflow breaks."""
    found = set()
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    for line in lines:
        if line.startswith("uses: ") and not line.startswith("uses: ./") and not PIN.match(line):
            found.add("an action is not pinned by commit, with its version beside it")
    if "secrets." in text or "secrets: inherit" in text:
        found.add("it uses a secret")
    if read(text).get("permissions") != {}:
        found.add("it has permissions that no job asked for")
    for job in jobs(text).values():
        found |= _broken_by(job)
    return found


def _broken_by(job: dict[str, Any]) -> set[str]:
    found = set()
    permissions = job.get("permissions")
    most = {"contents": "read", "id-token": "write"}
    if permissions is None or not permissions.items() <= most.items():
        found.add("a job may more than read, and sign in")
    steps = job.get("steps", [])
    signs_in = any(str(step.get("uses", "")).startswith(("azure/login@", "sigstore/")) for step in steps)
    if "steps" in job and signs_in != ("id-token" in (permissions or {})):
        found.add("a job may sign in and does not, or the reverse")
    if "id-token" in (permissions or {}) and (
        BUILDS.search(scripts(job)) or not all(str(step.get("uses", "./")).startswith(TRUSTED) for step in steps)
    ):
        found.add("a job that may sign in runs what others wrote")
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
        ("uses: azure/login@", "uses: somebody/login@", "what others wrote"),
        ("run: ./slipway deploy staging", "run: pip install x && ./slipway deploy staging", "what others wrote"),
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
            called = read((ROOT / job["uses"]).read_text())[True]["workflow_call"]["inputs"]
            assert job["with"].keys() == called.keys()
