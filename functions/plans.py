"""Plans: published again under a generation that no pod passes over, and looked at for whether storage holds them."""

from dataclasses import asdict
from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict

from functions._http import answering, body_of
from functions._requests import Reason
from functions._services import services
from functions._tracing import timed
from shared.core.ids import endpoint_name

bp = func.Blueprint()


class RepublishBody(BaseModel):
    """The body of a call to publish a plan again. `by` is who answers for it, as the caller claims.

    It takes no command's id and needs none: where the plan is in force, nothing is published.
    """

    model_config = ConfigDict(extra="forbid")

    by: Reason
    reason: Reason


@bp.function_name("republish_plan")
@bp.route("endpoints/{endpoint}/plan/republish", methods=["POST"])
@answering
def republish_plan(req: func.HttpRequest) -> dict[str, Any]:
    """Have storage hold, and pods take, the plan that an endpoint calls for."""
    body = body_of(req, RepublishBody)
    name = endpoint_name(req.route_params["endpoint"])
    return asdict(services().plans.republish(name, by=body.by, reason=body.reason))


@bp.function_name("settle_plan_alerts")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def settle_plan_alerts(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Have the alerts say which plans are not what storage holds."""
    services().plan_alerts.settle()
