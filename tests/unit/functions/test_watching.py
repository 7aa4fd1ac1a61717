"""The API's drift reports and requests for retraining, over documents in SQLite."""

from datetime import UTC, datetime, timedelta

from functions._services import Services
from shared.core.verdict import Outcome
from shared.registry.documents import Model
from shared.rollout.documents import Target
from shared.rollout.endpoint import Endpoint
from shared.store.ports import Container
from shared.watching.documents import (
    Against,
    Alarm,
    DriftedFeature,
    DriftFinding,
    DriftRecord,
    DriftReport,
    Episode,
    ReportSummary,
    Retraining,
    RetrainingRequest,
    drift_report_id,
)
from tests.unit.functions.conftest import Call

AT = datetime(2026, 11, 21, 9, tzinfo=UTC)
REPORT_ID = "drift-000000003-stable-20261121T0900-0123456789ab"
FEATURE = DriftedFeature(name="income", psi=0.41, q_value=1e-9, effect=0.6)


def stored(app: Services) -> None:
    """Version 3 serves, has a report, and retraining was asked for."""
    finding = DriftFinding(
        model="m",
        endpoint="m",
        version=3,
        role="stable",
        against=Against.REFERENCE,
        outcome=Outcome.FAIL,
        sentence="1 of 8 features drifted",
        features=(FEATURE,),
        rows=7_200,
        report_id=REPORT_ID,
        at=AT,
    )
    summary = ReportSummary(
        report_id=REPORT_ID,
        since=AT - timedelta(days=1),
        until=AT,
        made_at=AT,
        rows=7_200,
        outcome=Outcome.FAIL,
        findings=(finding,),
        most_to_blame=(FEATURE,),
        sentences=("1 of 8 features drifted",),
        psi={"income": 0.41},
        report_blob="m/drift/a.json",
        page_blob="m/drift/a.html",
    )
    episode = Episode(since=AT, seen=AT, sentence="drifted", features=("income",), report_id=REPORT_ID)
    report = DriftReport(
        id=drift_report_id(3, "stable"),
        model="m",
        endpoint="m",
        version=3,
        role="stable",
        latest=summary,
        alarms={Alarm.DATA_DRIFT: episode},
        is_alarming=True,
    )
    gone = report.model_copy(update={"id": drift_report_id(2, "stable"), "version": 2})
    request = RetrainingRequest(
        request_id="retraining-1",
        version=3,
        alarm=Alarm.DATA_DRIFT,
        features=("income",),
        sentence="drifted",
        report_id=REPORT_ID,
        episode_since=AT,
        at=AT,
        changed_at=AT,
    )
    record = DriftRecord(id=REPORT_ID, model="m", endpoint="m", version=3, role="stable", report=summary)
    target = Target(version=3, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)
    endpoint = Endpoint(endpoint="m", stable=target, generation=1)
    for container, body in (
        (Container.REPORTS, report.to_body()),
        (Container.REPORTS, gone.to_body()),
        (Container.REPORTS, record.model_dump(mode="json")),
        (Container.REPORTS, Retraining(model="m", requests=[request]).to_body()),
        (Container.ENDPOINTS, endpoint.to_body()),
        (Container.MODELS, Model(model="m").to_body()),
    ):
        app.documents.create(container, body)


def test_the_latest_report_of_each_version_that_serves_is_listed_with_its_alarms_and_page(
    app: Services, call: Call
) -> None:
    stored(app)
    status, found = call("list_drift", model="m")
    assert status == 200
    (report,) = found["items"]
    assert (report["version"], report["role"], report["rows"], report["outcome"]) == (3, "stable", 7_200, "fail")
    assert list(report["alarms"]) == ["data_drift"]
    assert report["findings"][0]["features"][0]["name"] == "income"
    assert report["page"] == f"/api/models/m/drift/{REPORT_ID}/page"


def test_what_does_not_exist_or_is_no_time_is_said(app: Services, call: Call) -> None:
    stored(app)
    assert call("list_drift", model="other")[0] == 404
    assert call("report_drift", model="other")[0] == 404
    assert call("list_retraining", model="other")[0] == 404
    for identity in ("drift-000000003-stable", "../retraining", REPORT_ID.replace("ab", "cd")):
        assert call("get_drift_report", model="m", report=identity)[0] == 404
        assert call("get_drift_page", model="m", report=identity)[0] == 404
    status, found = call("list_drift", model="m", query={"since": "yesterday"})
    assert (status, "give one as 2026-11-21T08:00:00Z" in found["error"]["message"]) == (400, True)
    status, found = call("list_drift", model="m", query={"since": "2001-01-01"})
    assert (status, "over 366 days ago" in found["error"]["message"]) == (400, True)


def test_a_request_for_retraining_is_taken_and_done_and_then_stays_so(app: Services, call: Call) -> None:
    stored(app)
    assert [request["state"] for request in call("list_retraining", model="m")[1]["items"]] == ["open"]
    for state in ("taken", "done"):
        status, found = call("mark_retraining", {"state": state, "by": "ann"}, model="m", request="retraining-1")
        assert (status, found["state"], found["by"]) == (200, state, "ann")
    assert call("mark_retraining", {"state": "open", "by": "ann"}, model="m", request="retraining-1")[0] == 409
    assert call("mark_retraining", {"state": "taken", "by": "ann"}, model="m", request="no")[0] == 404
    assert call("mark_retraining", {"state": "lost", "by": "ann"}, model="m", request="retraining-1")[0] == 400
    kinds = [event.kind for event in app.audit.events("retraining:m")]
    assert kinds == ["retraining_marked", "retraining_marked"]
