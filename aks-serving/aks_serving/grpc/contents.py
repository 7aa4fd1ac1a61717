"""Tensors between gRPC messages and numpy: raw contents (little-endian, row-major) and typed contents, both ways.

Reading is exact, as in aks_serving.tensors: a value out of its type's range, bytes that are too few or too many, or
contents in a field that is not the datatype's are an InvalidInputError that says what was found and what was wanted.
Raw numbers are not copied: the array is a view of the message's bytes, and read-only. The machine is little-endian, as
every machine is that ONNX Runtime is built for.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from aks_serving.tensors import DTYPES, Array
from shared.core.errors import InvalidInputError

_MAX_RANK = 32
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of typed contents in which values of a datatype stand. The protocol has none for FP16 and BF16."""

_LENGTH = struct.Struct("<I")


def has_typed(datatype: str) -> bool:
    """Whether values of the datatype can stand in typed contents."""
    return datatype in _FIELDS


def read_raw(raw: bytes, datatype: str, shape: Sequence[int], what: str) -> Array:
    """Read raw contents. `what` names the tensor in errors. Raises InvalidInputError."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return _shaped(_strings(_split(raw, what), what), shape, what)
    if len(raw) % dtype.itemsize:
        raise InvalidInputError(
            f"{what} has {len(raw)} bytes of raw contents: {datatype} takes {dtype.itemsize} for each value"
        )
    array = np.frombuffer(raw, dtype)
    if datatype == "BOOL" and array.size and int(array.view(np.uint8).max()) > 1:
        raise InvalidInputError(f"{what} holds a byte that is neither 0 nor 1, which BOOL does not have")
    return _shaped(array, shape, what)


def read_typed(contents: Any, datatype: str, shape: Sequence[int], what: str) -> Array:  # noqa: ANN401 - a message
    """Read typed contents, an InferTensorContents. Raises InvalidInputError."""
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidInputError(f"{what} is {datatype}, which has no typed contents: send raw_input_contents")
    others = [found.name for found, _ in contents.ListFields() if found.name != field]
    if others:
        raise InvalidInputError(f"{what} is {datatype}, whose values stand in {field}: {others[0]} is filled too")
    values = list(getattr(contents, field))
    if datatype == "BYTES":
        return _shaped(_strings(values, what), shape, what)
    try:
        array = np.array(values, dtype=DTYPES[datatype])
    except OverflowError as error:
        raise InvalidInputError(f"{what} holds a value that {datatype} cannot: {error}") from error
    return _shaped(array, shape, what)


def raw_of(array: Array) -> bytes:
    """The array's raw contents."""
    if array.dtype.kind != "O":
        return array.tobytes()
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        data = _encoded(value)
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def fill_typed(contents: Any, array: Array, datatype: str) -> None:  # noqa: ANN401 - a message
    """Write the array's values into an empty InferTensorContents. The datatype must have a field (`has_typed`)."""
    values = array.ravel().tolist()
    getattr(contents, _FIELDS[datatype]).extend(values if datatype != "BYTES" else map(_encoded, values))


def _split(raw: bytes, what: str) -> list[bytes]:
    values: list[bytes] = []
    at, end = 0, len(raw)
    while at < end:
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(raw, at)[0] if start <= end else end + 1
        if at > end:
            raise InvalidInputError(
                f"{what} ends within element {len(values)}: each BYTES element is its length in 4 bytes, "
                "little-endian, and then as many bytes"
            )
        values.append(raw[start:at])
    return values


def _strings(values: list[bytes], what: str) -> Array:
    try:
        texts = [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what} holds a BYTES element that is not UTF-8: {error.reason}") from error
    array = np.empty(len(texts), dtype=DTYPES["BYTES"])
    array[:] = texts
    return array


def _shaped(array: Array, shape: Sequence[int], what: str) -> Array:
    if len(shape) > _MAX_RANK:
        raise InvalidInputError(f"{what} declares {len(shape)} dimensions: at most {_MAX_RANK} can be read")
    if min(shape, default=0) < 0:
        raise InvalidInputError(f"{what} declares the shape {list(shape)}: sizes are whole numbers from 0")
    wanted = math.prod(shape)
    if array.size != wanted:
        raise InvalidInputError(f"{what} holds {array.size} values, and its shape {list(shape)} wants {wanted}")
    try:
        return array.reshape(shape)
    except ValueError as error:  # an empty tensor whose other sizes are astronomical
        raise InvalidInputError(f"{what} declares the shape {list(shape)}, which is too large: {error}") from error


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
