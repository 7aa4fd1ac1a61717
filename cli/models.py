"""`slipway models`, `status` and `predict`: what there is, how it stands, and what it answers."""

import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, CliError, ExitCode, Json
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name

STRAY = "-"
"""Under this name the admin API lists drops that lie where no model's name stands."""

_WATCH_S = 1.0
_EXAMPLE = "metrics.accuracy >= 0.9 and tags.team = 'fraud'"
_MAX_FEATURES_BYTES = 64 * 1024 * 1024

_ModelArgument = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A model's name; all without it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app)(models)
    command(app)(status)
    command(app)(predict)


def models(
    target: Target,
    model: _ModelArgument = None,
    *,
    matching: Annotated[
        str | None,
        typer.Option("--filter", metavar="FILTER", help="Of MODEL's versions those that match, as in: " + _EXAMPLE),
    ] = None,
) -> Answer:
    """List the models, or one model's versions."""
    from cli import show  # noqa: PLC0415

    if matching is not None and model is None:
        raise InvalidInputError("--filter looks among the versions of one model: name the model")
    with Client(target) as client:
        if model is None:
            found: Json = {"models": list(client.items("models"))}
            return Answer(value=found, show=lambda: show.models(found["models"]))
        name = model_name(model)
        query = None if matching is None else {"filter": matching}
        value = {**client.get("models", name), "versions": list(client.items("models", name, "versions", query=query))}
    return Answer(value=value, show=lambda: show.versions(value))


def status(
    target: Target,
    model: _ModelArgument = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again until ctrl-C.")] = False,
) -> Answer:
    """Show versions, drops that wait or were refused, the endpoint, and its rollout with what the gates found."""
    from cli import show, shown  # noqa: PLC0415

    name = None if model is None else model_name(model)
    with Client(target) as client:
        if watch:
            show.live((_status(client, name) for _ in _every(_WATCH_S)), show.status)
        value = _status(client, name)
    return Answer(value=value, show=lambda: shown.print_one(show.status(value)))


def predict(
    target: Target,
    model: Annotated[str, typer.Argument(help="The model's name.")],
    features: Annotated[
        str, typer.Option("--features", "-f", metavar="JSON|@FILE|-", help="The model's input; - reads standard input.")
    ],
    *,
    user: Annotated[
        str | None, typer.Option("--user", help="Whose request it is: the same user, the same version.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Ask this version.")] = None,
) -> Answer:
    """Ask a model for a prediction."""
    from cli import show  # noqa: PLC0415

    body: dict[str, Json] = {"model": model_name(model), "features": read_json(features, "the features")}
    if user is not None:
        body["user_id"] = user
    if version is not None:
        body["model_version"] = version
    with Client(target) as client:
        value = client.predict(body)
    return Answer(value=value, show=lambda: show.prediction(value))


def read_json(text: str, what: str, *, stdin: TextIO | None = None) -> Json:
    """JSON given as it is, as @FILE, or as - for standard input (`stdin`, else the process's own).

    Raises InvalidInputError.
    """
    try:
        if text == "-":
            text = (stdin or sys.stdin).read(_MAX_FEATURES_BYTES)
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        return json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise InvalidInputError(f"{text[1:]} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what} are not text in UTF-8: give JSON") from error
    except RecursionError as error:
        raise InvalidInputError(f"{what} are nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{what} are not JSON ({error}): give JSON, @FILE or -") from error


def _refuse_constant(name: str) -> Json:
    raise InvalidInputError(f"{name} is not JSON: use null where a value is missing, if the model takes it")


def _status(client: Client, model: str | None) -> Json:
    if model is None:
        return {
            "models": [_status_of(client, found["model"]) for found in client.items("models")],
            "refused_drops": _drops(client, STRAY)["refused"],
        }
    return _status_of(client, model)


def _status_of(client: Client, model: str) -> Json:
    versions: list[Json] = []
    drops = _drops(client, model)
    try:
        versions = list(client.items("models", model, "versions"))
    except CliError as error:
        # A model whose only drops wait or were refused does not exist, and its drops are what the user looks for.
        if not any(drops.values()) or error.exit_code is not ExitCode.NOT_FOUND:
            raise
    return {
        "model": model,
        "versions": versions,
        "waiting_drops": drops["waiting"],
        "refused_drops": drops["refused"],
        "endpoint": _endpoint(client, model),
    }


def _drops(client: Client, model: str) -> dict[str, list[Json]]:
    """The drops that did not become versions, by their state."""
    found = list(client.items("models", model, "drops"))
    return {state: [drop for drop in found if drop["state"] == state] for state in ("waiting", "refused")}


def _endpoint(client: Client, model: str) -> Json:
    try:
        return client.get("endpoints", model)
    except CliError as error:
        if error.exit_code is ExitCode.NOT_FOUND:
            return None
        raise


def _every(seconds: float) -> Generator[None]:
    while True:
        yield None
        time.sleep(seconds)
