"""The pieces of which everything that is shown to a person is made: tables, states, shares, times."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
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
FREE = {
    "",
    "because",
    "by",
    "data",
    "matches",
    "metrics",
    "aliases",
    "reason",
    "waits for",
    "what it is",
    "what was found",
    "why",
    "why not",
    "why now",
}
"""The columns of what people say, and of lists."""
_LEAST_FREE = 20
_WORD = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*"
    r"|[\u2e80-\uffef]"
    r"|[^\s\u2e80-\uffef]+(?: (?:%|ms|s|min|h|B|kB|MB|GB)(?!\w)\S*)?"
)
"""What is never broken: a word, an instant, a figure and its unit. Chinese, Japanese and Korean break anywhere."""
_GAP = "  "
_SHORT_S = 10
_LONG_S = 120
_VERY_LONG_S = 7_200


def print_one(renderable: RenderableType, console: Console | None = None) -> None:
    """Print one thing. A word that is longer than a line, as an id may be, is left whole, for who copies it; in what is
    shown in place, where each line must be counted, it is broken at the line's end.
    """
    (console or Console()).print(renderable, no_wrap=True, overflow="ignore", crop=False)


def group(parts: Iterable[RenderableType]) -> RenderableType:
    """One beneath the other."""
    return Group(*(Paragraph(part) if isinstance(part, Text) else part for part in parts))


class Paragraph:
    """A text that is wrapped between its words, and nowhere else."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        yield from _line([self._text], [options.max_width])


class Table:
    """Rows under headings, of which columns in FREE hold what people say; any other is of ids, times and numbers.

    The latter are never broken. Where they leave too little room for what people say, each row is told as lines.
    """

    def __init__(self, *columns: str, title: str | None = None) -> None:
        self._columns = columns
        self._title = title
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row, a cell a column."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        if self._title:
            yield Paragraph(Text(self._title, "italic"))
        widths = self._widths(options.max_width)
        if widths is not None:
            yield from _line([Text(column, "dim") for column in self._columns], widths)
            for row in self._rows:
                yield from _line(row, widths)
            return
        for index, row in enumerate(self._rows):
            if index:
                yield Text("")
            yield Fields(list(zip(self._columns, row, strict=True)))

    def _widths(self, room: int) -> list[int] | None:
        """How wide each column is; None where there is no room for a table."""
        cells = list(zip(*([Text(column) for column in self._columns], *self._rows), strict=True))
        natural = [max(_widest(cell.plain.splitlines()) for cell in column) for column in cells]
        widths = list(natural)
        for number, (name, column) in enumerate(zip(self._columns, cells, strict=True)):
            if name in FREE:
                word = max(_widest(_WORD.findall(cell.plain)) for cell in column)
                widths[number] = min(natural[number], max(_LEAST_FREE, word))
        left = room - sum(widths) - len(_GAP) * (len(widths) - 1)
        for number in reversed(range(len(widths))):
            more = min(natural[number] - widths[number], max(left, 0))
            widths[number] += more
            left -= more
        return widths if left >= 0 else None


class Fields:
    """Labels, each with what is said of it beside it."""

    def __init__(self, fields: Sequence[tuple[str, Text]]) -> None:
        self._fields = fields

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines. One that says nothing is left out."""
        indent = _widest([label for label, _ in self._fields])
        for label, said in self._fields:
            if said.plain not in {"", "-"}:
                room = max(options.max_width - indent - len(_GAP), 1)
                yield from _line([Text(label, "dim"), said], [indent, room])


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
    """The lines that a row takes."""
    for parts in zip_longest(*map(_wrapped, cells, widths)):
        line, start = Text(), 0
        for part, width in zip(parts, widths, strict=True):
            line.append(" " * (start - line.cell_len))
            if part is not None:
                line.append_text(part)
            start += width + len(_GAP)
        line.rstrip()
        yield line


def _wrapped(text: Text, width: int) -> list[Text]:
    """Its lines. A word that is wider has a line of its own."""
    lines = []
    for paragraph in text.split("\n", allow_blank=True):
        breaks, start = [], 0
        for word in _WORD.finditer(paragraph.plain):
            if start < word.start() and cell_len(paragraph.plain[start : word.end()]) > width:
                start = word.start()
                breaks.append(start)
        lines += list(paragraph.divide(breaks))
    for line in lines:
        line.rstrip()
    return lines


def _widest(texts: Sequence[str]) -> int:
    return max((cell_len(text) for text in texts), default=0)


def verdicts(found: list[Json]) -> Table:
    """Verdicts in their sentences."""
    made = Table("check", "outcome", "what was found")
    for verdict in found:
        made.add_row(verdict["check"], outcome(verdict), verdict["sentence"])
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
