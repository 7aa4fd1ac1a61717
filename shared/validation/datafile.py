"""Reads NPZ data files: named arrays, one row a case. Loads numpy: for the sandboxed process.

Pickles are never read: an array of objects is refused by its name.
"""

import math
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from shared.validation.archive import Archive, open_archive
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt

type Array = NDArray[np.generic]

_MAX_ARRAYS = 512
_SUFFIX = ".npy"
_PLAIN_KINDS = "biufSU"


def read_arrays(path: Path, *, what: str, max_bytes: int) -> dict[str, Array]:
    """The arrays of an NPZ file, called `what` in messages, by name; at most `max_bytes` in all.

    Raises DropRefusedError where it is no NPZ, holds anything but plain arrays (numbers, booleans, text), or where the
    arrays differ in their number of rows.
    """
    with open_archive(
        path, what=what, damaged=RefusalCode.BAD_DATA, max_members=_MAX_ARRAYS, max_bytes=max_bytes
    ) as archive:
        arrays = {name.removesuffix(_SUFFIX): _read_array(archive, name, what) for name in archive.names}
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise _bad(f"the arrays of {what} differ in rows ({_listed(rows)}): give each the same number")
    return arrays


def text_of(array: Array, *, name: str, what: str) -> Array:
    """Text as an object array of `str`; other arrays as they are. Raises DropRefusedError where it is no Unicode."""
    if array.dtype.kind not in "SU":
        return array
    values = array.ravel().tolist()
    try:
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
        for text in texts:
            text.encode()  # a lone surrogate is no Unicode
    except UnicodeError as error:
        raise _bad(f"the array {excerpt(name, 60)!r} of {what} holds text that is no Unicode: {error}") from error
    result = np.empty(len(texts), dtype=object)
    result[:] = texts
    return result.reshape(array.shape)


def _read_array(archive: Archive, member: str, what: str) -> Array:
    name = excerpt(member.removesuffix(_SUFFIX), 100)
    if not member.endswith(_SUFFIX) or member == _SUFFIX:
        raise _bad(f"{what} holds {name!r}, which is no array: write it with numpy.savez_compressed")
    array_of = f"the array {name!r} of {what}"
    with archive.member(member) as stream:
        shape, column_major, dtype = _read_header(stream, array_of)
        _check_form(shape, dtype, array_of)
        # numpy's own reader would allocate whatever the header claims.
        size_bytes = math.prod(shape) * dtype.itemsize
        if size_bytes > archive.size_bytes(member):
            raise _bad(f"{array_of} declares {size_bytes} bytes of values, more than the file holds")
        data = stream.read(size_bytes)
        if len(data) != size_bytes or stream.read(1):
            raise _bad(f"{array_of} does not hold the {size_bytes} bytes of values that it declares")
    try:
        array: Array = np.ndarray(shape, dtype, data, order="F" if column_major else "C")
    except (TypeError, ValueError) as error:
        raise _bad(f"{array_of} cannot have the shape {excerpt(list(shape), 60)}: {excerpt(error, 150)}") from error
    return array.astype(dtype.newbyteorder("="), order="C")


def _read_header(stream: IO[bytes], array_of: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(stream)
        reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        found: tuple[tuple[int, ...], bool, np.dtype[Any]] | None = reader(stream) if reader else None
    except (MemoryError, OSError):
        raise
    except Exception as error:  # numpy's reader raises many kinds, those of Python's own parser too
        raise _bad(f"{array_of} cannot be read: {excerpt(error, 150)}") from error
    if found is None:
        raise _bad(f"{array_of} is of the NPY version {version}: store plain numbers, booleans or text")
    return found


def _check_form(shape: tuple[int, ...], dtype: np.dtype[Any], array_of: str) -> None:
    if dtype.hasobject:
        raise _bad(f"{array_of} holds Python objects, which are never unpickled: store numbers, booleans or text")
    if dtype.kind not in _PLAIN_KINDS or not dtype.itemsize:
        raise _bad(f"{array_of} is of type {excerpt(dtype, 60)}: store numbers, booleans or text")
    if not shape:
        raise _bad(f"{array_of} is a single value: give it one row a case")
    if min(shape) < 0 or 0 in shape[1:]:
        raise _bad(f"{array_of} has the shape {excerpt(list(shape), 60)}: every row needs values")


def _listed(rows: dict[str, int]) -> str:
    shown = [f"{excerpt(name, 60)!r} {count}" for name, count in list(rows.items())[:5]]
    return ", ".join(shown) + (", ..." if len(rows) > 5 else "")


def _bad(message: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.BAD_DATA, message)
