"""What every document adapter holds alike: the form of keys, bodies, filters and continuations.

Cosmos DB is the narrower store, so its limits are checked here before either adapter writes: what SQLite takes on one
machine, Cosmos DB takes in Azure. Numbers are the JSON numbers that survive as doubles: a whole float becomes an int,
and an int that a double cannot hold exactly is refused, so that a body reads back equal from either store.
"""

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shared.core.canonical import canonical_json
from shared.core.errors import InvalidInputError
from shared.store.ports import PARTITION_KEY, Container

MAX_DOCUMENT_BYTES = 2_000_000
"""Cosmos DB's limit is 2 MB of JSON with the database's own fields, for which this leaves room."""
MAX_KEY_BYTES = 1023
MAX_DEPTH = 100
"""Cosmos DB refuses more than 128 levels of nesting."""
MAX_WHOLE_NUMBER = 2**53 - 1
MAX_PAGE_SIZE = 1000
SYSTEM_FIELDS = frozenset({"_rid", "_self", "_etag", "_attachments", "_ts"})
"""Fields of the database's own in a Cosmos DB document: a body may not have them, and none is handed out."""

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_AN_ID = re.compile(r"[/\\?#]")

type Where = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedDocument:
    """A body fit to be stored: a copy with plain JSON values, and its JSON text."""

    partition: str
    document_id: str
    body: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedQuery:
    """A query whose filter and page size are in order. `position` is where the last page ended."""

    container: Container
    partition: str | None
    where: dict[str, str | int | bool]
    page_size: int
    position: tuple[str, ...] | None


def checked_document(container: Container, body: Mapping[str, Any]) -> CheckedDocument:
    """Check a body and its keys. Raises InvalidInputError."""
    field = PARTITION_KEY[container]
    document_id, partition = body.get("id"), body.get(field)
    checked_keys(container, partition, document_id)
    reserved = sorted(SYSTEM_FIELDS & body.keys())
    if reserved:
        raise InvalidInputError(f"a document may not have the fields {reserved}: the database keeps them for itself")
    plain = _plain(dict(body), "the document", 0)
    try:
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the document {document_id!r} has text that is not valid Unicode: {error}") from error
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise InvalidInputError(
            f"the document {document_id!r} has {size_bytes} bytes as JSON, and the limit is {MAX_DOCUMENT_BYTES}: "
            "keep what is large in a blob"
        )
    return CheckedDocument(partition=str(partition), document_id=str(document_id), body=plain, text=text)


def checked_keys(container: Container, partition: object, document_id: object) -> None:
    """Check the two texts that name a document. Raises InvalidInputError."""
    _check_key(partition, f"the field {PARTITION_KEY[container]!r} of a document in {container}")
    _check_key(document_id, f"the id of a document in {container}")
    text = str(document_id)
    # An id stands in a URL's path, where a dot segment would be resolved away.
    if _NOT_IN_AN_ID.search(text) or text.endswith(" ") or text in {".", ".."}:
        raise InvalidInputError(
            f"the document id {text!r} is refused: leave out / \\ ? # and a space at the end, and use more than dots"
        )


def checked_query(
    container: Container,
    *,
    partition: str | None,
    where: Where | None,
    page_size: int,
    continuation: str | None,
    position_parts: int,
) -> CheckedQuery:
    """Check a query's arguments; a continuation holds a position of `position_parts`. Raises InvalidInputError."""
    if partition is not None:
        _check_key(partition, f"the partition of a query in {container}")
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidInputError(f"the page size is {page_size}: use 1 to {MAX_PAGE_SIZE}")
    plain: dict[str, str | int | bool] = {}
    for name, value in (where or {}).items():
        if not _FIELD.fullmatch(name):
            raise InvalidInputError(f"{name[:100]!r} is not a field to filter by: use letters, digits and underscores")
        if not isinstance(value, str | int):
            raise InvalidInputError(f"the filter on {name!r} is a {type(value).__name__}: use a text, int or bool")
        plain[name] = _plain(value, f"the filter on {name!r}", 0)
    query = CheckedQuery(container=container, partition=partition, where=plain, page_size=page_size, position=None)
    if continuation is None:
        return query
    return replace(query, position=_position(query, continuation, position_parts))


def continuation_after(query: CheckedQuery, *position: str) -> str:
    """The opaque text that continues `query` after `position`; it fits no other query."""
    return base64.urlsafe_b64encode(canonical_json([_scope(query), *position])).decode()


def from_double(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A value as a store of doubles gave it, with the numbers that a checked body has."""
    match value:
        case dict():
            return {key: from_double(item) for key, item in value.items()}
        case list():
            return [from_double(item) for item in value]
        case bool():
            return value
        case int() if abs(value) > MAX_WHOLE_NUMBER:
            return float(value)
        case float() if value.is_integer() and abs(value) <= MAX_WHOLE_NUMBER:
            return int(value)
        case _:
            return value


def _plain(value: Any, what: str, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"{what} is nested more than {MAX_DEPTH} levels deep")
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int() if abs(value) <= MAX_WHOLE_NUMBER:
            return int(value)
        case int():
            raise InvalidInputError(
                f"{what} holds the whole number {value}, and a JSON number is exact up to {MAX_WHOLE_NUMBER}: "
                "store it as text"
            )
        case float() if math.isfinite(value):
            return from_double(value)
        case Mapping():
            return {_field_name(key, what): _plain(item, what, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, what, depth + 1) for item in value]
        case _:
            raise InvalidInputError(f"{what} holds {value!r:.80}, which JSON has no form for")


def _field_name(key: object, what: str) -> str:
    if not isinstance(key, str):
        raise InvalidInputError(f"{what} has the field name {key!r:.80}: use text")
    return str(key)


def _check_key(value: object, what: str) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{what} is {value!r:.80}: use a text that is not empty")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} is not valid Unicode: {error}") from error
    if size_bytes > MAX_KEY_BYTES or _CONTROL.search(value):
        raise InvalidInputError(
            f"{what} is {value[:80]!r} ({size_bytes} bytes): use at most {MAX_KEY_BYTES} bytes, no control characters"
        )


def _scope(query: CheckedQuery) -> str:
    # JSON tells true from 1 and "1" from 1, so two filters that differ in type alone differ here too.
    named = canonical_json([query.container, query.partition, query.where])
    return hashlib.blake2b(named, digest_size=8).hexdigest()


def _position(query: CheckedQuery, continuation: str, parts: int) -> tuple[str, ...]:
    try:
        decoded = json.loads(base64.b64decode(continuation.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        decoded = None
    match decoded:
        case [scope, *position] if len(position) == parts and all(isinstance(part, str) for part in position):
            if scope == _scope(query):
                return tuple(position)
            raise InvalidInputError("the continuation belongs to another query: repeat the query it came from")
        case _:
            raise InvalidInputError(
                f"{continuation[:80]!r} is not a continuation: pass on the text of the page before, or none"
            )
