"""`slipway rollbacks`: what was taken back, why, and how long that took."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app)(rollbacks)


def rollbacks(
    target: Target,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="The model's name; a report may be of all.")
    ] = None,
    *,
    report: Annotated[bool, typer.Option("--report", help="Counts by trigger, and the times to zero traffic.")] = False,
    days: Annotated[
        float | None, typer.Option("--days", min=0.01, max=3_650, help="For the report: of the last days alone.")
    ] = None,
) -> Answer:
    """List a model's rollbacks, or report of them."""
    from cli import rollbacks_show  # noqa: PLC0415

    name = None if model is None else model_name(model)
    if name is None and not report:
        raise InvalidInputError("name a model, or ask for the --report of all")
    if days is not None and not report:
        raise InvalidInputError("--days is for the --report")
    with Client(target) as client:
        if not report:
            found = list(client.items("endpoints", str(name), "rollbacks"))
            return Answer(value={"rollbacks": found}, show=lambda: rollbacks_show.rollbacks(found))
        query = {} if name is None else {"endpoint": str(name)}
        if days is not None:
            query["since"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        value = client.get("rollbacks", "report", query=query)
    return Answer(value=value, show=lambda: rollbacks_show.report(value))
