"""Reads the Apache Arrow IPC stream format: flat columns of numbers, booleans and text, without nulls.

No library: bytes from outside are read by bounds-checked Python, and numeric columns share the body's memory. What has
no plain form (dictionaries, compressed buffers, nested and temporal types, nulls) is refused by name. Format: Arrow
columnar specification, "Encapsulated message format"; metadata are FlatBuffers (Schema.fbs, Message.fbs).
"""

import itertools
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from aks_serving.tensors import Array
from shared.core.errors import InvalidInputError

_CONTINUATION = 0xFFFFFFFF
_SCHEMA, _RECORD_BATCH = 1, 3
_INT, _FLOAT, _UTF8, _BOOL, _LARGE_UTF8 = 2, 3, 5, 6, 20
_TYPE_NAMES = (
    "none", "null", "int", "float", "binary", "utf8", "bool", "decimal", "date", "time", "timestamp", "interval",
    "list", "struct", "union", "fixed-size binary", "fixed-size list", "map", "duration", "large binary", "large utf8",
    "large list", "run-end encoded", "binary view", "utf8 view", "list view", "large list view",
)  # fmt: skip
_FLOATS = ("<f2", "<f4", "<f8")
_MAX_COLUMNS = 10_000


class _Field(NamedTuple):
    name: str
    kind: int
    dtype: np.dtype[Any]
    """Of the values; of text, of the offsets."""


class _Table:
    """A FlatBuffers table: reads fields by their number."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at

    def number(self, field: int, form: str, default: int = 0) -> int:
        at = self._field(field)
        return default if at is None else _number(self._data, at, form)

    def table(self, field: int) -> "_Table | None":
        at = self._field(field)
        return None if at is None else _Table(self._data, at + _number(self._data, at, "<I"))

    def text(self, field: int) -> str:
        at = self._field(field)
        if at is None:
            return ""
        at += _number(self._data, at, "<I")
        size = _number(self._data, at, "<I")
        return bytes(self._data[at + 4 : at + 4 + size]).decode()

    def items(self, field: int, size: int) -> list[int]:
        """Where the items of a vector are, each of so many bytes."""
        at = self._field(field)
        if at is None:
            return []
        at += _number(self._data, at, "<I")
        count = _number(self._data, at, "<I")
        if at + 4 + count * size > len(self._data):
            raise ValueError("a vector is longer than the message")
        return [at + 4 + number * size for number in range(count)]

    def tables(self, field: int) -> "list[_Table]":
        return [_Table(self._data, at + _number(self._data, at, "<I")) for at in self.items(field, 4)]

    def pair(self, at: int) -> tuple[int, int]:
        """A struct of two numbers of 64 bits."""
        return _number(self._data, at, "<q"), _number(self._data, at + 8, "<q")

    def _field(self, field: int) -> int | None:
        vtable = self._at - _number(self._data, self._at, "<i")
        place = 4 + 2 * field
        if place + 2 > _number(self._data, vtable, "<H"):
            return None
        offset = _number(self._data, vtable + place, "<H")
        return self._at + offset if offset else None


def read_stream(body: bytes) -> dict[str, Array]:
    """The columns of a stream by name, in its order; text as objects of `str`. Raises InvalidInputError."""
    try:
        fields: list[_Field] = []
        parts: list[list[Array]] = []
        for kind, header, data in _messages(memoryview(body)):
            if kind == _SCHEMA and not fields:
                fields = _fields(header)
                parts = [[] for _ in fields]
            elif kind == _RECORD_BATCH and fields:
                for part, array in zip(parts, _columns(header, fields, data), strict=True):
                    part.append(array)
            else:
                raise _refused(
                    "it holds a message that is neither its one schema nor a batch (dictionaries are not read)"
                )
        if not fields:
            raise _refused("it has no schema")
    except (struct.error, ValueError, OverflowError) as error:
        raise _refused(f"it is torn or malformed ({error})") from error
    return {
        field.name: np.concatenate(part) if part else np.empty(0, _of_values(field))
        for field, part in zip(fields, parts, strict=True)
    }


def _messages(body: memoryview) -> Iterator[tuple[int, _Table, memoryview]]:
    at = 0
    while at < len(body):
        size = _number(body, at, "<I")
        at += 4
        if size == _CONTINUATION:
            size = _number(body, at, "<I")
            at += 4
        if size == 0:
            return
        if at + size > len(body):
            raise ValueError("a message is cut off")
        metadata = body[at : at + size]
        message = _Table(metadata, _number(metadata, 0, "<I"))
        at += size
        length = message.number(3, "<q")
        if not 0 <= length <= len(body) - at:
            raise ValueError("a message's data are cut off")
        header = message.table(2)
        if header is None:
            raise ValueError("a message has no header")
        yield message.number(1, "<B"), header, body[at : at + length]
        at += length


def _fields(schema: _Table) -> list[_Field]:
    if schema.number(0, "<h"):
        raise _refused("it is big-endian: write it little-endian")
    tables = schema.tables(1)
    if len(tables) > _MAX_COLUMNS:
        raise _refused(f"it has {len(tables)} columns: at most {_MAX_COLUMNS} are read")
    fields = [_field(table) for table in tables]
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise _refused(f"column {twice[:80]!r} is there twice")
    return fields


def _field(table: _Table) -> _Field:
    name, kind, detail = table.text(0), table.number(2, "<B"), table.table(3)
    if table.table(4) is None and detail is not None:
        if kind == _INT:
            width, sign = detail.number(0, "<i"), "i" if detail.number(1, "<B") else "u"
            if width in (8, 16, 32, 64):
                return _Field(name, kind, np.dtype(f"<{sign}{width // 8}"))
        elif kind == _FLOAT and 0 <= (precision := detail.number(0, "<h")) < len(_FLOATS):
            return _Field(name, kind, np.dtype(_FLOATS[precision]))
        elif kind == _BOOL:
            return _Field(name, kind, np.dtype(np.bool_))
        elif kind in (_UTF8, _LARGE_UTF8):
            return _Field(name, kind, np.dtype("<i4" if kind == _UTF8 else "<i8"))
    what = _TYPE_NAMES[kind] if kind < len(_TYPE_NAMES) else f"type {kind}"
    what = "dictionary-encoded" if table.table(4) is not None else f"of type {what}"
    raise _refused(f"column {name[:80]!r} is {what}: columns of integers, floats, booleans and utf8 are read")


def _of_values(field: _Field) -> np.dtype[Any]:
    return np.dtype(np.object_) if field.kind in (_UTF8, _LARGE_UTF8) else field.dtype


def _columns(batch: _Table, fields: list[_Field], data: memoryview) -> Iterator[Array]:
    if batch.table(3) is not None:
        raise _refused("its buffers are compressed: write it without compression")
    nodes = [batch.pair(at) for at in batch.items(1, 16)]
    buffers = iter([_cut(data, *batch.pair(at)) for at in batch.items(2, 16)])
    if len(nodes) != len(fields):
        raise ValueError("a batch has other columns than the schema")
    for field, (length, nulls) in zip(fields, nodes, strict=True):
        if length < 0 or length > 8 * len(data):
            raise ValueError("a column is longer than its data")
        validity = next(buffers, b"")
        if nulls:
            row = _first_null(validity, length)
            raise _refused(f"row {row}, column {field.name[:80]!r} is null: send NaN, or what stands for nothing")
        values = next(buffers, b"")
        if field.kind == _BOOL:
            bits = np.frombuffer(values, np.uint8, (length + 7) // 8)
            yield np.unpackbits(bits, count=length, bitorder="little").astype(np.bool_)
        elif field.kind in (_UTF8, _LARGE_UTF8):
            yield _texts(np.frombuffer(values, field.dtype, length + 1 if length else 0), bytes(next(buffers, b"")))
        else:
            yield np.frombuffer(values, field.dtype, length)


def _texts(offsets: Array, data: bytes) -> Array:
    found = np.empty(max(0, len(offsets) - 1), np.object_)
    ends = offsets.tolist()
    for row, (start, end) in enumerate(itertools.pairwise(ends)):
        if not 0 <= start <= end <= len(data):
            raise ValueError("a text lies outside its data")
        found[row] = data[start:end].decode()
    return found


def _first_null(validity: memoryview | bytes, length: int) -> int:
    """The number of the first row that is null, from 1."""
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[:length]
    return int(np.argmin(bits)) + 1 if len(bits) else 1


def _cut(data: memoryview, offset: int, length: int) -> memoryview:
    if offset < 0 or length < 0 or offset + length > len(data):
        raise ValueError("a buffer lies outside the message")
    return data[offset : offset + length]


def _number(data: memoryview, at: int, form: str) -> int:
    if at < 0:
        raise ValueError("an offset leads out of the message")
    found: int = struct.unpack_from(form, data, at)[0]
    return found


def _refused(why: str) -> InvalidInputError:
    return InvalidInputError(f"the body cannot be read as an Arrow stream: {why}")
