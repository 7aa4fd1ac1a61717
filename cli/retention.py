"""`slipway retention`: see what may be cleared away, and have exactly that cleared away."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer
from cli.target import Target
from shared.core.ids import digest, model_name

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Archive old versions and delete what nobody needs.", no_args_is_help=True)
    command(group)(plan)
    command(group)(run)
    command(group)(runs)
    app.add_typer(group, name="retention")


def plan(target: Target, model: _ModelArgument) -> Answer:
    """Show what retention would do now, and what keeps each other version. Nothing is changed."""
    from cli import upkeep_show as show  # noqa: PLC0415

    with Client(target) as client:
        value = client.get("models", model_name(model), "retention", "plan")
    return Answer(value=value, show=lambda: show.retention_plan(value))


def run(
    target: Target,
    model: _ModelArgument,
    plan_id: Annotated[str, typer.Argument(metavar="PLAN", help="The id of the plan that `retention plan` showed.")],
) -> Answer:
    """Carry out a plan that was shown, or refuse where it is not what would be done now."""
    from cli import upkeep_show as show  # noqa: PLC0415

    body = {"plan_id": digest(plan_id)}
    with Client(target) as client:
        value = client.post("models", model_name(model), "retention", "run", body=body)
    return Answer(value=value, show=lambda: show.retention_run(value))


def runs(target: Target, model: _ModelArgument) -> Answer:
    """Show the runs of a model."""
    from cli import upkeep_show as show  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("models", model_name(model), "retention", "runs"))
    return Answer(value={"runs": found}, show=lambda: show.retention_runs(found))
