"""`slipway report`: what validation found out about a version."""

from pathlib import Path
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
    command(app)(report)


def report(
    target: Target,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version's number.")],
    *,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report there, as a page with plots.")
    ] = None,
) -> Answer:
    """Show a version's validation report."""
    from cli import show  # noqa: PLC0415

    where = ("models", model_name(model), "versions", str(version), "report")
    with Client(target) as client:
        value = client.get(*where)
        if page is not None:
            write(page, client.text(*where, "page"))
    return Answer(value=value, show=lambda: show.report(value))


def write(target: Path, text: str) -> None:
    """Write a file. Raises InvalidInputError where it cannot be written."""
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"{target} cannot be written: {error.strerror}") from error
