"""Tensors between JSON and numpy, by the datatypes of the Open Inference Protocol V2.

Reading is exact: a value of another type, out of its type's range or in a ragged list is an InvalidInputError that
says what was found and what was wanted, never a silent conversion. JSON has no NaN and no infinity: floating-point
data carries them as the strings "NaN", "Infinity" and "-Infinity", both ways.
"""

import math
from functools import cache
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.core.errors import InvalidInputError

type Array = NDArray[Any]
type Feeds = dict[str, Array]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""The numpy dtype of each datatype. BYTES elements are `str`."""

_DATATYPE_OF = {dtype: name for name, dtype in DTYPES.items()}
_MAX_RANK = 32

_ELEMENT: dict[str, Any] = {
    name: {"b": bool, "u": int, "i": int, "f": float, "O": str}[dtype.kind] for name, dtype in DTYPES.items()
}
_SpecialFloat = float | Literal["NaN", "Infinity", "-Infinity"]


def datatype_of(array: Array) -> str:
    """The datatype of an array. Raises KeyError for a dtype that the protocol does not name."""
    return _DATATYPE_OF[array.dtype]


def read(raw: bytes | msgspec.Raw, datatype: str, what: str) -> Array:
    """Read JSON data, nested to any depth, as an array of its nesting's shape; a lone value gives shape ().

    `what` names the data in errors. Raises InvalidInputError.
    """
    text = bytes(raw)
    rank = _rank(text)
    if rank > _MAX_RANK:
        raise InvalidInputError(f"{what} is nested {rank} deep: at most {_MAX_RANK} dimensions can be read")
    try:
        return _array(_values(text, datatype, rank), DTYPES[datatype], rank)
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"{what} is not {datatype} data: {error}{_hint(datatype)}") from error
    except OverflowError as error:
        raise InvalidInputError(f"{what} holds a value that {datatype} cannot: {error}") from error
    except FloatingPointError as error:
        raise InvalidInputError(f"{what} holds a finite value too large for {datatype}") from error
    except ValueError as error:
        raise InvalidInputError(
            f"{what} is ragged: lists at the same depth must have the same length, as in [[1, 2], [3, 4]]"
        ) from error


def shaped(array: Array, shape: list[int], what: str) -> Array:
    """Give read data the shape that was declared for it: flat data is laid out row-major, nested data must have it."""
    if any(size < 0 for size in shape):
        raise InvalidInputError(f"{what} declares the shape {shape}: sizes are whole numbers from 0")
    if array.shape == tuple(shape):
        return array
    if array.ndim <= 1 and array.size == math.prod(shape):
        return array.reshape(shape)
    found = f"{array.size} values" if array.ndim <= 1 else f"data of shape {list(array.shape)}"
    raise InvalidInputError(f"{what} holds {found}, and its shape {shape} wants {math.prod(shape)}, flat or so nested")


def flat(array: Array) -> list[Any]:
    """The array's values, row-major, as JSON can hold them."""
    values: list[Any] = _listed(array.ravel())
    return values


def nested(array: Array) -> Any:  # noqa: ANN401 - a value or lists of lists, by the array's rank
    """The array's values nested by its shape, as JSON can hold them."""
    return _listed(array)


def _listed(array: Array) -> Any:  # noqa: ANN401 - as `nested`
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        named = array.astype(np.object_)
        named[np.isnan(array)] = "NaN"
        named[np.isposinf(array)] = "Infinity"
        named[np.isneginf(array)] = "-Infinity"
        return named.tolist()
    return array.tolist()


def _rank(text: bytes) -> int:
    rank = 0
    for byte in text:
        if byte == 0x5B:  # [
            rank += 1
        elif byte not in b" \t\r\n":
            break
    return rank


def _values(text: bytes, datatype: str, rank: int) -> Any:  # noqa: ANN401 - lists nested by rank
    try:
        return _decoder(_ELEMENT[datatype], rank).decode(text)
    except msgspec.ValidationError:
        if _ELEMENT[datatype] is not float:
            raise
        return _decoder(_SpecialFloat, rank).decode(text)


@cache
def _decoder(element: Any, rank: int) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    for _ in range(rank):
        element = list[element]
    return msgspec.json.Decoder(element)


def _array(values: Any, dtype: np.dtype[Any], rank: int) -> Array:  # noqa: ANN401 - lists nested by rank
    with np.errstate(over="raise"):
        array = np.array(values, dtype=dtype)
    if array.ndim != rank:
        raise ValueError("ragged")
    return array


def _hint(datatype: str) -> str:
    return ' (not a number is "NaN", infinity "Infinity" or "-Infinity")' if datatype.startswith("FP") else ""
