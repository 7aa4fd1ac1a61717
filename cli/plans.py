"""`slipway plan`: the route plan that an endpoint calls for, and its publication anew where storage holds another."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.ids import model_name

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="See a model's route plan, and have it published again.", no_args_is_help=True)
    for function in (show, republish):
        command(group)(function)
    app.add_typer(group, name="plan")


def show(target: Target, model: _ModelArgument) -> Answer:
    """Show the route plan that the model's endpoint calls for: which version is to get what."""
    with Client(target) as client:
        value = client.get("endpoints", model_name(model), "plan")
    return Answer(value=value, show=lambda: _plan(value))


def republish(
    target: Target,
    model: _ModelArgument,
    *,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who you are; it goes into the audit.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")],
) -> Answer:
    """Publish the plan anew where storage or pods hold another, as after a restore; else change nothing."""
    body = {"by": by, "reason": reason}
    with Client(target) as client:
        value = client.post("endpoints", model_name(model), "plan", "republish", body=body)
    return Answer(value=value, show=lambda: print(_republished(value)))


def _plan(value: Json) -> None:
    from cli.shown import Table, print_one  # noqa: PLC0415

    shown = Table("version", "role", "share", "copies", "pods")
    for route in value["routes"]:
        shares = (f"{route[field] / 100:g} %" for field in ("weight_bp", "mirror_bp"))
        shown.add_row(str(route["version"]), route["role"], *shares, route.get("slot") or "shared")
    print(f"generation {value['generation']} of {value['endpoint']}")
    print_one(shown)


def _republished(value: Json) -> str:
    held = "nothing" if value["stored"] is None else f"generation {value['stored']}"
    had = "none reports" if value["reported"] is None else f"had generation {value['reported']}"
    if not value["published"]:
        return f"the plan of {value['endpoint']} is in force under generation {value['generation']}: nothing was done"
    return (
        f"the plan of {value['endpoint']} is published under generation {value['generation']}; storage held {held}, "
        f"of pods {had}"
    )
