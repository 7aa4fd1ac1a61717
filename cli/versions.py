"""`slipway approve`, `archive` and `revalidate`: what people decide of a version."""

from typing import Annotated
from uuid import uuid4

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.ids import model_name

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version's number.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app)(approve)
    command(app)(archive)
    command(app)(revalidate)


def approve(
    target: Target,
    model: _ModelArgument,
    version: _VersionArgument,
    *,
    by: Annotated[str, typer.Option("--by", help="Who approves: somebody other than the version's author.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")] = "",
) -> Answer:
    """Approve a version's rollout, where the model's policy wants approvals."""
    # The id makes a command that is sent twice, after a lost answer, one command.
    body = {"by": by, "reason": reason, "command_id": str(uuid4())}
    return _post(target, model, version, "approve", body)


def archive(
    target: Target,
    model: _ModelArgument,
    version: _VersionArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")],
) -> Answer:
    """Take a version out of use for good. One that serves, rolls out or has an alias stays."""
    return _post(target, model, version, "archive", {"reason": reason})


def revalidate(
    target: Target,
    model: _ModelArgument,
    version: _VersionArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")],
) -> Answer:
    """Validate a rejected version again, under the policy and beside the champion of now."""
    return _post(target, model, version, "revalidate", {"reason": reason})


def _post(target: Target, model: str, version: int, what: str, body: Json) -> Answer:
    from cli import show  # noqa: PLC0415

    name = model_name(model)
    with Client(target) as client:
        value = client.post("models", name, "versions", str(version), what, body=body)
    return Answer(value=value, show=lambda: show.version(value))
