"""How many cells a table may have that is read cell by cell: a CSV, or rows of JSON objects.

A text of many small cells takes some thirty times its own size once it is read. It is therefore looked through first,
by a regular expression that takes each byte once, never goes back, and stops at the first cell too many; texts with
fewer commas or colons than that, which is nearly all, are not even looked through.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from shared.core.errors import InvalidInputError

MAX_CELLS = 65_536

_CSV_CELL = r"""(?:"(?:[^"]++|"")*+"[^,\r\n]*+|[^",\r\n][^,\r\n]*+)?+"""
_CSV_BEYOND = re.compile(rf"(?:{_CSV_CELL}(?:,|[\r\n]++)){{{2 * MAX_CELLS}}}+")
"""The beginning of a CSV with more cells than are read. Twice as many, since what it takes for a cell between two line
breaks may be none: what is left is counted once it is read."""
_JSON_OTHER = rb"""[^"{:]*+(?:"(?:[^"\\]++|\\.)*+"[^"{:]*+)*+"""
_JSON_BEYOND = re.compile(rb"(?:%b[{:]){%d}+" % (_JSON_OTHER, 2 * MAX_CELLS + 1), re.DOTALL)
"""The beginning of JSON with more objects and members than that many rows of one member each."""


class TooManyCellsError(InvalidInputError):
    """A table has more cells than are read of its form."""

    def __init__(self) -> None:
        super().__init__(
            f"the table has more than {MAX_CELLS} cells: send fewer rows at a time, or an Arrow stream "
            "(application/vnd.apache.arrow.stream)"
        )


def check_csv(text: str) -> None:
    """Refuse a CSV that is not read yet. Raises TooManyCellsError."""
    if text.count(",") + text.count("\n") + text.count("\r") >= 2 * MAX_CELLS and _CSV_BEYOND.match(text):
        raise TooManyCellsError


def check_rows(text: bytes) -> None:
    """Refuse rows of JSON objects that are not read yet. Raises TooManyCellsError."""
    if text.count(b"{") + text.count(b":") > 2 * MAX_CELLS and _JSON_BEYOND.match(text):
        raise TooManyCellsError


def check(rows: Sequence[Collection[Any]]) -> None:
    """Count rows that were read. Raises TooManyCellsError."""
    if sum(map(len, rows)) > MAX_CELLS:
        raise TooManyCellsError
