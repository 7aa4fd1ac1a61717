"""An open loop: requests at a constant rate, whether or not the last ones were answered.

Request k is due at k/rate seconds. Its latency counts from then, not from when it could be sent: where the server, or
this generator, falls behind, every request that should have been sent meanwhile waits, and shows it. A closed loop
would not have asked (coordinated omission; Gil Tene, 2013). How far behind its own schedule the generator was is told
apart (`lag`), so that its part in a latency can be seen; `benchmarks.serving` runs it against the constant answer too.

Run as a process of its own on the loading core: `python -m benchmarks.serving.openloop PORT FILE RATE SECONDS
CONNECTIONS`. It polls without sleeping, since a sleep's end is not exact, and prints one JSON object.
"""

import gc
import json
import select
import socket
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.serving import wire

_GRACE_S = 10.0
_RECEIVE_BYTES = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an open loop found. `late` requests were due and never answered, `failed` ones answered by no 200.

    Latencies count from when a request was due; `lag` is how long after that it was sent.
    """

    rate: float
    due: int
    answered: int
    failed: int
    late: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    lag_p99_ms: float


class Account:
    """Which requests were due, sent and answered, and when. Times are seconds since the beginning."""

    def __init__(self, rate: float, duration_s: float) -> None:
        self.rate = rate
        self.total = int(rate * duration_s)
        self.sent = 0
        self.failed = 0
        self._latencies_s = array("d")
        self._lags_s = array("d")

    @property
    def answered(self) -> int:
        """How many were answered, by whatever status."""
        return len(self._latencies_s)

    @property
    def is_over(self) -> bool:
        """Whether all were answered."""
        return self.answered == self.total

    def due(self, now_s: float) -> int:
        """How many are due by now and not sent."""
        return min(self.total, int(now_s * self.rate) + 1) - self.sent

    def send(self, now_s: float) -> int:
        """Send the next one now; its number."""
        number = self.sent
        self.sent += 1
        self._lags_s.append(now_s - number / self.rate)
        return number

    def answer(self, number: int, now_s: float, *, is_ok: bool) -> None:
        """The answer to a request came."""
        self._latencies_s.append(now_s - number / self.rate)
        self.failed += not is_ok

    def found(self, now_s: float) -> Found:
        """What there is to say. What was never answered counts as if it were answered now."""
        late = self.total - self.answered
        waiting = [now_s - number / self.rate for number in range(self.total - late, self.total)]
        latencies = sorted([*self._latencies_s, *waiting])
        return Found(
            rate=self.rate,
            due=self.total,
            answered=self.answered,
            failed=self.failed,
            late=late,
            p50_ms=quantile(latencies, 0.5) * 1e3,
            p90_ms=quantile(latencies, 0.9) * 1e3,
            p99_ms=quantile(latencies, 0.99) * 1e3,
            max_ms=latencies[-1] * 1e3,
            lag_p99_ms=quantile(sorted(self._lags_s), 0.99) * 1e3,
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least that share of them do not exceed; 0 where there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Reply:
    """Reads one answer at a time: its head up to the empty line, then as many bytes as Content-Length says."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> bool | None:
        """None while the answer is not whole; then whether it is a 200. Raises ValueError where it is no answer."""
        data = self._data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise ValueError(f"an answer without Content-Length: {data[:200]!r}")
        size = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(data) < end + 4 + size:
            return None
        if len(data) > end + 4 + size:
            raise ValueError(f"more than one answer to one request: {data[:200]!r}")
        self._data = b""
        return head.startswith(b"http/1.1 200")


class _Connection:
    __slots__ = ("number", "reply", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=_GRACE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.reply = Reply()
        self.number = -1


def run(port: int, requests: Sequence[bytes], account: Account, *, connections: int) -> Found:
    """Send by the account's schedule, each connection one request at a time, the free ones first come first served.

    Raises OSError or ValueError where a connection breaks.
    """
    poll = select.epoll()
    made = {one.sock.fileno(): one for one in (_Connection(port) for _ in range(connections))}
    for number in made:
        poll.register(number, select.EPOLLIN)
    free = deque(made.values())
    began_s = perf_counter()
    give_up_s = account.total / account.rate + _GRACE_S
    try:
        while not account.is_over:
            now_s = perf_counter() - began_s
            if now_s > give_up_s:
                break
            for _ in range(min(account.due(now_s), len(free))):
                connection = free.popleft()
                connection.number = account.send(perf_counter() - began_s)
                _send(connection.sock, requests[connection.number % len(requests)])
            for ready, _ in poll.poll(0):
                connection = made[ready]
                is_ok = _receive(connection)
                if is_ok is not None:
                    account.answer(connection.number, perf_counter() - began_s, is_ok=is_ok)
                    free.append(connection)
        return account.found(perf_counter() - began_s)
    finally:
        poll.close()
        for connection in made.values():
            connection.sock.close()


def _send(sock: socket.socket, request: bytes) -> None:
    sent = sock.send(request)
    if sent < len(request):
        sock.setblocking(True)
        sock.sendall(request[sent:])
        sock.setblocking(False)


def _receive(connection: _Connection) -> bool | None:
    data = connection.sock.recv(_RECEIVE_BYTES)
    if not data:
        raise ConnectionError("the server closed a connection that it should keep alive")
    return connection.reply.feed(data)


def main(arguments: Sequence[str]) -> None:
    """Run, and print what was found."""
    port, path, rate, seconds, connections = arguments
    requests = wire.load(Path(path))
    gc.disable()
    found = run(int(port), requests, Account(float(rate), float(seconds)), connections=int(connections))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
