"""What a process of its own does to a SQLite file, for test_sqlite_processes: one command, one line out a result.

It says "ready" when it has begun, and waits for a line of input before it goes on, so that several start together.
"""

import sys
from contextlib import closing
from itertools import count
from pathlib import Path

from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError
from shared.store.ports import Container
from shared.store.sqlite import SqliteDocuments

MODELS = Container.MODELS
COUNTER = "counter"


def payload(number: int) -> str:
    """What document `number` holds: several database pages that no other document holds."""
    return f"{number:08d}" * 2000


def _say(word: object) -> None:
    print(word, flush=True)  # noqa: T201 - the answer to the parent


def _create(documents: SqliteDocuments, writer: str) -> None:
    """Create twenty documents that the others create too; say which were won."""
    for number in range(20):
        try:
            documents.create(MODELS, {"id": f"{number:02d}", "model": "m", "writer": writer})
        except AlreadyExistsError:
            continue
        _say(number)


def _increment(documents: SqliteDocuments, times: str) -> None:
    for _ in range(int(times)):
        while True:
            found = documents.get(MODELS, "m", COUNTER)
            assert found is not None
            try:
                documents.replace(MODELS, {**found.body, "n": found.body["n"] + 1}, etag=found.etag)
            except ChangedMeanwhileError:
                continue
            break


def _write_forever(documents: SqliteDocuments, first: str) -> None:
    """Create a document and bring the counter to its number, again and again; say each number when both returned."""
    for number in count(int(first)):
        documents.create(MODELS, {"id": f"{number:08d}", "model": "m", "payload": payload(number)})
        found = documents.get(MODELS, "m", COUNTER)
        assert found is not None
        documents.replace(MODELS, {**found.body, "n": number, "payload": payload(number)}, etag=found.etag)
        _say(number)


def _main(command: str, path: str, argument: str) -> None:
    if command != "open-and-create":
        with closing(SqliteDocuments(Path(path))) as documents:
            _begin_together()
            {"increment": _increment, "write-forever": _write_forever}[command](documents, argument)
        return
    _begin_together()
    with closing(SqliteDocuments(Path(path))) as documents:
        _create(documents, argument)


def _begin_together() -> None:
    _say("ready")
    sys.stdin.readline()


if __name__ == "__main__":
    _main(*sys.argv[1:])
