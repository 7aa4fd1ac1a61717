"""The admin API: models, versions, rollouts, route plans, audit, health. docs/api.md describes it."""

import logging
from typing import Annotated, Any
from uuid import uuid4

import azure.functions as func
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from functions._http import answering, body_of, listing
from functions._services import MisconfiguredError, services
from functions._views import drop_view, endpoint_view, model_view, rollout_view, version_view
from shared.core.errors import NotFoundError, SlipwayError, UnavailableError
from shared.core.ids import endpoint_name, model_name, version_number
from shared.core.messages import CommandKind, RolloutCommand
from shared.registration.documents import NO_MODEL
from shared.registry.policy import Policy
from shared.store.ports import BlobContainer, Container

bp = func.Blueprint()

_AUTOMATIC = "automatic:"
_SEE_LOG = "the functions app's log has the details"

_log = logging.getLogger(__name__)


def _not_automatic(command_id: str) -> str:
    if command_id.startswith(_AUTOMATIC):
        raise ValueError(f"ids that start with {_AUTOMATIC!r} belong to the rollouts that policy starts: use another")
    return command_id


type _Text = Annotated[str, Field(max_length=500)]
type _CommandId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_not_automatic)]


class StartBody(BaseModel):
    """The body of a rollout's start."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1)
    command_id: _CommandId | None = None
    reason: _Text = ""


class EndBody(BaseModel):
    """The body of a promotion or an abort."""

    model_config = ConfigDict(extra="forbid")

    command_id: _CommandId | None = None
    reason: _Text = ""


@bp.function_name("health")
@bp.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@answering
def health(req: func.HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - the binding gives it
    """Whether documents and blobs can be reached. Anybody may ask, so what is wrong stands in the log alone."""
    try:
        services().documents.get(Container.MODELS, NO_MODEL, "health")
        services().blobs.info(BlobContainer.ROUTES, "health")
    except MisconfiguredError:
        raise MisconfiguredError(f"a setting of the functions app is absent or wrong: {_SEE_LOG}") from None
    except SlipwayError as error:
        _log.warning("not healthy: %s", error)
        raise UnavailableError("storage or the database", _SEE_LOG) from None
    return {"status": "ok"}


@bp.function_name("list_models")
@bp.route("models", methods=["GET"])
@answering
def list_models(req: func.HttpRequest) -> dict[str, Any]:
    """All models."""
    page = services().registry.models(req.params.get("continuation"))
    return listing(map(model_view, page.items), page.continuation)


@bp.function_name("get_model")
@bp.route("models/{model}", methods=["GET"])
@answering
def get_model(req: func.HttpRequest) -> dict[str, Any]:
    """A model and its policy."""
    return model_view(services().registry.model(model_name(req.route_params["model"])))


@bp.function_name("put_policy")
@bp.route("models/{model}/policy", methods=["PUT"])
@answering
def put_policy(req: func.HttpRequest) -> dict[str, Any]:
    """Set a model's policy."""
    name = model_name(req.route_params["model"])
    return model_view(services().registry.put_policy(name, body_of(req, Policy), by="api"))


@bp.function_name("list_versions")
@bp.route("models/{model}/versions", methods=["GET"])
@answering
def list_versions(req: func.HttpRequest) -> dict[str, Any]:
    """A model's versions."""
    name = model_name(req.route_params["model"])
    services().registry.model(name)
    page = services().registry.versions(name, req.params.get("continuation"))
    return listing(map(version_view, page.items), page.continuation)


@bp.function_name("get_version")
@bp.route("models/{model}/versions/{version}", methods=["GET"])
@answering
def get_version(req: func.HttpRequest) -> dict[str, Any]:
    """A version."""
    number = version_number(req.route_params["version"])
    return version_view(services().registry.version(model_name(req.route_params["model"]), number))


@bp.function_name("get_report")
@bp.route("models/{model}/versions/{version}/report", methods=["GET"])
@answering
def get_report(req: func.HttpRequest) -> dict[str, Any]:
    """The whole validation report of a version."""
    number = version_number(req.route_params["version"])
    return dict(services().validation.report(model_name(req.route_params["model"]), number))


@bp.function_name("list_drops")
@bp.route("models/{model}/drops", methods=["GET"])
@answering
def list_drops(req: func.HttpRequest) -> dict[str, Any]:
    """What was dropped for a model; for `-`, what was dropped where no model's name stands."""
    name = req.route_params["model"]
    page = services().registration.drops(name if name == NO_MODEL else model_name(name), req.params.get("continuation"))
    return listing(map(drop_view, page.items), page.continuation)


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
            command_id=body.command_id or str(uuid4()),
            endpoint=endpoint_name(req.route_params["endpoint"]),
            version=body.version,
            requested_by="api",
            reason=body.reason,
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


@bp.function_name("list_audit_events")
@bp.route("audit/events", methods=["GET"])
@answering
def list_audit_events(req: func.HttpRequest) -> dict[str, Any]:
    """The events of the stream named by `?stream=`."""
    events = services().audit.events(req.params.get("stream", ""))
    return listing(event.model_dump(mode="json") for event in events)


@bp.function_name("verify_audit")
@bp.route("audit/verify", methods=["GET"])
@answering
def verify_audit(req: func.HttpRequest) -> dict[str, Any]:
    """Verify the stream named by `?stream=`, or all."""
    return services().audit.verify(req.params.get("stream")).model_dump(mode="json")


def _end(req: func.HttpRequest, command: CommandKind) -> dict[str, Any]:
    body = body_of(req, EndBody)
    return _handle(
        RolloutCommand(
            command=command,
            command_id=body.command_id or str(uuid4()),
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
