"""`slipway alias`: names for versions, and which version each named when."""

from typing import Annotated
from uuid import uuid4

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name, version_number

NOTHING = "none"
"""Stands for no version."""

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_AliasArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, as in champion.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Set aliases, and see what they name and named.", no_args_is_help=True)
    command(group, "set")(put)
    command(group)(show)
    command(group, "list")(list_all)
    command(group)(history)
    app.add_typer(group, name="alias")


def put(
    target: Target,
    model: _ModelArgument,
    alias: _AliasArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION|none", help="The version to name; none clears it.")],
    *,
    expected: Annotated[
        str | None,
        typer.Option("--expected-version", metavar="VERSION|none", help="Set it only if it names this version now."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")] = "",
) -> Answer:
    """Have an alias name a version."""
    # The id makes a command that is sent twice, after a lost answer, one command.
    body: dict[str, Json] = {"version": _number(version), "reason": reason, "command_id": str(uuid4())}
    if expected is not None:
        body["expected_version"] = _number(expected)
    with Client(target) as client:
        return _answer(client.put("models", model_name(model), "aliases", alias, body=body))


def show(
    target: Target,
    model: _ModelArgument,
    alias: _AliasArgument,
    *,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="What it named then, as in 2026-01-31T09:30:00Z.")
    ] = None,
) -> Answer:
    """Show what an alias names, or named at a time."""
    with Client(target) as client:
        query = None if at is None else {"at": at}
        return _answer(client.get("models", model_name(model), "aliases", alias, query=query))


def list_all(target: Target, model: _ModelArgument) -> Answer:
    """List a model's aliases."""
    from cli import show as shown  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("models", model_name(model), "aliases"))
    return Answer(value={"aliases": found}, show=lambda: shown.aliases(found))


def history(target: Target, model: _ModelArgument, alias: _AliasArgument) -> Answer:
    """Show every move of an alias, newest first."""
    from cli import show as shown  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("models", model_name(model), "aliases", alias, "history"))
    return Answer(value={"moves": found}, show=lambda: shown.alias_moves(found))


def _answer(value: Json) -> Answer:
    from cli import show as shown  # noqa: PLC0415

    return Answer(value=value, show=lambda: shown.alias(value))


def _number(text: str) -> int | None:
    if text == NOTHING:
        return None
    try:
        return version_number(text)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}, or {NOTHING}") from error
