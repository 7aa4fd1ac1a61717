"""The deployment guide says what the templates say."""

import re
from pathlib import Path

import pytest
import yaml

from tests.infra.bicep import Template
from tests.infra.bicep_lint import read_all
from tests.infra.test_bicep import EVERYTHING, FOLDER

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "deployment.md").read_text()


def test_it_tells_of_every_parameter_and_of_no_other() -> None:
    section = GUIDE.partition("## 2. Parameters")[2].partition("## 3.")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert told == {*Template.read(FOLDER / "main.bicep").params}
    assert told >= {*EVERYTHING}


def test_it_registers_every_provider_that_a_template_uses() -> None:
    registered = re.search(r"for name in ([\w\s\\]+); do", GUIDE)
    assert registered
    used = {
        resource.type.split("/")[0].removeprefix("Microsoft.")
        for template in read_all(FOLDER).values()
        for resource in template.resources.values()
    }
    # Always there; and of the subnet's delegation, the safeguards, the nodes, the logs add-on: no resources.
    assert used - {"Resources"} <= {*registered[1].replace("\\", " ").split()}
    assert {"App", "PolicyInsights", "Compute", "OperationsManagement"} <= {*registered[1].replace("\\", " ").split()}


def test_what_it_takes_from_the_outputs_is_an_output() -> None:
    by_hand = {"PYTHON_DIGEST", "GRPC_HOST"}
    named = {*re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", GUIDE)} - by_hand
    own = {name for name in named if not name.startswith(("APPLICATIONINSIGHTS_", "CKV_", "SLIPWAY_"))}
    assert own <= {*Template.read(FOLDER / "main.bicep").outputs}
    assert len(own) > 8


@pytest.mark.parametrize(
    "page", ["kql.md", "troubleshooting.md", "runbooks/an-alert-fired.md", "runbooks/a-rollout-is-stuck.md"]
)
def test_what_who_is_on_call_takes_from_the_outputs_is_an_output(page: str) -> None:
    others = ("PREDICTION_ID", "SLIPWAY_")
    named = {*re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", (ROOT / "docs" / page).read_text())}
    own = {name for name in named if not name.startswith(others)}
    assert own
    assert own <= {*Template.read(FOLDER / "main.bicep").outputs}


def test_the_second_step_gets_its_parameters() -> None:
    command = GUIDE.partition("--template-file infra/bicep/eventgrid.bicep")[2].partition("\n\n")[0]
    assert {*re.findall(r"(\w+)=[A-Z_]+", command)} == {*Template.read(FOLDER / "eventgrid.bicep").params}


def test_the_servers_are_applied_once_the_overlay_names_what_there_is() -> None:
    before, applied, _ = GUIDE.partition("kubectl apply -k aks-serving/k8s/overlays/staging")
    overlay = yaml.safe_load((ROOT / "aks-serving/k8s/overlays/staging/kustomization.yaml").read_text())
    set_to = before.partition("kustomize edit set image")[2]

    assert applied
    assert "aks-serving/k8s/environment.py staging" in before
    for image in overlay["images"]:
        assert f"{image['name']}=REGISTRY_LOGIN_SERVER/" in set_to
    assert "docker push REGISTRY_LOGIN_SERVER/slipway-serving" in before
    assert "az acr import --name REGISTRY_NAME --image slipway-otel-collector" in before


def test_every_group_that_it_makes_gets_a_member() -> None:
    made = {*re.findall(r"az ad group create --display-name (\S+)", GUIDE)}
    given = re.search(r"for group in ([\w\s-]+); do\n +az ad group member add", GUIDE)
    assert given
    assert made == {*given[1].split()}
