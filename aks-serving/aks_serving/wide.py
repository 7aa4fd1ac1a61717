"""Reads the table of numbers of a long JSON body by simdjson, in half the time of a list of Python's numbers.

The table is cut out of the body, and `[]` put in its place, for the usual decoder: that one reads what is left, and
says what may stand there. It holds of a cut that the body says the same with the table in that place:

- What is cut out begins and ends as an array does and is one, in full, so that its place is one value of the body.
- Its key stands in what is left once, as it is spelled, and nothing there may spell it by escapes: no other value
  counts under it. A text that only ends as the key does is no field that the usual decoder knows.
- It has as many arrays as rows of its width need, and nothing but numbers in them.

A number is what the usual decoder would make of it, bit for bit. One that simdjson does not take (an integer of more
than 64 bits) or that does not fit the layout's type leaves the body to the usual decoder. For one thread at a time:
where another one reads too, it is left to the usual decoder as well.
"""

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aks_serving.batches import Layout

LONG_BYTES = 2048
"""The length of a body from which this pays."""
_KEPT_BYTES = 256 * 1024
"""What a parser holds grows to 14 bytes for each of the longest table that it read, so a longer one gets its own."""
_OTHERWISE = (ValueError, TypeError, RuntimeError, FloatingPointError)
"""What simdjson and numpy raise for what is no such table. RuntimeError is for one that is nested too deep."""


class Cut(NamedTuple):
    """What was cut out of a body, as packed rows, how many, and what is left of the body."""

    packed: bytes
    rows: int
    rest: bytes


class Cutter:
    """Cuts the table of a layout out of bodies that have it under one key."""

    __slots__ = ("_flat", "_keys", "_opening", "_single", "_width")

    def __init__(self, layout: Layout, key: str, *, flat: bool) -> None:
        """`layout` is of float32 or float64. `flat`: the numbers of all rows stand in one array."""
        name = re.escape(key.encode())
        self._opening = re.compile(rb'"%b":[ \t\n\r]*\[' % name).search
        # Escapes of ASCII letters are \u004. to \u007.: what might spell the key.
        self._keys = re.compile(rb'"%b"[ \t\n\r]*:|\\u00[4-7]' % name).findall
        self._flat = flat
        self._single = layout.dtype == np.float32
        self._width = layout.width

    def cut(self, body: bytes) -> Cut | None:
        """None where the body is for the usual decoder."""
        opening = self._opening(body)
        if opening is None:
            return None
        start = opening.end() - 1
        end = (body.find(b"]", start) if self._flat else body.rfind(b"]")) + 1
        rest = b"%b[]%b" % (body[:start], body[end:])
        if len(self._keys(rest)) != 1:
            return None
        try:
            packed, rows = self._read(body[start:end])
        except _OTHERWISE:
            return None
        return Cut(packed, rows, rest)

    def _read(self, table: bytes) -> tuple[bytes, int]:
        """Raises what is in _OTHERWISE."""
        parser = _parser()
        if len(table) > _KEPT_BYTES:
            parser = type(parser)()
        array = parser.parse(table)
        numbers = np.frombuffer(array.as_buffer(of_type="d"), np.float64)  # of arrays in it too, one after the other
        if self._flat:  # and it is: its only closing bracket is its last byte
            rows, beside = divmod(len(numbers), self._width)
            if beside:
                raise ValueError
        else:
            rows = len(array)
            if len(numbers) != rows * self._width:
                raise ValueError
            if rows == 1:  # of two opening brackets; counting them takes longer
                if table.find(b"[", 1) != table.rfind(b"["):
                    raise ValueError
            elif set(map(len, array)) != {self._width} or table.count(b"[") != rows + 1:
                raise ValueError
        return (_float32(numbers) if self._single else numbers).tobytes(), rows


@np.errstate(over="raise")
def _float32(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Raises FloatingPointError where one is too large."""
    return numbers.astype(np.float32)


@cache
def _parser() -> Any:  # noqa: ANN401 - a simdjson.Parser
    """Made where a long body first comes: the library takes some memory."""
    import simdjson  # noqa: PLC0415 - as above

    return simdjson.Parser()
