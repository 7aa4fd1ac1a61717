"""`slipway bench`: benchmarks that anyone can run on their own machine, each as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.checks import REPOSITORY
from cli.command import JsonOption
from cli.outcome import Answer, CliError, ExitCode, tell

_RAN = (0, 1)
"""The exit codes of a benchmark that ran: every bar was held, or one was missed."""


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Measure the model server on this machine.", no_args_is_help=True)
    group.command()(serving)
    app.add_typer(group, name="bench")


def serving(
    *,
    full: Annotated[bool, typer.Option("--full", help="All peers, and longer: some 20 minutes.")] = False,
    write: Annotated[Path | None, typer.Option("--write", help="Put the tables into this document.")] = None,
    json_output: JsonOption = False,
) -> int:
    """The model server beside FastAPI; with --full beside MLServer, KServe, BentoML, LitServe and Triton too."""
    command = [sys.executable, "-m", "benchmarks.serving", "--full" if full else "--short", "--json"]
    if write is not None:
        command += ["--write", str(write.resolve())]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=False)
    if ended.returncode not in _RAN:
        raise CliError("the benchmark could not be run: what it said is above", ExitCode.FAILED, "failed")
    found = json.loads(ended.stdout)
    exit_code = ExitCode.FAILED if ended.returncode else ExitCode.OK
    return tell(Answer(value=found, show=lambda: print(found["tables"]), exit_code=exit_code), as_json=json_output)
