"""What may come of asking a metrics store over HTTP: each fault is one clear sentence, within the time that it has."""

import json
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from shared.core.errors import UnavailableError
from shared.metrics.prometheus import PrometheusStore
from shared.metrics.web import MAX_ANSWER_BYTES, StoreError, post
from tests.unit.metrics.scripted import answers, nowhere, scripted

ONE = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1, "0.5"]}})


def test_the_token_goes_with_the_request() -> None:
    with scripted(answers(200, ONE)) as server:
        answer = PrometheusStore(server.url, tokens=lambda: "abc").ask("up")
    assert answer.value == 0.5
    assert server.asked[0].headers["authorization"] == "Bearer abc"


def test_no_token_no_header() -> None:
    with scripted(answers(200, ONE)) as server:
        PrometheusStore(server.url).ask("up")
    assert "authorization" not in server.asked[0].headers


def test_a_token_that_is_not_to_be_had_is_an_error_and_nothing_is_sent() -> None:
    def refuses() -> str:
        raise UnavailableError("the identity", "none is assigned")

    with scripted(answers(200, ONE)) as server:
        answer = PrometheusStore(server.url, tokens=refuses).ask("up")
    assert answer.value is None
    assert "no token" in answer.error
    assert "none is assigned" in answer.error
    assert server.asked == []


def test_a_token_that_is_no_header_is_an_error() -> None:
    with scripted(answers(200, ONE)) as server:
        answer = PrometheusStore(server.url, tokens=lambda: "a\r\nx-evil: 1").ask("up")
    assert "did not answer" in answer.error
    assert server.asked == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_what_to_do(status: int) -> None:
    with scripted(answers(status, "no")) as server:
        assert "set how to get one" in PrometheusStore(server.url).ask("up").error
        assert "the right to read it" in PrometheusStore(server.url, tokens=lambda: "abc").ask("up").error


def test_nothing_is_followed_to_another_host() -> None:
    with scripted(answers(200, ONE)) as other, scripted(answers(307, "", location=f"{other.url}/x")) as server:
        answer = PrometheusStore(server.url, tokens=lambda: "abc").ask("up")
    assert "redirects to" in answer.error
    assert other.asked == []


def test_nobody_listening_is_an_error() -> None:
    assert "did not answer" in PrometheusStore(nowhere()).ask("up").error


@pytest.mark.parametrize("body", ["<html>busy</html>", "", "[" * 100_000])
def test_what_is_not_json_is_an_error(body: str) -> None:
    with scripted(answers(200, body)) as server:
        assert PrometheusStore(server.url).ask("up").error == "it answered 200 with what is not JSON"


def test_too_long_an_answer_is_an_error() -> None:
    with scripted(answers(200, " " * (MAX_ANSWER_BYTES + 1))) as server:
        assert f"more than {MAX_ANSWER_BYTES} bytes" in PrometheusStore(server.url).ask("up").error


def test_an_answer_that_ends_early_is_an_error() -> None:
    def play(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")

    with scripted(play) as server:
        assert PrometheusStore(server.url).ask("up").error


def test_a_server_that_never_answers_is_given_up() -> None:
    done = threading.Event()

    def waits(_: BaseHTTPRequestHandler) -> None:
        done.wait()

    with scripted(waits) as server:
        with pytest.raises(StoreError, match=r"did not answer within 0\.2 s"):
            post(server.url, b"", {}, timeout_s=0.2)
        done.set()


def test_a_server_that_sends_byte_by_byte_is_given_up_although_it_never_pauses_for_long() -> None:
    done = threading.Event()

    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not done.wait(0.01):
            handler.wfile.write(b" ")

    with scripted(drips) as server:
        with pytest.raises(StoreError, match="did not answer within"):
            post(server.url, b"", {}, timeout_s=0.3)
        done.set()


def test_headers_that_never_end_are_given_up() -> None:
    done = threading.Event()

    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not done.wait(0.01):
            handler.wfile.write(b"x")

    with scripted(drips) as server:
        with pytest.raises(StoreError, match="did not answer within"):
            post(server.url, b"", {}, timeout_s=0.3)
        done.set()
