"""The admin API: what was taken back, the report of it, and the versions in quarantine."""

from collections.abc import Iterator
from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict

from functions._http import answering, body_of, left_out, listing
from functions._requests import Reason, time_param
from functions._services import services
from functions._views import quarantine_view, rollback_view
from shared.core.ids import endpoint_name, version_number
from shared.rollout.endpoint import Endpoint
from shared.rollout.report import report_of
from shared.store.unreadable import Unreadable

bp = func.Blueprint()


class ClearBody(BaseModel):
    """The body of a quarantine's clearing. `by` is who answers for it, as the caller claims.

    It takes no command's id and needs none: a version is cleared once, and sent again it is not found.
    """

    model_config = ConfigDict(extra="forbid")

    by: Reason
    reason: Reason


@bp.function_name("list_rollbacks")
@bp.route("endpoints/{endpoint}/rollbacks", methods=["GET"])
@answering
def list_rollbacks(req: func.HttpRequest) -> dict[str, Any]:
    """An endpoint's rollbacks, oldest first."""
    unreadable = list[Unreadable]()
    found = services().rollouts.rollbacks(endpoint_name(req.route_params["endpoint"]), unreadable)
    return listing(map(rollback_view, found), unreadable=unreadable)


@bp.function_name("report_rollbacks")
@bp.route("rollbacks/report", methods=["GET"])
@answering
def report_rollbacks(req: func.HttpRequest) -> dict[str, Any]:
    """What became of the rollbacks from `?since=` to before `?until=`, of all endpoints or of `?endpoint=`."""
    since, until, named = time_param(req, "since"), time_param(req, "until"), req.params.get("endpoint")
    rollouts, unreadable = services().rollouts, list[Unreadable]()
    if named:
        found = rollouts.rollbacks(endpoint_name(named), unreadable)
    else:
        of_all = rollouts.rollbacks_of_all(list(_all_endpoints(unreadable)), unreadable)
        found = [one for rollbacks in of_all.values() for one in rollbacks]
    report = report_of(found, since=since, until=until).model_dump(mode="json")
    return report | left_out(unreadable)


@bp.function_name("list_quarantine")
@bp.route("endpoints/{endpoint}/quarantine", methods=["GET"])
@answering
def list_quarantine(req: func.HttpRequest) -> dict[str, Any]:
    """The versions of an endpoint that failed, and that nobody cleared since."""
    endpoint = services().rollouts.endpoint(endpoint_name(req.route_params["endpoint"]))
    return listing(quarantine_view(found) for found in endpoint.quarantined)


@bp.function_name("clear_quarantine")
@bp.route("endpoints/{endpoint}/quarantine/{version}/clear", methods=["POST"])
@answering
def clear_quarantine(req: func.HttpRequest) -> dict[str, Any]:
    """Let rollouts of a version that failed begin again."""
    name, number = endpoint_name(req.route_params["endpoint"]), version_number(req.route_params["version"])
    body = body_of(req, ClearBody)
    endpoint = services().rollouts.clear_quarantine(name, number, by=body.by, reason=body.reason)
    return listing(quarantine_view(found) for found in endpoint.quarantined)


def _all_endpoints(unreadable: list[Unreadable]) -> Iterator[Endpoint]:
    continuation = None
    while True:
        page = services().rollouts.endpoints(continuation)
        yield from page.items
        unreadable += page.unreadable
        if page.continuation is None:
            return
        continuation = page.continuation
