"""The real local stack, looked at: its spans by a collector, its metrics by a real Prometheus, its log lines."""

import json
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.state import StateDir
from local.system import FUNCTIONS, SERVER, System
from shared.registry.rollout_policy import Stage
from tests.e2e.driver import MODEL, POLICY, SERVER_SETTINGS, SETTINGS, Driver
from tests.support.models import bundle, classifier, iris
from tests.support.otlp import Collector, Got, collecting
from tests.support.plain import NO_TLS
from tests.support.prometheus import PROMETHEUS, Prometheus, scraping
from tests.support.waiting import eventually
from tests.unit.observing.exposed import OBSERVABILITY, expressions, named_in, rule_files, rules

NOT_HERE = {
    "http_server_refused_total",
    "model_estimate_may_gate",
    "model_estimate_miss",
    "model_estimated_absolute_error",
    "model_estimated_accuracy_ratio",
    "model_shadow_requests_total",
    "slipway_error_budget_counted_seconds",
    "slipway_error_budget_left",
    "slipway_rollout_halted_seconds",
    "model_realised_absolute_error",
    "slipway_sink_age_seconds",
    "slipway_sink_failed_tries",
    "slipway_sink_notices_dropped_total",
    "slipway_sink_waiting",
}
"""Metrics of what does not happen here: a shadow, an error budget, a rollout that waits, a regression,
alerts that anybody is told, and estimates, for which the data are too few."""

STAGES = (2_000, 5_000)
"""In basis points."""
_STAGES = tuple(Stage(weight_bp=weight_bp, duration_s=6) for weight_bp in STAGES)
STAGED = POLICY.model_copy(update={"rollout": POLICY.rollout.model_copy(update={"stages": _STAGES})})
"""Each stage is there for longer than Prometheus takes from one look to the next."""
COUNTING = {"SLIPWAY_FEATURE_WINDOW_S": "1"}

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus on the PATH (Debian: prometheus)")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_800), needs_prometheus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack whose version 1 is stable and 2 was rolled out by its stages."""

    system: System
    driver: Driver
    collector: Collector
    prometheus: Prometheus


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("observed")
    bundles = [bundle(classifier(c=c)) for c in (1.0, 10.0)]
    with collecting() as collector:
        said = collector.settings | {"SLIPWAY_LOG_FORMAT": "json"}
        settings = {FUNCTIONS: SETTINGS | said, SERVER: SERVER_SETTINGS | COUNTING | said}
        with System(StateDir(folder / "state"), settings=settings) as system, closing(Driver(system)) as driver:
            driver.put_policy(STAGED)
            with scraping(folder, jobs_of(system), rules=rule_files()) as prometheus:
                with driver.traffic() as outcomes:
                    for number, data in enumerate(bundles, start=1):
                        blob = driver.drop(f"{number}.zip", data)
                        driver.wait_for(f"version {number} to be rolled out", partial(driver.settled, blob))
                        driver.wait_for("answers", lambda: outcomes["answered"])
                    # Version 2 is stable now, and its rows as that are those to come.
                    driver.wait_for("a report on drift", partial(reported, system))
                tell_labels(system, driver.predictions[2])
                refused = httpx.post(
                    f"{system.server_url}/predict", json={"features": "none"}, timeout=30, verify=NO_TLS
                )
                assert refused.status_code == 400
                yield Stack(system=system, driver=driver, collector=collector, prometheus=prometheus)


def reported(system: System) -> bool:
    """Have version 2 reported on: whether any rows of it were counted."""
    answer = httpx.post(
        f"{system.functions_url}/api/models/{MODEL}/drift",
        headers={"x-functions-key": system.key},
        timeout=60,
        verify=NO_TLS,
    )
    return answer.is_success and any(one["version"] == 2 and one.get("rows") for one in answer.json()["items"])


def tell_labels(system: System, prediction_id: str) -> None:
    """Say that a prediction was right, of a class that is a number."""
    said = {"prediction_id": prediction_id, "prediction": 0, "label": 0}
    httpx.post(f"{system.server_url}/feedback", json={"feedback": [said]}, timeout=30, verify=NO_TLS).raise_for_status()


def jobs_of(system: System) -> list[dict[str, Any]]:
    """What docs/observability.md has Prometheus scrape."""
    functions = {
        "job_name": "slipway-functions",
        "metrics_path": "/api/metrics",
        "params": {"code": [system.key]},
        "static_configs": [{"targets": [f"127.0.0.1:{system.ports.functions}"]}],
    }
    servers = {
        "job_name": "slipway-servers",
        "static_configs": [{"targets": [f"127.0.0.1:{system.ports.server}"]}],
    }
    return [functions, servers]


def test_from_drop_to_served_version_there_is_one_trace(stack: Stack) -> None:
    def loads() -> list[Got]:
        found = [span for span in stack.collector.spans if span.name == "load version"]
        return [span for span in found if span.about["slipway.version"] == 2]

    (load, *_) = eventually(loads, what="the span of the version's load")
    trace_id = load.trace_id

    def all_there() -> list[Got]:
        found = stack.collector.of(trace_id)
        names = {(span.service, span.name) for span in found}
        wanted = {
            ("slipway-functions", "process registrations"),
            ("slipway-functions", "process validations"),
            ("slipway-functions", "process rollout-commands"),
            ("slipway-functions", "process rollout-ticks"),
            ("slipway-server", "apply plan"),
            ("slipway-server", "load version"),
        }
        # A span is sent when it ends, and what it began may have ended before it.
        return found if wanted <= names and not orphans_of(found) else []

    found = eventually(all_there, what="a span of each step in the trace, and of what began it")
    registrations = [span for span in found if span.name == "process registrations"]
    assert any(span.about["slipway.blob"] == f"{MODEL}/2.zip" and not span.parent_id for span in registrations)
    versions = {span.about.get("slipway.version") for span in found} - {None}
    assert versions == {2}, "the first version's drop is another trace"


def orphans_of(spans: list[Got]) -> list[Got]:
    """Those that say another began them that is not there."""
    ids = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id and span.parent_id not in ids]


def test_a_prediction_goes_on_from_its_callers_trace(stack: Stack) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    rows = iris()[0][:1].tolist()
    answer = httpx.post(
        f"{stack.system.server_url}/predict",
        json={"features": rows},
        headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
        timeout=30,
        verify=NO_TLS,
    )
    assert answer.status_code == 200, answer.text
    (span,) = eventually(lambda: stack.collector.of(trace_id), what="the prediction's span")
    assert (span.name, span.service, span.parent_id) == ("predict", "slipway-server", "b7ad6b7169203331")
    assert span.about["slipway.status"] == 200
    assert span.about["slipway.prediction_id"] == answer.headers["x-slipway-prediction-id"]


def test_log_lines_of_both_are_json_with_the_trace_and_what_they_are_about(stack: Stack) -> None:
    logs = stack.system.state.logs
    lines = {part: _lines(logs / f"{part}.log") for part in (FUNCTIONS, SERVER)}
    of_versions = [line for line in lines[FUNCTIONS] if line.get("version") == 2 and "trace_id" in line]
    assert of_versions
    traces = {line["trace_id"] for line in of_versions}
    # A line is written while its span is under way.
    eventually(lambda: traces <= {span.trace_id for span in stack.collector.spans}, what="the spans of those lines")
    ticks = [line for line in lines[FUNCTIONS] if str(line["message"]).startswith("process rollout-ticks: done")]
    assert any(line.get("version") == 2 for line in ticks)
    assert all(line.keys() >= {"trace_id", "span_id", "message_id", "endpoint", "rollout_id"} for line in ticks)
    assert all(line.keys() >= {"time", "level", "logger", "message"} for part in lines.values() for line in part)
    text = "".join((logs / f"{part}.log").read_text() for part in (FUNCTIONS, SERVER))
    assert stack.system.key not in text


def _lines(log: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert found
    return found


def test_a_real_prometheus_reads_every_metric_that_alerts_and_dashboards_ask_for(stack: Stack) -> None:
    boards = [json.loads(path.read_text()) for path in (OBSERVABILITY / "dashboards").glob("*.json")]
    asked = [expression for board in boards for expression in expressions(board)]
    asked += [rule["expr"] for file in rule_files() for rule in rules(file)]
    named = set().union(*(named_in(expression) for expression in asked))

    missing: set[str] = set()

    def has_all() -> bool:
        missing.clear()
        missing.update(named - stack.prometheus.names() - NOT_HERE)
        return not missing

    try:
        eventually(has_all, what="all metrics")
    except AssertionError:
        assert missing == set()
        raise
    assert "model_prediction_requests_total" in named


def test_what_prometheus_has_is_what_happened(stack: Stack) -> None:
    def promoted() -> list[dict[str, Any]]:
        return stack.prometheus.ask('slipway_rollout_state{endpoint="iris",state="promoted",version="2"} == 1')

    assert eventually(promoted, what="the state of the rollout")
    for metric in ("model_version_weight_ratio", "model_loaded"):
        query = f'{metric}{{model="iris",version="2"}}'
        eventually(partial(is_number, stack.prometheus, query, 1), what=f"{query} to be 1")
    answer = httpx.get(f"{stack.system.server_url}/ab-test/stats", timeout=30, verify=NO_TLS)
    served = answer.json()["endpoints"]["iris"]
    for version in ("1", "2"):
        query = f'sum(model_prediction_requests_total{{model="iris",version="{version}",outcome=~"success|error"}})'
        requests = served["versions"][version]["requests"]
        eventually(partial(is_number, stack.prometheus, query, requests), what=f"{query} to be {requests}")


def test_prometheus_has_a_models_latencies_and_answers_and_how_far_its_features_are_from_the_reference(
    stack: Stack,
) -> None:
    answer = httpx.get(f"{stack.system.server_url}/ab-test/stats", timeout=30, verify=NO_TLS)
    served = answer.json()["endpoints"]["iris"]
    of_two = 'model="iris",version="2"'
    requests = served["versions"]["2"]["requests"]
    for query in (
        f"sum(model_prediction_latency_seconds_count{{{of_two}}})",
        f'sum(model_prediction_latency_seconds_bucket{{{of_two},le="+Inf"}})',
    ):
        eventually(partial(is_number, stack.prometheus, query, requests), what=f"{query} to be {requests}")
    for query in (
        f"sum(model_prediction_latency_seconds_sum{{{of_two}}}) > 0",
        f'sum(model_prediction_values_bucket{{{of_two},le="+Inf"}}) > 0',
        f"model_drift_rows{{{of_two}}} > 0",
        f"model_labels{{{of_two}}} == 1",
        f"model_realised_accuracy_ratio{{{of_two}}} == 1",
    ):
        assert eventually(partial(stack.prometheus.ask, query), what=query)
    assert stack.prometheus.ask(f"model_realised_absolute_error{{{of_two}}}") == [], "it is a classifier"

    def of_each_feature() -> list[dict[str, Any]]:
        return stack.prometheus.ask(f"model_feature_drift_psi{{{of_two}}}")

    drift = eventually(of_each_feature, what="the features' PSI")
    assert len({sample["metric"]["feature"] for sample in drift}) >= iris()[0].shape[1]
    assert all(math.isfinite(float(sample["value"][1])) for sample in drift)


def test_prometheus_saw_the_rollout_in_each_stage_and_how_the_control_plane_kept_up(stack: Stack) -> None:
    def values(metric: str) -> list[float]:
        found = stack.prometheus.ask(f'{metric}{{endpoint="iris",version="2"}}[30m]')
        return [float(value) for series in found for _, value in series["values"]]

    assert set(values("slipway_rollout_weight")) >= {weight_bp / 10_000 for weight_bp in STAGES}
    assert set(values("slipway_rollout_stage")) >= {1.0, 2.0}
    ages = values("slipway_rollout_stage_age_seconds")
    assert any(age > 0 for age in ages)
    lags = values("slipway_rollout_decision_lag_seconds")
    assert lags
    assert all(math.isfinite(lag) and lag >= 0 for lag in lags)


def is_number(prometheus: Prometheus, query: str, number: float) -> bool:
    return [float(sample["value"][1]) for sample in prometheus.ask(query)] == [number]


def test_the_rules_are_taken_and_none_fires_while_all_is_well(stack: Stack) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = stack.prometheus.get("rules")["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return found if found and all(rule["health"] == "ok" for rule in found) else []

    found = eventually(evaluated, what="every rule to be evaluated")
    assert {rule["name"] for rule in found} == {rule["alert"] for file in rule_files() for rule in rules(file)}
    assert [rule["name"] for rule in found if rule["state"] == "firing"] == []
