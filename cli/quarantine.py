"""`slipway quarantine`: versions that failed, and the word of a person that one of them is fit."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.ids import model_name

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="See the versions that failed, and clear one for rollouts.", no_args_is_help=True)
    command(group, "list")(quarantined)
    command(group)(clear)
    app.add_typer(group, name="quarantine")


def quarantined(target: Target, model: _ModelArgument) -> Answer:
    """List the versions that failed, and that nobody cleared since."""
    with Client(target) as client:
        return _answer(list(client.items("endpoints", model_name(model), "quarantine")))


def clear(
    target: Target,
    model: _ModelArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version that is fit.")],
    *,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who you are; it goes into the audit.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is fit; it goes into the audit.")],
) -> Answer:
    """Let rollouts of a version begin again."""
    body = {"by": by, "reason": reason}
    with Client(target) as client:
        left = client.post("endpoints", model_name(model), "quarantine", str(version), "clear", body=body)["items"]
    return _answer(left)


def _answer(found: list[Json]) -> Answer:
    from cli import rollbacks_show  # noqa: PLC0415

    return Answer(value={"quarantined": found}, show=lambda: rollbacks_show.quarantined(found))
