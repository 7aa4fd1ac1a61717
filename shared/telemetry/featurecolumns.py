"""Batches of rows put together, and what a profile asks of them: columns, summaries of wide inputs, answers.

Whatever is computed of a row depends on that row alone, to the last bit: sums are of whole numbers, so that rows in any
batches give the same values. No input makes it fail: what is not there, or is no number, is missing. Loads numpy.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.telemetry import texts
from shared.telemetry.profile import MAX_COLUMNS, PROJECTIONS, Summary
from shared.telemetry.signs import signs

type Array = NDArray[Any]
type Floats = NDArray[np.float64]
type Part = tuple[Mapping[str, Array], int]
"""Inputs and outputs by name, a row a case along the first axis; and how many cases."""

TEXT_KINDS = "OSU"
MAX_TEXT = 64
"""Characters of a category; a longer text ends in its hash."""
_DIGEST_DIGITS = 16
_CHUNK_VALUES = 1_000_000
"""Of a wide input, about as many values are looked at at once."""
_ROW_STEPS = 2.0**16


class Columns:
    """The arrays of several batches, put together as they are asked for."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._sizes = [rows for _, rows in parts]
        self.rows = sum(self._sizes)
        self._tables: dict[str, Array] = {}
        self._wide: dict[str, dict[tuple[Summary, int], Floats]] = {}

    def column(self, name: str, place: int) -> Array:
        """A column of a table, shape [n]. Missing where there is none."""
        table = self.table(name)
        return table[:, place] if place < table.shape[1] else np.full(self.rows, np.nan)

    def table(self, name: str) -> Array:
        """An input or output as a table, shape [n, width of its widest batch]. Where widths differ, one row may be as
        wide as a request can be: no more columns are put together than a profile can ask for.
        """
        found = self._tables.get(name)
        if found is None:
            pieces = self._pieces(name)
            if len({piece.shape[1] for piece in pieces}) > 1:
                pieces = [piece[:, :MAX_COLUMNS] for piece in pieces]
            width = max(piece.shape[1] for piece in pieces)
            found = self._tables[name] = np.concatenate([_widened(piece, width) for piece in pieces])
        return found

    def answer(self, name: str) -> Array:
        """What was answered: the value, or the place of the greatest score. Shape [n]."""
        return np.concatenate(
            [piece[:, 0] if piece.shape[1] == 1 else piece.argmax(axis=1) for piece in self._alike(name)]
        )

    def confidence(self, name: str) -> Floats:
        """The greatest score of each row; of one score p, the greater of p and 1 - p. Shape [n]."""
        tables = [numbers_of(piece) for piece in self._alike(name)]
        return np.concatenate(
            [np.maximum(table[:, 0], 1 - table[:, 0]) if table.shape[1] == 1 else table.max(axis=1) for table in tables]
        )

    def summary(self, name: str, summary: Summary, place: int) -> Floats:
        """A summary of each row of a wide input, shape [n]. Missing where the row holds what is not finite."""
        if name not in self._wide:
            parts = [(_summaries(piece), len(piece)) for piece in self._pieces(name)]
            keys = {key for found, _ in parts for key in found}
            self._wide[name] = {
                key: np.concatenate([found.get(key, np.full(rows, np.nan)) for found, rows in parts]) for key in keys
            }
        return self._wide[name].get((summary, place), np.full(self.rows, np.nan))

    def _pieces(self, name: str) -> list[Array]:
        """The batches as tables: all in one where they are alike, as most are; one by one that takes thrice as long."""
        arrays = [arrays.get(name) for arrays, _ in self._parts]
        if [len(array) if array is not None and array.ndim else -1 for array in arrays] == self._sizes:
            try:
                whole: Array = np.concatenate(arrays)  # type: ignore[arg-type]
            except ValueError:  # the rows of two batches differ in shape
                pass
            else:
                if whole.size:
                    return [whole.reshape(self.rows, -1)]
        return [_flat(arrays.get(name), rows) for arrays, rows in self._parts]

    def _alike(self, name: str) -> list[Array]:
        """The whole table where all batches are of one width, else each batch by itself."""
        pieces = self._pieces(name)
        return [self.table(name)] if len({piece.shape[1] for piece in pieces}) == 1 else pieces


def numbers_of(values: Array) -> Floats:
    """As float64, of the same shape; what is no number is missing."""
    if values.dtype.kind in TEXT_KINDS:
        flat = np.array([_number(value) for value in values.ravel().tolist()], dtype=np.float64)
        return flat.reshape(values.shape)
    return values.astype(np.float64)


def texts_of(values: Array) -> Counter[str]:
    """How many of the values, shape [n], have which text: whole numbers without a point, bytes read as UTF-8."""
    if values.dtype.kind in "biuf":
        found, times = np.unique(values, return_counts=True)
        return _added(zip(found.tolist(), times.tolist(), strict=True))
    listed = values.tolist()
    if {type(value) for value in listed} <= {str, bytes}:
        # Told apart by value before they are made text; 1, 1.0 and True would be one value.
        return _added(Counter(listed).items())
    return Counter(_text(value) for value in listed)


def _added(pairs: Any) -> Counter[str]:  # noqa: ANN401 - pairs of any value and how often
    texts: Counter[str] = Counter()
    for value, times in pairs:
        texts[_text(value)] += times
    return texts


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text.isascii():
        # A lone surrogate has no place in JSON.
        text = text.encode("utf-8", "replace").decode()
    if len(text) <= MAX_TEXT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{text[: MAX_TEXT - _DIGEST_DIGITS - 1]}~{digest}"


def _flat(array: Array | None, rows: int) -> Array:
    """As a table, [rows, width]; a column of missing values where there is none."""
    if array is None or array.shape[:1] != (rows,) or not array.size:
        return np.full((rows, 1), np.nan)
    return array.reshape(rows, -1)


def _widened(table: Array, width: int) -> Array:
    if table.shape[1] == width:
        return table
    return np.column_stack([table, np.full((len(table), width - table.shape[1]), np.nan)])


def _summaries(table: Array) -> dict[tuple[Summary, int], Floats]:
    if table.dtype.kind in TEXT_KINDS:
        values = table[:, 0].tolist()
        projected = texts.projected(values)
        return {(Summary.LENGTH, 0): np.array([_length(value) for value in values], dtype=np.float64)} | {
            (Summary.TEXT_PROJECTION, place): projected[:, place] for place in range(PROJECTIONS)
        }
    step = max(1, _CHUNK_VALUES // table.shape[1])
    # numbers_of makes a copy, which may be written.
    parts = [_summarised(numbers_of(table[start : start + step])) for start in range(0, len(table), step)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


def _length(value: object) -> int:
    return len(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def _summarised(rows: Floats) -> dict[tuple[Summary, int], Floats]:
    """Summaries of rows of values, [n, d]. Each row is held in whole parts of its greatest value: sums of them are
    exact in any order.
    """
    is_whole = np.isfinite(rows).all(axis=1)
    if not is_whole.all():
        rows[~is_whole] = 0.0
    greatest = np.abs(rows).max(axis=1)
    steps = np.rint(rows / np.where(greatest > 0, greatest, 1.0)[:, None] * _ROW_STEPS)
    number = rows.shape[1]
    mean, square = steps.sum(axis=1) / number, np.einsum("ij,ij->i", steps, steps) / number
    projected = steps @ signs(number).T / np.sqrt(number)
    found = {
        (Summary.MEAN, 0): mean,
        (Summary.SPREAD, 0): np.sqrt(np.maximum(square - np.square(mean), 0.0)),
        (Summary.NORM, 0): np.sqrt(square),
    } | {(Summary.PROJECTION, place): projected[:, place] for place in range(PROJECTIONS)}
    with np.errstate(over="ignore"):
        return {key: np.where(is_whole, values / _ROW_STEPS * greatest, np.nan) for key, values in found.items()}
