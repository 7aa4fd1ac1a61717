"""What all commands share: the options that say which system is meant, `--json`, and the way to answer.

A command is written as a function of a Target and its own parameters that returns an Answer. `command` gives it the
shared options and has its answer told.
"""

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Concatenate

import typer

from cli.outcome import JSON_OPTION, Answer, CliError, ExitCode, Following, tell
from cli.target import Target

_UrlOption = Annotated[str | None, typer.Option("--url", help="The functions app. [env: SLIPWAY_URL]")]
_ServerUrlOption = Annotated[
    str | None, typer.Option("--server-url", help="The model server. [env: SLIPWAY_SERVER_URL]")
]
_KeyOption = Annotated[str | None, typer.Option("--key", help="The functions app's key. [env: SLIPWAY_KEY]")]
_StorageOption = Annotated[
    str | None, typer.Option("--storage", help="Storage: connection string or blob URL. [env: SLIPWAY_STORAGE]")
]
JsonOption = Annotated[bool, typer.Option(JSON_OPTION, help="Answer with one JSON value.")]

_SHARED: dict[str, Any] = {
    "url": _UrlOption,
    "server_url": _ServerUrlOption,
    "key": _KeyOption,
    "storage": _StorageOption,
}


def command[**P](
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[Concatenate[Target, P], Answer | Following]], None]:
    """Register a function as a command of `app`."""

    def register(function: Callable[Concatenate[Target, P], Answer | Following]) -> None:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(*, json_output: bool, **values: Any) -> int:  # noqa: ANN401 - of the types that are declared below
            if json_output and values.get("watch"):
                raise CliError("--watch shows without end, --json gives one value: use one", ExitCode.USAGE, "usage")
            shared = {option: values.pop(option) for option in _SHARED}
            # typer passes by keyword what inspect.signature below shows.
            answer = function(Target(environment=os.environ, as_json=json_output, **shared), **values)  # type: ignore[call-arg]
            return tell(answer, as_json=json_output)

        parameters = [
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(_option(option, annotation, default=None) for option, annotation in _SHARED.items()),
            _option("json_output", JsonOption, default=False),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        run.__name__ = getattr(function, "__name__", "command")
        app.command(name)(run)

    return register


def _option(name: str, annotation: Any, *, default: bool | None) -> inspect.Parameter:  # noqa: ANN401 - an annotation
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
