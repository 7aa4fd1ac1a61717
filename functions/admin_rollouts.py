"""The admin API: endpoints, their route plans and rollouts."""

from typing import Any

import azure.functions as func
from pydantic import Field

from functions._http import answering, body_of, listing
from functions._requests import Command, Text
from functions._services import services
from functions._views import endpoint_view, rollout_view
from shared.core.errors import NotFoundError
from shared.core.ids import endpoint_name
from shared.core.messages import CommandKind, RolloutCommand

bp = func.Blueprint()


class StartBody(Command):
    """The body of a rollout's start."""

    version: int = Field(ge=1)
    reason: Text = ""
    force: bool = False


class EndBody(Command):
    """The body of a promotion or an abort."""

    reason: Text = ""


@bp.function_name("list_endpoints")
@bp.route("endpoints", methods=["GET"])
@answering
def list_endpoints(req: func.HttpRequest) -> dict[str, Any]:
    """All endpoints."""
    page = services().rollouts.endpoints(req.params.get("continuation"))
    return listing(map(endpoint_view, page.items), page.continuation)


@bp.function_name("get_endpoint")
@bp.route("endpoints/{endpoint}", methods=["GET"])
@answering
def get_endpoint(req: func.HttpRequest) -> dict[str, Any]:
    """An endpoint and its rollout."""
    return endpoint_view(services().rollouts.endpoint(endpoint_name(req.route_params["endpoint"])))


@bp.function_name("get_plan")
@bp.route("endpoints/{endpoint}/plan", methods=["GET"])
@answering
def get_plan(req: func.HttpRequest) -> dict[str, Any]:
    """The route plan that an endpoint's state calls for."""
    endpoint = services().rollouts.endpoint(endpoint_name(req.route_params["endpoint"]))
    plan = endpoint.plan()
    if plan is None:
        raise NotFoundError(f"a route plan of endpoint {endpoint.endpoint}")
    return plan.model_dump(mode="json")


@bp.function_name("list_rollouts")
@bp.route("endpoints/{endpoint}/rollouts", methods=["GET"])
@answering
def list_rollouts(req: func.HttpRequest) -> dict[str, Any]:
    """An endpoint's rollouts, oldest first."""
    name = endpoint_name(req.route_params["endpoint"])
    return listing(rollout_view(name, rollout) for rollout in services().rollouts.rollouts(name))


@bp.function_name("get_rollout")
@bp.route("endpoints/{endpoint}/rollouts/{rollout_id}", methods=["GET"])
@answering
def get_rollout(req: func.HttpRequest) -> dict[str, Any]:
    """One rollout."""
    name = endpoint_name(req.route_params["endpoint"])
    return rollout_view(name, services().rollouts.rollout(name, req.route_params["rollout_id"]))


@bp.function_name("start_rollout")
@bp.route("endpoints/{endpoint}/rollouts", methods=["POST"])
@answering
def start_rollout(req: func.HttpRequest) -> dict[str, Any]:
    """Start a rollout."""
    body = body_of(req, StartBody)
    return _handle(
        RolloutCommand(
            command=CommandKind.START,
            command_id=body.command_id,
            endpoint=endpoint_name(req.route_params["endpoint"]),
            version=body.version,
            requested_by="api",
            reason=body.reason,
            force=body.force,
        )
    )


@bp.function_name("promote_rollout")
@bp.route("endpoints/{endpoint}/rollouts/{rollout_id}/promote", methods=["POST"])
@answering
def promote_rollout(req: func.HttpRequest) -> dict[str, Any]:
    """Promote the candidate now."""
    return _end(req, CommandKind.PROMOTE)


@bp.function_name("abort_rollout")
@bp.route("endpoints/{endpoint}/rollouts/{rollout_id}/abort", methods=["POST"])
@answering
def abort_rollout(req: func.HttpRequest) -> dict[str, Any]:
    """Take the candidate back now."""
    return _end(req, CommandKind.ABORT)


def _end(req: func.HttpRequest, command: CommandKind) -> dict[str, Any]:
    body = body_of(req, EndBody)
    return _handle(
        RolloutCommand(
            command=command,
            command_id=body.command_id,
            endpoint=endpoint_name(req.route_params["endpoint"]),
            rollout_id=req.route_params["rollout_id"],
            requested_by="api",
            reason=body.reason,
        )
    )


def _handle(command: RolloutCommand) -> dict[str, Any]:
    rollout = services().rollouts.handle(command)
    if rollout is None:
        raise NotFoundError(f"a rollout for command {command.command_id}")
    return rollout_view(command.endpoint, rollout)
