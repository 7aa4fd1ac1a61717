"""What stands in infra/observability, by what there is to ask for; tests/processes has promtool."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.unit.cli.test_rollout_docs import found
from tests.unit.observing.emitted import labels
from tests.unit.observing.exposed import OBSERVABILITY, control_plane, expressions, model_server, rule_files, rules
from tests.unit.observing.promql import asked, legend_misses

DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
QUERIES = sorted((OBSERVABILITY / "queries").glob("*.kql"))
SPAN_ATTRIBUTES = {"slipway.model", "slipway.endpoint", "slipway.version", "slipway.rollout_id", "slipway.queue"}
SPAN_ATTRIBUTES |= {"slipway.failed_version", "slipway.status"}
LINE_KEYS = {"level", "logger", "message", "trace_id", "model", "endpoint", "version", "rollout_id", "message_id"}
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def by_name(path: Path) -> str:
    return path.stem


def lacking(expression: str) -> list[str]:
    """What an expression asks for, and nothing gives: metrics, and labels of those that there are."""
    found = asked(expression)
    assert found, expression
    missing = [one.metric for one in found if one.metric not in labels()]
    missing += [f"{one.metric}: {name}" for one in found for name in one.labels - labels().get(one.metric, one.labels)]
    return missing


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("file", rule_files(), ids=by_name)
def test_each_alert_is_about_metrics_that_there_are_and_is_seen_to_fire_and_not_to(file: Path) -> None:
    found = rules(file)
    assert found
    for rule in found:
        assert lacking(rule["expr"]) == [], rule["alert"]
        told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        shown = " ".join(f"{{{{{name}}}}}" for name in told)
        assert legend_misses(rule["expr"], shown, labels()) == set(), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= rule["annotations"].keys()
    tested = yaml.safe_load(file.with_name(f"{file.stem}.test.yaml").read_text())["tests"]
    seen = [one for test in tested for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in found}
    assert {one["alertname"] for one in seen if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in seen if not one.get("exp_alerts")} == names


def test_commands_that_somebody_is_told_to_give_can_be_given_as_they_stand() -> None:
    told = [text for file in rule_files() for rule in rules(file) for text in rule["annotations"].values()]
    told.append((OBSERVABILITY / "on-call.md").read_text())
    shown = [re.sub(r"\{\{.*?\}\}", "m", line) for text in told for line in re.findall(r"`(slipway [^`]+)`", text)]
    assert len(shown) > 12
    for line in shown:
        command, words = found("an alert", line)
        try:
            command.make_context("slipway", words)
        except typer.TyperException as error:
            pytest.fail(f"{line}: {error.format_message()}")
    # What stands outside of backticks is looked at by nobody.
    assert [text for text in told if re.search(r"slipway [a-z]", re.sub(r"`[^`]*`", "", text))] == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=by_name)
def test_a_dashboard_can_be_imported_and_asks_for_metrics_that_there_are(path: Path) -> None:
    board = read(path)
    assert re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"])
    assert board["title"]
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) > 0
    for panel in board["panels"]:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["targets"]
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(board)))) - {"__rate_interval"}
    assert used == variables.keys() - {"datasource"}
    for expression in expressions(board):
        assert lacking(expression) == [], expression
    for target in (target for panel in board["panels"] for target in panel["targets"]):
        assert legend_misses(target["expr"], target["legendFormat"], labels()) == set(), target["expr"]


def test_there_is_a_dashboard_of_each_kind() -> None:
    assert [path.stem for path in DASHBOARDS] == ["control-plane", "drift", "fleet", "models", "rollouts"]
    assert all(read(path)["uid"] == f"slipway-{path.stem}" for path in DASHBOARDS)


@pytest.mark.parametrize(
    ("expression", "missing"),
    [
        ("model_loadet", ["model_loadet"]),
        ("sum(rate(kube_pod_restarts_total[5m]))", ["kube_pod_restarts_total"]),
        ("sum by (endpoint, trigr) (increase(slipway_rollbacks_total[1d]))", ["slipway_rollbacks_total: trigr"]),
        ('up{job="x"} + on (instance, pod) model_loaded', ["up: pod", "model_loaded: pod"]),
        ('max(model_loaded{modle="m, n"}) by (version)', ["model_loaded: modle"]),
        ("label_values(model_loaded, endpoint)", ["model_loaded: endpoint"]),
        ('topk(10, model_feature_drift_psi{model=~"$model",feature!="a{b}"}) and model_loaded offset 1d', []),
    ],
)
def test_what_nothing_gives_is_found(expression: str, missing: list[str]) -> None:
    assert lacking(expression) == missing


def test_a_legend_shows_what_the_series_have() -> None:
    assert legend_misses("sum by (model) (model_loaded)", "{{model}} v{{version}}", labels()) == {"version"}
    assert legend_misses("sum(model_loaded)", "{{model}}", labels()) == {"model"}
    assert legend_misses("model_loaded == 0", "{{model}} of {{instance}}", labels()) == set()


def test_labels_are_read_off_every_metric_that_there_is() -> None:
    ours = {name for name in labels() if name.startswith(("model_", "slipway_"))}
    # What may fall has no sum, and thus no count.
    assert (control_plane() | model_server()) - ours == {f"model_prediction_values_{part}" for part in ("sum", "count")}
    assert ours <= control_plane() | model_server()


def test_panels_of_a_dashboard_do_not_lie_on_each_other() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in read(path)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, (path.name, panel["title"])
            taken |= cells


def test_each_metric_of_the_control_plane_and_of_the_platform_is_on_a_dashboard_or_in_an_alert() -> None:
    shown = {
        one.metric
        for expression in (
            *(expression for path in DASHBOARDS for expression in expressions(read(path))),
            *(rule["expr"] for file in rule_files() for rule in rules(file)),
        )
        for one in asked(expression)
    }
    assert labels().keys() - model_server() - shown == set()


@pytest.mark.parametrize("path", QUERIES, ids=by_name)
def test_a_query_asks_for_what_spans_and_log_lines_hold(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("//")
    assert set(re.findall(r'Properties\["([^"]+)"\]', text)) <= SPAN_ATTRIBUTES
    assert set(re.findall(r"\bline\.(\w+)", text)) <= LINE_KEYS
    assert text.count("(") == text.count(")")


def test_the_workbook_holds_the_queries_as_they_are() -> None:
    items = read(OBSERVABILITY / "workbook.json")["items"]
    held = {item["name"]: item["content"]["query"] for item in items if item["type"] == 3}
    assert held == {path.stem: path.read_text() for path in QUERIES}
