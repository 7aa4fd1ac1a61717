"""Reads the Apache Arrow IPC stream format: flat columns of numbers, booleans and text, without nulls.

By pyarrow (the extra `slipway-serving[arrow]`), which is loaded when the first stream comes. What a stream holds is
checked in full before a value is used, and its batches together are no larger than its bytes: buffers that many columns
name at once are refused, and compressed ones are never expanded. What has no plain form (dictionaries, nested and
temporal types, nulls) is refused by name. Starts no threads. Format: Arrow columnar specification, "Encapsulated
message format".
"""

import importlib.util
import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from aks_serving.tensors import Array
from shared.core.errors import InvalidInputError

_FILE = b"ARROW1"
"""What the file format begins with."""
_MAX_COLUMNS = 10_000
_SHOWN = 80
_HEADER, _COMPRESSION = 2, 3
"""Fields of the metadata's tables (Message.fbs): a message's header, and a record batch's compression."""


def is_installed() -> bool:
    """Whether streams can be read here. Loads nothing."""
    return importlib.util.find_spec("pyarrow") is not None


def read_stream(body: bytes) -> dict[str, Array]:
    """The columns of a stream by name, in its order; text as objects of `str`. Raises InvalidInputError."""
    if body.startswith(_FILE):
        raise _refused("it is an Arrow file (Feather): write it in the stream format")
    pa = _pyarrow()
    try:
        source = pa.BufferReader(body)
        messages = iter(pa.ipc.MessageReader.open_stream(source))
        schema = _schema(pa, messages)
        batches = list(_batches(pa, messages, schema, len(body)))
        if source.tell() != len(body):
            raise _refused(f"{len(body) - source.tell()} bytes follow its end: send one stream and nothing after it")
        return {
            field.name: _joined([batch.column(place) for batch in batches], field.type)
            for place, field in enumerate(schema)
        }
    except (pa.ArrowException, OSError, EOFError, ValueError, struct.error) as error:
        why = str(error).partition("\n")[0][: 2 * _SHOWN]
        raise _refused(f"it is torn or malformed ({why})") from error


@cache
def _pyarrow() -> Any:  # noqa: ANN401 - a module without annotations
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and slow to load

    pa.set_cpu_count(1)
    # The process's own allocator, so that what the server gives back to the system is all that is free.
    pa.set_memory_pool(pa.system_memory_pool())
    return pa


def _schema(pa: Any, messages: Iterator[Any]) -> Any:  # noqa: ANN401 - of a module without annotations
    first = next(messages, None)
    if first is None or first.type != "schema":
        raise _refused("it has no schema")
    schema = pa.ipc.read_schema(first)
    if len(schema) > _MAX_COLUMNS:
        raise _refused(f"it has {len(schema)} columns: at most {_MAX_COLUMNS} are read")
    for field in schema:
        if not _is_plain(pa.types, field.type):
            what = "dictionary-encoded" if pa.types.is_dictionary(field.type) else f"of type {field.type}"[:_SHOWN]
            raise _refused(
                f"column {field.name[:_SHOWN]!r} is {what}: columns of integers, floats, booleans and utf8 are read"
            )
    # The byte order is no attribute of a schema in Python, and part of its equality.
    if schema != pa.schema(list(schema)):
        raise _refused("it is big-endian: write it little-endian")
    twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        raise _refused(f"column {twice[:_SHOWN]!r} is there twice")
    return schema


def _is_plain(types: Any, kind: Any) -> bool:  # noqa: ANN401 - of a module without annotations
    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    return any(check(kind) for check in checks)


def _batches(pa: Any, messages: Iterator[Any], schema: Any, most_bytes: int) -> Iterator[Any]:  # noqa: ANN401 - likewise
    rows = 0
    for message in messages:
        if message.type != "record batch":
            raise _refused("it holds a message that is neither its one schema nor a batch (dictionaries are not read)")
        if _is_compressed(message.metadata):
            raise _refused("its buffers are compressed: write it without compression")
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
        most_bytes -= batch.nbytes
        if most_bytes < 0:
            raise _refused("its columns share buffers: write each column's own")
        for field, column in zip(schema, batch.columns, strict=True):
            if column.null_count:
                row = rows + 1 + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise _refused(
                    f"row {row}, column {field.name[:_SHOWN]!r} is null: send NaN, or what stands for nothing"
                )
        rows += batch.num_rows
        yield batch


def _is_compressed(metadata: Any) -> bool:  # noqa: ANN401 - of a module without annotations
    """Whether a record batch's metadata, a FlatBuffer that pyarrow has verified, name a compression.

    Reading such a batch expands it, a thousandfold where its sender wants, and pyarrow has no limit to set.
    """
    data = memoryview(metadata)
    (root,) = struct.unpack_from("<I", data)
    header = _slot(data, root, _HEADER)
    if header is None:
        return False
    (offset,) = struct.unpack_from("<I", data, header)
    return _slot(data, header + offset, _COMPRESSION) is not None


def _slot(data: memoryview, table: int, field: int) -> int | None:
    """Where a FlatBuffers table has a field, by its number; None where it leaves it out."""
    (back,) = struct.unpack_from("<i", data, table)
    (size,) = struct.unpack_from("<H", data, table - back)
    place = 4 + 2 * field
    if place + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", data, table - back + place)
    return table + offset if offset else None


def _joined(parts: list[Any], kind: Any) -> Array:  # noqa: ANN401 - of a module without annotations
    """A copy, always: a stream's buffers may lie anywhere, and the runtime takes memory to be aligned."""
    arrays: list[Array] = [part.to_numpy(zero_copy_only=False) for part in parts]
    return np.concatenate(arrays) if arrays else np.empty(0, kind.to_pandas_dtype())


def _refused(why: str) -> InvalidInputError:
    return InvalidInputError(f"the body cannot be read as an Arrow stream: {why}")
