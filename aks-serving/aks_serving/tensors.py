"""Tensors between bytes and numpy, by the datatypes of the Open Inference Protocol V2.

As JSON (`read`, `flat`, `nested`) and as the binary tensor extension has them (`from_bytes`, `to_bytes`): row-major,
little-endian; elements of BYTES are preceded by their length in four bytes.

Reading is exact: a value of another type, out of its type's range or in a ragged list is an InvalidInputError that
says what was found and what was wanted, never a silent conversion. JSON has no NaN and no infinity: floating-point
data carries them as the strings "NaN", "Infinity" and "-Infinity", both ways. Elements of BYTES are text, since the
runtime takes nothing else: bytes that are not UTF-8 are refused.
"""

import math
import re
import struct
from functools import cache
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.core.errors import InvalidInputError

type Array = NDArray[Any]
type Feeds = dict[str, Array]


class _Dtypes(dict[str, np.dtype[Any]]):
    """Dtypes by datatype. That of BF16 is in a library of 2 MB, which the first model that has it loads."""

    def __missing__(self, datatype: str) -> np.dtype[Any]:
        if datatype != "BF16":
            raise KeyError(datatype)
        import ml_dtypes  # noqa: PLC0415

        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        self[datatype] = found
        return found


DTYPES = _Dtypes(
    BOOL=np.dtype(np.bool_),
    UINT8=np.dtype(np.uint8),
    UINT16=np.dtype(np.uint16),
    UINT32=np.dtype(np.uint32),
    UINT64=np.dtype(np.uint64),
    INT8=np.dtype(np.int8),
    INT16=np.dtype(np.int16),
    INT32=np.dtype(np.int32),
    INT64=np.dtype(np.int64),
    FP16=np.dtype(np.float16),
    FP32=np.dtype(np.float32),
    FP64=np.dtype(np.float64),
    BYTES=np.dtype(np.object_),
)
"""The numpy dtype of each of DATATYPES. BYTES elements are `str`; BF16 is not of numpy's own, and its kind is "V"."""
DATATYPES = (*DTYPES, "BF16")

_MAX_RANK = 32
_LENGTH_BYTES = 4
_OPENING = re.compile(rb"[ \t\r\n\[]*")

_ELEMENT: dict[str, Any] = {
    name: {"b": bool, "u": int, "i": int, "f": float, "O": str}[dtype.kind] for name, dtype in DTYPES.items()
} | {"BF16": float}
_SpecialFloat = float | Literal["NaN", "Infinity", "-Infinity"]
_PACKED = dict(zip(DTYPES, "?BHIQbhiqefd", strict=False)) | {"BF16": "d"}
"""One value in the struct module's terms. BF16 stands as the FP64 that it is rounded from."""


def is_real(array: Array) -> bool:
    """Whether the values are floating-point numbers."""
    return array.dtype.kind in "fV"


def read(raw: bytes | msgspec.Raw, datatype: str, what: str) -> Array:
    """Read JSON data, nested to any depth, as an array of its nesting's shape; a lone value gives shape ().

    `what` names the data in errors. Raises InvalidInputError.
    """
    text = memoryview(raw)
    rank = _rank(text)
    if rank > _MAX_RANK:
        raise InvalidInputError(f"{what} is nested {rank} deep: at most {_MAX_RANK} dimensions can be read")
    try:
        values, shape = _values(text, datatype, rank)
        return _array(values, datatype).reshape(shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{what} is not {datatype} data: {error}{_hint(datatype)}") from error
    except struct.error as error:
        limits = np.iinfo(DTYPES[datatype])
        raise InvalidInputError(
            f"{what} holds a value that {datatype} cannot: it takes whole numbers from {limits.min} to {limits.max}"
        ) from error
    except OverflowError as error:
        raise InvalidInputError(f"{what} holds a finite value too large for {datatype}") from error
    except ValueError as error:
        raise InvalidInputError(
            f"{what} is ragged: lists at the same depth must have the same length, as in [[1, 2], [3, 4]]"
        ) from error


def shaped(array: Array, shape: list[int], what: str) -> Array:
    """Give read data the shape that was declared for it: flat data is laid out row-major, nested data must have it.

    Raises InvalidInputError.
    """
    if array.shape == tuple(shape):
        return array
    check_shape(shape, what)
    if array.ndim <= 1 and array.size == math.prod(shape):
        return _reshaped(array, shape, what)
    found = f"{array.size} values" if array.ndim <= 1 else f"data of shape {list(array.shape)}"
    raise InvalidInputError(f"{what} holds {found}, and its shape {shape} wants {math.prod(shape)}, flat or so nested")


def check_shape(shape: list[int], what: str) -> None:
    """Raises InvalidInputError for a rank and for sizes that no array has."""
    if len(shape) > _MAX_RANK:
        raise InvalidInputError(f"{what} declares {len(shape)} dimensions: at most {_MAX_RANK} can be read")
    if any(size < 0 for size in shape):
        raise InvalidInputError(f"{what} declares the shape {shape}: sizes are whole numbers from 0")


def from_bytes(data: memoryview, datatype: str, shape: list[int], what: str) -> Array:
    """Read binary data (a view of bytes) of a datatype of DATATYPES. Raises InvalidInputError.

    The array may share the data's memory, and not be writeable.
    """
    if datatype == "BYTES":
        return _texts(data, shape, what)
    dtype = DTYPES[datatype]
    if len(shape) > _MAX_RANK or (shape and min(shape) < 0):
        check_shape(shape, what)
    wanted = dtype.itemsize * math.prod(shape)
    if len(data) != wanted:
        raise InvalidInputError(f"{what} holds {len(data)} bytes, and its shape {shape} of {datatype} wants {wanted}")
    if not wanted:
        return _reshaped(np.empty(0, dtype), shape, what)
    if datatype == "BOOL" and np.frombuffer(data, np.uint8).max() > 1:
        raise InvalidInputError(f"{what} holds a byte that is no BOOL: 0 is false and 1 is true")
    array = np.frombuffer(data, dtype)
    if not array.flags.aligned:
        # The bytes before the data have any length, and no runtime need put up with elements at odd addresses.
        array = array.copy()
    return array.reshape(shape)


def to_bytes(array: Array) -> bytes:
    """An array as binary data. BYTES elements are `str`, or `bytes` as they are."""
    if array.dtype.kind != "O":
        return array.tobytes()
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        data = value.encode() if isinstance(value, str) else value
        parts += (len(data).to_bytes(_LENGTH_BYTES, "little"), data)
    return b"".join(parts)


def flat(array: Array) -> list[Any]:
    """The array's values, row-major, as JSON can hold them."""
    values: list[Any] = _listed(array.ravel())
    return values


def nested(array: Array, *, finite: bool = False) -> Any:  # noqa: ANN401 - a value or lists of lists, by the array's rank
    """The array's values nested by its shape, as JSON can hold them; `finite` where each number is known to be so."""
    return _listed(array, finite=finite)


def _listed(array: Array, *, finite: bool = False) -> Any:  # noqa: ANN401 - as `nested`
    kind = array.dtype.kind
    if kind == "V":
        array = array.astype(np.float32)
    if not finite and kind in "fV" and not np.isfinite(array).all():
        named = array.astype(np.object_)
        named[np.isnan(array)] = "NaN"
        named[np.isposinf(array)] = "Infinity"
        named[np.isneginf(array)] = "-Infinity"
        return named.tolist()
    return array.tolist()


def _rank(text: memoryview) -> int:
    opening = _OPENING.match(text)
    return 0 if opening is None else opening[0].count(b"[")


def _values(text: memoryview, datatype: str, rank: int) -> tuple[list[Any], list[int]]:
    """The decoded elements, row-major, and the shape of their nesting. Raises ValueError where that is ragged."""
    element = _ELEMENT[datatype]
    try:
        return _flattened(_decoder(element, rank).decode(text), rank)
    except msgspec.ValidationError:
        if element is not float:
            raise
    values, shape = _flattened(_decoder(_SpecialFloat, rank).decode(text), rank)
    return [float(value) for value in values], shape


@cache
def _decoder(element: Any, rank: int) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    for _ in range(rank):
        element = list[element]
    return msgspec.json.Decoder(element)


def _flattened(values: Any, rank: int) -> tuple[list[Any], list[int]]:  # noqa: ANN401 - lists nested by rank
    if rank == 0:
        return [values], []
    shape = [len(values)]
    for _ in range(rank - 1):
        widths = {len(part) for part in values}
        if len(widths) > 1:
            raise ValueError("ragged")
        shape.append(widths.pop() if widths else 0)
        values = list(chain.from_iterable(values))
    return values, shape


def _array(values: list[Any], datatype: str) -> Array:
    """A flat array. Raises struct.error or OverflowError for a value beyond the datatype's range.

    The struct module takes a list of numbers three times as fast as numpy does, and refuses what does not fit.
    """
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return np.array(values, dtype)
    packed = struct.pack(f"<{len(values)}{_PACKED[datatype]}", *values)
    if datatype != "BF16":
        return np.frombuffer(packed, dtype)
    wide = np.frombuffer(packed, np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    if np.isinf(array).sum() != np.isinf(wide).sum():
        raise OverflowError
    return array


def _texts(data: memoryview, shape: list[int], what: str) -> Array:
    check_shape(shape, what)
    count = math.prod(shape)
    if count * _LENGTH_BYTES > data.nbytes:
        raise InvalidInputError(
            f"{what} holds {data.nbytes} bytes, and its shape {shape} of BYTES wants {count} elements, "
            "each after its length in four bytes"
        )
    raw = data.tobytes()
    values: list[str] = []
    end = 0
    try:
        for _ in range(count):
            start = end + _LENGTH_BYTES
            end = start + int.from_bytes(raw[end:start], "little")
            values.append(raw[start:end].decode())
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{what} holds bytes that are not UTF-8 in element {len(values)}, and the runtime takes text alone: "
            "send other bytes as text (base64), or as UINT8"
        ) from error
    if end != len(raw):
        fault = "end within" if end > len(raw) else "go on after"
        raise InvalidInputError(f"{what} holds {len(raw)} bytes, which {fault} its {count} elements")
    return _reshaped(np.array(values, DTYPES["BYTES"]), shape, what)


def _reshaped(array: Array, shape: list[int], what: str) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InvalidInputError(f"{what} declares the shape {shape}, which is more than an array can have") from error


def _hint(datatype: str) -> str:
    real = datatype.startswith("FP") or datatype == "BF16"
    return ' (not a number is "NaN", infinity "Infinity" or "-Infinity")' if real else ""
