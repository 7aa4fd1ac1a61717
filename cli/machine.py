"""`slipway up`, `demo` and `test`: the whole system on this machine, and the checks of this repository."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.command import JsonOption
from cli.target import state_path


class Story(StrEnum):
    """What `slipway demo` shows."""

    ROLLOUTS = "rollouts"
    DRIFT = "drift"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(up)
    app.command()(demo)
    app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(check)


def up(
    *,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where its state lies. [env: SLIPWAY_STATE_DIR]")
    ] = None,
    functions_port: Annotated[int, typer.Option("--functions-port", min=1, max=65_535)] = 7_071,
    server_port: Annotated[int, typer.Option("--server-port", min=1, max=65_535)] = 8_080,
    storage_port: Annotated[
        int, typer.Option("--storage-port", min=1, max=65_533, help="Blobs; queues and tables take the next two.")
    ] = 10_000,
    json_output: JsonOption = False,
) -> int:
    """Run the whole system on this machine until ctrl-C. Its state survives."""
    from local.system import Ports  # noqa: PLC0415
    from local.up import run  # noqa: PLC0415

    ports = Ports(
        blob=storage_port,
        queue=storage_port + 1,
        table=storage_port + 2,
        functions=functions_port,
        server=server_port,
    )
    return run(state_path(state_dir, os.environ), ports, json_output=json_output)


def demo(
    story: Annotated[
        Story,
        typer.Argument(
            metavar="[rollouts|drift]",
            help="Good models promoted and bad ones taken back, or traffic that drifts, an alert, and a request for "
            "retraining.",
        ),
    ] = Story.ROLLOUTS,
    *,
    json_output: JsonOption = False,
) -> int:
    """Show the whole job on this machine, on real data."""
    from local.demo import drift, run  # noqa: PLC0415

    return (drift.run if story is Story.DRIFT else run)(json_output=json_output)


def check(
    context: typer.Context,
    *,
    long: Annotated[bool, typer.Option("--long", help="Also the tests marked long.")] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Measure which lines the tests run; reports in htmlcov and coverage.xml.")
    ] = False,
    json_output: JsonOption = False,
) -> int:
    """Run every check: lint, format, types, import rules, tests. What follows goes to pytest."""
    from cli.checks import run  # noqa: PLC0415

    return run(context.args, long=long, coverage=coverage, json_output=json_output)
