"""Whether what a deployment says of logs, alerts and money means what it is for.

A metric alert whose operator is turned round, a budget that tells at eight times its amount, a category of logs that is
named and off: Azure takes each of them, and nobody hears anything. Each finding here is such a silence.
"""

import re
from collections.abc import Iterator
from typing import Any

from functions._tracing import TO_INSIGHTS
from tests.infra.bicep_lint import Finding, differs
from tests.infra.bicep_values import Made, made_of
from tests.infra.kql import tables_of

WORSE: dict[tuple[str, str], tuple[str, float, float]] = {
    ("Microsoft.DocumentDB/databaseAccounts", "TotalRequests"): ("GreaterThan", 1, 1_000),
    ("Microsoft.DocumentDB/databaseAccounts", "ServiceAvailability"): ("LessThan", 90, 99.9),
    ("Microsoft.Storage/storageAccounts", "Availability"): ("LessThan", 90, 99.9),
    ("Microsoft.EventGrid/systemTopics", "DeliveryAttemptFailCount"): ("GreaterThan", 1, 100),
    ("Microsoft.ContainerService/managedClusters", "node_memory_working_set_percentage"): ("GreaterThan", 70, 95),
    ("Microsoft.ContainerService/managedClusters", "kube_node_status_condition"): ("GreaterThan", 0, 0),
}
"""Each metric that an alert is of: on which side it is worse, and the least and the most that the limit may be."""

OF_REFUSALS: list[Any] = [{"name": "StatusCode", "operator": "Include", "values": ["429"]}]
NOT_READY: list[Any] = [
    {"name": "condition", "operator": "Include", "values": ["Ready"]},
    {"name": "status2", "operator": "Include", "values": ["NotReady"]},
]
ONLY: dict[str, list[Any]] = {"TotalRequests": OF_REFUSALS, "kube_node_status_condition": NOT_READY}
"""Metrics that count well and ill together, and what of them is ill."""

BUDGET: frozenset[tuple[str, int]] = frozenset({("Actual", 80), ("Actual", 100), ("Forecasted", 110)})
"""At which part of a month's amount somebody is told, in per cent."""

OF_DATA = frozenset({"StorageRead", "DataPlaneRequests"})
"""Categories of each read: much, and kept only where somebody asks for all of them."""

SPANS = {"AppRequests", "AppDependencies"}
"""Tables that hold nothing of the functions app where it sends no spans."""

_METRIC_ALERTS = "Microsoft.Insights/metricAlerts"
_LOG_ALERTS = "Microsoft.Insights/scheduledQueryRules"
_BUDGETS = "Microsoft.Consumption/budgets"
_MINUTES = re.compile(r"PT(\d+)M")


def watching(made: list[Made]) -> Iterator[Finding]:
    """All findings about what is watched in a deployment, and who hears of it."""
    yield from _metric_alerts(made)
    yield from _log_alerts(made)
    yield from _budgets(made)
    yield from _logs(made)


def _metric_alerts(made: list[Made]) -> Iterator[Finding]:
    (group,) = made_of(made, "Microsoft.Insights/actionGroups")
    yield from differs("alerts", group.name, "whether it is on", group.properties["enabled"], True)
    seen = set()
    for one in made_of(made, _METRIC_ALERTS):
        (found,) = one.properties["criteria"]["allOf"]
        key = (found["metricNamespace"], found["metricName"])
        seen.add(key)
        if key not in WORSE:
            yield Finding(rule="alerts", where=one.name, said=f"nothing here says when {key[1]} is worse: add it")
            continue
        side, least, most = WORSE[key]
        yield from differs("alerts", one.name, f"the operator of {key[1]}", found["operator"], side)
        if not least <= found["threshold"] <= most:
            said = f"its limit is {found['threshold']}, and {key[1]} is judged by {least} to {most}"
            yield Finding(rule="alerts", where=one.name, said=said)
        if key[1] in ONLY:
            yield from differs("alerts", one.name, f"what of {key[1]} it takes", found["dimensions"], ONLY[key[1]])
        watched = {
            scope.type if isinstance(scope, Made) else _type_of(str(scope)) for scope in one.properties["scopes"]
        }
        yield from differs("alerts", one.name, "what it is of", watched, {key[0]})
        yield from differs("alerts", one.name, "whether it is on", one.properties["enabled"], True)
        told = [action["actionGroupId"] for action in one.properties["actions"]]
        yield from differs("alerts", one.name, "who is told", told, [group.id])
        yield from _often(one)
    for _, name in sorted(WORSE.keys() - seen):
        yield Finding(rule="alerts", where=name, said="no alert is of it")


def _log_alerts(made: list[Made]) -> Iterator[Finding]:
    """Those of the functions app's spans are on where it sends them: else one would tell of an outage for ever."""
    (group,) = made_of(made, "Microsoft.Insights/actionGroups")
    (app,) = [one for one in made_of(made, "Microsoft.Web/sites/config") if one.name == "appsettings"]
    sends_spans = app.properties[TO_INSIGHTS].lower() == "true"
    for one in made_of(made, _LOG_ALERTS):
        (found,) = one.properties["criteria"]["allOf"]
        yield from differs("alerts", one.name, "how its rows are judged", found["operator"], "GreaterThan")
        yield from differs("alerts", one.name, "what it counts", found["timeAggregation"], "Count")
        if not 0 <= found["threshold"] <= 100:
            yield Finding(rule="alerts", where=one.name, said=f"it fires above {found['threshold']} rows")
        is_on = sends_spans or not tables_of(found["query"]) & SPANS
        yield from differs("alerts", one.name, "whether it is on", one.properties["enabled"], is_on)
        yield from differs("alerts", one.name, "who is told", one.properties["actions"]["actionGroups"], [group.id])
        yield from _often(one)


def _often(one: Made) -> Iterator[Finding]:
    """An alert looks at least as far back as it waits between looks: nothing falls between two of them."""
    every, over = (_MINUTES.fullmatch(one.properties[name]) for name in ("evaluationFrequency", "windowSize"))
    if every is None or over is None or not int(every[1]) <= int(over[1]) <= 60 or int(every[1]) > 15:
        said = f"it looks every {one.properties['evaluationFrequency']} at {one.properties['windowSize']}"
        yield Finding(rule="alerts", where=one.name, said=said)


def _budgets(made: list[Made]) -> Iterator[Finding]:
    for one in made_of(made, _BUDGETS):
        told: list[dict[str, Any]] = list(one.properties["notifications"].values())
        found = {(each["thresholdType"], each["threshold"]) for each in told}
        yield from differs("budget", one.name, "when somebody is told", sorted(found), sorted(BUDGET))
        yield from differs("budget", one.name, "its time", one.properties["timeGrain"], "Monthly")
        for each in told:
            name = f"{each['thresholdType']} {each['threshold']}"
            yield from differs("budget", name, "whether it is on", each["enabled"], True)
            yield from differs("budget", name, "its operator", each["operator"], "GreaterThanOrEqualTo")
            (group,) = made_of(made, "Microsoft.Insights/actionGroups")
            yield from differs("budget", name, "who is told", each["contactGroups"], [group.id])


def _logs(made: list[Made]) -> Iterator[Finding]:
    """Every category that is named is on, but for reads of data, which are a parameter's; all go to one workspace."""
    (workspace,) = made_of(made, "Microsoft.OperationalInsights/workspaces")
    reads = set()
    for one in made_of(made, "Microsoft.Insights/diagnosticSettings"):
        where = one.scope.full_name if isinstance(one.scope, Made) else one.full_name
        for log in one.properties.get("logs", []):
            if log.get("category") in OF_DATA:
                reads.add(log.get("enabled"))
                continue
            yield from differs("logs", where, f"whether {log.get('category')} is kept", log.get("enabled"), True)
        yield from differs("logs", where, "where they go", one.properties.get("workspaceId"), workspace.id)
        if not one.properties.get("logs"):
            yield Finding(rule="logs", where=where, said="it keeps none")
    if len(reads) > 1:
        yield Finding(rule="logs", where=", ".join(sorted(OF_DATA)), said="some of them are kept and others not")


def _type_of(resource_id: str) -> str:
    found = re.search(r"/providers/([^/]+/[^/]+)/[^/]+$", resource_id)
    return found[1] if found else resource_id
