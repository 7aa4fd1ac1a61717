"""Watching for drift: the timer, the reports, and the requests for retraining."""

import json
from datetime import UTC, datetime
from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict, Field

from functions._http import answering, body_of, listing
from functions._services import services
from functions._tracing import timed
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name
from shared.store.unreadable import Unreadable
from shared.watching.documents import DriftRecord, DriftReport, ReportSummary, RetrainingRequest, RetrainingState

bp = func.Blueprint()


class MarkBody(BaseModel):
    """How a request for retraining stands."""

    model_config = ConfigDict(extra="forbid")

    state: RetrainingState
    by: str = Field(min_length=1, max_length=500)
    reason: str = Field(default="", max_length=500)


@bp.function_name("watch_drift")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def watch_drift(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Roll up what was counted, report on serving versions, and see to what follows."""
    services().watching.watch()


@bp.function_name("tidy_drift")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def tidy_drift(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Delete drift reports, roll-ups and windows that are old."""
    services().report_retention.tidy()


@bp.function_name("list_drift")
@bp.route("models/{model}/drift", methods=["GET"])
@answering
def list_drift(req: func.HttpRequest) -> dict[str, Any]:
    """The latest report of each version that serves; with `?since=`, all reports from then on."""
    model = model_name(req.route_params["model"])
    watching = services().watching
    since, unreadable = req.params.get("since"), list[Unreadable]()
    if since:
        found = watching.reports.since(model, _time(since), datetime.now(UTC), unreadable)
        return listing(map(record_view, found), unreadable=unreadable)
    return listing(map(standing_view, watching.serving(model, unreadable)), unreadable=unreadable)


@bp.function_name("report_drift")
@bp.route("models/{model}/drift", methods=["POST"])
@answering
def report_drift(req: func.HttpRequest) -> dict[str, Any]:
    """Report on each serving version as of now."""
    return listing(map(standing_view, services().watching.report_now(model_name(req.route_params["model"]))))


@bp.function_name("get_drift_report")
@bp.route("models/{model}/drift/{report}", methods=["GET"])
@answering
def get_drift_report(req: func.HttpRequest) -> dict[str, Any]:
    """One report, with the figures of each feature."""
    model, identity = model_name(req.route_params["model"]), req.route_params["report"]
    reports = services().watching.reports
    return record_view(reports.one(model, identity)) | {"details": json.loads(reports.json(model, identity))}


@bp.function_name("get_drift_page")
@bp.route("models/{model}/drift/{report}/page", methods=["GET"])
@answering
def get_drift_page(req: func.HttpRequest) -> func.HttpResponse:
    """One report as a page."""
    page = services().watching.reports.page(model_name(req.route_params["model"]), req.route_params["report"])
    return func.HttpResponse(page, mimetype="text/html", charset="utf-8")


@bp.function_name("list_retraining")
@bp.route("models/{model}/retraining", methods=["GET"])
@answering
def list_retraining(req: func.HttpRequest) -> dict[str, Any]:
    """The requests for retraining of a model, the latest last."""
    return listing(map(request_view, services().watching.requests(model_name(req.route_params["model"])).requests))


@bp.function_name("mark_retraining")
@bp.route("models/{model}/retraining/{request}", methods=["POST"])
@answering
def mark_retraining(req: func.HttpRequest) -> dict[str, Any]:
    """Say that a request is taken, done or refused."""
    body = body_of(req, MarkBody)
    model, identity = model_name(req.route_params["model"]), req.route_params["request"]
    found = services().watching.mark_request(model, identity, body.state, by=body.by, reason=body.reason)
    return request_view(found)


def standing_view(report: DriftReport) -> dict[str, Any]:
    """How a version in a role stands, as the API gives it."""
    return {
        "model": report.model,
        "version": report.version,
        "role": report.role,
        "alarms": {alarm: episode.model_dump(mode="json") for alarm, episode in sorted(report.alarms.items())},
        **(_summary_view(report.model, report.latest) if report.latest else {"report_id": None}),
    }


def record_view(record: DriftRecord) -> dict[str, Any]:
    """A report as the API gives it."""
    return {
        "model": record.model,
        "version": record.version,
        "role": record.role,
        **_summary_view(record.model, record.report),
    }


def request_view(request: RetrainingRequest) -> dict[str, Any]:
    """A request for retraining as the API gives it."""
    return request.model_dump(mode="json")


def _summary_view(model: str, summary: ReportSummary) -> dict[str, Any]:
    shown = summary.model_dump(mode="json", exclude={"report_blob", "page_blob", "findings"})
    findings = [
        finding.model_dump(mode="json", include={"against", "outcome", "sentence", "features", "rows", "at"})
        for finding in summary.findings
    ]
    page = f"/api/models/{model}/drift/{summary.report_id}/page"
    return shown | {"findings": findings, "page": page}


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        # Some times at either end of the calendar are none in UTC.
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInputError(f"since {text[:40]!r} is no time: give one as 2026-11-21T08:00:00Z") from None
