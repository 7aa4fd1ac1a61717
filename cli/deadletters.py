"""`slipway dead-letters`: messages that failed for the last time, and why; put back or discarded by one command."""

from typing import Annotated
from uuid import uuid4

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target

_LetterArgument = Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="See messages that failed for the last time, and put them back.", no_args_is_help=True)
    command(group, "list")(letters)
    command(group)(show)
    command(group)(replay)
    command(group)(discard)
    app.add_typer(group, name="dead-letters")


def letters(
    target: Target,
    *,
    state: Annotated[
        str, typer.Option("--state", help="Those that are failing, kept, replayed, settled or discarded.")
    ] = "kept",
) -> Answer:
    """List the dead letters that wait."""
    from cli import upkeep_show  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("dead-letters", query={"state": state}))
    return Answer(value={"dead_letters": found}, show=lambda: upkeep_show.letters(found))


def show(target: Target, letter: _LetterArgument) -> Answer:
    """Show one dead letter with its body."""
    with Client(target) as client:
        return _answer(client.get("dead-letters", letter))


def replay(
    target: Target,
    letter: _LetterArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")] = "",
) -> Answer:
    """Put a message back on its queue, once."""
    with Client(target) as client:
        return _answer(client.post("dead-letters", letter, "replay", body=_body(reason)))


def discard(
    target: Target,
    letter: _LetterArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why it is not wanted any more; it goes into the audit.")],
) -> Answer:
    """Note that a message is not wanted any more."""
    with Client(target) as client:
        return _answer(client.post("dead-letters", letter, "discard", body=_body(reason)))


def _body(reason: str) -> dict[str, Json]:
    # The id makes a command that is sent twice, after a lost answer, one command.
    return {"command_id": str(uuid4()), "reason": reason}


def _answer(found: Json) -> Answer:
    from cli import upkeep_show  # noqa: PLC0415

    return Answer(value=found, show=lambda: upkeep_show.letter(found))
