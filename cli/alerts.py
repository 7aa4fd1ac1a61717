"""`slipway alerts`: what somebody should look at."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer
from cli.target import Target


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app)(alerts)


def alerts(
    target: Target,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that are resolved, too.")] = False,
) -> Answer:
    """List the alerts that fire."""
    from cli import upkeep_show as show  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("alerts", query=None if everything else {"state": "firing"}))
    return Answer(value={"alerts": found}, show=lambda: show.alerts(found))
