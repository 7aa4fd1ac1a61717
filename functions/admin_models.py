"""The admin API: models, their policies, versions and drops."""

from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict

from functions._http import answering, body_of, listing
from functions._requests import Command, Reason, Text, number_param, text_param
from functions._services import services
from functions._views import drop_view, model_view, policy_view, version_view
from shared.core.ids import model_name, version_number
from shared.core.messages import UNNAMED_CALLER
from shared.registration.documents import NO_MODEL
from shared.registry.aliases import PRODUCTION
from shared.registry.commands import Approve
from shared.registry.documents import Model, ModelVersion
from shared.registry.policy import Policy
from shared.registry.search import parse_filter
from shared.store.unreadable import Unreadable

bp = func.Blueprint()

_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
"""A report's page has styles of its own and nothing else that a browser could run or fetch."""


class ApproveBody(Command):
    """The body of an approval. `by` is who approves, as the caller claims."""

    by: Reason
    reason: Text = ""


class ArchiveBody(BaseModel):
    """The body of an archiving. It takes no command's id and needs none: a version is archived once."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class RevalidateBody(BaseModel):
    """The body of a request to validate again. It takes no command's id: sent late, it is another request."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


@bp.function_name("list_models")
@bp.route("models", methods=["GET"])
@answering
def list_models(req: func.HttpRequest) -> dict[str, Any]:
    """All models."""
    page = services().registry.models(req.params.get("continuation"))
    unreadable = list(page.unreadable)
    production = services().aliases.production(unreadable)
    views = (model_view(model, production.get(model.model)) for model in page.items)
    return listing(views, page.continuation, unreadable)


@bp.function_name("get_model")
@bp.route("models/{model}", methods=["GET"])
@answering
def get_model(req: func.HttpRequest) -> dict[str, Any]:
    """A model and its policy."""
    return _model(services().registry.model(model_name(req.route_params["model"])))


@bp.function_name("put_policy")
@bp.route("models/{model}/policy", methods=["PUT"])
@answering
def put_policy(req: func.HttpRequest) -> dict[str, Any]:
    """Set a model's policy, on `?expected_version=` only if that is in force; `?by=` for `?reason=`."""
    name = model_name(req.route_params["model"])
    expected = number_param(req, "expected_version")
    policy = body_of(req, Policy)
    by, reason = text_param(req, "by") or UNNAMED_CALLER, text_param(req, "reason")
    return _model(services().registry.put_policy(name, policy, by=by, reason=reason, expected_version=expected))


@bp.function_name("list_policies")
@bp.route("models/{model}/policy/versions", methods=["GET"])
@answering
def list_policies(req: func.HttpRequest) -> dict[str, Any]:
    """A model's policies, each as it was set."""
    name = model_name(req.route_params["model"])
    page = services().registry.policies(name, req.params.get("continuation"))
    return listing(map(policy_view, page.items), page.continuation)


@bp.function_name("get_policy")
@bp.route("models/{model}/policy/versions/{policy_version}", methods=["GET"])
@answering
def get_policy(req: func.HttpRequest) -> dict[str, Any]:
    """The policy that has a number."""
    number = version_number(req.route_params["policy_version"])
    return policy_view(services().registry.policy(model_name(req.route_params["model"]), number))


@bp.function_name("list_versions")
@bp.route("models/{model}/versions", methods=["GET"])
@answering
def list_versions(req: func.HttpRequest) -> dict[str, Any]:
    """A model's versions; those that `?filter=` matches, where it is given."""
    name = model_name(req.route_params["model"])
    text = req.params.get("filter")
    wanted = None if text is None else parse_filter(text)
    policy = services().registry.model(name).policy
    unreadable = list[Unreadable]()
    named = services().aliases.named(name, unreadable)

    def matches(version: ModelVersion) -> bool:
        return wanted is None or wanted.matches(version, named.get(version.version, []))

    page = services().registry.versions(name, req.params.get("continuation"), matches=matches)
    views = (version_view(version, named.get(version.version, []), policy) for version in page.items)
    return listing(views, page.continuation, [*unreadable, *page.unreadable])


@bp.function_name("get_version")
@bp.route("models/{model}/versions/{version}", methods=["GET"])
@answering
def get_version(req: func.HttpRequest) -> dict[str, Any]:
    """A version."""
    number = version_number(req.route_params["version"])
    return _version(services().registry.version(model_name(req.route_params["model"]), number))


@bp.function_name("get_report")
@bp.route("models/{model}/versions/{version}/report", methods=["GET"])
@answering
def get_report(req: func.HttpRequest) -> dict[str, Any]:
    """The whole validation report of a version."""
    number = version_number(req.route_params["version"])
    return dict(services().validation.report(model_name(req.route_params["model"]), number))


@bp.function_name("get_report_page")
@bp.route("models/{model}/versions/{version}/report/page", methods=["GET"])
@answering
def get_report_page(req: func.HttpRequest) -> func.HttpResponse:
    """The validation report of a version as an HTML page."""
    number = version_number(req.route_params["version"])
    page = services().validation.page(model_name(req.route_params["model"]), number)
    return func.HttpResponse(page, mimetype="text/html", charset="utf-8", headers=_PAGE_HEADERS)


@bp.function_name("approve_version")
@bp.route("models/{model}/versions/{version}/approve", methods=["POST"])
@answering
def approve_version(req: func.HttpRequest) -> dict[str, Any]:
    """Approve a version's rollout."""
    body = body_of(req, ApproveBody)
    command = Approve(
        model=model_name(req.route_params["model"]),
        version=version_number(req.route_params["version"]),
        by=body.by,
        reason=body.reason,
        command_id=body.command_id,
    )
    return _version(services().registry.approve(command))


@bp.function_name("revalidate_version")
@bp.route("models/{model}/versions/{version}/revalidate", methods=["POST"])
@answering
def revalidate_version(req: func.HttpRequest) -> dict[str, Any]:
    """Validate a rejected version again."""
    name, number = model_name(req.route_params["model"]), version_number(req.route_params["version"])
    body = body_of(req, RevalidateBody)
    return _version(services().registry.revalidate(name, number, by="api", reason=body.reason))


@bp.function_name("archive_version")
@bp.route("models/{model}/versions/{version}/archive", methods=["POST"])
@answering
def archive_version(req: func.HttpRequest) -> dict[str, Any]:
    """Take a version out of use for good."""
    name, number = model_name(req.route_params["model"]), version_number(req.route_params["version"])
    body = body_of(req, ArchiveBody)
    return _version(services().rollouts.archive(name, number, by="api", reason=body.reason))


@bp.function_name("list_drops")
@bp.route("models/{model}/drops", methods=["GET"])
@answering
def list_drops(req: func.HttpRequest) -> dict[str, Any]:
    """What was dropped for a model; for `-`, what was dropped where no model's name stands."""
    name = req.route_params["model"]
    page = services().registration.drops(name if name == NO_MODEL else model_name(name), req.params.get("continuation"))
    return listing(map(drop_view, page.items), page.continuation, page.unreadable)


def _model(model: Model) -> dict[str, Any]:
    return model_view(model, services().aliases.version(model.model, PRODUCTION))


def _version(version: ModelVersion) -> dict[str, Any]:
    named = services().aliases.named(version.model)
    policy = services().registry.model(version.model).policy
    return version_view(version, named.get(version.version, []), policy)
