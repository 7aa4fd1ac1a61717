"""What docs/security.md says of roles, connections, ages and logs is what the templates, manifests and code say."""

import re
from pathlib import Path

import pytest

from shared.registry.policy import Policy
from shared.retention.ages import DAILY_DAYS, HOURLY_DAYS, WINDOW_DAYS
from tests.infra.bicep_duties import MAY, deployed, of_type, parameters_of
from tests.infra.bicep_values import Made
from tests.infra.k8s import overlay
from tests.infra.test_bicep import ENVIRONMENTS, EVERYTHING, FOLDER
from tests.infra.test_k8s_network import COLLECTOR, DNS, ENTRA, GATEWAY, ISTIOD, PUBLIC, SERVING, STORAGE, told

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()

IDENTITIES = {
    "functions": "functions app",
    "serving": "model servers",
    "events": "Event Grid",
    "collector": "collector",
    "scaler": "KEDA",
    "gateway": "gateway",
    "flux": "Flux",
    "kubelet": "kubelet",
    "cluster": "cluster",
    "another environment": "other environments",
    "a group": "publishers and operators",
}
PLACES = {
    "Microsoft.Storage/storageAccounts": "the storage account",
    "Microsoft.KeyVault/vaults": "Key Vault",
    "Microsoft.Insights/components": "Application Insights",
    "Microsoft.Insights/dataCollectionRules": "the rule that spans come by",
    "Microsoft.OperationalInsights/workspaces": "Log Analytics",
    "Microsoft.Monitor/accounts": "the Azure Monitor workspace",
    "Microsoft.ContainerRegistry/registries": "the registry",
    "/dbs/slipway": "the database `slipway`",
}
KINDS = {"containers": "container", "queues": "queue", "subnets": "subnet"}
ENDS = {
    "server": (SERVING,),
    "collector": (COLLECTOR,),
    "gateway": (GATEWAY,),
    "private endpoints": (STORAGE,),
    "Entra": (ENTRA,),
    "other public addresses": tuple(one for one in PUBLIC if one != ENTRA),
    "DNS": (DNS,),
    "istiod": (ISTIOD,),
}


def rows(heading: str) -> list[tuple[str, ...]]:
    """The rows of the first table whose first column is headed so, without that line."""
    table = DOCUMENT.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in table]


def place(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f"the {KINDS[kind.rpartition('/')[2]]} `{name}`" if name else PLACES[scope]


def test_each_role_is_told_and_no_other() -> None:
    assert sorted(rows("identity")) == sorted((IDENTITIES[who], role, place(what)) for who, role, what in MAY)


def test_the_connections_are_those_of_the_policies() -> None:
    allowed, _ = told(overlay("production"))
    found = {(pod, end, int(port)) for source, to, port in rows("from") for pod in ENDS[source] for end in ENDS[to]}
    assert found == {(pod, *side) for pod in (SERVING, COLLECTOR, GATEWAY) for side in allowed[pod]}


def test_the_routes_that_answer_without_a_key_are_those_of_the_code() -> None:
    anonymous = re.compile(r'\.route\(\s*"([^"]+)"[^)]*AuthLevel\.ANONYMOUS')
    found = {route for path in (ROOT / "functions").glob("*.py") for route in anonymous.findall(path.read_text())}
    assert {route.strip("`") for route, _ in rows("route")} == found
    assert "http_auth_level=func.AuthLevel.FUNCTION" in (ROOT / "function_app.py").read_text()


def kept() -> dict[str, int]:
    return {what: int(days) for what, _, days in rows("what")}


def test_what_is_counted_is_kept_as_long_as_the_code_keeps_it() -> None:
    retention = Policy().retention
    found = kept()
    assert found["windows, of requests and of features"] == WINDOW_DAYS
    assert found["roll-ups of hours"] == HOURLY_DAYS
    assert found["roll-ups of days"] == DAILY_DAYS
    assert found["drift reports"] == retention.keep_reports_days
    assert found["drops whose version is registered"] == retention.keep_days
    assert (
        found["versions that nothing uses, and their artifacts, until a plan may archive them"] == retention.keep_days
    )


def made(environment: str) -> list[Made]:
    return list(deployed(FOLDER, parameters_of(FOLDER, environment) | EVERYTHING).resources())


def the(environment: str, kind: str, name: str = "") -> Made:
    (found,) = [one for one in of_type(made(environment), kind) if name in one.name]
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_azure_keeps_what_is_deleted_for_as_long_as_it_says(environment: str) -> None:
    found = kept()
    blobs = the(environment, "Microsoft.Storage/storageAccounts/blobServices", "default").properties
    assert blobs["isVersioningEnabled"] is True
    assert blobs["deleteRetentionPolicy"] == {"enabled": True, "days": found["deleted blobs"]}
    assert blobs["containerDeleteRetentionPolicy"] == {"enabled": True, "days": found["deleted blobs"]}
    rules = {
        one["name"]: one["definition"]
        for one in the(environment, "Microsoft.Storage/storageAccounts/managementPolicies").properties["policy"][
            "rules"
        ]
    }
    versions = {
        name: one["actions"]["version"]["delete"]["daysAfterCreationGreaterThan"] for name, one in rules.items()
    }
    assert versions["old-states-end"] == found["earlier states of plans, routes, reports, drops and packages"]
    states = {"routes", "manifests", "reports", "incoming", "deployments", "event-dead-letters", "azure-webjobs-hosts"}
    assert set(rules["old-states-end"]["filters"]["prefixMatch"]) == {f"{name}/" for name in states}
    assert versions["telemetry-ends"] == found["earlier states of windows"]
    backup = the(environment, "Microsoft.DocumentDB/databaseAccounts").properties["backupPolicy"]
    tier = backup["continuousModeProperties"]["tier"]
    assert tier == f"Continuous{found['every state of the documents']}Days"
    vaults = of_type(made(environment), "Microsoft.KeyVault/vaults")
    assert {vault.properties["softDeleteRetentionInDays"] for vault in vaults} == {found["deleted secrets"]}
    workspace = the(environment, "Microsoft.OperationalInsights/workspaces").properties
    logs = "production" if environment == "production" else "dev and staging"
    assert workspace["retentionInDays"] == found[f"logs and spans, {logs}"]


def test_artifacts_are_immutable_where_it_says_so() -> None:
    kind = "Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies"
    for name in ("staging", "production"):
        found = kept()[f"artifacts that nobody can change or delete, {name}"]
        assert the(name, kind).properties["immutabilityPeriodSinceCreationInDays"] == found
    assert of_type(made("dev"), kind) == []


def test_the_logs_that_it_names_are_kept() -> None:
    kind = "Microsoft.Insights/diagnosticSettings"
    as_given = {name: list(deployed(FOLDER, parameters_of(FOLDER, name)).resources()) for name in ENVIRONMENTS}
    kept = {
        name: {log["category"] for one in of_type(found, kind) for log in one.properties["logs"] if log["enabled"]}
        for name, found in as_given.items()
    }
    kept_logs, of_reads = kept["production"], {"StorageRead", "DataPlaneRequests"}
    told_logs = {name for _, where in rows("who did it") if "Log Analytics" in where
                 for name in re.findall(r"`([\w-]+)`", where.split("(the table")[0])}  # fmt: skip
    assert told_logs
    assert told_logs <= kept_logs
    assert of_reads <= told_logs
    assert kept_logs - kept["staging"] == of_reads
