"""Reads Parquet and CSV files: flat columns of numbers, booleans and text. Loads pyarrow: for the sandboxed process.

What a file declares is held against the limit before its values are decoded. Nothing is unpickled, and no column comes
back in another type than it was stored in: what has no plain form, extension types too, is refused by its name.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from pyarrow import csv
from pyarrow import parquet as pq

from shared.validation.columns import MAX_COLUMNS, Column
from shared.validation.datafile import Array
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt

_POINTER_BYTES = 8
_BLOCK_BYTES = 4 * 1024 * 1024
_STRING_LIMIT = 16 * 1024 * 1024
_ARROW_TYPES: Mapping[str, pa.DataType] = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float32(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}
"""What a CSV file's text is read as, by the datatype that is wanted."""


def read_parquet(path: Path, *, what: str, max_bytes: int) -> dict[str, Column]:
    """The columns of a Parquet file; at most `max_bytes` decoded. Raises DropRefusedError."""
    with _translated(what, "Parquet"):
        table = _open_parquet(path, what, max_bytes).read(use_threads=False, use_pandas_metadata=False)
        return {name: _column(table.column(name)) for name in table.column_names}


def count_parquet(path: Path, *, what: str, max_bytes: int) -> int:
    """The rows of a Parquet file, of which all is decoded and nothing kept. Raises as read_parquet does."""
    with _translated(what, "Parquet"):
        batches = _open_parquet(path, what, max_bytes).iter_batches(use_threads=False, use_pandas_metadata=False)
        return sum(batch.num_rows for batch in batches)


def read_csv(path: Path, *, datatypes: Mapping[str, str], what: str, max_bytes: int) -> dict[str, Column]:
    """The columns of a CSV file with a header line, in UTF-8; at most `max_bytes` long.

    A column is read as the datatype that `datatypes` wants of it: text stays as it is written, `01` too. The others are
    whole numbers, numbers or text, whichever first takes all their values. Raises DropRefusedError.
    """
    _check_csv_size(path, what, max_bytes)
    with _translated(what, "CSV"):
        types = {name: _ARROW_TYPES[datatype] for name, datatype in datatypes.items()}
        table = csv.read_csv(path, **_csv_options(types))
        _check_names(table.column_names, what)
        columns = {}
        for name in table.column_names:
            values = table.column(name)
            columns[name] = _column(values if name in datatypes else _narrowed(values))
        return columns


def count_csv(path: Path, *, what: str, max_bytes: int) -> int:
    """The rows of a CSV file, of which all is parsed as text and nothing kept. Raises as read_csv does."""
    _check_csv_size(path, what, max_bytes)
    with _translated(what, "CSV"), csv.open_csv(path, **_csv_options({})) as batches:
        _check_names(batches.schema.names, what)
        return sum(batch.num_rows for batch in batches)


_PARQUET: Mapping[str, Any] = {
    "memory_map": False,
    "pre_buffer": False,
    "buffer_size": 1024 * 1024,
    "page_checksum_verification": True,
    "arrow_extensions_enabled": False,
    "thrift_string_size_limit": _STRING_LIMIT,
    "thrift_container_size_limit": 1_000_000,
}


def _open_parquet(path: Path, what: str, max_bytes: int) -> pq.ParquetFile:
    file = pq.ParquetFile(path, **_PARQUET)
    _check_names(file.schema_arrow.names, what)
    for field in file.schema_arrow:
        _check_type(field, what)
    _check_parquet_size(file, what, max_bytes)
    # Text comes as a dictionary: a value that is repeated a million times is held once.
    texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    return pq.ParquetFile(path, read_dictionary=texts, **_PARQUET)


def _check_csv_size(path: Path, what: str, max_bytes: int) -> None:
    size_bytes = path.stat().st_size
    if size_bytes > max_bytes:
        raise DropRefusedError(RefusalCode.TOO_LARGE, f"{what} has {size_bytes} bytes: at most {max_bytes} are read")


def _csv_options(types: Mapping[str, pa.DataType]) -> dict[str, Any]:
    return {
        "read_options": csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        "parse_options": csv.ParseOptions(newlines_in_values=True),
        "convert_options": csv.ConvertOptions(column_types=dict(types), default_column_type=pa.string()),
    }


def _confine_arrow() -> None:
    """One thread, and the system's allocator: the others set aside address space that the sandbox does not have."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    pa.set_memory_pool(pa.system_memory_pool())


@contextmanager
def _translated(what: str, form: str) -> Iterator[None]:
    """Whatever the library raises over a file is about the file; only the system's own errors are not."""
    _confine_arrow()
    try:
        yield
    except (MemoryError, DropRefusedError):
        raise
    except Exception as error:  # it raises many kinds, some of them by accident
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _bad(f"{what} does not read as {form}: {excerpt(error, 200)}") from error


def _check_names(names: list[str], what: str) -> None:
    if len(names) > MAX_COLUMNS:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"{what} has {len(names)} columns: at most {MAX_COLUMNS} are read"
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise _bad(f"{what} has the column {excerpt(twice, 60)!r} twice: keep one")
    if "" in names:
        raise _bad(
            f"{what} has a column without a name, the {names.index('') + 1}. of {len(names)}: name it, or leave it out "
            "(an index that pandas writes goes with index=False)"
        )


def _check_type(field: pa.Field, what: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (_is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise _bad(
            f"the column {excerpt(field.name, 60)!r} of {what} is of type {excerpt(kind, 60)}: store numbers, booleans "
            "or text, one value a row"
        )


def _check_parquet_size(file: pq.ParquetFile, what: str, max_bytes: int) -> None:
    """By what the file declares: its pages, and its rows in memory, which a run of one value hardly costs on disk."""
    metadata = file.metadata
    pages = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    widths = (_POINTER_BYTES if _is_text(field.type) else _width(field.type) for field in file.schema_arrow)
    expanded = metadata.num_rows * sum(widths)
    if max(pages, expanded) > max_bytes:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"{what} expands to {max(pages, expanded)} bytes: at most {max_bytes} are allowed"
        )


def _width(kind: pa.DataType) -> int:
    if pa.types.is_dictionary(kind):
        return _POINTER_BYTES
    return max(1, int(kind.bit_width) // 8)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _narrowed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as whole numbers or numbers, where all that is not empty reads as such."""
    filled = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    if filled.null_count == len(filled):
        return values
    for kind in (pa.int64(), pa.float64()):
        try:
            return filled.cast(kind)
        except pa.ArrowInvalid:
            continue
    return values


def _column(values: pa.ChunkedArray) -> Column:
    missing = np.asarray(values.is_null().to_numpy()) if values.null_count else None
    if pa.types.is_dictionary(values.type):
        return Column(values=_from_dictionary(values), missing=missing)
    if _is_text(values.type):
        return Column(values=_from_dictionary(values.dictionary_encode()), missing=missing)
    if pa.types.is_floating(values.type) and missing is not None:
        values = values.fill_null(float("nan"))
    elif missing is not None:
        values = values.fill_null(False if pa.types.is_boolean(values.type) else 0)
    array: Array = values.to_numpy()
    return Column(values=array, missing=missing)


def _from_dictionary(values: pa.ChunkedArray) -> Array:
    """Text as an object array whose equal values are one object; numbers plainly."""
    whole = values.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    words = whole.dictionary
    indices = whole.indices.fill_null(0).to_numpy(zero_copy_only=False)
    if not _is_text(words.type):
        numbers: Array = words.to_numpy(zero_copy_only=False)[indices]
        return numbers
    table = np.empty(max(1, len(words)), dtype=object)
    table[:] = [*words.to_pylist()] or [""]
    text: Array = table[indices]
    return text


def _bad(message: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.BAD_DATA, message)
