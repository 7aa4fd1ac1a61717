"""Inputs to try a model with: rows of the data, rows that are made up, and rows that nobody expects.

All functions are deterministic. Loads numpy: for the sandboxed process.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shared.core.errors import InvalidInputError
from shared.registry.signature import Signature, TensorSpec
from shared.validation.datafile import Array
from shared.validation.model import NUMPY_TYPE, Rows

_MAX_MADE_UP_VALUES = 32_000_000
_LONG_TEXT = 10_000
_OUTLIER = 30.0
"""How many times greater than all others the numbers of an outlier are."""
_EXTREME_REALS = (1e30, -1e30, 0.0)
_EXTREME_TEXTS = ("", "x" * _LONG_TEXT, "\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}\u202e ")


class NoInputsError(InvalidInputError):
    """The model's signature does not say what an input could be."""


def spread_at(rows: int, wanted: int) -> NDArray[np.int64]:
    """The positions of `wanted` rows spread evenly over the data, ascending; rows come again where there are fewer."""
    at = np.unique(np.linspace(0, rows - 1, min(rows, wanted)).round().astype(np.int64))
    return np.sort(np.resize(at, wanted))


def spread_rows(data: Rows, rows: int, wanted: int) -> dict[str, Array]:
    """The rows at `spread_at`."""
    at = spread_at(rows, wanted)
    return {name: array[at] for name, array in data.items()}


def made_up_rows(signature: Signature, rows: int = 1) -> dict[str, Array]:
    """Small plain values: ramps from -1 to 1, or zeros and ones, which are also safe as indices.

    A graph that fixes its number of rows gets that many. Raises NoInputsError where a shape leaves too much open.
    """
    return {spec.name: _made_up(spec, rows) for spec in signature.inputs}


def with_nan(base: Rows, rows: int) -> dict[str, Array] | None:
    """The rows with NaN for real numbers: in the first row all of them, in the others one each. None without any."""
    return _with_real(base, rows, (math.nan,))


def with_infinity(base: Rows, rows: int) -> dict[str, Array] | None:
    """The rows with infinities: the first row positive, the second negative, the others have one each."""
    return _with_real(base, rows, (math.inf, -math.inf))


def with_outlier(base: Rows) -> dict[str, Array] | None:
    """The rows, the last with real numbers far greater than all others', of either sign in turn. None without any.

    No greater than the type holds: nothing but the magnitude is unusual about it.
    """
    if not any(array.dtype.kind == "f" for array in base.values()):
        return None
    return {name: _beside(array) if array.dtype.kind == "f" else array for name, array in base.items()}


def extremes(base: Rows) -> Iterator[tuple[str, dict[str, Array]]]:
    """The rows with every value replaced by an extreme one of its type, and what it is in words, one after the other.

    Reals: the largest, the smallest, 1e30, -1e30, 0. Whole numbers: the largest, the smallest, -1. Text: empty, very
    long, unusual characters. Inputs of the other types stay as they are.
    """
    kinds = {array.dtype.kind for array in base.values()}
    if "f" in kinds:
        for which in ("the largest real numbers", "the smallest real numbers", *(f"{v:g}" for v in _EXTREME_REALS)):
            yield which, {name: _real(array, which) for name, array in base.items()}
    if kinds & set("iu"):
        for which in ("the largest whole numbers", "the smallest whole numbers", "-1"):
            yield which, {name: _whole(array, which) for name, array in base.items()}
    if "O" in kinds:
        for which, text in zip(
            ("empty text", f"text of {_LONG_TEXT} characters", "unusual characters"), _EXTREME_TEXTS, strict=True
        ):
            yield which, {name: _text(array, text) for name, array in base.items()}


def no_rows(base: Rows) -> dict[str, Array]:
    """A batch of no rows."""
    return {name: array[:0] for name, array in base.items()}


def _with_real(base: Rows, rows: int, values: tuple[float, ...]) -> dict[str, Array] | None:
    if not any(array.dtype.kind == "f" for array in base.values()):
        return None
    changed = {}
    for name, array in base.items():
        if array.dtype.kind != "f":
            changed[name] = array
            continue
        flat = array.copy().reshape(rows, -1)
        for row in range(rows):
            value = values[row % len(values)]
            if row < len(values):
                flat[row] = value
            elif flat.size:
                flat[row, row % flat.shape[1]] = value
        changed[name] = flat.reshape(array.shape)
    return changed


def _beside(array: Array) -> Array:
    changed = array.copy()
    last = changed[-1:].reshape(-1)
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    with np.errstate(over="ignore"):
        greatest = min(_OUTLIER * max(1.0, float(finite.max(initial=0.0))), float(np.finfo(str(array.dtype)).max))
    last[:] = np.where(np.arange(last.size) % 2, -greatest, greatest)
    changed[-1] = last.reshape(array.shape[1:])
    return changed


def _real(array: Array, which: str) -> Array:
    if array.dtype.kind != "f":
        return array
    limits = np.finfo(str(array.dtype))
    named = {"the largest real numbers": limits.max, "the smallest real numbers": limits.min}
    value = named[which] if which in named else np.clip(float(which), limits.min, limits.max)
    return np.full_like(array, value)


def _whole(array: Array, which: str) -> Array:
    if array.dtype.kind not in "iu":
        return array
    limits = np.iinfo(str(array.dtype))
    named = {"the largest whole numbers": limits.max, "the smallest whole numbers": limits.min}
    return np.full_like(array, named.get(which, max(-1, limits.min)))


def _text(array: Array, text: str) -> Array:
    if array.dtype.kind != "O":
        return array
    changed = np.empty(array.shape, dtype=object)
    changed[...] = text
    return changed


def _made_up(spec: TensorSpec, rows: int) -> Array:
    shape = tuple(rows if position == 0 and size < 0 else size for position, size in enumerate(spec.shape))
    count = math.prod(shape)
    if min(shape, default=1) < 0 or count > _MAX_MADE_UP_VALUES:
        raise NoInputsError(
            f"the input {spec.name!r} has the shape {list(spec.shape)}, which does not say what to fill in"
        )
    dtype = np.dtype(NUMPY_TYPE[spec.datatype])
    flat: Array = np.linspace(-1.0, 1.0, count) if dtype.kind == "f" else np.arange(count) % 2
    return (flat.astype(str) if dtype.kind == "O" else flat).astype(dtype).reshape(shape)
