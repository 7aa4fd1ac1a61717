"""What the SQLite store promises when several processes share its file, and when one of them is killed."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shared.store.sqlite import SqliteDocuments
from tests.contract.sqlite_child import COUNTER, MODELS, payload

_ROOT = Path(__file__).parents[2]


@contextmanager
def children(command: str, path: Path, arguments: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have begun and wait for `go`; they are gone on the way out."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.sqlite_child", command, path, argument],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for argument in arguments
    ]
    try:
        for child in started:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        yield started
    finally:
        for child in started:
            with child:
                child.kill()


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def test_of_four_processes_that_make_the_file_and_create_one_wins_each_document(tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    with children("open-and-create", path, ["w", "x", "y", "z"]) as started:
        for child in started:
            go(child)
        won = {child.args[-1]: child.communicate(timeout=60)[0].split() for child in started}  # type: ignore[index]
        assert [child.returncode for child in started] == [0] * 4
    assert sorted(number for numbers in won.values() for number in numbers) == sorted(map(str, range(20)))
    with closing(SqliteDocuments(path)) as documents:
        for stored in documents.query(MODELS, partition="m").items:
            assert str(int(stored.body["id"])) in won[stored.body["writer"]]


def test_increments_of_four_processes_sum_up(tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    with closing(SqliteDocuments(path)) as documents:
        documents.create(MODELS, {"id": COUNTER, "model": "m", "n": 0})
        with children("increment", path, ["25"] * 4) as started:
            for child in started:
                go(child)
            for child in started:
                child.communicate(timeout=60)
            assert [child.returncode for child in started] == [0] * 4
        counter = documents.get(MODELS, "m", COUNTER)
        assert counter is not None
        assert counter.body["n"] == 100


def test_a_process_killed_while_it_writes_leaves_every_acknowledged_write_and_none_torn(tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    with closing(SqliteDocuments(path)) as documents:
        documents.create(MODELS, {"id": COUNTER, "model": "m", "n": -1})
    acknowledged = -1
    for acknowledgements in (1, 7, 20, 33, 50):
        acknowledged = _kill_after(path, acknowledged + 1, acknowledgements)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        acknowledged = _check_written(path, acknowledged)


def _kill_after(path: Path, first: int, acknowledgements: int) -> int:
    """Let a process write until it acknowledged so many, kill it while it goes on; the last that it acknowledged."""
    with children("write-forever", path, [str(first)]) as (child,):
        go(child)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledgements)]
        child.kill()
        lines += child.stdout.readlines()
    numbers = [int(line) for line in lines if line.endswith("\n")]
    assert numbers == list(range(first, first + len(numbers)))
    return numbers[-1]


def _check_written(path: Path, acknowledged: int) -> int:
    """Every write up to `acknowledged` is there, at most one more, and none in part; the last number there is."""
    with closing(SqliteDocuments(path)) as documents:
        found = []
        continuation = None
        while True:
            page = documents.query(MODELS, partition="m", continuation=continuation)
            found += [stored.body for stored in page.items if stored.body["id"] != COUNTER]
            continuation = page.continuation
            if continuation is None:
                break
        counter = documents.get(MODELS, "m", COUNTER)
    assert counter is not None
    assert counter.body["n"] in {acknowledged, acknowledged + 1}
    assert counter.body["payload"] == payload(counter.body["n"])
    assert len(found) - 1 in {acknowledged, acknowledged + 1}
    assert len(found) - 1 >= counter.body["n"]
    for number, body in enumerate(found):
        assert body == {"id": f"{number:08d}", "model": "m", "payload": payload(number)}
    return len(found) - 1
