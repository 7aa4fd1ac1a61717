"""What an environment costs a month, by what its templates come to and the prices of infra/prices.json.

Each type of resource is either priced here or said to be free, so that nothing new is overlooked. The prices are not
verified; what is held is that the sums follow from them. `python -m tests.infra.cost` writes the tables of docs/cost.md
anew.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra.app_functions import functions_by_timer
from tests.infra.bicep_duties import deployed, of_type, parameters_of
from tests.infra.bicep_values import Made

ROOT = Path(__file__).parents[2]
PRICES = ROOT / "infra" / "prices.json"
GUIDE = ROOT / "docs" / "cost.md"
ENVIRONMENTS = ("dev", "staging", "production")
_CLUSTER = "Microsoft.ContainerService/managedClusters"
_COSMOS = "Microsoft.DocumentDB/databaseAccounts"
_MARKS = "<!-- {name}: python -m tests.infra.cost -->\n", "<!-- end of {name} -->\n"

PRICED: frozenset[str] = frozenset(
    {
        _CLUSTER,
        f"{_CLUSTER}/agentPools",
        "Microsoft.ContainerRegistry/registries",
        _COSMOS,
        f"{_COSMOS}/sqlDatabases",
        "Microsoft.Insights/metricAlerts",
        "Microsoft.Insights/scheduledQueryRules",
        "Microsoft.Monitor/accounts",
        "Microsoft.Network/natGateways",
        "Microsoft.Network/privateDnsZones",
        "Microsoft.Network/privateEndpoints",
        "Microsoft.Network/publicIPAddresses",
        "Microsoft.OperationalInsights/workspaces",
        "Microsoft.Storage/storageAccounts",
        "Microsoft.Web/sites",
    }
)
FREE: frozenset[str] = frozenset(
    {
        f"{_CLUSTER}/maintenanceConfigurations",
        f"{_COSMOS}/sqlDatabases/containers",
        f"{_COSMOS}/sqlRoleAssignments",
        "Microsoft.AlertsManagement/prometheusRuleGroups",
        "Microsoft.Authorization/roleAssignments",
        "Microsoft.Consumption/budgets",
        "Microsoft.ContainerService/deploymentSafeguards",
        "Microsoft.EventGrid/systemTopics",
        "Microsoft.Insights/actionGroups",
        "Microsoft.Insights/components",
        "Microsoft.Insights/dataCollectionEndpoints",
        "Microsoft.Insights/dataCollectionRuleAssociations",
        "Microsoft.Insights/dataCollectionRules",
        "Microsoft.Insights/diagnosticSettings",
        "Microsoft.Insights/workbooks",
        "Microsoft.KeyVault/vaults",
        "Microsoft.KubernetesConfiguration/extensions",
        "Microsoft.KubernetesConfiguration/fluxConfigurations",
        "Microsoft.MachineLearningServices/workspaces",
        "Microsoft.ManagedIdentity/userAssignedIdentities",
        "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
        "Microsoft.Network/networkSecurityGroups",
        "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
        "Microsoft.Network/privateEndpoints/privateDnsZoneGroups",
        "Microsoft.Network/virtualNetworks",
        "Microsoft.OperationalInsights/workspaces/savedSearches",
        "Microsoft.Portal/dashboards",
        "Microsoft.Resources/resourceGroups",
        "Microsoft.Storage/storageAccounts/blobServices",
        "Microsoft.Storage/storageAccounts/blobServices/containers",
        "Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies",
        "Microsoft.Storage/storageAccounts/managementPolicies",
        "Microsoft.Storage/storageAccounts/queueServices",
        "Microsoft.Storage/storageAccounts/queueServices/queues",
        "Microsoft.Web/serverfarms",
        "Microsoft.Web/sites/basicPublishingCredentialsPolicies",
        "Microsoft.Web/sites/config",
    }
)
"""Free in themselves, or (a vault, a topic, an action group) by so small a use that a month of it is cents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Something that is paid for."""

    what: str
    price: str
    """Its name among the prices."""
    least: float
    """How many of its unit at least: of what is paid by the hour, how many at a time."""
    most: float


def prices() -> dict[str, Any]:
    """The prices, and what is said of use."""
    found: dict[str, Any] = json.loads(PRICES.read_text())
    return found


def resources_of(environment: str) -> list[Made]:
    """What an environment comes to."""
    folder = ROOT / "infra" / "bicep"
    return list(deployed(folder, parameters_of(folder, environment)).resources())


def lines(environment: str, made: list[Made], known: Mapping[str, Any]) -> list[Line]:
    """What of it is paid for, whether it is used or not and by the use that is said of it."""
    return [*_standing(made, known), *_by_use(made, known, known["use_a_month"][environment])]


def month_usd(line: Line, known: Mapping[str, Any]) -> tuple[float, float]:
    """What a line costs a month, at least and at most."""
    price = known["prices"][line.price]
    times = price["usd"] * (known["hours_a_month"] if price["per"] == "hour" else 1)
    return line.least * times, line.most * times


def total_usd(found: list[Line], known: Mapping[str, Any]) -> tuple[float, float]:
    """What lines cost a month, at least and at most."""
    costs = [month_usd(line, known) for line in found]
    return sum(least for least, _ in costs), sum(most for _, most in costs)


def _standing(made: list[Made], known: Mapping[str, Any]) -> Iterator[Line]:
    for cluster in of_type(made, _CLUSTER):
        yield _fixed("the cluster's control plane", f"cluster {cluster.body['sku']['tier']}", 1)
        for pool in cluster.properties["agentPoolProfiles"]:
            yield _pool(pool["name"], pool)
        yield _fixed("load balancer of the Gateway", "load balancer", 1)
    for pool in of_type(made, f"{_CLUSTER}/agentPools"):
        yield _pool(pool.name, pool.properties)
    for kind, what, price in (
        ("Microsoft.Network/natGateways", "NAT gateway", "NAT gateway"),
        ("Microsoft.Network/publicIPAddresses", "public address", "public address"),
        ("Microsoft.Network/privateEndpoints", "private endpoints", "private endpoint"),
        ("Microsoft.Network/privateDnsZones", "private DNS zones", "private DNS zone"),
        ("Microsoft.Insights/metricAlerts", "alerts of metrics", "metric alert"),
        ("Microsoft.Insights/scheduledQueryRules", "alerts of logs", "log alert"),
    ):
        yield _fixed(what, price, len(of_type(made, kind)))
    for registry in of_type(made, "Microsoft.ContainerRegistry/registries"):
        yield _fixed("registry", f"registry {registry.body['sku']['name']}", 1)
    for app in of_type(made, "Microsoft.Web/sites"):
        scale = app.properties["functionAppConfig"]["scaleAndConcurrency"]
        instances = sum(one["instanceCount"] for one in scale["alwaysReady"])
        yield _fixed("functions, always ready", "always ready GB", instances * scale["instanceMemoryMB"] / 1024)
    (account,) = of_type(made, _COSMOS)
    factor = known["zone_redundant_documents_factor"] if account.properties["locations"][0]["isZoneRedundant"] else 1
    for database in of_type(made, f"{_COSMOS}/sqlDatabases"):
        most = database.properties["options"].get("autoscaleSettings", {}).get("maxThroughput", 0) / 100 * factor
        yield Line(what="documents, autoscale", price="documents, 100 RU/s", least=most / 10, most=most)


def _by_use(made: list[Made], known: Mapping[str, Any], use: Mapping[str, float]) -> Iterator[Line]:
    yield _fixed("logs and spans", "logs", use["logs"])
    (workspace,) = of_type(made, "Microsoft.OperationalInsights/workspaces")
    longer = max(0, workspace.properties["retentionInDays"] - known["logs_kept_free_days"]) / 30
    yield _fixed("logs, kept longer", "logs kept longer", use["logs"] * longer)
    yield _fixed("metrics", "metrics", use["metrics"])
    functions = use["functions"] + timers_million_gb_s(made, known)
    yield _fixed("functions, on demand", "functions", max(0.0, functions - known["functions_free_million_gb_s"]))
    yield _fixed("documents, serverless", "documents by use", use["documents by use"])
    sku = next(one for one in of_type(made, "Microsoft.Storage/storageAccounts") if not one.name.startswith("stml"))
    yield _fixed("storage", f"storage {sku.body['sku']['name']}", use["storage"])
    yield _fixed("storage, writes", "storage writes", use["storage writes"])
    yield _fixed("outbound", "outbound through the NAT gateway", use["outbound through the NAT gateway"])


def timers_million_gb_s(made: list[Made], known: Mapping[str, Any]) -> float:
    """What timers take a month at least: each is a group of its own, and an instance's shortest time is paid for."""
    (app,) = of_type(made, "Microsoft.Web/sites")
    (settings,) = [one for one in of_type(made, "Microsoft.Web/sites/config") if one.name == "appsettings"]
    if settings.properties["SLIPWAY_SWEEP_SCHEDULE"] != "0 * * * * *":
        raise ValueError("timers do not run each minute any more: say here how often")
    memory_gb = app.properties["functionAppConfig"]["scaleAndConcurrency"]["instanceMemoryMB"] / 1024
    runs = len(functions_by_timer()) * known["hours_a_month"] * 60
    return float(runs * known["functions_shortest_s"] * memory_gb / 1e6)


def _fixed(what: str, price: str, count: float) -> Line:
    return Line(what=what, price=price, least=count, most=count)


def _pool(name: str, pool: Mapping[str, Any]) -> Line:
    return Line(what=f"nodes, {name}", price=f"node {pool['vmSize']}", least=pool["minCount"], most=pool["maxCount"])


def tables() -> dict[str, str]:
    """The tables of the guide, by name."""
    known = prices()
    found = {one: lines(one, resources_of(one), known) for one in ENVIRONMENTS}
    names = list(dict.fromkeys(line.what for one in ENVIRONMENTS for line in found[one]))
    by_name = {one: {line.what: line for line in found[one]} for one in ENVIRONMENTS}
    rows = [f"| | {' | '.join(ENVIRONMENTS)} |", "| --- |" + " ---: |" * len(ENVIRONMENTS)]
    rows += [
        f"| {name} | {' | '.join(_cell(by_name[one].get(name), known) for one in ENVIRONMENTS)} |" for name in names
    ]
    sums = [_range(*total_usd(found[one], known)) for one in ENVIRONMENTS]
    budgets = [str(parameters_of(ROOT / "infra" / "bicep", one)["budgetAmount"]) for one in ENVIRONMENTS]
    rows += [
        f"| **together** | {' | '.join(f'**{one}**' for one in sums)} |",
        f"| `budgetAmount` | {' | '.join(budgets)} |",
    ]
    listed = ["| price | USD | per | of |", "| --- | ---: | --- | --- |"]
    listed += [f"| {name} | {one['usd']} | {one['per']} | {one['of']} |" for name, one in known["prices"].items()]
    used = [f"| of a month | {' | '.join(ENVIRONMENTS)} |", "| --- |" + " ---: |" * len(ENVIRONMENTS)]
    for name in known["use_a_month"]["dev"]:
        unit = known["prices"].get(name, {"per": "GB"})["per"]
        used.append(
            f"| {name}, {unit} | " + " | ".join(str(known["use_a_month"][e][name]) for e in ENVIRONMENTS) + " |"
        )
    return {"months": _joined(rows), "prices": _joined(listed), "use": _joined(used)}


def _cell(line: Line | None, known: Mapping[str, Any]) -> str:
    if line is None or line.most == 0:
        return ""
    money = _range(*month_usd(line, known))
    if not line.what.startswith(("nodes", "private")):
        return money
    return f"{_range(line.least, line.most)} x {line.price.removeprefix('node ')}: {money}"


def _range(least: float, most: float) -> str:
    low, high = (f"{one:.0f}" if one == 0 or one >= 1 else "< 1" for one in (least, most))
    return low if low == high else f"{low} to {high}"


def _joined(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"


def filled(guide: str) -> str:
    """The guide with its tables as they are now."""
    for name, table in tables().items():
        start, end = (mark.format(name=name) for mark in _MARKS)
        before, _, rest = guide.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{GUIDE.name} has no place for the table {name}: put {start.strip()} and {end.strip()}")
        guide = f"{before}{start}{table}{end}{after}"
    return guide


def main() -> None:
    """Write the tables anew."""
    GUIDE.write_text(filled(GUIDE.read_text()))


if __name__ == "__main__":
    main()
