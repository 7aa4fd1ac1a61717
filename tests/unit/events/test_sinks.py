"""The HTTP sink against a real server: what it sends, and how it takes every answer, slow and broken ones too."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.core.errors import UnavailableError
from shared.core.settings import EventFormat
from shared.events.posting import BusyError, RefusedError, seconds_of
from shared.events.sinks import HttpSink

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"name": "größer"}}


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers by the path: its first part is the status."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/200/elsewhere")
        if "retry" in self.path:
            self.send_header("Retry-After", self.path.rpartition("=")[2])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def sink(receiver: Receiver, path: str, **given: Any) -> HttpSink:
    return HttpSink("ops", f"http://127.0.0.1:{receiver.server_port}{path}", **given)


def test_an_event_goes_out_whole_in_structured_mode_with_query_and_token(receiver: Receiver) -> None:
    tokens = iter(["one", "two"])
    both = sink(receiver, "/200/hook?api-version=2018-01-01", token=lambda: next(tokens))
    both.post(EVENT)
    both.post(EVENT)
    for (path, headers, body), token in zip(receiver.got[-2:], ("one", "two"), strict=True):
        assert path == "/200/hook?api-version=2018-01-01"
        assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
        assert headers["Authorization"] == f"Bearer {token}"
        assert json.loads(body) == EVENT


ROLLOUT: dict[str, Any] = {
    "type": "com.slipway.endpoint.rollout_held",
    "subject": "digits",
    "data": {
        "version": 2,
        "reason": "<!channel> 1 < 2 & *so*",
        "note": None,
        "long": "x" * 300,
        "by": {"b": 1, "a": 2},
    },
}


def test_a_channel_of_slack_reads_a_transition_and_nobody_is_mentioned(receiver: Receiver) -> None:
    sink(receiver, "/200/hook", body_format=EventFormat.SLACK).post(ROLLOUT)
    _, headers, body = receiver.got[-1]
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(body) == {
        "text": "*rollout held: endpoint digits*\nversion: 2, reason: &lt;!channel&gt; 1 &lt; 2 &amp; *so*, "
        f'long: {"x" * 197}..., by: {{"a":2,"b":1}}'
    }


def test_a_channel_of_teams_reads_it_as_a_card_of_plain_text(receiver: Receiver) -> None:
    sink(receiver, "/200/hook", body_format=EventFormat.TEAMS).post(ROLLOUT)
    [attachment] = json.loads(receiver.got[-1][2])["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    [block] = attachment["content"]["body"]
    assert block["type"] == "RichTextBlock"
    assert "".join(run["text"] for run in block["inlines"]).startswith(
        "rollout held: endpoint digits\nversion: 2, reason: <!channel> 1 < 2 & *so*, long: x"
    )


def test_a_sink_of_some_streams_is_told_of_these_alone(receiver: Receiver) -> None:
    of_rollouts = sink(receiver, "/200/hook", streams=["endpoint"])
    before = len(receiver.got)
    of_rollouts.post(ROLLOUT | {"type": "com.slipway.model.policy_set"})
    assert len(receiver.got) == before
    of_rollouts.post(ROLLOUT)
    assert len(receiver.got) == before + 1


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_is_taken(receiver: Receiver, status: int) -> None:
    sink(receiver, f"/{status}/hook").post(EVENT)
    assert "Authorization" not in receiver.got[-1][1]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 429, 500, 503])
def test_any_other_answer_is_an_error_without_the_address_and_is_not_followed(receiver: Receiver, status: int) -> None:
    before = len(receiver.got)
    with pytest.raises(UnavailableError, match=f"the event sink ops is unavailable: it answered {status}") as raised:
        sink(receiver, f"/{status}/secret").post(EVENT)
    assert len(receiver.got) == before + 1
    assert "secret" not in str(raised.value)
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "is_refused"),
    [
        *((status, True) for status in (400, 401, 403, 404, 410, 422)),
        *((status, False) for status in (302, 408, 425, 429, 500, 501, 503)),
    ],
)
def test_what_trying_again_will_not_change_is_told_from_what_it_may(
    receiver: Receiver, status: int, *, is_refused: bool
) -> None:
    with pytest.raises(UnavailableError) as raised:
        sink(receiver, f"/{status}/hook").post(EVENT)
    assert isinstance(raised.value, RefusedError) is is_refused
    assert not is_refused or raised.value.status == status  # type: ignore[attr-defined]


def test_how_long_a_sink_asks_to_be_left_alone_is_told(receiver: Receiver) -> None:
    for status in (429, 503):
        with pytest.raises(BusyError, match=f"it answered {status} where 2xx was wanted, and wants 90 s") as raised:
            sink(receiver, f"/{status}/retry=90").post(EVENT)
        assert raised.value.retry_after_s == 90.0
    with pytest.raises(UnavailableError) as raised_too:
        sink(receiver, "/503/retry=soon").post(EVENT)
    assert not isinstance(raised_too.value, BusyError)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("", 0),
        ("0", 0),
        ("120", 120),
        ("Sat, 21 Nov 2026 08:02:00 GMT", 120),
        ("Sat, 21 Nov 2026 07:00:00 GMT", 0),
        ("-5", 0),
        ("1.5", 0),
        ("Sat, 99 Nov 2026 08:02:00 GMT", 0),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", 0),
        ("9" * 40, 999_999_999),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, wait_s: float) -> None:
    assert seconds_of(header, datetime(2026, 11, 21, 8, 0, tzinfo=UTC)) == wait_s


def test_a_sink_that_is_down_hangs_or_speaks_no_http_is_unavailable() -> None:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/secret"
        # Nobody listens yet.
        with pytest.raises(UnavailableError, match="ConnectionRefusedError while it was posted to"):
            HttpSink("ops", url).post(EVENT)
        listening.listen()
        # Nobody answers.
        with pytest.raises(UnavailableError, match="TimeoutError"):
            HttpSink("ops", url, timeout_s=0.05).post(EVENT)
        answering = threading.Thread(target=_junk, args=(listening,))
        answering.start()
        with pytest.raises(UnavailableError, match="BadStatusLine") as raised:
            HttpSink("ops", url).post(EVENT)
        answering.join()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_sink_that_answers_drop_by_drop_is_given_up_in_time(said: bytes) -> None:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        dripping = threading.Thread(target=_drip, args=(listening, said))
        dripping.start()
        with pytest.raises(UnavailableError, match="TimeoutError while it was posted to"):
            HttpSink("ops", f"http://127.0.0.1:{listening.getsockname()[1]}/", timeout_s=0.2).post(EVENT)
        # It drips until it is cut off, or says enough for a whole line of an answer.
        dripping.join()


def _drip(listening: socket.socket, said: bytes) -> None:
    connection, _ = listening.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(65_536)
        connection.sendall(said)
        for _ in range(500):
            connection.sendall(b"x")
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return
        connection.sendall(b"\r\n\r\n")


def _junk(listening: socket.socket) -> None:
    # The one that timed out waits in the backlog still.
    for _ in range(2):
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"what?\r\n\r\n")
