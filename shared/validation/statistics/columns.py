"""Columns of data by their names, in the two forms that statistics take: numbers as FP64, all else as text.

Loads numpy: for the sandboxed process.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from shared.drift.binning import MAX_CATEGORIES, CategoryBins, Codes, NumberBins
from shared.validation.datafile import Array

MAX_ROWS = 200_000
"""More are not looked at: a seeded sample of so many stands for them."""
MAX_TEXT = 100
"""Characters of a text that are looked at."""
_DIGEST_DIGITS = 32
_CHARACTER_BYTES = 4

type Column = NDArray[np.float64] | NDArray[np.str_]


def sample_of(rows: int, seed: int = 0) -> NDArray[np.int64] | slice:
    """Which rows to look at: all, or a sample of `MAX_ROWS` without repetition, in order."""
    if rows <= MAX_ROWS:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))


def is_number(array: Array) -> bool:
    """Whether a column holds numbers (or booleans)."""
    return array.dtype.kind in "biuf"


def as_numbers(array: Array) -> NDArray[np.float64]:
    """A column of numbers as FP64."""
    return array.astype(np.float64)


def as_text(array: Array) -> NDArray[np.str_]:
    """A column as text; missing values are empty.

    Each row takes as much memory as the longest, so that a text longer than `MAX_TEXT` ends in its hash instead.
    """
    if array.dtype.kind == "U" and array.dtype.itemsize <= MAX_TEXT * _CHARACTER_BYTES:
        return array.astype(np.str_)
    return np.array([clipped(_text(value)) for value in array.tolist()], dtype=np.str_)


def clipped(text: str, most: int = MAX_TEXT) -> str:
    """At most `most` (over 40) characters: of more, the end is a hash. Texts that differ do so when clipped."""
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
    return f"{text[: most - _DIGEST_DIGITS - 1]}~{digest}"


def parts(array: Array, most: int) -> tuple[tuple[str, ...], Codes]:
    """A column cut into parts: their names, and the part of each row, shape [n].

    Each of few different values is a part. Of more, numbers are cut into about `most` quantiles, where a frequent
    value is a part of its own, and text by its most frequent values, the others together.
    """
    if not is_number(array):
        texts = as_text(array)
        categories = CategoryBins.of(texts)
        return categories.labels, categories.codes(texts)
    values = as_numbers(array)
    different = np.unique(values[~np.isnan(values)])
    if len(different) <= MAX_CATEGORIES:
        codes = np.searchsorted(different, values).astype(np.int64)
        codes[np.isnan(values)] = len(different)
        return (*(f"{value:g}" for value in different.tolist()), "missing"), codes
    numbers = NumberBins.of(values, most)
    return numbers.labels, numbers.codes(values)


def _text(value: object) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
