"""The control plane's own metrics: Prometheus reads them, they say what stands, and the alerts are about them alone."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions._services import Services
from functions.metrics import rendered
from shared.alerts.documents import AlertRule
from shared.deadletters.documents import DeadLetter, LetterBody, LetterState
from shared.registry.documents import Model
from shared.registry.rollout_policy import RolloutPolicy
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.metrics import Family, Seen, families
from shared.rollout.rollbacks import Quarantine, Rollback, RollbackRecord, Trigger
from shared.store.ports import Container
from tests.unit.functions.conftest import Call
from tests.unit.observing.test_metrics import report

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def target(version: int) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


def endpoint(state: RolloutState, **fields: Any) -> Endpoint:
    rollout = Rollout(
        rollout_id="rollout-1",
        command_id="start",
        candidate=target(2),
        stable=target(1),
        policy=RolloutPolicy(),
        state=state,
        stage=1,
        started_at=ago(1_000),
        published_at=ago(500),
        stage_started_at=ago(400),
        next_tick_at=ago(90),
        requested_by="ann",
        **fields,
    )
    return Endpoint(endpoint="m", stable=target(1), rollout=rollout, generation=4)


def rollback(number: int, trigger: Trigger) -> Rollback:
    return Rollback(
        rollback_id=f"rollback-{number:06d}",
        rollout_id="r",
        trigger=trigger,
        from_version=2,
        to_version=1,
        generation=number,
        fault_at=NOW,
        detected_at=NOW,
        by="slipway",
        reason="errors",
    )


def values(found: list[Family]) -> dict[str, float]:
    """The samples of a text by name and labels, as a scrape reads them."""
    lines = [line for line in rendered(found).splitlines() if not line.startswith("#")]
    return {sample: float(value) for sample, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_rollout_under_way_tells_its_weight_stage_age_and_lag() -> None:
    found = values(
        families([Seen(endpoint=endpoint(RolloutState.PROGRESSING, failed_checks=2), rollbacks=[])], {}, NOW)
    )
    of = '{endpoint="m",version="2"}'
    assert found[f"slipway_rollout_weight{of}"] == 0.5
    assert found[f"slipway_rollout_stage{of}"] == 2
    assert found[f"slipway_rollout_stage_age_seconds{of}"] == 400
    assert found[f"slipway_rollout_stage_limit_seconds{of}"] == 3_600
    assert found[f"slipway_rollout_decision_lag_seconds{of}"] == 90
    assert found[f"slipway_rollout_failed_checks{of}"] == 2
    states = {name: value for name, value in found.items() if name.startswith("slipway_rollout_state")}
    assert [name for name, value in states.items() if value] == [
        'slipway_rollout_state{endpoint="m",version="2",state="progressing"}'
    ]
    assert len(states) == len(RolloutState)


def test_one_that_is_halted_tells_since_when_and_nothing_bounds_it() -> None:
    halted = endpoint(RolloutState.HELD, halted_at=ago(7_200))
    found = values(families([Seen(endpoint=halted, rollbacks=[])], {}, NOW))
    assert found['slipway_rollout_halted_seconds{endpoint="m",version="2"}'] == 7_200
    assert not any(name.startswith("slipway_rollout_stage_limit_seconds") for name in found)


def test_one_that_is_over_lags_only_while_its_rollback_is_looked_for() -> None:
    over = endpoint(RolloutState.ROLLED_BACK)
    assert not any("lag" in name for name in values(families([Seen(endpoint=over, rollbacks=[])], {}, NOW)))
    over.rollback = rollback(4, Trigger.LATENCY)
    found = values(families([Seen(endpoint=over, rollbacks=[over.rollback])], {}, NOW))
    assert found['slipway_rollout_decision_lag_seconds{endpoint="m",version="2"}'] == 90
    assert not any(name.startswith("slipway_rollout_weight") for name in found)


def test_rollbacks_are_counted_by_trigger_from_zero_on_and_labels_are_escaped() -> None:
    seen = Seen(endpoint=Endpoint(endpoint="m"), rollbacks=[rollback(1, Trigger.LATENCY), rollback(2, Trigger.LATENCY)])
    found = values(families([seen], {'odd"\\\n': 3}, NOW))
    assert found['slipway_rollbacks_total{endpoint="m",trigger="latency"}'] == 2
    assert found['slipway_rollbacks_total{endpoint="m",trigger="memory"}'] == 0
    assert found['slipway_outbox_pending{container="odd\\"\\\\\\n"}'] == 3


def test_a_scrape_reads_what_the_documents_hold(call: Call, app: Services) -> None:
    held = Quarantine(version=2, reason="errors", at=NOW, rollout_id="rollout-1")
    over = endpoint(RolloutState.ROLLED_BACK).model_copy(update={"quarantined": [held], "outbox_pending": True})
    app.documents.create(Container.ENDPOINTS, over.to_body())
    record = RollbackRecord(id="rollback-000004", endpoint="m", rollback=rollback(4, Trigger.GUARD))
    app.documents.create(Container.ENDPOINTS, record.model_dump(mode="json"))
    letter = DeadLetter(
        id="letter-1", queue="validations", body=LetterBody(content="{}"), first_seen_at=NOW, last_seen_at=NOW
    )
    for state in (LetterState.KEPT, LetterState.SETTLED):
        app.documents.create(
            Container.REPORTS, letter.model_copy(update={"id": f"letter-{state}", "state": state}).to_body()
        )
    app.alerts.fire(AlertRule.SLOW, "endpoint:m", "it is slow", model="m")
    app.alerts.fire(AlertRule.SLOW, "endpoint:n", "it is slow", model="n")
    app.alerts.resolve(AlertRule.SLOW, "endpoint:n", "it is not", model="n")
    status, answer = call("metrics")
    assert status == 200
    for line in (
        'slipway_rollbacks_total{endpoint="m",trigger="guard"} 1',
        'slipway_quarantined{endpoint="m"} 1',
        'slipway_outbox_pending{container="endpoints"} 1',
        'slipway_outbox_pending{container="models"} 0',
        'slipway_dead_letters{queue="validations"} 1',
        'slipway_dead_letter_age_seconds{queue="lifecycle-events"} 0',
        'slipway_alerts{model="m",rule="slow",severity="critical",state="firing"} 1',
    ):
        assert line in answer["text"].splitlines()
    # What waits there bears no time: nobody knows for how long.
    assert 'slipway_outbox_age_seconds{container="endpoints"}' not in answer["text"]


def test_one_endpoint_or_model_that_cannot_be_read_hides_no_other_from_a_scrape(call: Call, app: Services) -> None:
    app.documents.create(Container.ENDPOINTS, endpoint(RolloutState.PROGRESSING).to_body())
    app.documents.create(Container.ENDPOINTS, Endpoint(endpoint="a").to_body() | {"of_another_release": 1})
    app.documents.create(Container.MODELS, Model(model="m").to_body() | {"of_another_release": 1})
    status, answer = call("metrics")
    assert status == 200
    assert 'slipway_rollout_weight{endpoint="m",version="2"} 0.5' in answer["text"].splitlines()


def test_a_scrape_tells_of_the_drift_of_versions_that_serve_and_of_no_others(call: Call, app: Services) -> None:
    app.documents.create(Container.ENDPOINTS, endpoint(RolloutState.PROGRESSING).to_body())
    for version in (1, 3):
        one = report(id=f"drift-{version}", version=version)
        app.documents.create(Container.REPORTS, one.to_body())
    lines = call("metrics")[1]["text"].splitlines()
    assert 'model_feature_drift_psi{model="m",version="1",variant="stable",feature="age"} 0.31' in lines
    assert not any("model_feature_drift_psi" in line and 'version="3"' in line for line in lines)


def test_rollbacks_are_listed_and_reported_over_endpoints_and_time(call: Call, app: Services) -> None:
    app.documents.create(Container.ENDPOINTS, endpoint(RolloutState.ROLLED_BACK).to_body())
    for number, trigger in ((4, Trigger.GUARD), (6, Trigger.MANUAL)):
        found = rollback(number, trigger).model_copy(update={"zero_traffic_at": NOW + timedelta(seconds=number)})
        record = RollbackRecord(id=found.rollback_id, endpoint="m", rollback=found)
        app.documents.create(Container.ENDPOINTS, record.model_dump(mode="json"))
    listed = call("list_rollbacks", endpoint="m")[1]["items"]
    assert [found["trigger"] for found in listed] == ["guard", "manual"]
    report = call("report_rollbacks")[1]
    assert (report["rollbacks"], report["automatic"], report["from_detection"]) == (
        2,
        1,
        {"n": 2, "mean_s": 5.0, "p95_s": 6.0},
    )
    assert call("report_rollbacks", query={"until": "2026-11-21T08:00:00Z"})[1]["rollbacks"] == 0
    assert call("report_rollbacks", query={"endpoint": "nothing"})[0] == 404
    assert call("report_rollbacks", query={"since": "2027-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"})[0] == 400


@needs_promtool
def test_prometheus_reads_the_text() -> None:
    seen = Seen(endpoint=endpoint(RolloutState.PROGRESSING), rollbacks=[rollback(1, Trigger.LATENCY)])
    text = rendered(families([seen], {"models": 0}, NOW))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
