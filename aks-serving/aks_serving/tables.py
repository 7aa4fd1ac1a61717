"""Tables as bodies of POST /predict: text/csv, application/vnd.apache.arrow.stream, and rows of JSON objects.

Their columns are the model's inputs, by name, where each input is a column (of shape [n] or [n, 1], where n varies or
is fixed); for a model with one table of numbers as its input they are that table's columns in their order, which no
plan gives names. What a JSON body says beside its features stands in the query: model, model_version, user_id,
timeout_ms.

A CSV is UTF-8, by RFC 4180. Its first row is a header where all its cells are names of inputs, or the media type says
`header=present`; `header=absent` says that it is none. Reading is exact: nothing is missing, and a value that its input
does not take is an InvalidInputError that names row and column, both counted from 1, the header not among the rows.

CSV and rows are read cell by cell: such a table has at most 65,536 cells, its header's among them, and one with more is
refused before memory is spent on it (aks_serving.cells). Of Arrow, the body's size is the bound. A cell of a CSV takes
1.1 microseconds, a column of Arrow 11 and its MiB some 500, on the event loop, as all bodies are read.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import numpy as np

from aks_serving import arrow, cells
from aks_serving.columns import REAL, column_of, is_column
from aks_serving.escapes import why
from aks_serving.model import Signature
from aks_serving.tensors import Array, Feeds
from shared.core.errors import InvalidInputError

_MAX_COLUMNS = 10_000
_SHOWN = 80
_PARAMETERS = ("model", "model_version", "user_id", "timeout_ms")
_AS_JSON = (b"application/json", b"application/x-www-form-urlencoded", b"")
"""Read as JSON: also what some clients say of any body, and no type at all."""
_WANTED = "send application/json, text/csv or application/vnd.apache.arrow.stream"


class UnsupportedTypeError(InvalidInputError):
    """The body has a media type that this server does not read."""

    def __init__(self, found: bytes, wanted: str = _WANTED) -> None:
        shown = found[:_SHOWN].decode("latin-1")
        super().__init__(f"the body's Content-Type is {shown!r}: {wanted}")


class ArrowMissingError(UnsupportedTypeError):
    """The body is an Arrow stream, and the server was installed without what reads it."""

    def __init__(self, found: bytes) -> None:
        super().__init__(
            found,
            "this server was installed without the extra slipway-serving[arrow]; send application/json or text/csv",
        )


class Form(StrEnum):
    """The form of a table."""

    CSV = "text/csv"
    CSV_HEADER = "text/csv; header=present"
    CSV_BARE = "text/csv; header=absent"
    ARROW = "application/vnd.apache.arrow.stream"


def is_json(content_type: bytes) -> bool:
    """Whether a body of that type is read as JSON."""
    return content_type.partition(b";")[0].strip().lower() in _AS_JSON


@lru_cache(maxsize=64)
def form_of(content_type: bytes) -> Form | None:
    """The form that a value of Content-Type names; None for JSON. Raises UnsupportedTypeError."""
    if is_json(content_type):
        return None
    kind, _, parameters = content_type.lower().partition(b";")
    kind = kind.strip()
    if kind == Form.ARROW.encode():
        if not arrow.is_installed():
            raise ArrowMissingError(content_type)
        return Form.ARROW
    if kind != Form.CSV.encode():
        raise UnsupportedTypeError(content_type)
    said = {part.strip().replace(b'"', b"") for part in parameters.split(b";")}
    if any(part.startswith(b"charset=") and part not in (b"charset=utf-8", b"charset=us-ascii") for part in said):
        raise UnsupportedTypeError(content_type)
    if b"header=present" in said:
        return Form.CSV_HEADER
    return Form.CSV_BARE if b"header=absent" in said else Form.CSV


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request says in its query, and its table: rows of a CSV, or named columns."""

    model: str | None
    model_version: str | None
    user_id: str | None
    timeout_ms: float | None
    form: Form
    rows: Sequence[Sequence[str]] = ()
    columns: dict[str, Array] | None = None

    def feeds(self, signature: Signature) -> Feeds:
        """The table as a signature wants it. Raises InvalidInputError."""
        feeds = self._feeds(signature)
        for spec in signature.inputs:
            spec.check(feeds[spec.name])
        return feeds

    def _feeds(self, signature: Signature) -> Feeds:
        names = [spec.name for spec in signature.inputs]
        if all(is_column(spec) for spec in signature.inputs):
            named = self._by_name(names)
            return {
                spec.name: column_of(named[spec.name], place, spec).reshape((-1, 1) if len(spec.shape) == 2 else (-1,))
                for place, spec in enumerate(signature.inputs, start=1)
            }
        spec = signature.inputs[0]
        if len(names) != 1 or len(spec.shape) != 2:
            raise InvalidInputError("the model takes more than a table: send JSON, with its inputs by name")
        columns = self._in_order()
        if spec.shape[1] not in (-1, len(columns)):
            raise InvalidInputError(f"the table has {len(columns)} columns, and input {spec.name!r} {spec.shape[1]}")
        if not columns:
            raise InvalidInputError("the table has no columns")
        table = np.stack([column_of(values, place, spec) for place, values in enumerate(columns, start=1)], axis=1)
        return {spec.name: np.ascontiguousarray(table)}

    def _by_name(self, names: list[str]) -> dict[str, Any]:
        if self.columns is not None:
            given: dict[str, Any] = dict(self.columns)
        else:
            header, rows = self._split(names)
            columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
            given = dict(zip(header, columns, strict=True))
        missing = [name for name in names if name not in given]
        if missing:
            raise InvalidInputError(f"column {missing[0]!r} is missing: the model takes {', '.join(names)}")
        known = set(names)
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            raise InvalidInputError(f"the model has no input {unknown[:_SHOWN]!r}: it takes {', '.join(names)}")
        return given

    def _split(self, names: list[str]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The header and the rows; without a header, columns stand in the inputs' order."""
        first = self.rows[0] if self.rows else ()
        is_header = self.form is Form.CSV_HEADER or (self.form is Form.CSV and set(first) <= set(names))
        if is_header and first:
            seen: set[str] = set()
            for name in first:
                if name in seen:
                    raise InvalidInputError(f"column {name[:_SHOWN]!r} is there twice")
                seen.add(name)
            return first, self.rows[1:]
        if first and len(first) != len(names):
            raise InvalidInputError(
                f"row 1 has {len(first)} columns, and the model takes {len(names)}: {', '.join(names)}"
            )
        return names, self.rows

    def _in_order(self) -> list[Any]:
        if self.columns is not None:
            return list(self.columns.values())
        if self.form is Form.CSV_HEADER:
            raise InvalidInputError("the columns of the model's table have no names: send them without a header")
        return list(zip(*self.rows, strict=True))


def read_request(form: Form, body: bytes, query: bytes) -> Asked:
    """Read a request. Raises InvalidInputError."""
    said = read_query(query)
    if form is Form.ARROW:
        try:
            columns = arrow.read_stream(body)
        except ImportError as error:
            raise ArrowMissingError(Form.ARROW.encode()) from error
        return Asked(**said, form=form, columns=columns)
    return Asked(**said, form=form, rows=_rows(body))


def read_query(query: bytes) -> dict[str, Any]:
    """What a query says: model, model_version, user_id and timeout_ms, or None. Raises InvalidInputError."""
    said: dict[str, Any] = dict.fromkeys(_PARAMETERS)
    try:
        text = query.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=16)
    except UnicodeDecodeError as error:
        raise InvalidInputError("the query is not UTF-8, percent-encoded") from error
    except ValueError as error:
        raise InvalidInputError("the query is not one like ?model=churn&user_id=ada") from error
    for name, value in pairs:
        if name not in said or said[name] is not None:
            what = "twice in" if name in said else "no parameter of"
            raise InvalidInputError(f"{name[:_SHOWN]!r} is {what} the query: known are {', '.join(_PARAMETERS)}")
        said[name] = value
    timeout = said["timeout_ms"]
    if timeout is not None:
        if not REAL.fullmatch(timeout) or not float(timeout) > 0:
            raise InvalidInputError(f"timeout_ms is {timeout[:_SHOWN]!r}: use a number above 0")
        said["timeout_ms"] = float(timeout)
    return said


_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def by_column(rows: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """JSON rows, [{"a": 1, "b": 2}, ...], as JSON data by column. Raises InvalidInputError."""
    text = bytes(rows)
    cells.check_rows(text)
    try:
        objects = _OBJECTS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f'the rows are not objects like [{{"age": 31}}]: {why(error, text)}') from error
    cells.check(objects)
    names = list(objects[0]) if objects else []
    for number, row in enumerate(objects, start=1):
        if row.keys() != objects[0].keys():
            other = next(name for name in [*names, *row] if name not in row or name not in objects[0])
            fault = "is missing" if other in objects[0] else "stands in it, and not in row 1"
            raise InvalidInputError(f"row {number}: {other[:_SHOWN]!r} {fault}: every row has the same names")
    return {name: msgspec.Raw(b"[" + b",".join([bytes(row[name]) for row in objects]) + b"]") for name in names}


def _rows(body: bytes) -> list[list[str]]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the CSV is not UTF-8: byte {error.start} is not") from error
    cells.check_csv(text)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            if not row:
                continue  # an empty line
            if len(row) > _MAX_COLUMNS or (rows and len(row) != len(rows[0])):
                wanted = len(rows[0]) if rows else f"at most {_MAX_COLUMNS}"
                raise InvalidInputError(f"line {len(rows) + 1} of the CSV has {len(row)} cells, wanted {wanted}")
            rows.append(row)
    except csv.Error as error:
        raise InvalidInputError(f"line {len(rows) + 1} of the CSV cannot be read: {error}") from error
    cells.check(rows)
    return rows
