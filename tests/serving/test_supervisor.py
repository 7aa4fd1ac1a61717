"""The parent of the workers: who follows whom, in which seat, and what it does where no process can be started."""

import json
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.processes import ROOT
from tests.support.waiting import eventually

_WITHIN_S = 30.0


class Worker:
    """A worker of the supervisor, as the test has it in hand."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_WITHIN_S)
        self._connection = connection
        self._lines = connection.makefile("rb")
        post = self.hears()
        self.place, self.number, self.seat = post["place"], post["number"], post["seat"]

    def hears(self) -> dict[str, Any]:
        """What it says next, by itself."""
        said: dict[str, Any] = json.loads(self._lines.readline())
        return said

    def do(self, order: str, *arguments: Any) -> Any:
        self._connection.sendall(json.dumps([order, *arguments]).encode() + b"\n")
        answer = self.hears()
        assert answer["done"] == order
        return answer["gave"]

    def ends(self) -> None:
        """Wait until its process has ended."""
        assert self._lines.readline() == b""

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


class Supervised:
    """A supervisor's process and the workers that it started so far."""

    def __init__(self, folder: Path, places: int) -> None:
        path = folder / "test"
        self.errors = folder / "errors"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.settimeout(_WITHIN_S)
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.serving.supervised", str(path), str(places)], cwd=ROOT, stderr=errors
            )
        self._workers: list[Worker] = []

    def started(self) -> Worker:
        """The worker that is started next."""
        connection, _ = self._socket.accept()
        self._workers.append(Worker(connection))
        return self._workers[-1]

    def says(self, words: str) -> bool:
        return words in self.errors.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_WITHIN_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for worker in self._workers:
            worker.close()
        self._socket.close()


type Supervise = Callable[[int], Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    made: list[Supervised] = []

    def supervising(places: int) -> Supervised:
        made.append(Supervised(tmp_path, places))
        return made[-1]

    yield supervising
    for one in made:
        one.close()


def _serving(supervised: Supervised, places: int) -> list[Worker]:
    workers = sorted((supervised.started() for _ in range(places)), key=lambda worker: worker.place)
    for worker in workers:
        worker.do("count", 50)
        worker.do("say", "L")
    return workers


@pytest.mark.parametrize("places", [1, 2])
def test_a_worker_that_asks_is_followed_and_leaves_once_the_other_listens_and_no_total_falls(
    supervise: Supervise, places: int
) -> None:
    supervised = supervise(places)
    first, *others = _serving(supervised, places)
    total = 50 * places
    for turn in range(1, 5):
        first.do("say", "R")
        second = supervised.started()
        assert (second.place, second.number) == (first.place, places - 1 + turn)
        assert second.seat != first.seat
        assert second.do("total") == first.do("total") == total
        second.do("count", 10)
        total += 10
        second.do("say", "L")
        assert first.hears() == {"heard": "X"}
        first.ends()
        eventually(lambda: supervised.says("another serves in its place"), what="the old one is reaped")
        assert {worker.do("total") for worker in (second, *others)} == {total}
        assert [worker.do("not_ready") for worker in others] == [""] * len(others)
        first = second
    assert {worker.seat for worker in others} <= {0}


def test_no_worker_gets_the_seat_of_one_that_lives_whoever_dies_between(supervise: Supervise) -> None:
    supervised = supervise(1)
    (first,) = _serving(supervised, 1)
    first.do("say", "R")
    failing = supervised.started()
    failing.do("exit", 1)
    third = supervised.started()
    assert third.seat != first.seat
    third.do("count", 1)
    assert first.do("total") == third.do("total") == 51


def test_a_wish_for_another_worker_is_kept_until_a_seat_is_free(supervise: Supervise) -> None:
    supervised = supervise(1)
    (first,) = _serving(supervised, 1)
    first.do("say", "R")
    second = supervised.started()
    # It asks for another while the one before is there: it is heard, and has one as the first has.
    second.do("say", "R")
    third = supervised.started()
    assert len({first.seat, second.seat, third.seat}) == 3
    third.do("say", "R")
    third.do("count", 5)
    third.do("say", "L")
    for older in (first, second):
        assert older.hears() == {"heard": "X"}
        older.ends()
    fourth = supervised.started()
    assert fourth.seat in {first.seat, second.seat}
    assert fourth.do("total") == third.do("total") == 55


def test_where_no_process_can_be_started_it_is_tried_again_and_the_others_go_on(supervise: Supervise) -> None:
    supervised = supervise(2)
    first, second = _serving(supervised, 2)
    # The parent has heard of both, and opens no file for that any more.
    eventually((supervised.errors.parent / "test.listen").exists, what="both are known to listen")
    allowed = resource.prlimit(supervised.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervised.process.pid, resource.RLIMIT_NOFILE, (3, allowed[1]))
    first.do("exit", 1)
    eventually(lambda: supervised.says("no worker can be started: [Errno 24]"), what="it is tried")
    assert second.do("total") == 100
    resource.prlimit(supervised.process.pid, resource.RLIMIT_NOFILE, allowed)
    again = supervised.started()
    assert (again.place, again.do("total")) == (first.place, 100)
    assert supervised.process.poll() is None
    supervised.stop()
