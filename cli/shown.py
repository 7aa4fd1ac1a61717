"""The pieces of which everything that is shown to a person is made: tables, states, shares, times."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.outcome import Json

COLOURS = {
    "pass": "green",
    "validated": "green",
    "promoted": "green",
    "concluded": "green",
    "registered": "cyan",
    "validating": "cyan",
    "waiting": "yellow",
    "archived": "dim",
    "loading": "cyan",
    "progressing": "cyan",
    "watching": "cyan",
    "awaiting": "yellow",
    "paused": "yellow",
    "held": "yellow",
    "inconclusive": "yellow",
    "aborted": "yellow",
    "fail": "red",
    "error": "red",
    "rejected": "red",
    "refused": "red",
    "rolled_back": "red",
}
_SHORT_S = 10
_LONG_S = 120
_VERY_LONG_S = 7_200


def print_one(renderable: RenderableType) -> None:
    """Print one thing."""
    Console().print(renderable)


def table(*columns: str, title: str | None = None, whole: Sequence[str] = ()) -> Table:
    """An empty table. The columns in `whole`, of names and ids, are the last to give way where there is little room."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in whole)
    return made


def name(text: str) -> Text:
    """A name or an id, for a column that is `whole`: where even that is too narrow, it is folded and not cut."""
    return Text(text, overflow="fold", no_wrap=False)


def verdicts(found: list[Json]) -> Table:
    """Verdicts in their sentences."""
    made = table("check", "outcome", "what was found")
    for verdict in found:
        made.add_row(escape(verdict["check"]), outcome(verdict), escape(verdict["sentence"]))
    return made


def outcome(verdict: Json) -> Text:
    """A verdict's outcome."""
    shown = state(verdict["outcome"])
    return shown + " (advice)" if verdict.get("advisory") else shown


def state(text: str) -> Text:
    """A state or an outcome in its colour."""
    return Text(text, COLOURS.get(text, ""))


def number(value: int | None) -> str:
    """A whole number."""
    return "-" if value is None else str(value)


def share(weight_bp: int) -> str:
    """A share of the traffic."""
    return f"{weight_bp / 100:g} %"


def time(text: str | None) -> str:
    """An instant, to the second, in UTC as the API gives it."""
    return "-" if not text else text[:19].replace("T", " ")


def duration(seconds: float | None) -> str:
    """A time span, as people say it."""
    if seconds is None:
        return "-"
    if seconds < _SHORT_S:
        return f"{seconds:.1f} s"
    if seconds < _LONG_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _VERY_LONG_S else f"{seconds / 3_600:.1f} h"
