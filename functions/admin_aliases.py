"""The admin API: aliases and their history."""

from typing import Any

import azure.functions as func
from pydantic import Field

from functions._http import answering, body_of, listing
from functions._requests import Command, Text, time_param
from functions._services import services
from functions._views import alias_view, move_view
from shared.core.ids import ModelName, VersionNumber, model_name
from shared.registry.aliases import AliasName, alias_name
from shared.registry.commands import SetAlias
from shared.store.unreadable import Unreadable

bp = func.Blueprint()


class AliasBody(Command):
    """The body of a move: `version` is null to name nothing; `expected_version`, where given, is what it named."""

    version: int | None = Field(ge=1)
    expected_version: int | None = Field(default=None, ge=1)
    reason: Text = ""


@bp.function_name("list_aliases")
@bp.route("models/{model}/aliases", methods=["GET"])
@answering
def list_aliases(req: func.HttpRequest) -> dict[str, Any]:
    """A model's aliases."""
    unreadable = list[Unreadable]()
    found = services().aliases.aliases(model_name(req.route_params["model"]), unreadable)
    return listing(map(alias_view, found), unreadable=unreadable)


@bp.function_name("get_alias")
@bp.route("models/{model}/aliases/{alias}", methods=["GET"])
@answering
def get_alias(req: func.HttpRequest) -> dict[str, Any]:
    """An alias as it stands, or, with `?at=`, what it named at a time."""
    model, alias = _named(req)
    when = time_param(req, "at")
    if when is None:
        return alias_view(services().aliases.alias(model, alias))
    move = services().aliases.at(model, alias, when)
    return {
        "model": model,
        "alias": alias,
        "at": when.isoformat(),
        "version": move.version if move else None,
        "move": move_view(move) if move else None,
    }


@bp.function_name("set_alias")
@bp.route("models/{model}/aliases/{alias}", methods=["PUT"])
@answering
def set_alias(req: func.HttpRequest) -> dict[str, Any]:
    """Have an alias name a version, or nothing."""
    model, alias = _named(req)
    body = body_of(req, AliasBody)
    command = SetAlias(
        model=model,
        alias=alias,
        version=None if body.version is None else VersionNumber(body.version),
        expected_version=body.expected_version if "expected_version" in body.model_fields_set else "any",
        by="api",
        reason=body.reason,
        command_id=body.command_id,
    )
    return alias_view(services().aliases.set(command))


@bp.function_name("list_alias_moves")
@bp.route("models/{model}/aliases/{alias}/history", methods=["GET"])
@answering
def list_alias_moves(req: func.HttpRequest) -> dict[str, Any]:
    """An alias's moves, newest first."""
    model, alias = _named(req)
    page = services().aliases.history(model, alias, req.params.get("continuation"))
    return listing(map(move_view, page.items), page.continuation, page.unreadable)


def _named(req: func.HttpRequest) -> tuple[ModelName, AliasName]:
    return model_name(req.route_params["model"]), alias_name(req.route_params["alias"])
