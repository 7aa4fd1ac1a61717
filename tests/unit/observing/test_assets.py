"""What stands in infra/observability: alerts by promtool; dashboards and queries by what there is to ask for."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.observing.exposed import (
    OBSERVABILITY,
    control_plane,
    expressions,
    model_server,
    named_in,
    rule_files,
    rules,
)

DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
QUERIES = sorted((OBSERVABILITY / "queries").glob("*.kql"))
SPAN_ATTRIBUTES = {"slipway.model", "slipway.endpoint", "slipway.version", "slipway.rollout_id", "slipway.queue"}
SPAN_ATTRIBUTES |= {"slipway.failed_version"}
LINE_KEYS = {"level", "logger", "message", "trace_id", "model", "endpoint", "version", "rollout_id", "message_id"}
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def by_name(path: Path) -> str:
    return path.stem


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@needs_promtool
@pytest.mark.parametrize("file", rule_files(), ids=by_name)
def test_the_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    tests = file.with_name(f"{file.stem}.test.yaml")
    for arguments in (("check", "rules", file.name), ("test", "rules", tests.name)):
        done = subprocess.run(["promtool", *arguments], cwd=file.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", rule_files(), ids=by_name)
def test_each_alert_is_about_metrics_that_there_are_and_is_seen_to_fire_and_not_to(file: Path) -> None:
    found = rules(file)
    assert found
    for rule in found:
        named = named_in(rule["expr"])
        assert named, rule["alert"]
        assert named <= control_plane() | model_server(), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= rule["annotations"].keys()
    tested = yaml.safe_load(file.with_name(f"{file.stem}.test.yaml").read_text())["tests"]
    seen = [one for test in tested for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in found}
    assert {one["alertname"] for one in seen if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in seen if not one.get("exp_alerts")} == names


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
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(board)))) - {"__rate_interval"}
    assert used <= variables.keys()
    for expression in expressions(board):
        named = named_in(expression)
        assert named, expression
        assert named <= control_plane() | model_server(), expression


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


def test_each_metric_of_the_control_plane_is_on_a_dashboard_or_in_an_alert() -> None:
    asked = [expression for path in DASHBOARDS for expression in expressions(read(path))]
    asked += [rule["expr"] for file in rule_files() for rule in rules(file)]
    shown = set().union(*(named_in(expression) for expression in asked))
    # Beside what they say of others, how much stands behind it.
    beside = {"model_drift_rows", "model_drift_report_age_seconds", "slipway_error_budget_counted_seconds"}
    assert control_plane() - shown <= beside | {"slipway_rollout_stage"}


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
