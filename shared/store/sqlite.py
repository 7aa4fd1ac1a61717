"""Documents in one SQLite file: the store of a single machine, shared by any number of threads and processes.

A write that returned survives the death of the process, and of the machine as far as its disk keeps a flush: the file
is in WAL mode with synchronous=FULL. Writers queue for the file's one write lock; readers never wait. A store must not
be carried across `os.fork`; a spawned process opens its own.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from shared.core.errors import (
    AlreadyExistsError,
    ChangedMeanwhileError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from shared.store.documents import (
    CheckedQuery,
    Where,
    checked_document,
    checked_keys,
    checked_query,
    continuation_after,
)
from shared.store.ports import Container, Page, Stored

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x534C5057
"""Marks the file as Slipway's ("SLPW"), so that another program's database is never written to."""
_BUSY_TIMEOUT_S = 15.0

_SCHEMA = (
    """
    CREATE TABLE documents (
        container TEXT NOT NULL,
        partition_key TEXT NOT NULL,
        id TEXT NOT NULL,
        etag TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (container, partition_key, id)
    ) STRICT
    """,
    # What the services look for across partitions. An expression must stand here as `_condition` writes it.
    "CREATE INDEX documents_kind ON documents (container, json_extract(body, '$.kind'), partition_key, id)",
    """
    CREATE INDEX documents_state
    ON documents (container, json_extract(body, '$.kind'), json_extract(body, '$.state'), partition_key, id)
    """,
    *(
        f"""
        CREATE INDEX documents_{flag} ON documents (container, json_extract(body, '$.kind'), partition_key, id)
        WHERE json_type(body, '$.{flag}') = 'true'
        """
        for flag in ("outbox_pending", "rollout_pending")
    ),
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteDocuments:
    """The document port on a SQLite file, which the first to open it creates. Its directory must exist."""

    def __init__(self, path: Path, *, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> None:
        """Open the file. Raises UnavailableError, IntegrityError, or InvalidInputError where it is not Slipway's."""
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        with self._connection() as connection:
            self._enter_wal(connection)
            self._ensure_schema(connection)

    def close(self) -> None:
        """Close the file. Calls under way on other threads end first; later ones raise RuntimeError."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def get(self, container: Container, partition: str, document_id: str) -> Stored | None:
        """See DocumentStore.get."""
        checked_keys(container, partition, document_id)
        with self._connection() as connection:
            row = connection.execute(
                "SELECT body, etag FROM documents WHERE container = ? AND partition_key = ? AND id = ?",
                (container.value, partition, document_id),
            ).fetchone()
        return None if row is None else Stored(body=json.loads(row[0]), etag=row[1])

    def create(self, container: Container, body: Mapping[str, Any]) -> Stored:
        """See DocumentStore.create."""
        document = checked_document(container, body)
        etag = _new_etag()
        with self._connection() as connection, _write(connection):
            created = connection.execute(
                "INSERT INTO documents (container, partition_key, id, etag, body) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (container.value, document.partition, document.document_id, etag, document.text),
            ).rowcount
        if not created:
            raise AlreadyExistsError(_named(container, document.partition, document.document_id))
        return Stored(body=document.body, etag=etag)

    def replace(self, container: Container, body: Mapping[str, Any], *, etag: str) -> Stored:
        """See DocumentStore.replace."""
        document = checked_document(container, body)
        key = (container.value, document.partition, document.document_id)
        new_etag = _new_etag()
        with self._connection() as connection, _write(connection):
            found = connection.execute(
                "SELECT etag FROM documents WHERE container = ? AND partition_key = ? AND id = ?", key
            ).fetchone()
            if found == (etag,):
                connection.execute(
                    "UPDATE documents SET etag = ?, body = ? WHERE container = ? AND partition_key = ? AND id = ?",
                    (new_etag, document.text, *key),
                )
        if found is None:
            raise NotFoundError(_named(container, document.partition, document.document_id))
        if found != (etag,):
            raise ChangedMeanwhileError(_named(container, document.partition, document.document_id))
        return Stored(body=document.body, etag=new_etag)

    def delete(self, container: Container, partition: str, document_id: str, *, etag: str) -> bool:
        """See DocumentStore.delete."""
        checked_keys(container, partition, document_id)
        key = (container.value, partition, document_id)
        with self._connection() as connection, _write(connection):
            found = connection.execute(
                "SELECT etag FROM documents WHERE container = ? AND partition_key = ? AND id = ?", key
            ).fetchone()
            if found == (etag,):
                connection.execute("DELETE FROM documents WHERE container = ? AND partition_key = ? AND id = ?", key)
        if found not in {None, (etag,)}:
            raise ChangedMeanwhileError(_named(container, partition, document_id))
        return found is not None

    def query(
        self,
        container: Container,
        *,
        partition: str | None = None,
        where: Where | None = None,
        page_size: int = 100,
        continuation: str | None = None,
    ) -> Page:
        """See DocumentStore.query. Ordered by partition and id."""
        query = checked_query(
            container,
            partition=partition,
            where=where,
            page_size=page_size,
            continuation=continuation,
            position_parts=2,
        )
        statement, values = _select(query)
        with self._connection() as connection:
            rows = connection.execute(statement, values).fetchall()
        page = rows[:page_size]
        return Page(
            items=[Stored(body=json.loads(body), etag=etag) for _, _, body, etag in page],
            continuation=continuation_after(query, page[-1][0], page[-1][1]) if len(rows) > page_size else None,
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one caller at a time; one that saw an error is closed, which undoes what it began."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the document store {self._path} is closed")
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._translated(error) from error
            raise
        self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        # Turning WAL on can be refused as busy at once, whatever the timeout, while another process opens the file.
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                break
        if mode != "wal":
            raise UnavailableError(f"the document store {self._path}", "its file system cannot share a write-ahead log")

    def _ensure_schema(self, connection: sqlite3.Connection) -> None:
        with _write(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (owner,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if owner == version == tables == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
                return
        if owner != _APPLICATION_ID:
            raise InvalidInputError(f"{self._path} is another program's database: name another file")
        if version != SCHEMA_VERSION:
            raise InvalidInputError(
                f"{self._path} has schema version {version}, and this Slipway reads version {SCHEMA_VERSION}: "
                "use the Slipway that wrote it, or another file"
            )

    def _translated(self, error: sqlite3.Error) -> Exception:
        code = _primary_code(error)
        if code in _UNAVAILABLE:
            return UnavailableError(f"the document store {self._path}", str(error))
        if code in _DAMAGED:
            return IntegrityError(f"{self._path} is not an intact SQLite database ({error}): restore it from a copy")
        return error


@contextmanager
def _write(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that holds the write lock from its start; undone by whoever closes the connection on an error."""
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def _select(query: CheckedQuery) -> tuple[str, list[str | int]]:
    conditions = ["container = ?"]
    values: list[str | int] = [query.container.value]
    if query.partition is not None:
        conditions.append("partition_key = ?")
        values.append(query.partition)
    for name, value in query.where.items():
        conditions.append(_condition(name, value))
        if not isinstance(value, bool):
            values.append(value)
    if query.position is not None:
        partition, document_id = query.position
        if query.partition is None:
            conditions.append("(partition_key, id) > (?, ?)")
            values.append(partition)
        else:
            conditions.append("id > ?")
        values.append(document_id)
    values.append(query.page_size + 1)
    # Every part of the text is a constant or a name that `checked_query` let through.
    statement = (
        "SELECT partition_key, id, body, etag FROM documents "  # noqa: S608
        f"WHERE {' AND '.join(conditions)} ORDER BY partition_key, id LIMIT ?"
    )
    return statement, values


def _condition(name: str, value: str | int | bool) -> str:  # noqa: FBT001 - a filter's value
    # json_extract alone takes true for 1 and an array for its text, so the JSON type is asked for as well.
    kind, extracted = f"json_type(body, '$.{name}')", f"json_extract(body, '$.{name}')"
    if isinstance(value, bool):
        return f"{kind} = '{'true' if value else 'false'}'"
    if isinstance(value, int):
        return f"{extracted} = ? AND {kind} = 'integer'"
    return f"{extracted} = ? AND {kind} = 'text'"


def _named(container: Container, partition: str, document_id: str) -> str:
    return f"the document {document_id!r} in {container}/{partition}"


def _new_etag() -> str:
    return uuid4().hex


def _primary_code(error: sqlite3.Error) -> int:
    # sqlite3 raises some errors of its own, without a code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
