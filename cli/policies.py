"""`slipway policy`: see and set what a model's versions must show, and how they are rolled out."""

import json
from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.models import read_json
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="See and set a model's policy.", no_args_is_help=True)
    command(group)(show)
    command(group, "set")(put)
    app.add_typer(group, name="policy")


def show(target: Target, model: _ModelArgument) -> Answer:
    """Show a model's policy, as `policy set` takes it."""
    with Client(target) as client:
        return _answer(client.get("models", model_name(model))["policy"])


def put(
    target: Target,
    model: _ModelArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSON file; - reads standard input.")],
) -> Answer:
    """Set a model's policy, whole: what the file leaves out takes its default."""
    name = model_name(model)
    policy = read_json(file if file == "-" else f"@{file}", f"the contents of {file}")
    if not isinstance(policy, dict):
        raise InvalidInputError(f"{file} holds no JSON object: use the form that `slipway policy show` gives")
    with Client(target) as client:
        return _answer(client.put("models", name, "policy", body=policy)["policy"])


def _answer(policy: Json) -> Answer:
    return Answer(value=policy, show=lambda: print(json.dumps(policy, indent=2)))
