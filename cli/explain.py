"""`slipway explain`: where a prediction came from, by the id that its answer carried."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, ExitCode
from cli.target import Target
from shared.core.errors import InvalidInputError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app)(explain)


def explain(
    target: Target,
    prediction_id: Annotated[
        str, typer.Argument(metavar="PREDICTION_ID", help="What an answer says as prediction_id, or in its header.")
    ],
) -> Answer:
    """Show what answered a prediction, and why. Exit code 1 where the audit behind it does not verify."""
    from cli import explain_show  # noqa: PLC0415

    if not prediction_id:
        raise InvalidInputError(
            "no prediction id is given: give what an answer says as prediction_id, or in its header"
        )
    with Client(target) as client:
        found = client.get("predictions", prediction_id)
    exit_code = ExitCode.OK if found["audit"]["verified"] else ExitCode.FAILED
    return Answer(value=found, show=lambda: explain_show.lineage(found), exit_code=exit_code)
