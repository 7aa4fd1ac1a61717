"""Alerts: what somebody should look at."""

from typing import Any

import azure.functions as func

from functions._http import answering, listing
from functions._services import services
from shared.alerts.documents import Alert

bp = func.Blueprint()


@bp.function_name("list_alerts")
@bp.route("alerts", methods=["GET"])
@answering
def list_alerts(req: func.HttpRequest) -> dict[str, Any]:
    """All alerts; with `?state=firing` or `?state=resolved`, those alone."""
    page = services().alerts.alerts(req.params.get("state") or None, req.params.get("continuation"))
    return listing(map(alert_view, page.items), page.continuation)


def alert_view(alert: Alert) -> dict[str, Any]:
    """An alert as the API gives it."""
    shown = alert.model_dump(
        mode="json",
        include={"rule", "subject", "state", "sentence", "evidence", "since", "changed_at", "count"},
    )
    return {"alert_id": alert.id, **shown}
