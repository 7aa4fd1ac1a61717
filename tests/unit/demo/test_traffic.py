import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from local.demo.digits import BRIGHTEST, NEW_SCANNER_BRIGHTEST, PIXELS, Rows
from local.demo.traffic import Traffic
from tests.support.waiting import eventually

DIGITS = 10
ROWS = Rows(
    pixels=np.repeat(np.arange(DIGITS, dtype=np.float32)[:, None], PIXELS, axis=1) + (BRIGHTEST - DIGITS + 1),
    labels=np.arange(DIGITS, dtype=np.int64),
)
"""An image of each digit, told apart by its brightness; the last one is as bright as can be."""

type Behave = Callable[[int, dict[str, Any]], tuple[int, bytes]]


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Server:
    """A model server of a few lines: answers with what a test's function says of the n-th request."""

    def __init__(self, behave: Behave) -> None:
        self.requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.requests.append(body)
                    number = len(server.requests)
                status, answer = behave(number, body)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        self._server = _Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def traffic_to(behave: Behave, **options: Any) -> Generator[tuple[Traffic, Server]]:
    server = Server(behave)
    traffic = Traffic(url=server.url, model="digits", rows=ROWS, users=20, per_second=400, **options)
    try:
        traffic.start()
        yield traffic, server
    finally:
        traffic.stop()
        server.close()


def answered(body: dict[str, Any], **changes: Any) -> tuple[int, bytes]:
    """What a server says that reads each image rightly."""
    digits = [round(min(image[0], BRIGHTEST)) - (BRIGHTEST - DIGITS + 1) for image in body["features"]]
    answer = {"predictions": digits, "model_version": 3, "generation": 5, "role": "stable", "fallback": False}
    return 200, json.dumps(answer | changes).encode()


def test_every_request_is_an_answer_or_a_failure_with_its_reason() -> None:
    def behave(number: int, body: dict[str, Any]) -> tuple[int, bytes]:
        match number % 6:
            case 1:
                return 503, b'{"error": "busy"}'
            case 2:
                return answered(body, predictions=[])
            case 3:
                return 0, b""
            case 4:
                return 200, b"not JSON"
            case 5:
                return answered(body, generation=None)
            case _:
                return answered(body)

    with traffic_to(behave) as (traffic, server):
        eventually(lambda: len(server.requests) >= 60, what="enough requests")
        traffic.stop()
        assert traffic.sent == len(traffic.answers) + len(traffic.failures)
        assert len(traffic.answers) == sum(number % 6 == 0 for number in range(1, len(server.requests) + 1))
        reasons = " | ".join(failure.reason for failure in traffic.failures)
        for part in ("status 503", "0 predictions for", "RemoteProtocolError", "Expecting value", "TypeError"):
            assert part in reasons


def test_an_answer_tells_who_gave_it_and_how_much_of_it_was_right() -> None:
    def behave(number: int, body: dict[str, Any]) -> tuple[int, bytes]:
        return answered(body, fallback=True) if number % 2 else answered(body, predictions=[-1] * len(body["features"]))

    with traffic_to(behave) as (traffic, _):
        eventually(lambda: len(traffic.answers) >= 20, what="enough requests")
        traffic.stop()
    assert not traffic.failures
    assert {(a.version, a.generation, a.role) for a in traffic.answers} == {(3, 5, "stable")}
    assert all(a.right == (a.rows if a.fallback else 0) for a in traffic.answers)
    assert all(a.answered_s >= a.sent_s for a in traffic.answers)
    assert {a.rows for a in traffic.answers} == {1, 2, 3}


def test_requests_do_not_wait_for_answers() -> None:
    go_on = threading.Event()

    def behave(_: int, body: dict[str, Any]) -> tuple[int, bytes]:
        go_on.wait(8)
        return answered(body)

    with traffic_to(behave) as (traffic, server):
        eventually(lambda: len(server.requests) >= 30, what="enough requests")
        assert not traffic.answers
        go_on.set()
    assert len(traffic.answers) == traffic.sent >= 30
    assert not traffic.failures


def test_a_new_scanner_makes_brighter_images_of_the_same_digits_for_some_users_alone() -> None:
    with traffic_to(lambda _, body: answered(body)) as (traffic, server):
        eventually(lambda: len(traffic.answers) >= 50, what="enough requests")
        before = len(server.requests)
        assert max(max(image) for body in list(server.requests) for image in body["features"]) == BRIGHTEST
        assert traffic.bring_new_scanner() == 6
        eventually(lambda: len(server.requests) >= before + 150, what="enough requests")
    bright = {body["user_id"] for body in server.requests if np.max(body["features"]) > BRIGHTEST}
    assert 0 < len(bright) <= 6
    assert {np.max(body["features"]) for body in server.requests if body["user_id"] in bright} >= {
        NEW_SCANNER_BRIGHTEST
    }
    assert all(answer.right == answer.rows for answer in traffic.answers)


def test_shares_are_those_of_recent_answers() -> None:
    with traffic_to(lambda number, body: answered(body, model_version=1 if number % 4 else 2)) as (traffic, _):
        # Of the last second: of one in which the machine stalled they may be any, or none.
        shares = eventually(lambda: in_order(traffic.shares()), what="a second of answers")
    assert shares[1] + shares[2] == pytest.approx(1.0)
    assert Traffic(url="http://127.0.0.1:9", model="digits", rows=ROWS).shares() == {}


def in_order(shares: dict[int, float]) -> dict[int, float]:
    """The shares, if they are of both versions, and the first's is the larger."""
    return shares if shares.keys() == {1, 2} and shares[1] > shares[2] else {}


def test_stopping_a_stream_that_never_began_does_nothing() -> None:
    traffic = Traffic(url="http://127.0.0.1:9", model="digits", rows=ROWS)
    traffic.stop()
    assert traffic.sent == 0


def test_a_server_that_is_gone_makes_failures_and_no_more() -> None:
    server = Server(lambda _, body: answered(body))
    server.close()
    traffic = Traffic(url=server.url, model="digits", rows=ROWS, per_second=200)
    traffic.start()
    eventually(lambda: len(traffic.failures) >= 5, what="enough requests")
    traffic.stop()
    assert len(traffic.failures) == traffic.sent
    assert "ConnectError" in traffic.failures[0].reason
