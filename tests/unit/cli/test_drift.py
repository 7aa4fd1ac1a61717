"""What `slipway drift` asks of the admin API, and what it tells."""

from pathlib import Path
from typing import Any

from cli.outcome import ExitCode
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

REPORT_ID = "drift-000000003-stable-20261121T0900-0123456789ab"
REPORT: dict[str, Any] = {
    "model": "m",
    "version": 3,
    "role": "stable",
    "alarms": {"data_drift": {"since": "2026-11-21T09:00:00Z", "sentence": "income drifted"}},
    "report_id": REPORT_ID,
    "since": "2026-11-20T09:00:00Z",
    "until": "2026-11-21T09:00:00Z",
    "rows": 7_200,
    "outcome": "fail",
    "findings": [{"against": "reference", "outcome": "fail", "sentence": "1 of 8 features drifted", "features": []}],
    "most_to_blame": [{"name": "income", "psi": 0.41, "q_value": 1e-9, "effect": 0.6}],
    "sentences": ["1 of 8 features drifted", "no slow drift was found in 40 hours"],
    "page": f"/api/models/m/drift/{REPORT_ID}/page",
}
REQUEST = {
    "request_id": "retraining-ab",
    "state": "open",
    "version": 3,
    "at": "2026-11-21T09:00:00Z",
    "sentence": "income drifted",
}
NONE: dict[str, Any] = {"items": [], "continuation": None}


def test_it_shows_reports_alarms_and_requests(api: FakeApi, slipway: Slipway) -> None:
    api.answers["GET /api/models/m/drift"] = (200, {"items": [REPORT], "continuation": None})
    api.answers["GET /api/models/m/retraining"] = (200, {"items": [REQUEST], "continuation": None})
    told = slipway("drift", "m").out
    for said in ("version 3 (stable)", "income", "0.41", "alarm data_drift", "no slow drift", "retraining-ab"):
        assert said in told
    assert f"  page: {api.url}{REPORT['page']} (asks for the key)\n" in told
    assert slipway("drift", "m", "--json").json == {"reports": [REPORT], "retraining": [REQUEST]}


def test_rows_that_are_a_share_are_told_with_it(api: FakeApi, slipway: Slipway) -> None:
    for asked, said in ((28_800, "7200 rows, 25.00% of about 28800"), (7_200, "7200 rows")):
        report = REPORT | {"asked": asked}
        api.answers["GET /api/models/m/drift"] = (200, {"items": [report], "continuation": None})
        api.answers["GET /api/models/m/retraining"] = (200, NONE)
        told = " ".join(slipway("drift", "m").out.split())
        assert (said in told, "of about" in told) == (True, asked > REPORT["rows"])


def test_now_makes_reports_and_since_asks_for_those_from_a_time_on(api: FakeApi, slipway: Slipway) -> None:
    api.answers["POST /api/models/m/drift"] = (200, {"items": [REPORT], "continuation": None})
    api.answers["GET /api/models/m/drift?since=2026-11-20"] = (200, NONE)
    api.answers["GET /api/models/m/retraining"] = (200, NONE)
    assert "version 3 (stable)" in slipway("drift", "m", "--now").out
    assert "There is no report yet" in slipway("drift", "m", "--since", "2026-11-20").out
    both = slipway("drift", "m", "--now", "--since", "2026-11-20")
    assert (both.code, "give one of them" in both.err) == (ExitCode.USAGE, True)


def test_the_page_of_the_stable_version_is_written(api: FakeApi, slipway: Slipway, tmp_path: Path) -> None:
    shadow = REPORT | {"role": "shadow", "report_id": "drift-000000004-shadow-20261121T0900-0123456789ab"}
    api.answers["GET /api/models/m/drift"] = (200, {"items": [REPORT, shadow], "continuation": None})
    api.answers["GET /api/models/m/retraining"] = (200, NONE)
    api.answers[f"GET /api/models/m/drift/{REPORT_ID}/page"] = (200, b"<!doctype html>")
    page = tmp_path / "report.html"
    assert slipway("drift", "m", "--html", str(page)).code == ExitCode.OK
    assert page.read_text() == "<!doctype html>"


def test_no_report_has_no_page(api: FakeApi, slipway: Slipway, tmp_path: Path) -> None:
    api.answers["GET /api/models/m/drift"] = (200, NONE)
    api.answers["GET /api/models/m/retraining"] = (200, NONE)
    ran = slipway("drift", "m", "--html", str(tmp_path / "report.html"))
    assert "there is no report yet: make one with --now" in ran.err
