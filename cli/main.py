"""The `slipway` command. Foreseeable trouble ends in one sentence and an exit code, never in a traceback."""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # The imports take half a second, in which ctrl-C finds nothing to tidy: it ends the process, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from cli import (
    alerts,
    aliases,
    approvals,
    audits,
    bench,
    deadletters,
    deploy,
    drift,
    explain,
    machine,
    models,
    override,
    plans,
    policies,
    push,
    quarantine,
    reports,
    retention,
    rollbacks,
    rollouts,
    sign,
    validate,
    versions,
)
from cli.outcome import JSON_OPTION, CliError, ExitCode, tell_error
from shared.core.errors import SlipwayError

_EPILOG = (
    "Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 not reachable; 4 not found; 5 conflict; "
    "6 the rollout that was watched was taken back; 130 interrupted."
)


def build_app() -> typer.Typer:
    """The app with all its commands."""
    app = typer.Typer(
        name="slipway",
        help="Puts ONNX models into production: registers, validates, rolls out step by step, takes back by itself.",
        epilog=_EPILOG,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in (
        validate,
        reports,
        sign,
        push,
        models,
        versions,
        aliases,
        rollouts,
        approvals,
        quarantine,
        rollbacks,
        plans,
        policies,
        retention,
        deadletters,
        alerts,
        drift,
        audits,
        explain,
        override,
        machine,
        deploy,
        bench,
    ):
        module.register(app)
    app.callback()(_options)
    return app


def _tell_version(is_asked: bool) -> None:  # noqa: FBT001 - the option as it was given
    if is_asked:
        print(f"slipway {version('slipway')}")
        raise typer.Exit


def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@cache
def _command() -> Callable[..., Any]:
    """Of the app, which takes longer to put together than most command lines to run."""
    return typer.main.get_command(build_app())


def run(arguments: Sequence[str]) -> int:
    """Run a command line, and return its exit code."""
    as_json = JSON_OPTION in arguments
    try:
        code = _command()(list(arguments), prog_name="slipway", standalone_mode=False)
    except typer.TyperException as error:
        return _wrong_usage(error, as_json=as_json)
    except SlipwayError as error:
        return tell_error(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        print("slipway: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return int(code or ExitCode.OK)


def main() -> NoReturn:
    """The console script's entry."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away, as `head` does. Standard output is closed under us: nothing may flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _wrong_usage(error: typer.TyperException, *, as_json: bool) -> int:
    """Tell what is wrong with a command line, and return the exit code. One that breaks off gets the help page."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is not None and message == context.get_help() and not as_json:
        print(message, file=sys.stderr)
        return ExitCode.USAGE
    if context is not None:
        message = f"{message.rstrip('.')}: see `{context.command_path} --help`"
    return tell_error(CliError(message, ExitCode.USAGE, "usage"), as_json=as_json)


if __name__ == "__main__":
    main()
