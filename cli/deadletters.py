"""`slipway dead-letters`: messages that failed for the last time, and why; put back or discarded by one command."""

import contextlib
from typing import Annotated
from uuid import uuid4

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import ConflictError, NotFoundError

_LetterArgument = Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="See messages that failed for the last time, and put them back.", no_args_is_help=True)
    command(group, "list")(letters)
    command(group)(show)
    command(group)(replay)
    command(group)(replay_all)
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


def replay_all(
    target: Target,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name, as in lifecycle-events.")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")] = "",
) -> Answer:
    """Put every message of a queue that waits back on it, once: what was wrong is mended."""
    from cli import upkeep_show  # noqa: PLC0415

    replayed = []
    with Client(target) as client:
        # Read whole before the first is put back, which moves the pages on.
        kept = list(client.items("dead-letters"))
        for letter in (found for found in kept if found["queue"] == queue):
            # Somebody else, or the app by itself, may have put it back meanwhile.
            with contextlib.suppress(ConflictError):
                replayed.append(client.post("dead-letters", letter["letter_id"], "replay", body=_body(reason)))
    if not replayed:
        others = ", ".join(sorted({found["queue"] for found in kept})) or "none"
        raise NotFoundError(f"a dead letter of the queue {queue}", hint=f"the queues with some are: {others}")
    return Answer(value={"dead_letters": replayed}, show=lambda: upkeep_show.letters(replayed))


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
