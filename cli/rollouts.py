"""`slipway rollout`: start, promote or abort a rollout, and see how it goes."""

from typing import Annotated
from uuid import uuid4

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import ConflictError, InvalidInputError
from shared.core.ids import ModelName, model_name

ENDED = frozenset({"promoted", "rolled_back", "aborted"})

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Start, promote or abort a rollout, and see how it goes.", no_args_is_help=True)
    command(group)(start)
    command(group)(promote)
    command(group)(abort)
    command(group)(status)
    app.add_typer(group, name="rollout")


def start(
    target: Target,
    model: _ModelArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version to roll out.")],
    *,
    reason: _ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Start it although its signature breaks callers; give a reason.")
    ] = False,
) -> Answer:
    """Start to roll out a validated version."""
    name = model_name(model)
    if force and not reason.strip():
        raise InvalidInputError("a start by force needs a reason, which goes into the audit: give it with --reason")
    body = _body(reason) | {"version": version} | ({"force": True} if force else {})
    with Client(target) as client:
        return _answer(client.post("endpoints", name, "rollouts", body=body))


def promote(target: Target, model: _ModelArgument, *, reason: _ReasonOption = "") -> Answer:
    """Promote the candidate now, whatever its stage."""
    return _end(target, model, "promote", reason)


def abort(target: Target, model: _ModelArgument, *, reason: _ReasonOption = "") -> Answer:
    """Take the candidate back now."""
    return _end(target, model, "abort", reason)


def status(target: Target, model: _ModelArgument) -> Answer:
    """Show the rollouts of a model, the active one with what the gates found."""
    from cli import show  # noqa: PLC0415

    name = model_name(model)
    with Client(target) as client:
        endpoint = client.get("endpoints", name)
        value = {"endpoint": endpoint, "rollouts": list(client.items("endpoints", name, "rollouts"))}
    return Answer(value=value, show=lambda: show.print_one(show.rollouts(value)))


def _end(target: Target, model: str, verb: str, reason: str) -> Answer:
    name = model_name(model)
    with Client(target) as client:
        rollout = _active(client, name)
        return _answer(client.post("endpoints", name, "rollouts", rollout["rollout_id"], verb, body=_body(reason)))


def _active(client: Client, model: ModelName) -> Json:
    rollout = client.get("endpoints", model)["rollout"]
    if rollout is None or rollout["state"] in ENDED:
        raise ConflictError(
            f"endpoint {model} has no active rollout: start one with `slipway rollout start {model} VERSION`"
        )
    return rollout


def _body(reason: str) -> dict[str, Json]:
    # The id makes a command that is sent twice, after a lost answer, one command.
    return {"command_id": str(uuid4()), "reason": reason}


def _answer(rollout: Json) -> Answer:
    from cli import show  # noqa: PLC0415

    return Answer(value=rollout, show=lambda: show.print_one(show.rollout(rollout)))
