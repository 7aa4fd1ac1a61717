"""What Azure Monitor is given is what infra/observability holds, and asks for what there is."""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from aks_serving.tracing import SERVICE as SERVER

from functions._tracing import SERVICE as FUNCTIONS
from tests.infra.bicep import Template
from tests.infra.bicep_duties import deployed, of_type, parameters_of
from tests.infra.bicep_values import Deployment, Made
from tests.infra.kql import tables_of, unknown

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
OBSERVABILITY = INFRA / "observability"
ENVIRONMENTS = ("dev", "staging", "production")
GIT = {"gitRepositoryUrl": "https://github.com/OWNER/slipway"}
ALERTED = {"alertEmails": ["somebody@example.com"]}
SEVERITY = {"critical": 1, "warning": 2, "info": 3}
RULES_OF_A_GROUP = 20
"""Azure takes no more."""
LINE_KEYS = {"level", "logger", "message", "exception", "trace_id", "span_id", "time"}
"""What each log line holds beside what it is about (shared/core/logs.py)."""

type Rule = tuple[str, str, str, str, int, dict[str, str], dict[str, str]]


@cache
def made(environment: str) -> list[Made]:
    """What an environment comes to, with what it turns on only once it is told."""
    folder = INFRA / "bicep"
    return list(deployed(folder, parameters_of(folder, environment) | GIT | ALERTED).resources())


def the(found: list[Made], kind: str) -> Made:
    """The one resource of a type."""
    (one,) = of_type(found, kind)
    return one


def duration(text: str) -> str:
    """Prometheus' way to say how long, in ISO 8601 as Azure has it."""
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()  # type: ignore[union-attr]
    return f"PT{number}{unit.upper()}"


def written() -> Iterator[Rule]:
    """The rules of the files."""
    for path in sorted(OBSERVABILITY.glob("*-alerts.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                severity = SEVERITY[rule["labels"]["severity"]]
                waits = duration(rule.get("for", "0m"))
                yield group["name"], rule["alert"], rule["expr"], waits, severity, rule["labels"], rule["annotations"]


def given(resources: list[Made]) -> Iterator[Rule]:
    """The rules that Azure is given."""
    for group in of_type(resources, "Microsoft.AlertsManagement/prometheusRuleGroups"):
        for rule in group.properties["rules"]:
            waits, severity = rule["for"], rule["severity"]
            yield group.name, rule["alert"], rule["expression"], waits, severity, rule["labels"], rule["annotations"]


def differing(resources: Iterable[Made]) -> list[Rule]:
    """Rules that are in the files alone, or in Azure alone."""
    ours, theirs = list(written()), list(given(list(resources)))
    return [rule for rule in ours if rule not in theirs] + [rule for rule in theirs if rule not in ours]


def test_azures_rules_are_those_of_the_files() -> None:
    assert len(list(written())) > 20
    assert differing(made("production")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("expression: rule.expr", "expression: rule.alert"),
        ("rule.?for ?? '0m'", "'5m'"),
        ("'PT${toUpper(", "'P${toUpper("),
        ("critical: 1", "critical: 2"),
        ("annotations: rule.annotations", "annotations: rule.labels"),
        (", objectives.groups", ""),
        ("rollout-alerts.yaml", "model-alerts.yaml"),
    ],
)
def test_a_rule_that_azure_has_otherwise_is_found(tmp_path: Path, old: str, new: str) -> None:
    module = INFRA / "bicep" / "modules" / "prometheus.bicep"
    assert old in module.read_text()
    changed = tmp_path / "infra" / "bicep" / "modules" / module.name
    changed.parent.mkdir(parents=True)
    (tmp_path / "infra" / "observability").symlink_to(OBSERVABILITY)
    changed.write_text(module.read_text().replace(old, new, 1))
    words = dict.fromkeys(("location", "prometheusId", "actionGroupId"), "any")
    assert differing(Deployment(template=Template.read(changed), given=words | {"tags": {}}).resources())


def test_each_group_is_within_azures_limit_asks_the_metrics_and_tells_the_action_group() -> None:
    found = made("production")
    prometheus = the(found, "Microsoft.Monitor/accounts")
    told = the(found, "Microsoft.Insights/actionGroups")
    groups = of_type(found, "Microsoft.AlertsManagement/prometheusRuleGroups")
    assert len(groups) == len(list(OBSERVABILITY.glob("*-alerts.yaml")))
    for group in groups:
        assert len(group.properties["rules"]) <= RULES_OF_A_GROUP
        assert group.properties["scopes"] == [prometheus.id]
        for rule in group.properties["rules"]:
            assert rule["actions"] == [{"actionGroupId": told.id}]


def test_the_collector_may_send_spans_by_the_rule_whose_address_comes_out() -> None:
    found = made("production")
    (rule,) = [
        one for one in of_type(found, "Microsoft.Insights/dataCollectionRules") if "directDataSources" in one.properties
    ]
    (source,) = rule.properties["directDataSources"]["otelTraces"]
    (flow,) = rule.properties["dataFlows"]
    assert source["streams"] == flow["streams"]
    assert source["enrichWithReference"] == rule.properties["references"]["applicationInsights"][0]["name"]
    assert flow["destinations"] == [one["name"] for one in rule.properties["destinations"]["logAnalytics"]]
    put_out = str(deployed(INFRA / "bicep", parameters_of(INFRA / "bicep", "production")).output("TRACES_URL"))
    overlay = ROOT / "aks-serving" / "k8s" / "overlays" / "production" / "environment.yaml"
    unset = yaml.safe_load(overlay.read_text())["data"]["TRACES_URL"]
    form = re.sub(r"dcr-\w+|//[\w.-]+", "", put_out)
    assert form == re.sub(r"dcr-\w+|//[\w.-]+", "", unset)


def test_a_relay_is_signed_in_to_and_has_no_secret_in_its_address() -> None:
    relay = {"url": "https://relay.example.com/alerts", "objectId": "o", "audience": "api://relay"}
    given = parameters_of(INFRA / "bicep", "production") | {"alertWebhooks": [relay]}
    told = the(list(deployed(INFRA / "bicep", given).resources()), "Microsoft.Insights/actionGroups")
    (receiver,) = told.properties["webhookReceivers"]
    assert (receiver["serviceUri"], receiver["identifierUri"]) == (relay["url"], relay["audience"])
    assert receiver["useAadAuth"] is True
    assert the(made("production"), "Microsoft.Insights/actionGroups").properties["webhookReceivers"] == []


@pytest.mark.parametrize(("environment", "reads"), [("production", True), ("staging", False), ("dev", False)])
def test_reads_of_data_are_logged_in_production(environment: str, reads: object) -> None:
    kept = {
        (one.scope.type.partition("/")[0], log["category"])
        for one in of_type(made(environment), "Microsoft.Insights/diagnosticSettings")
        for log in one.properties["logs"]
        if isinstance(one.scope, Made) and log["enabled"]
    }
    assert (("Microsoft.DocumentDB", "DataPlaneRequests") in kept) is reads
    assert (("Microsoft.Storage", "StorageRead") in kept) is reads
    assert ("Microsoft.Storage", "StorageWrite") in kept


def test_azures_own_alerts_look_at_what_is_deployed_and_tell_the_action_group() -> None:
    found = made("production")
    ids = {one.id for one in found}
    told = the(found, "Microsoft.Insights/actionGroups")
    assert told.properties["emailReceivers"][0]["emailAddress"] == "somebody@example.com"
    metrics = of_type(found, "Microsoft.Insights/metricAlerts")
    logs = of_type(found, "Microsoft.Insights/scheduledQueryRules")
    for alert in (*metrics, *logs):
        assert set(alert.properties["scopes"]) <= ids, alert.name
    for alert in metrics:
        (criterion,) = alert.properties["criteria"]["allOf"]
        (scope,) = alert.properties["scopes"]
        assert f"/providers/{criterion['metricNamespace']}/" in scope
        assert alert.properties["actions"] == [{"actionGroupId": told.id}]
    for alert in logs:
        assert alert.properties["actions"]["actionGroups"] == [told.id]
    asked = {alert.properties["criteria"]["allOf"][0]["query"] for alert in logs}
    assert asked == {path.read_text() for path in (OBSERVABILITY / "log-alerts").glob("*.kql")}


def told_in(runbook: str) -> list[str]:
    """The alerts that have a line under "By Prometheus and Azure"."""
    lines = runbook.split("\n## By Prometheus and Azure\n", 1)[1].split("\n## ", 1)[0].splitlines()
    return [name for line in lines if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_alert_has_its_line_in_the_runbook_and_no_other_has(environment: str) -> None:
    found = made(environment)
    kinds = ("Microsoft.Insights/metricAlerts", "Microsoft.Insights/scheduledQueryRules")
    azures = [one.name.removeprefix(f"slipway-{environment}-") for kind in kinds for one in of_type(found, kind)]
    ours = [name for _, name, *_ in written()]
    runbook = (ROOT / "docs" / "runbooks" / "an-alert-fired.md").read_text()

    assert len(azures) > 6
    assert sorted(told_in(runbook)) == sorted([*azures, *ours])


def test_the_workbook_and_the_queries_are_given_as_they_are() -> None:
    found = made("staging")
    assert json.loads(the(found, "Microsoft.Insights/workbooks").properties["serializedData"])["items"]
    workbook = (OBSERVABILITY / "workbook.json").read_text()
    assert the(found, "Microsoft.Insights/workbooks").properties["serializedData"] == workbook
    saved = of_type(found, "Microsoft.OperationalInsights/workspaces/savedSearches")
    held = {one.properties["displayName"]: one.properties["query"] for one in saved}
    assert held == {path.stem: path.read_text() for path in (OBSERVABILITY / "queries").glob("*.kql")}


def test_the_dashboard_shows_what_is_alerted_on_and_queries_as_they_are() -> None:
    found = made("production")
    (lens,) = the(found, "Microsoft.Portal/dashboards").properties["lenses"]
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in lens["parts"]:
        parts.setdefault(part["metadata"]["type"].rpartition("/")[2], []).append(part["metadata"])
    (note,) = parts.pop("MarkdownPart")
    assert note["settings"]["content"]["settings"]["content"] == (OBSERVABILITY / "on-call.md").read_text()
    charts = [one["settings"]["content"]["options"]["chart"]["metrics"][0] for one in parts.pop("MonitorChartPart")]
    alerted = of_type(found, "Microsoft.Insights/metricAlerts")
    assert {(one["resourceMetadata"]["id"], one["name"]) for one in charts} == {
        (alert.properties["scopes"][0], alert.properties["criteria"]["allOf"][0]["metricName"]) for alert in alerted
    }
    assert filtered(found) == {
        alert.properties["criteria"]["allOf"][0]["metricName"]: [
            (dimension["name"], dimension["values"])
            for dimension in alert.properties["criteria"]["allOf"][0]["dimensions"]
            if dimension["values"] != ["*"]
        ]
        for alert in alerted
    }
    tables = [{one["name"]: one["value"] for one in table["inputs"]} for table in parts.pop("LogsDashboardPart")]
    assert parts == {}
    queries = {path.read_text() for path in (OBSERVABILITY / "queries").glob("*.kql")}
    assert len({one["Query"] for one in tables} & queries) == len(tables) > 4
    assert {str(one["Scope"]) for one in tables} == {
        str({"resourceIds": [the(found, "Microsoft.OperationalInsights/workspaces").id]})
    }


def filtered(found: list[Made]) -> dict[str, list[tuple[str, list[str]]]]:
    """By metric, the dimensions that its chart shows."""
    (lens,) = the(found, "Microsoft.Portal/dashboards").properties["lenses"]
    charts = [
        part["metadata"]["settings"]["content"]["options"]["chart"]
        for part in lens["parts"]
        if part["metadata"]["type"].endswith("/MonitorChartPart")
    ]
    return {
        chart["metrics"][0]["name"]: [(one["key"], one["values"]) for one in chart["filterCollection"]["filters"]]
        for chart in charts
    }


def test_parts_of_the_dashboard_do_not_lie_on_each_other() -> None:
    (lens,) = the(made("production"), "Microsoft.Portal/dashboards").properties["lenses"]
    taken: set[tuple[int, int]] = set()
    for part in lens["parts"]:
        at = part["position"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["colSpan"]) for y in range(at["rowSpan"])}
        assert not cells & taken, at
        taken |= cells


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_budget_sees_what_the_nodes_cost(environment: str) -> None:
    found = made(environment)
    budget = the(found, "Microsoft.Consumption/budgets")
    cluster = the(found, "Microsoft.ContainerService/managedClusters")
    groups = budget.properties["filter"]["dimensions"]["values"]
    assert cluster.properties["nodeResourceGroup"] in groups
    assert len(groups) == 2
    assert budget.properties["amount"] == parameters_of(INFRA / "bicep", environment)["budgetAmount"]


def test_the_cluster_sends_metrics_and_log_lines_where_they_are_asked_for() -> None:
    found = made("production")
    of_cluster = [
        one for one in of_type(found, "Microsoft.Insights/dataCollectionRules") if "dataSources" in one.properties
    ]
    rules = {one.id: one for one in of_cluster}
    tied = of_type(found, "Microsoft.Insights/dataCollectionRuleAssociations")
    assert {one.properties["dataCollectionRuleId"] for one in tied} == rules.keys()
    targets = [target for one in rules.values() for target in one.properties["destinations"].items()]
    prometheus = the(found, "Microsoft.Monitor/accounts")
    workspace = the(found, "Microsoft.OperationalInsights/workspaces")
    assert sorted(kind for kind, _ in targets) == ["logAnalytics", "monitoringAccounts"]
    (metrics,), (logs,) = dict(targets)["monitoringAccounts"], dict(targets)["logAnalytics"]
    assert metrics["accountResourceId"] == prometheus.id
    assert logs["workspaceResourceId"] == workspace.id
    (settings,) = [
        source["extensionSettings"]["dataCollectionSettings"]
        for one in rules.values()
        for source in one.properties["dataSources"].get("extensions", [])
    ]
    spaces = yaml.safe_load_all((ROOT / "aks-serving" / "k8s" / "namespaces" / "namespaces.yaml").read_text())
    assert {space["metadata"]["name"] for space in spaces} <= {*settings["namespaces"]}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_flux_is_told_of_a_folder_that_there_is(environment: str) -> None:
    flux = the(made(environment), "Microsoft.KubernetesConfiguration/fluxConfigurations")
    (step,) = flux.properties["kustomizations"].values()
    folder = ROOT / step["path"]
    assert (folder / "kustomization.yaml").is_file()
    of_flux = [one for path in folder.glob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    spaces = {one["metadata"]["namespace"] for one in of_flux if "namespace" in one.get("metadata", {})}
    assert spaces == {flux.properties["namespace"]}


@cache
def emitted() -> set[str]:
    """What spans and log lines of our code can be about: the words of `note(...)` and of dicts, in files that trace."""
    words: set[str] = set()
    for folder in ("functions", "shared", "aks-serving/aks_serving"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "tracing" not in text and "span" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "note":
                    words |= {one.arg for one in node.keywords if one.arg}
                if isinstance(node, ast.Dict):
                    words |= {
                        key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                    }
    return words


KQL = sorted([*(OBSERVABILITY / "queries").glob("*.kql"), *(OBSERVABILITY / "log-alerts").glob("*.kql")])


@pytest.mark.parametrize("path", KQL, ids=lambda path: path.stem)
def test_a_query_asks_for_what_the_code_emits(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("//")
    assert set(re.findall(r'Properties\["slipway\.([^"]+)"\]', text)) <= emitted()
    assert set(re.findall(r"\bline\.(\w+)", text)) <= emitted() | LINE_KEYS
    assert unknown(text) == []
    assert set(re.findall(r'AppRoleName == "([^"]+)"', text)) <= {FUNCTIONS, SERVER}
    for logger in re.findall(r'line\.logger\) == "([^"]+)"', text):
        assert (ROOT / "aks-serving" / f"{logger.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("slow-steps", '"load version"', '"load versions"', "span 'load versions'"),
        ("slow-steps", '"process "', '"proces "', "span 'proces '"),
        ("model-performance", '"predict"', '"predic"', "span 'predic'"),
        ("model-performance", "percentilew(DurationMs, ItemCount, 95)", "percentilw(1, 2, 95)", "function percentilw"),
        ("model-performance", "todouble(Failed)", "todouble(Success)", "column Success in extend"),
        ("pod-log-lines", "tostring(LogMessage)", "tostring(LogMesage)", "column LogMesage in extend"),
        ("pods", "Pod asc", "Name asc", "column Name in order"),
        ("nodes", "Status, LastT", "Status, Labels, LastT", None),
        ("nodes", "KubeNodeInventory", "KubeNodes", "table KubeNodes"),
        ("cost-of-logs", "summarize", "summarise", "step summarise"),
        ("story-of-a-version", "== model\n", "== modell\n", "column modell in where"),
    ],
)
def test_what_is_not_there_is_found_in_a_query(name: str, old: str, new: str, found: str | None) -> None:
    text = (OBSERVABILITY / "queries" / f"{name}.kql").read_text()
    assert old in text
    told = unknown(text.replace(old, new, 1))
    assert found in told if found else told == []


def test_each_table_of_pods_and_nodes_is_one_that_the_cluster_sends() -> None:
    (rule,) = [
        one
        for one in of_type(made("production"), "Microsoft.Insights/dataCollectionRules")
        if "extensions" in one.properties.get("dataSources", {})
    ]
    (flow,) = rule.properties["dataFlows"]
    (source,) = rule.properties["dataSources"]["extensions"]
    asked = set().union(*(tables_of(path.read_text()) for path in KQL))
    wanted = {f"Microsoft-{table}" for table in asked if table.startswith(("Kube", "Container"))}
    assert len(wanted) > 3
    assert set(flow["streams"]) == set(source["streams"]) == wanted


def test_the_guide_to_queries_holds_each_as_it_is() -> None:
    guide = (ROOT / "docs" / "kql.md").read_text()
    blocks = re.findall(r"```kusto\n(.*?)```", guide, re.DOTALL)
    assert sorted(blocks) == sorted(path.read_text() for path in (OBSERVABILITY / "queries").glob("*.kql"))


def test_span_attributes_are_read_off_the_code() -> None:
    assert {"model", "version", "failed_version", "prediction_id", "endpoint"} <= emitted()
    assert "nobody_emits_this" not in emitted()


def what_log_lines_need(found: dict[str, Any]) -> bool:
    """Whether both sides write JSON lines, as the queries read them."""
    return found.get("SLIPWAY_LOG_FORMAT") == "json"


def test_log_lines_are_json_where_queries_read_them() -> None:
    (settings,) = [
        one for one in of_type(made("production"), "Microsoft.Web/sites/config") if one.name == "appsettings"
    ]
    assert what_log_lines_need(settings.properties)
    base = (ROOT / "aks-serving" / "k8s" / "base" / "settings.env").read_text()
    assert what_log_lines_need(dict(line.split("=", 1) for line in base.splitlines() if "=" in line))
