"""`slipway alerts`: what somebody should look at; who has seen it, and what is not to be told for a while."""

import getpass
import re
from typing import Annotated
from uuid import uuid4

import typer
from typer._click import Context
from typer.core import TyperGroup

from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import InvalidInputError

_AlertArgument = Annotated[str, typer.Argument(metavar="ID", help="The alert's id.")]
_SilenceArgument = Annotated[str, typer.Argument(metavar="ID", help="The silence's id.")]
_ByOption = Annotated[str, typer.Option("--by", help="Who says so; without it, who is logged in here.")]
_ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")]

_SPAN = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


class _ListsByDefault(TyperGroup):
    """`slipway alerts` alone lists, as does `slipway alerts --all`."""

    meant = "list"
    """The command that is meant where none is named."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put the command in that is meant."""
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_named else [self.meant, *args])


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(cls=_ListsByDefault, help="See what somebody should look at; acknowledge and silence it.")
    command(group, "list")(alerts)
    command(group)(show)
    command(group)(acknowledge)
    command(group)(silence)
    command(group)(silences)
    command(group)(expire_silence)
    app.add_typer(group, name="alerts")


def alerts(
    target: Target,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that are pending or resolved, too.")] = False,
) -> Answer:
    """List the alerts that fire."""
    from cli import alerts_show  # noqa: PLC0415

    with Client(target) as client:
        found = list(client.items("alerts", query=None if everything else {"state": "firing"}))
    return Answer(value={"alerts": found}, show=lambda: alerts_show.alerts(found))


def show(target: Target, alert: _AlertArgument) -> Answer:
    """Show one alert with its evidence."""
    with Client(target) as client:
        return _of_alert(client.get("alerts", alert))


def acknowledge(target: Target, alert: _AlertArgument, *, by: _ByOption = "", reason: _ReasonOption = "") -> Answer:
    """Say that you have seen an alert: it is not repeated until it changes."""
    body = {"command_id": str(uuid4()), "by": by or getpass.getuser(), "reason": reason}
    with Client(target) as client:
        return _of_alert(client.post("alerts", alert, "acknowledge", body=body))


def silence(
    target: Target,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")],
    lasts: Annotated[str, typer.Option("--for", help="For how long, as in 30m, 2h or 1d.")],
    rule: Annotated[str, typer.Option("--rule", help="Alerts of this rule alone; * stands for any text.")] = "",
    model: Annotated[str, typer.Option("--model", help="Alerts on this model alone; likewise.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Alerts about this alone; likewise.")] = "",
    by: _ByOption = "",
) -> Answer:
    """Keep sinks from being told of some alerts for a while. They fire and are listed all the same."""
    if not (rule or model or subject):
        raise InvalidInputError(
            "nothing says which alerts: give --rule, --model or --subject, each of which may hold *"
        )
    body = {
        "command_id": str(uuid4()),
        "rule": rule,
        "model": model,
        "subject": subject,
        "by": by or getpass.getuser(),
        "reason": reason,
        "for_s": _seconds(lasts),
    }
    with Client(target) as client:
        return _of_silences([client.post("silences", body=body)], one=True)


def silences(target: Target) -> Answer:
    """List the silences in force, and those to come."""
    with Client(target) as client:
        return _of_silences(list(client.items("silences")))


def expire_silence(
    target: Target, silence_id: _SilenceArgument, *, by: _ByOption = "", reason: _ReasonOption = ""
) -> Answer:
    """End a silence before its time."""
    body = {"command_id": str(uuid4()), "by": by or getpass.getuser(), "reason": reason}
    with Client(target) as client:
        return _of_silences([client.post("silences", silence_id, "expire", body=body)], one=True)


def _seconds(span: str) -> int:
    found = _SPAN.fullmatch(span)
    if found is None:
        raise InvalidInputError(f"{span[:40]!r} is no span of time: use a number and m, h or d, as in 30m, 2h or 1d")
    return int(found[1]) * _SECONDS[found[2]]


def _of_alert(found: Json) -> Answer:
    from cli import alerts_show  # noqa: PLC0415

    return Answer(value=found, show=lambda: alerts_show.alert(found))


def _of_silences(found: list[Json], *, one: bool = False) -> Answer:
    from cli import alerts_show  # noqa: PLC0415

    return Answer(value=found[0] if one else {"silences": found}, show=lambda: alerts_show.silences(found))
