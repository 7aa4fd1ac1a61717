"""`slipway drift`: whether what serving versions are asked and answer is still what they were made for."""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import Client, told
from cli.command import command
from cli.outcome import Answer, Json
from cli.reports import write
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name

_REPORT_S = 300.0


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app)(drift)


def drift(
    target: Target,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Show all reports from then on, as in 2026-11-21T08:00:00Z.")
    ] = "",
    now: Annotated[bool, typer.Option("--now", help="Make a report of each serving version first.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write the stable version's latest report there, as a page."),
    ] = None,
) -> Answer:
    """Show the drift reports of the versions that serve, and what was asked for because of them."""
    from cli import drift_show  # noqa: PLC0415

    if since and now:
        raise InvalidInputError("--now makes a report as of now, and --since shows those before: give one of them")
    name = model_name(model)
    with Client(target) as client:
        if now:
            reports = client.post("models", name, "drift", body={}, timeout_s=_REPORT_S)["items"]
        else:
            query = {"since": since} if since else None
            reports = told(client.get("models", name, "drift", query=query))
        requests = list(client.items("models", name, "retraining"))
        if page is not None:
            write(page, client.text("models", name, "drift", _shown(reports), "page"))
    value = {"reports": reports, "retraining": requests}
    return Answer(value=value, show=lambda: drift_show.drift(value, root=target.functions_url))


def _shown(reports: list[Json]) -> str:
    """The id of the report whose page is wanted."""
    found = [report for report in reports if report["report_id"]]
    found = [report for report in found if report["role"] == "stable"] or found
    if not found:
        raise InvalidInputError("there is no report yet: make one with --now")
    return str(found[-1]["report_id"])
