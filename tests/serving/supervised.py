"""A supervisor, run by a test as a process, whose workers do what the test tells them, each over its own connection.

`python -m tests.serving.supervised <socket> <places>`. A worker first says its place, number, seat and process id, and
then obeys lines of JSON: `["count", n]`, `["say", "L"]`, `["total"]`, `["not_ready"]`, `["exit", code]`. It tells of
what it hears from its parent, by the byte.
"""

import json
import logging
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aks_serving.board import Board, State
from aks_serving.counts import VersionTally
from aks_serving.reports import Report, Siblings, counts_of, joined
from aks_serving.supervisor import LEAVE, Post, Supervisor


class _Worker:
    def __init__(self, post: Post, board: Board, path: str) -> None:
        self._post = post
        self._siblings = Siblings(board, place=post.place, seat=post.seat)
        self._tally = VersionTally()
        self._test = socket.socket(socket.AF_UNIX)
        self._test.connect(path)
        self._lines = self._test.makefile("rb")
        self._code: int | None = None
        self._orders: dict[str, Callable[..., Any]] = {
            "count": self._count,
            "say": lambda byte: post.channel.send(byte.encode()),
            "total": self._total,
            "not_ready": self._siblings.not_ready,
            "exit": self._exit,
        }

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))
        self._tell({"place": self._post.place, "number": self._post.number, "seat": self._post.seat})
        with selectors.DefaultSelector() as selector:
            selector.register(self._post.channel, selectors.EVENT_READ, self._heard)
            selector.register(self._test, selectors.EVENT_READ, self._told)
            while self._code is None:
                for key, _ in selector.select():
                    key.data()
        return self._code

    def _told(self) -> None:
        line = self._lines.readline()
        if not line:
            self._code = 0  # the test is gone
            return
        order, *arguments = json.loads(line)
        self._tell({"done": order, "gave": self._orders[order](*arguments)})

    def _heard(self) -> None:
        said = self._post.channel.recv(4096)
        if not said or LEAVE in said:
            self._tell({"heard": said.decode()})
            self._code = 0

    def _tell(self, what: dict[str, Any]) -> None:
        self._test.sendall(json.dumps(what).encode() + b"\n")

    def _count(self, requests: int) -> None:
        self._tally.requests += requests
        self._siblings.tell(Report(counts=counts_of({"churn": {(1, "stable"): self._tally}})), State.READY)

    def _total(self) -> int:
        others = [report.totals() for report in self._siblings.others()]
        whole = joined([{"churn": {(1, "stable"): self._tally}}, self._siblings.carried.totals(), *others])
        return whole["churn"][1, "stable"].requests

    def _exit(self, code: int) -> None:
        self._code = code


def main(path: str, places: int) -> int:
    """Supervise until a signal."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)
    board = Board(places=places)
    listen = Path(path).with_suffix(".listen")
    return Supervisor(
        lambda post: _Worker(post, board, path).run(), board, hang_s=600.0, stop_s=600.0, all_listen=listen.touch
    ).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
