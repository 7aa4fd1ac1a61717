"""gRPC calls by frames: what is written, what is read however it is cut, and a loop against a real gRPC server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from benchmarks.serving.grpcload import METHOD, ask_all, call
from benchmarks.serving.http2 import Calls, Http2Error, frame

DATA, HEADERS, RESET, SETTINGS, PING, WINDOW = 0, 1, 3, 4, 6, 8
END = 1


def begun() -> Calls:
    calls = Calls("127.0.0.1:1", METHOD)
    calls.call(b"asked")
    return calls


def packed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


def test_an_answer_is_its_data_frames_however_the_bytes_are_cut() -> None:
    whole = frame(HEADERS, 4, 1, b"\x88") + frame(DATA, 0, 1, packed(b"an answer")[:7])
    whole += frame(DATA, 0, 1, packed(b"an answer")[7:]) + frame(HEADERS, 4 | END, 1, b"trailers")
    for cut in range(1, len(whole)):
        calls = begun()
        found = [calls.feed(part)[1] for part in (whole[:cut], whole[cut:])]
        assert found == [None, b"an answer"], cut


def test_an_answer_without_a_message_is_an_empty_one() -> None:
    assert begun().feed(frame(HEADERS, 4 | END, 1, b"a status")) == (b"", b"")


def test_what_the_server_asks_is_answered_and_what_it_acknowledges_is_not() -> None:
    calls = begun()
    asked = frame(SETTINGS, 0, 0, b"\0\4\0\0\0\1") + frame(PING, 0, 0, b"12345678") + frame(SETTINGS, END, 0, b"")
    assert calls.feed(asked) == (frame(SETTINGS, END, 0, b"") + frame(PING, END, 0, b"12345678"), None)


def test_no_more_is_sent_than_the_server_takes() -> None:
    calls, message = Calls("127.0.0.1:1", METHOD), bytes(10_000)
    sent = 0
    while calls.may_call(message):
        calls.call(message)
        sent += 1
    assert sent == 65_535 // 10_005
    calls.feed(frame(WINDOW, 0, 0, (10_005).to_bytes(4)))
    assert calls.may_call(message)


@pytest.mark.parametrize(
    "came",
    [
        frame(RESET, 0, 1, bytes(4)),
        frame(DATA, END, 1, packed(b"torn")[:-1]),
        frame(DATA, END, 1, b"\1" + packed(b"compressed")[1:]),
    ],
)
def test_an_answer_that_is_none_is_an_error(came: bytes) -> None:
    with pytest.raises(Http2Error):
        begun().feed(came)


def test_a_message_that_needs_two_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="go into one frame"):
        Calls("127.0.0.1:1", METHOD).call(bytes(16_380))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    def answer(message: bytes, context: Any) -> bytes:
        if message == b"fail":
            context.abort(grpc.StatusCode.INTERNAL, "as asked")
        return message[::-1]

    service, _, method = METHOD.strip("/").partition("/")
    handlers = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handlers])
    found = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found
    server.stop(None).wait()


def test_a_real_server_answers(port: int) -> None:
    assert call(port, b"abc") == b"cba"
    assert call(port, b"fail") == b""


def test_a_loop_counts_every_call_and_tells_failures_apart(port: int) -> None:
    load = ask_all(port, [b"one" * 3_000], connections=3, duration_s=0.1)
    assert load.requests > 24  # more bytes than a connection takes before the server makes room
    assert load.failed == 0
    assert 0 < load.p50_ms <= load.p99_ms <= load.max_ms
    failing = ask_all(port, [b"fail"], connections=2, duration_s=0.05)
    assert failing.failed == failing.requests > 0
