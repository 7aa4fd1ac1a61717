"""Integrity of stored artifacts: checked by timer, and hashed anew when somebody asks."""

from dataclasses import asdict
from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict, Field

from functions._http import answering, body_of
from functions._services import services
from functions._tracing import timed
from shared.core.ids import model_name

bp = func.Blueprint()


class AuditBody(BaseModel):
    """The body of an audit of artifacts."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(default=0, ge=0)


@bp.function_name("check_artifacts")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def check_artifacts(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Check the artifacts of the versions in use."""
    services().integrity.check_live()


@bp.function_name("audit_artifacts")
@bp.route("models/{model}/artifacts/audit", methods=["POST"])
@answering
def audit_artifacts(req: func.HttpRequest) -> dict[str, Any]:
    """Hash the artifacts of a model's versions anew, a part of them at a call."""
    body = body_of(req, AuditBody)
    model = services().registry.model(model_name(req.route_params["model"]))
    return asdict(services().integrity.audit(model.model, body.after))
