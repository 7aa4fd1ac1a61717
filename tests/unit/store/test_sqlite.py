"""The SQLite file itself: who may open it, what its failures become, and that the sweep's queries use an index."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from shared.core.errors import IntegrityError, InvalidInputError, UnavailableError
from shared.store.documents import checked_query, continuation_after
from shared.store.ports import Container
from shared.store.sqlite import SCHEMA_VERSION, SqliteDocuments, _select

MODELS = Container.MODELS
BODY = {"id": "a", "model": "m", "n": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


@pytest.fixture
def documents(path: Path) -> Iterator[SqliteDocuments]:
    with closing(SqliteDocuments(path, busy_timeout_s=0.05)) as store:
        yield store


def test_documents_stand_in_the_file_after_it_was_closed(path: Path) -> None:
    with closing(SqliteDocuments(path)) as documents:
        created = documents.create(MODELS, BODY)
    with closing(SqliteDocuments(path)) as documents:
        assert documents.get(MODELS, "m", "a") == created


def test_many_may_make_the_file_at_once(tmp_path: Path) -> None:
    together = Barrier(8)

    def make(number: int) -> int:
        stored = 0
        for attempt in range(10):
            together.wait(timeout=60)
            with closing(SqliteDocuments(tmp_path / f"{attempt}.db")) as documents:
                documents.create(MODELS, {**BODY, "id": str(number)})
                stored += 1
        return stored

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == [10] * 8
    for attempt in range(10):
        with closing(SqliteDocuments(tmp_path / f"{attempt}.db")) as documents:
            assert len(documents.query(MODELS).items) == 8


def test_every_connection_flushes_each_commit(documents: SqliteDocuments) -> None:
    with documents._connection() as first, documents._connection() as second:
        for connection in (first, second):
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_connections_are_used_again(documents: SqliteDocuments) -> None:
    documents.create(MODELS, BODY)
    for _ in range(20):
        documents.get(MODELS, "m", "a")
    assert len(documents._idle) == 1


def test_a_write_that_waits_too_long_is_unavailable_and_works_later(path: Path, documents: SqliteDocuments) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match=r"documents\.db is unavailable: database is locked"):
            documents.create(MODELS, BODY)
        assert documents.get(MODELS, "m", "a") is None, "readers never wait"
        other.execute("ROLLBACK")
    assert documents.create(MODELS, BODY).body == BODY


def test_a_full_disk_is_unavailable_and_leaves_what_stood(documents: SqliteDocuments) -> None:
    created = documents.create(MODELS, BODY)
    with documents._connection() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(UnavailableError, match="full"):
        documents.replace(MODELS, {**BODY, "text": "x" * 100_000}, etag=created.etag)
    assert documents.get(MODELS, "m", "a") == created


def test_an_absent_directory_is_unavailable_and_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"nowhere/documents\.db is unavailable: unable to open"):
        SqliteDocuments(tmp_path / "nowhere" / "documents.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, but someone's words. " * 100)
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match=r"documents\.db is not an intact SQLite database"):
        SqliteDocuments(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_an_integrity_error(path: Path) -> None:
    with closing(SqliteDocuments(path)) as documents:
        for number in range(50):
            documents.create(MODELS, {**BODY, "id": str(number), "text": "x" * 2000})
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(IntegrityError, match="not an intact SQLite database"):  # noqa: SIM117
        with closing(SqliteDocuments(path)) as documents:
            documents.query(MODELS)


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (id)")
        other.commit()
    with pytest.raises(InvalidInputError, match="another program's database"):
        SqliteDocuments(path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_another_schema_version_is_refused(path: Path) -> None:
    SqliteDocuments(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(InvalidInputError, match=f"schema version {SCHEMA_VERSION + 1}, and this Slipway reads"):
        SqliteDocuments(path)


def test_a_closed_store_says_so(path: Path) -> None:
    documents = SqliteDocuments(path)
    documents.close()
    documents.close()
    with pytest.raises(RuntimeError, match="is closed"):
        documents.get(MODELS, "m", "a")


def test_closing_waits_for_no_call_and_breaks_none(path: Path) -> None:
    documents = SqliteDocuments(path)
    with documents._connection() as connection:
        documents.close()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ({}, "sqlite_autoindex_documents_1"),
        ({"kind": "model"}, "documents_kind"),
        ({"kind": "version", "state": "registered"}, "documents_state"),
        ({"kind": "model", "outbox_pending": True}, "documents_outbox_pending"),
        ({"kind": "version", "rollout_pending": True}, "documents_rollout_pending"),
    ],
)
@pytest.mark.parametrize("partition", ["m", None])
def test_a_page_of_what_the_services_look_for_comes_from_an_index_in_order(
    documents: SqliteDocuments, partition: str | None, where: dict[str, Any], index: str
) -> None:
    query = checked_query(MODELS, partition=partition, where=where, page_size=10, continuation=None, position_parts=2)
    following = checked_query(
        MODELS,
        partition=partition,
        where=where,
        page_size=10,
        continuation=continuation_after(query, "m", "a"),
        position_parts=2,
    )
    for page in (query, following):
        statement, values = _select(page)
        with documents._connection() as connection:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert len(plan) == 1, "no sorting"
        assert plan[0].startswith(f"SEARCH documents USING INDEX {index} (container=?")
