"""A table's column as its input's type wants it: exactly, or an error that names row, column and what was found."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from aks_serving.model import TensorSpec
from aks_serving.tensors import DTYPES, Array
from shared.core.errors import InvalidInputError

REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|NaN|[+-]?Infinity")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "True": True, "False": False}
_SHOWN = 80


def column_of(values: Sequence[str] | Array, place: int, spec: TensorSpec) -> Array:
    """A column in its input's type."""
    dtype = DTYPES[spec.datatype]
    if isinstance(values, np.ndarray):
        array, wanted = values, _kind(dtype)
        if _kind(array.dtype) != wanted and not (wanted == "real" and _kind(array.dtype) == "whole"):
            raise _wrong(1, place, spec, f"a value of type {array.dtype.name.replace('object', 'text')}")
    else:
        array = np.array([_cell(value, row, place, spec) for row, value in enumerate(values, start=1)] or [], object)
        if not len(array):
            return np.empty(0, dtype)
        if dtype.kind == "O":
            return array
        try:
            array = array.astype(np.float64 if _kind(dtype) == "real" else dtype)
        except OverflowError as error:
            row = next(r for r, value in enumerate(array.tolist(), start=1) if not _fits(value, dtype))
            raise _wrong(row, place, spec, repr(str(values[row - 1])[:_SHOWN])) from error
    return _cast(array, dtype, place, spec)


def is_column(spec: TensorSpec) -> bool:
    """Whether an input has one value a row, of any number of rows or of a fixed one."""
    return bool(spec.shape) and spec.shape[1:] in ((), (1,))


def _cast(array: Array, dtype: np.dtype[Any], place: int, spec: TensorSpec) -> Array:
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if _kind(dtype) == "real":
        bad = np.isinf(cast.astype(np.float64)) & np.isfinite(array)
    else:
        limits = np.iinfo(dtype)
        bad = (array < int(limits.min)) | (array > int(limits.max))
    if bad.any():
        row = int(np.argmax(bad))
        raise _wrong(row + 1, place, spec, str(array[row]))
    return cast


def _cell(value: str, row: int, place: int, spec: TensorSpec) -> Any:  # noqa: ANN401 - by the input's type
    kind = _kind(DTYPES[spec.datatype])
    if kind == "text":
        return value
    text = value.strip(" ")
    if kind == "real" and REAL.fullmatch(text) and not (math.isinf(number := float(text)) and "I" not in text):
        return number
    if kind == "whole" and _WHOLE.fullmatch(text):
        return int(text)
    if kind == "truth" and text in _TRUTHS:
        return _TRUTHS[text]
    raise _wrong(row, place, spec, repr(value[:_SHOWN]) if value else "nothing")


def _kind(dtype: np.dtype[Any]) -> str:
    return {"f": "real", "V": "real", "i": "whole", "u": "whole", "b": "truth"}.get(dtype.kind, "text")


def _fits(value: int, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def _wrong(row: int, place: int, spec: TensorSpec, found: str) -> InvalidInputError:
    name = f"column {place} ({spec.name})" if is_column(spec) else f"column {place}"
    return InvalidInputError(f"row {row}, {name}: found {found}, wanted {spec.datatype}")
