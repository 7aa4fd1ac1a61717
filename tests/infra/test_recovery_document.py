"""What docs/disaster-recovery.md says of plans, copies and pods is so."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import build_app
from shared.rollout.endpoint import Endpoint
from shared.rollout.publishing import publish
from shared.rollout.stored_plans import Astray
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer
from tests.infra.bicep import Template
from tests.infra.bicep_duties import deployed, of_type, parameters_of
from tests.infra.k8s import overlay, pod_of, the
from tests.infra.test_bicep import ENVIRONMENTS, FOLDER
from tests.unit.rollout.evidence import target
from tests.world.fakes import FakeBlobs, FakeClock, FakeDocuments, FakeQueues, Fuse

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "disaster-recovery.md").read_text()
COMMANDS = re.sub(r" \\\n +", " ", "\n".join(re.findall(r"^    (.*)$", DOCUMENT, re.MULTILINE))).splitlines()


class Stores:
    """The stores of a running system, and its outbox."""

    def __init__(self) -> None:
        clock, fuse = FakeClock(), Fuse()
        self.blobs = FakeBlobs(fuse, clock)
        self.outbox = Outbox(FakeDocuments(fuse), self.blobs, FakeQueues(fuse, clock), clock)

    def publish(self, endpoint: Endpoint) -> None:
        publish(endpoint)
        for entry in endpoint.outbox:
            self.outbox.deliver(entry)
        endpoint.strike({entry.number for entry in endpoint.outbox})

    def published(self) -> RoutePlan:
        blob = self.blobs.held[BlobContainer.ROUTES, plan_blob_name("digits")]
        return RoutePlan.model_validate_json(blob.data)


def restored(stores: Stores) -> Endpoint:
    """An endpoint that went back to its second generation, after its fifth was published."""
    endpoint = Endpoint(endpoint="digits", stable=target(1))
    for _ in range(2):
        stores.publish(endpoint)
    back = endpoint.to_body()
    endpoint.stable = target(2)
    for _ in range(3):
        stores.publish(endpoint)
    assert stores.published().generation == 5
    return Endpoint.from_body(back)


def test_plans_after_a_restore_are_passed_over_without_an_error() -> None:
    stores = Stores()
    endpoint = restored(stores)
    stores.publish(endpoint)
    assert endpoint.generation == 3
    assert endpoint.outbox == []
    assert stores.published().generation == 5
    assert stores.published().routes[0].version == 2


def test_the_command_that_it_tells_of_is_the_one_that_the_alert_calls_for() -> None:
    (shown,) = [one for one in COMMANDS if one.startswith("slipway plan republish")]
    assert "the alert `plan_astray`" in DOCUMENT
    told = Astray(endpoint="MODEL", blob="routes/MODEL.json", called_for=2, stored=5).sentence
    assert told.endswith(" ".join(shown.split()[:4]))


def test_a_pod_keeps_nothing_beyond_itself() -> None:
    volumes = pod_of(the(overlay("production"), "Deployment", "slipway-serving"))["spec"]["volumes"]
    kept = [one["name"] for one in volumes if not one.keys() & {"emptyDir", "configMap", "projected"}]
    assert volumes
    assert kept == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_copies_are_as_it_says(environment: str) -> None:
    made = list(deployed(FOLDER, parameters_of(FOLDER, environment)).resources())
    (account,) = [one for one in of_type(made, "Microsoft.Storage/storageAccounts") if not one.name.startswith("stml")]
    assert f"`{account.body['sku']['name']}` in {environment}" in DOCUMENT
    (cosmos,) = of_type(made, "Microsoft.DocumentDB/databaseAccounts")
    (location,) = cosmos.properties["locations"]
    assert location["isZoneRedundant"] is (environment == "production")
    serverless = {"name": "EnableServerless"} in cosmos.properties["capabilities"]
    assert serverless is (environment in {"dev", "staging"})


def test_what_it_takes_from_the_outputs_is_an_output() -> None:
    named = {one for line in COMMANDS for one in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", line)}
    assert named - {"COSMOS_NAME", "PODS_THAT_RUN"} <= {*Template.read(FOLDER / "main.bicep").outputs}


def test_the_commands_that_it_shows_take_the_options_that_it_shows() -> None:
    shown = [line for line in COMMANDS if line.startswith("slipway ")]
    assert len(shown) > 10
    for line in shown:
        words = line.removeprefix("slipway ").split()
        called = [one for one in words[:2] if re.fullmatch(r"[a-z][a-z-]*", one)]
        help_text = CliRunner().invoke(build_app(), [*called, "--help"], terminal_width=200).output
        assert {one for one in words if one.startswith("--")} <= {*re.findall(r"--[\w-]+", help_text)} | {"--json"}, (
            line
        )


def test_the_things_of_the_cluster_that_it_names_exist() -> None:
    resources = overlay("production")
    for line in COMMANDS:
        for kind, name in re.findall(r"(deployment|hpa)[/ ](slipway-\S+)", line):
            the(resources, {"deployment": "Deployment", "hpa": "HorizontalPodAutoscaler"}[kind], name)
    made = list(deployed(FOLDER, parameters_of(FOLDER, "production")).resources())
    pools = [one.name for one in of_type(made, "Microsoft.ContainerService/managedClusters/agentPools")]
    assert re.findall(r"nodepool update .* --name (\w+)", "\n".join(COMMANDS)) == pools
