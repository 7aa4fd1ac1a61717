"""`slipway deploy` and azd's hooks: which commands of the Azure CLI they run, and what becomes of one that fails.

The Azure CLI is a program of the test's own on the PATH, which writes down what it is asked and answers as it is told.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.deploy import Deployment, Environment
from cli.main import run
from tests.infra.bicep_duties import deployed, of_type, parameters_of
from tests.infra.test_bicep import FOLDER
from tests.unit.project.repository import ROOT, text_of

OUTPUTS = {
    "RESOURCE_GROUP": "rg-slipway-staging",
    "EVENTS_TOPIC_NAME": "evgt-1",
    "STORAGE_NAME": "st1",
    "LOCATION": "x",
}
BY_PARAMETERS = json.loads(text_of("infra/bicep/main.parameters.staging.json"))["parameters"]["location"]["value"]
NOT_FOUND = "ERROR: (DeploymentNotFound) Deployment 'slipway-staging' could not be found."
AZ = """#!{python}
import json, sys
from pathlib import Path
here = Path(__file__).parent
asked = here / "asked"
with asked.open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
words = " ".join(sys.argv[1:])
for rule in json.loads((here / "rules").read_text()):
    if rule["on"] in words and not (rule["once"] and (here / rule["on"].replace(" ", "-")).exists()):
        (here / rule["on"].replace(" ", "-")).touch()
        sys.stdout.write(rule["out"])
        sys.stderr.write(rule["err"])
        sys.exit(rule["code"])
"""


class FakeAz:
    """An Azure CLI that does nothing: what it is asked, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rules: list[dict[str, Any]] = []
        program = folder / "az"
        program.write_text(AZ.format(python=sys.executable))
        program.chmod(0o755)
        self.answers("sub show", out=json.dumps({name: {"value": value} for name, value in OUTPUTS.items()}))

    def answers(self, on: str, *, code: int = 0, out: str = "", err: str = "", once: bool = False) -> None:
        """Answer so to commands that hold `on`; a later word goes before an earlier one."""
        self._rules.insert(0, {"on": on, "code": code, "out": out, "err": err, "once": once})
        (self.folder / "rules").write_text(json.dumps(self._rules))

    def asked(self) -> list[list[str]]:
        """The arguments of every call, in order."""
        file = self.folder / "asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def changes(self) -> list[list[str]]:
        """The calls that change something."""
        return [call for call in self.asked() if "create" in call]


@pytest.fixture
def az(tmp_path: Path) -> Iterator[FakeAz]:
    """On the PATH, before what else there is."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}{os.pathsep}{before}"
    yield FakeAz(tmp_path)
    os.environ["PATH"] = before


def values(call: list[str], option: str) -> list[str]:
    """What follows an option, each time."""
    return [call[index + 1] for index, word in enumerate(call) if word == option]


def test_a_what_if_asks_about_both_steps_and_changes_nothing(az: FakeAz, capfd: pytest.CaptureFixture[str]) -> None:
    az.answers("sub what-if", out="+ Microsoft.Storage\n")

    assert run(["deploy", "staging", "--what-if"]) == 0

    first, shown, second = az.asked()
    file = "infra/bicep/main.parameters.staging.json"
    template = "infra/bicep/main.bicep"
    assert first == [
        *("deployment", "sub", "what-if", "--name", "slipway-staging", "--location", BY_PARAMETERS),
        *("--template-file", template, "--validation-level", "ProviderNoRbac", "--parameters", file),
    ]
    assert shown[:3] == ["deployment", "sub", "show"]
    assert second[:3] == ["deployment", "group", "what-if"]
    assert values(second, "--validation-level") == ["ProviderNoRbac"]
    assert second[-2:] == ["topicName=evgt-1", "storageName=st1"]
    said = capfd.readouterr()
    assert "+ Microsoft.Storage" in said.out
    assert f"$ az {' '.join(first)}" in said.err
    assert az.changes() == []


def test_before_the_first_deployment_there_is_no_second_step_to_ask_about(
    az: FakeAz, capfd: pytest.CaptureFixture[str]
) -> None:
    az.answers("sub show", code=3, err=NOT_FOUND)

    assert run(["deploy", "staging", "--what-if"]) == 0

    assert [call[:3] for call in az.asked()] == [["deployment", "sub", "what-if"], ["deployment", "sub", "show"]]
    assert "when the first is done" in capfd.readouterr().err


def test_a_deployment_takes_both_steps_in_order(az: FakeAz) -> None:
    assert run(["deploy", "staging", "--yes"]) == 0

    first, second = az.changes()
    assert (first[1], second[1]) == ("sub", "group")
    assert values(second, "--resource-group") == ["rg-slipway-staging"]
    assert values(second, "--template-file") == ["infra/bicep/eventgrid.bicep"]
    assert "--validation-level" not in first + second, "who changes something is checked in full"


def test_another_location_is_the_deployments_and_the_resources(az: FakeAz) -> None:
    assert run(["deploy", "dev", "--what-if", "--location", "swedencentral", "--only", "resources"]) == 0

    (call,) = az.asked()
    assert values(call, "--location") == ["swedencentral"]
    assert values(call, "--name") == ["slipway-dev-swedencentral"]
    assert call[call.index("--parameters") + 1] == "infra/bicep/main.parameters.dev.json"
    assert call[-2:] == ["location=swedencentral", "groupName=rg-slipway-dev-swedencentral"]


def test_beside_the_first_region_another_shares_neither_the_deployment_nor_the_group() -> None:
    first = Deployment(environment=Environment.STAGING, location=None)
    other = Deployment(environment=Environment.STAGING, location="northeurope")
    assert first.name != other.name
    groups = []
    for deployment in (first, other):
        words = [word for word in deployment.resources("create") if word.startswith(("location=", "groupName="))]
        given = parameters_of(FOLDER, "staging") | dict(word.split("=") for word in words)
        (group,) = of_type(list(deployed(FOLDER, given).resources()), "Microsoft.Resources/resourceGroups")
        assert values(deployment.resources("create"), "--location") == [group.body["location"]]
        groups.append((group.name, group.body["location"]))
    assert groups == [("rg-slipway-staging", BY_PARAMETERS), ("rg-slipway-staging-northeurope", "northeurope")]


def test_its_own_location_said_again_is_the_same_deployment() -> None:
    said = Deployment(environment=Environment.STAGING, location=BY_PARAMETERS)
    assert said.resources("create") == Deployment(environment=Environment.STAGING, location=None).resources("create")


def test_the_second_step_elsewhere_asks_the_deployment_there(az: FakeAz) -> None:
    assert run(["deploy", "staging", "--yes", "--only", "drops", "--location", "northeurope"]) == 0
    shown, created = az.asked()
    assert values(shown, "--name") == ["slipway-staging-northeurope"]
    assert values(created, "--name") == ["slipway-staging-northeurope-drops"]


def test_a_region_is_named_as_azure_names_it(az: FakeAz, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", "staging", "--yes", "--location", "North Europe"]) == 2
    assert "az account list-locations" in capfd.readouterr().err
    assert az.asked() == []


def test_one_step_alone(az: FakeAz) -> None:
    assert run(["deploy", "staging", "--yes", "--only", "drops"]) == 0
    assert [call[1:3] for call in az.asked()] == [["sub", "show"], ["group", "create"]]


def test_nothing_is_changed_where_nobody_said_yes(az: FakeAz, capfd: pytest.CaptureFixture[str]) -> None:
    # Standard input of a test is nobody's terminal.
    assert run(["deploy", "production"]) == 2
    assert az.asked() == []
    assert "--yes" in capfd.readouterr().err


def test_a_terminal_is_asked(az: FakeAz) -> None:
    if shutil.which("script") is None:
        pytest.skip("there is no `script` here, which gives a process a terminal")
    command = f"{sys.executable} -P -m cli.main deploy staging"
    for answer, changed in (("n\n", 0), ("y\n", 2)):
        subprocess.run(
            ["script", "--quiet", "--return", "--command", command, "/dev/null"],
            input=answer.encode(),
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert len(az.changes()) == changed


@pytest.mark.parametrize("step", ["sub create", "group create"])
def test_an_az_that_fails_is_told_and_ends_it(az: FakeAz, step: str, capfd: pytest.CaptureFixture[str]) -> None:
    az.answers(step, code=1, err="ERROR: the quota is used up\n")

    assert run(["deploy", "staging", "--yes"]) == 1

    said = capfd.readouterr().err
    assert "the quota is used up" in said
    assert "az ended with 1" in said
    assert ("--only drops" in said) == (step == "group create")
    assert len(az.changes()) == (1 if step == "sub create" else 2)


def test_without_az_it_says_what_to_install(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = os.environ["PATH"]
    os.environ["PATH"] = str(tmp_path)
    try:
        assert run(["deploy", "staging", "--what-if"]) == 1
    finally:
        os.environ["PATH"] = before
    assert "found no Azure CLI" in capfd.readouterr().err


@pytest.mark.parametrize("told", ["", "null", "[]", '{"RESOURCE_GROUP": {}}', "{"])
def test_outputs_that_are_none_are_an_error(az: FakeAz, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    az.answers("sub show", out=told)

    assert run(["deploy", "staging", "--yes", "--only", "drops"]) == 1
    assert "did not put out" in capfd.readouterr().err
    assert az.changes() == []


def test_a_deployment_that_is_not_there_has_no_second_step(az: FakeAz, capfd: pytest.CaptureFixture[str]) -> None:
    az.answers("sub show", code=3, err=NOT_FOUND)

    assert run(["deploy", "staging", "--yes", "--only", "drops"]) == 1
    assert "--only resources" in capfd.readouterr().err


def test_with_json_standard_output_holds_one_value(az: FakeAz, capfd: pytest.CaptureFixture[str]) -> None:
    az.answers("sub create", out="az's own words\n")

    assert run(["deploy", "staging", "--yes", "--json"]) == 0

    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert answer["what_if"] is False
    assert [command.split()[3] for command in answer["commands"]] == ["create", "create"]
    assert "az's own words" in said.err


@pytest.mark.parametrize("environment", Environment)
def test_every_environment_has_parameters_that_the_templates_ask_for(environment: Environment) -> None:
    deployment = Deployment(environment=environment, location=None)
    given = json.loads(text_of(deployment.parameters))["parameters"]

    assert given["environmentName"]["value"] == environment
    assert deployment.resources("create")[6] == given["location"]["value"]
    declared = set(re.findall(r"(?m)^param (\w+)", text_of("infra/bicep/main.bicep")))
    assert given.keys() <= declared
    second = deployment.drops("create", OUTPUTS)
    named = {word.split("=")[0] for word in second[second.index("--parameters") + 1 :]}
    assert named == set(re.findall(r"(?m)^param (\w+)", text_of("infra/bicep/eventgrid.bicep")))
    assert OUTPUTS.keys() <= set(re.findall(r"(?m)^output (\w+)", text_of("infra/bicep/main.bicep")))


def hook(name: str, az: FakeAz, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a hook as azd does: by its path, with its environment's values."""
    return subprocess.run(
        [cwd / hooks()[name]["run"]],
        env={"PATH": f"{az.folder}{os.pathsep}{os.environ['PATH']}", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def hooks() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = yaml.safe_load(text_of("azure.yaml"))["hooks"]
    return found


def test_azd_runs_the_same_second_step(az: FakeAz) -> None:
    az.answers("group create", code=1, err="AuthorizationFailed", once=True)

    ended = hook("postdeploy", az, ROOT, AZURE_ENV_NAME="staging", WAIT_S="0", **OUTPUTS)

    assert ended.returncode == 0, ended.stderr
    wanted = Deployment(environment=Environment.STAGING, location=None).drops("create", OUTPUTS)
    assert az.asked() == [wanted, wanted]


def test_azds_second_step_gives_up_at_some_time(az: FakeAz) -> None:
    az.answers("group create", code=1, err="AuthorizationFailed")

    ended = hook("postdeploy", az, ROOT, AZURE_ENV_NAME="staging", WAIT_S="0", TRIES="3", **OUTPUTS)

    assert (ended.returncode, len(az.asked())) == (1, 3)
    assert "azd hooks run postdeploy" in ended.stderr


def test_azd_is_given_the_environments_parameters(az: FakeAz, tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    for folder in ("infra/hooks", "infra/bicep"):
        shutil.copytree(ROOT / folder, copy / folder)

    assert hook("preprovision", az, copy, AZURE_ENV_NAME="production").returncode == 0
    made = json.loads((copy / "infra/bicep/main.parameters.json").read_text())
    assert made["parameters"]["environmentName"]["value"] == "production"
    other = hook("preprovision", az, copy, AZURE_ENV_NAME="mine")
    assert (other.returncode, "staging" in other.stderr) == (1, True)


def test_azd_finds_what_azure_yaml_names() -> None:
    told = yaml.safe_load(text_of("azure.yaml"))
    (service,) = told["services"]
    tag = re.search(r"'azd-service-name': '(\w+)'", text_of("infra/bicep/main.bicep"))

    assert tag is not None
    assert tag[1] == service
    assert (ROOT / told["infra"]["path"] / f"{told['infra']['module']}.bicep").is_file()
    assert all(os.access(ROOT / each["run"], os.X_OK) for each in told["hooks"].values())
    ignored = subprocess.run(["git", "check-ignore", "infra/bicep/main.parameters.json"], cwd=ROOT, check=False)
    assert ignored.returncode == 0
