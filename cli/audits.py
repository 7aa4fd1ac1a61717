"""`slipway audit`: read what was done and why, and verify that nobody changed the record."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, ExitCode
from cli.target import Target


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Read and verify the audit.", no_args_is_help=True)
    command(group)(verify)
    command(group, "show")(events)
    app.add_typer(group, name="audit")


def verify(
    target: Target,
    stream: Annotated[str | None, typer.Argument(metavar="[STREAM]", help="One stream; all without it.")] = None,
) -> Answer:
    """Verify the hash chains. Exit code 1 where one is broken."""
    from cli import show  # noqa: PLC0415

    with Client(target) as client:
        found = client.get("audit", "verify", query={"stream": stream} if stream else None)
    exit_code = ExitCode.OK if found["verified"] else ExitCode.FAILED
    return Answer(value=found, show=lambda: show.verified(found), exit_code=exit_code)


def events(
    target: Target,
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="For example model:NAME or endpoint:NAME.")],
) -> Answer:
    """Show the events of a stream, in order."""
    from cli import show  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("audit", "events", query={"stream": stream}))
    return Answer(value={"stream": stream, "events": found}, show=lambda: show.events(found))
