"""The real local stack, looked at: its spans by a collector, its metrics by a real Prometheus, its log lines."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from local.state import StateDir
from local.system import FUNCTIONS, SERVER, System
from tests.e2e.driver import MODEL, SERVER_SETTINGS, SETTINGS, Driver
from tests.support.models import bundle, classifier, iris
from tests.support.otlp import Collector, Got, collecting
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack whose version 1 is stable and 2 was rolled out by its stages."""

    system: System
    driver: Driver
    collector: Collector


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("observed")
    with collecting() as collector:
        said = collector.settings | {"SLIPWAY_LOG_FORMAT": "json"}
        settings = {FUNCTIONS: SETTINGS | said, SERVER: SERVER_SETTINGS | said}
        with System(StateDir(folder / "state"), settings=settings) as system:
            driver = Driver(system)
            try:
                driver.put_policy()
                with driver.traffic() as outcomes:
                    for number, c in enumerate((1.0, 10.0), start=1):
                        blob = driver.drop(f"{number}.zip", bundle(classifier(c=c)))
                        driver.wait_for(f"version {number} to be rolled out", partial(driver.settled, blob))
                        driver.wait_for("answers", lambda: outcomes["answered"])
                yield Stack(system=system, driver=driver, collector=collector)
            finally:
                driver.close()


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
        return found if wanted <= names else []

    found = eventually(all_there, what="a span of each step in the trace")
    registrations = [span for span in found if span.name == "process registrations"]
    assert any(span.about["slipway.blob"] == f"{MODEL}/2.zip" and not span.parent_id for span in registrations)
    ids = {span.span_id for span in found}
    orphans = [span for span in found if span.parent_id and span.parent_id not in ids]
    assert orphans == []
    versions = {span.about.get("slipway.version") for span in found} - {None}
    assert versions == {2}, "the first version's drop is another trace"


def test_a_prediction_goes_on_from_its_callers_trace(stack: Stack) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    rows = iris()[0][:1].tolist()
    answer = httpx.post(
        f"{stack.system.server_url}/predict",
        json={"features": rows},
        headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
        timeout=30,
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
    traced = {span.trace_id for span in stack.collector.spans}
    assert {line["trace_id"] for line in of_versions} <= traced
    assert all(line.keys() >= {"time", "level", "logger", "message"} for part in lines.values() for line in part)
    text = "".join((logs / f"{part}.log").read_text() for part in (FUNCTIONS, SERVER))
    assert stack.system.key not in text


def _lines(log: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert found
    return found
