"""Typed contents of gRPC tensors (InferTensorContents), read as arrays and written. Raw contents are the binary data of
aks_serving.tensors.

Reading is exact, as there: a value out of its type's range, or values in a field that is not the datatype's, are an
InvalidInputError that says what was found and what was wanted.
"""

from typing import Any

import numpy as np

from aks_serving.tensors import DTYPES, Array, shaped
from shared.core.errors import InvalidInputError

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
"""The field in which values of a datatype stand. The protocol has none for FP16 and BF16."""


def has_typed(datatype: str) -> bool:
    """Whether values of the datatype can stand in typed contents."""
    return datatype in _FIELDS


def read_typed(contents: Any, datatype: str, shape: list[int], what: str) -> Array:  # noqa: ANN401 - a message
    """Read typed contents. `what` names the tensor in errors. Raises InvalidInputError."""
    field = _FIELDS.get(datatype)
    if field is None:
        raise InvalidInputError(f"{what} is {datatype}, which has no typed contents: send raw_input_contents")
    others = [found.name for found, _ in contents.ListFields() if found.name != field]
    if others:
        raise InvalidInputError(f"{what} is {datatype}, whose values stand in {field}: {others[0]} is filled")
    values = getattr(contents, field)[:]
    if datatype == "BYTES":
        return shaped(_texts(values, what), shape, what)
    try:
        array = np.array(values, dtype=DTYPES[datatype])
    except OverflowError as error:
        raise InvalidInputError(f"{what} holds a value that {datatype} cannot: {error}") from error
    return shaped(array, shape, what)


def fill_typed(contents: Any, array: Array, datatype: str) -> None:  # noqa: ANN401 - a message
    """Write an array's values into empty contents. The datatype has a field (`has_typed`)."""
    values = array.ravel().tolist()
    if datatype == "BYTES":
        values = [value.encode() if isinstance(value, str) else value for value in values]
    getattr(contents, _FIELDS[datatype]).extend(values)


def _texts(values: list[bytes], what: str) -> Array:
    array = np.empty(len(values), dtype=DTYPES["BYTES"])
    try:
        array[:] = [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what} holds an element that is not UTF-8: {error.reason}") from error
    return array
