"""The admin API: endpoints, their route plans and rollouts, and the commands to a rollout.

All callers share the app's key, so `by` is who gives a command, as the caller claims; it is kept and audited. The
commands that bring a candidate further than the gates did, or that people answer for, do not go without it.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import azure.functions as func
from pydantic import Field

from functions._http import answering, body_of, json_response, listing
from functions._requests import Command, Reason, Text
from functions._services import services
from functions._views import endpoint_view, rollout_view
from shared.core.errors import NotFoundError
from shared.core.ids import EndpointName, endpoint_name
from shared.core.messages import UNNAMED_CALLER, CommandKind, RolloutCommand
from shared.rollout.documents import Rollout
from shared.store.unreadable import Unreadable

bp = func.Blueprint()

_ROLLOUT = "endpoints/{endpoint}/rollouts/{rollout_id}"


class RolloutBody(Command):
    """The body of a command to a rollout. `by` is who gives it, as the caller claims."""

    by: Reason = UNNAMED_CALLER
    reason: Text = ""


class NamedBody(RolloutBody):
    """The body of a command that needs the name of who gives it."""

    by: Reason


class OnwardBody(NamedBody):
    """The body of a promotion or a skip: `override` goes through freeze windows and a spent error budget."""

    override: bool = False


class StartBody(RolloutBody):
    """The body of a rollout's start."""

    version: int = Field(ge=1)
    force: bool = False
    override: bool = False
    shadows: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), max_length=10)


class WeightBody(NamedBody):
    """The body of a change of the candidate's share, in basis points."""

    weight_bp: int = Field(ge=0, le=10_000)
    override: bool = False


class ApproveBody(OnwardBody):
    """The body of an approval of a stage; without `stage`, of the one that waits."""

    stage: int | None = Field(default=None, ge=0)


class RejectBody(NamedBody):
    """The body of a rejection of a stage; without `stage`, of the one that waits."""

    stage: int | None = Field(default=None, ge=0)


class RollbackBody(NamedBody):
    """The body of a rollback. `version` is the known good one to go back to, where no rollout is under way."""

    version: int | None = Field(default=None, ge=1)


@bp.function_name("list_endpoints")
@bp.route("endpoints", methods=["GET"])
@answering
def list_endpoints(req: func.HttpRequest) -> dict[str, Any]:
    """All endpoints."""
    page = services().rollouts.endpoints(req.params.get("continuation"))
    now = datetime.now(UTC)
    return listing((endpoint_view(endpoint, now) for endpoint in page.items), page.continuation, page.unreadable)


@bp.function_name("get_endpoint")
@bp.route("endpoints/{endpoint}", methods=["GET"])
@answering
def get_endpoint(req: func.HttpRequest) -> dict[str, Any]:
    """An endpoint and its rollout."""
    return endpoint_view(services().rollouts.endpoint(_endpoint(req)), datetime.now(UTC))


@bp.function_name("get_plan")
@bp.route("endpoints/{endpoint}/plan", methods=["GET"])
@answering
def get_plan(req: func.HttpRequest) -> dict[str, Any]:
    """The route plan that an endpoint's state calls for."""
    endpoint = services().rollouts.endpoint(_endpoint(req))
    plan = endpoint.plan()
    if plan is None:
        raise NotFoundError(f"a route plan of endpoint {endpoint.endpoint}")
    return plan.model_dump(mode="json")


@bp.function_name("list_rollouts")
@bp.route("endpoints/{endpoint}/rollouts", methods=["GET"])
@answering
def list_rollouts(req: func.HttpRequest) -> dict[str, Any]:
    """An endpoint's rollouts, oldest first."""
    name, now = _endpoint(req), datetime.now(UTC)
    endpoint, unreadable = services().rollouts.endpoint(name), list[Unreadable]()
    found = services().rollouts.rollouts(name, unreadable)
    return listing((rollout_view(endpoint, rollout, now) for rollout in found), unreadable=unreadable)


@bp.function_name("get_rollout")
@bp.route(_ROLLOUT, methods=["GET"])
@answering
def get_rollout(req: func.HttpRequest) -> dict[str, Any]:
    """One rollout."""
    name = _endpoint(req)
    return _shown(name, services().rollouts.rollout(name, req.route_params["rollout_id"]))


@bp.function_name("start_rollout")
@bp.route("endpoints/{endpoint}/rollouts", methods=["POST"])
@answering
def start_rollout(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Start a rollout. One that waits for the end of another is answered 202, with the endpoint."""
    body = body_of(req, StartBody)
    more = {"version": body.version, "force": body.force, "override": body.override, "shadows": body.shadows}
    return _handle(req, CommandKind.START, body, **more)


@bp.function_name("promote_rollout")
@bp.route(f"{_ROLLOUT}/promote", methods=["POST"])
@answering
def promote_rollout(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Give the candidate all traffic, or make it stable, now."""
    body = body_of(req, OnwardBody)
    return _handle(req, CommandKind.PROMOTE, body, override=body.override)


@bp.function_name("pause_rollout")
@bp.route(f"{_ROLLOUT}/pause", methods=["POST"])
@answering
def pause_rollout(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Halt a rollout where it is."""
    return _handle(req, CommandKind.PAUSE, body_of(req, RolloutBody))


@bp.function_name("resume_rollout")
@bp.route(f"{_ROLLOUT}/resume", methods=["POST"])
@answering
def resume_rollout(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Let a rollout that was halted go on."""
    return _handle(req, CommandKind.RESUME, body_of(req, RolloutBody))


@bp.function_name("skip_stage")
@bp.route(f"{_ROLLOUT}/skip", methods=["POST"])
@answering
def skip_stage(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Begin a rollout's next stage, whatever the gates say."""
    body = body_of(req, OnwardBody)
    return _handle(req, CommandKind.SKIP, body, override=body.override)


@bp.function_name("set_weight")
@bp.route(f"{_ROLLOUT}/set-weight", methods=["POST"])
@answering
def set_weight(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Give the candidate another share for the rest of its stage."""
    body = body_of(req, WeightBody)
    return _handle(req, CommandKind.SET_WEIGHT, body, weight_bp=body.weight_bp, override=body.override)


@bp.function_name("approve_stage")
@bp.route(f"{_ROLLOUT}/approve", methods=["POST"])
@answering
def approve_stage(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Approve of the stage that waits for it."""
    body = body_of(req, ApproveBody)
    return _handle(req, CommandKind.APPROVE, body, stage=body.stage, override=body.override)


@bp.function_name("reject_stage")
@bp.route(f"{_ROLLOUT}/reject", methods=["POST"])
@answering
def reject_stage(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Reject the stage that waits for an approval, and take the candidate back."""
    body = body_of(req, RejectBody)
    return _handle(req, CommandKind.REJECT, body, stage=body.stage)


@bp.function_name("abort_rollout")
@bp.route(f"{_ROLLOUT}/abort", methods=["POST"])
@answering
def abort_rollout(req: func.HttpRequest) -> dict[str, Any] | func.HttpResponse:
    """Take the candidate back now, without holding anything against it."""
    return _handle(req, CommandKind.ABORT, body_of(req, RolloutBody))


@bp.function_name("roll_back")
@bp.route("endpoints/{endpoint}/rollback", methods=["POST"])
@answering
def roll_back(req: func.HttpRequest) -> dict[str, Any]:
    """Take back what fails, and quarantine it: the candidate, or the stable version where no rollout is under way."""
    body = body_of(req, RollbackBody)
    _carry_out(req, CommandKind.ROLLBACK, body, version=body.version)
    return endpoint_view(services().rollouts.endpoint(_endpoint(req)), datetime.now(UTC))


def _handle(
    req: func.HttpRequest, kind: CommandKind, body: RolloutBody, **more: object
) -> dict[str, Any] | func.HttpResponse:
    rollout = _carry_out(req, kind, body, **more)
    if rollout is None:
        return json_response(endpoint_view(services().rollouts.endpoint(_endpoint(req)), datetime.now(UTC)), 202)
    return _shown(_endpoint(req), rollout)


def _carry_out(req: func.HttpRequest, kind: CommandKind, body: RolloutBody, **more: object) -> Rollout | None:
    given = {
        "command": kind,
        "command_id": body.command_id,
        "endpoint": _endpoint(req),
        "rollout_id": req.route_params.get("rollout_id"),
        "requested_by": body.by,
        "reason": body.reason,
    }
    return services().rollouts.handle(RolloutCommand.model_validate(given | more))


def _shown(name: EndpointName, rollout: Rollout) -> dict[str, Any]:
    return rollout_view(services().rollouts.endpoint(name), rollout, datetime.now(UTC))


def _endpoint(req: func.HttpRequest) -> EndpointName:
    return endpoint_name(req.route_params["endpoint"])
