"""`slipway audit`: read what was done and why, and verify that nobody changed the record or the artifacts."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, ExitCode, Json
from cli.target import Target
from shared.core.ids import model_name

_HASHING_S = 230.0
"""As long as Azure holds a request that is worked on: gigabytes are read for it."""


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Read and verify the audit.", no_args_is_help=True)
    command(group)(verify)
    command(group, "show")(events)
    command(group)(artifacts)
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


def artifacts(
    target: Target,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="One model; all without it.")] = None,
) -> Answer:
    """Hash the stored artifacts of each version anew. Exit code 1 where one is not what was registered."""
    from cli import upkeep_show as show  # noqa: PLC0415

    value: dict[str, Json] = {"versions": 0, "hashed_bytes": 0, "findings": []}
    with Client(target) as client:
        names = [model_name(model)] if model else [found["model"] for found in client.items("models")]
        for name in names:
            after: int | None = 0
            while after is not None:
                page = client.post("models", name, "artifacts", "audit", body={"after": after}, timeout_s=_HASHING_S)
                value = {key: value[key] + page[key] for key in value}
                after = page["after"]
    exit_code = ExitCode.FAILED if value["findings"] else ExitCode.OK
    return Answer(value=value, show=lambda: show.artifacts(value), exit_code=exit_code)
