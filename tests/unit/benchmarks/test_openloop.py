"""The open loop's accounting: what is late counts from when it was due, and nothing that was due is left out."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving.openloop import Account, Reply, quantile, run

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


def test_requests_are_due_by_the_clock_alone() -> None:
    account = Account(rate=10, duration_s=1)
    assert (account.total, account.due(0.0), account.due(0.25), account.due(5.0)) == (10, 1, 3, 10)
    account.send(0.0)
    assert account.due(0.25) == 2


def test_a_stall_shows_in_every_request_that_was_due_meanwhile() -> None:
    # 100 requests, one every 10 ms, each answered at once but for a second in which nothing is sent or answered.
    account = Account(rate=100, duration_s=2)
    for number in range(200):
        now_s = max(number / 100, 1.0) if number < 100 else number / 100
        account.answer(account.send(now_s), now_s, is_ok=True)
    found = account.found(2.0)
    assert found.max_ms == pytest.approx(1_000)
    assert found.p50_ms == pytest.approx(0, abs=11)
    assert found.p90_ms == pytest.approx(800, abs=20)  # a closed loop would have sent one request in that second
    assert found.lag_p99_ms == pytest.approx(980, abs=20)


def test_what_was_never_answered_counts_as_late_and_as_slow() -> None:
    account = Account(rate=10, duration_s=1)
    for number in range(5):
        account.answer(account.send(number / 10), number / 10, is_ok=number != 3)
    found = account.found(11.0)
    assert (found.due, found.answered, found.late, found.failed) == (10, 5, 5, 1)
    assert found.max_ms == pytest.approx(10_500)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_an_answer_is_read_the_same_however_it_is_cut(sizes: list[int]) -> None:
    reply, read, at = Reply(), None, 0
    for size in [*sizes, len(OK)]:
        part, at = OK[at : at + size], at + size
        if part:
            assert read is None
            read = reply.feed(part)
    assert read is True
    assert reply.feed(REFUSED) is False


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n", OK + OK])
def test_an_answer_without_a_length_or_with_another_behind_it_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        Reply().feed(data)


@pytest.mark.parametrize(("values", "share", "found"), [([], 0.5, 0), ([7.0], 0.99, 7), ([*range(100)], 0.99, 99)])
def test_quantiles_are_values_that_were_seen(values: list[float], share: float, found: float) -> None:
    assert quantile(values, share) == found


def test_a_run_sends_all_that_is_due_and_tells_refusals_apart() -> None:
    with answering({b"/b": REFUSED}) as port:
        requests = [b"POST /%b HTTP/1.1\r\ncontent-length: 0\r\n\r\n" % path for path in (b"a", b"b")]
        found = run(port, requests, Account(rate=400, duration_s=0.1), connections=4)
    assert (found.due, found.answered, found.late, found.failed) == (40, 40, 0, 20)
    assert found.p50_ms <= found.p90_ms <= found.p99_ms <= found.max_ms


@contextmanager
def answering(by_path: dict[bytes, bytes]) -> Iterator[int]:
    """A server of bodiless requests; its port."""

    def serve(sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(65_536):
                sock.sendall(by_path.get(data.split(b" ")[1], OK))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
