"""Limits of time, on a clock that the test moves."""

import pytest
from aks_serving.http.limits import Limits

from tests.serving.http.driven import Driven, request

_LIMITS = Limits(head_s=10, idle_s=75, progress_s=10, min_bytes_per_s=100, linger_s=2)


def test_a_head_must_be_whole_in_time_however_it_drips() -> None:
    driven = Driven(limits=_LIMITS)
    for byte in request("/1")[:9]:
        driven.send(bytes([byte]))
        driven.pass_s(1)
        assert not driven.over
    driven.send(b"x")
    driven.pass_s(1)
    assert driven.statuses == [408]
    assert driven.answers[0].headers["connection"] == "close"
    assert driven.seen == []


def test_the_time_of_a_second_head_begins_with_its_own_first_byte() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(request("/1")[:9])
    driven.pass_s(6)
    driven.send(request("/1")[9:] + request("/2")[:9])
    driven.pass_s(6)
    assert driven.statuses == [200]
    driven.pass_s(4)
    assert driven.statuses == [200, 408]


def test_a_connection_that_sends_nothing_is_closed_without_an_answer() -> None:
    driven = Driven(limits=_LIMITS)
    driven.pass_s(9.9)
    assert not driven.over
    driven.pass_s(0.2)
    assert driven.transport.closed
    assert driven.transport.written == b""


def test_who_is_beyond_the_bound_of_connections_has_little_time_to_ask() -> None:
    driven = Driven(limits=Limits(max_connections=0, linger_s=2.0, head_s=10.0))
    driven.pass_s(1.9)
    assert not driven.over
    driven.pass_s(0.2)
    assert driven.transport.closed
    assert driven.transport.written == b""
    assert driven.shared.spares == 0


def test_who_is_beyond_the_bound_of_connections_may_ask_once() -> None:
    driven = Driven(limits=Limits(max_connections=0))
    driven.send(request("/health"))
    assert driven.statuses == [200]
    assert driven.answers[0].headers["connection"] == "close"
    assert driven.over


def test_a_kept_connection_may_idle_for_longer() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(request("/1"))
    driven.pass_s(1)
    driven.pass_s(74)
    assert not driven.over
    driven.send(request("/1"))  # the fast way
    driven.pass_s(1)
    driven.pass_s(74)
    assert not driven.over
    driven.pass_s(1)
    assert driven.transport.closed
    assert driven.statuses == [200, 200]


def test_who_waits_for_an_answer_does_not_idle() -> None:
    driven = Driven(limits=_LIMITS, later=True)
    driven.send(request("/1"))
    for _ in range(10):
        driven.pass_s(100)
    assert not driven.over
    driven.reply(0)
    assert driven.statuses == [200]


@pytest.mark.parametrize(("rate", "status"), [(99, 408), (101, 200)])
def test_a_body_must_keep_coming(rate: int, status: int) -> None:
    driven = Driven(limits=_LIMITS)
    body = b"x" * rate * 40
    sent = request(body=body)
    head, sent = sent[: -len(body)], sent[-len(body) :]
    driven.send(head)
    while sent and not driven.over:
        driven.send(sent[:rate])
        sent = sent[rate:]
        driven.pass_s(1)
    assert driven.statuses == [status]
    assert len(driven.seen) == (status == 200)


def test_the_time_of_a_body_begins_with_its_head_however_long_nothing_came() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(request("/1"))
    driven.pass_s(60)
    sent = request(body=b"x" * 1000)
    driven.send(sent[:-900])
    driven.pass_s(9)
    assert not driven.over
    driven.send(sent[-900:])
    assert driven.statuses == [200, 200]


def test_a_fast_beginning_does_not_pay_for_a_stall() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(request(body=b"x" * 1_000_000)[:-1])
    driven.pass_s(10)
    assert not driven.over
    driven.pass_s(10)
    assert driven.statuses == [408]
    assert driven.shared.buffered_bytes == 0


@pytest.mark.parametrize(("body_bytes", "buffered_bytes"), [(2**20, 2**28), (2**26, 2**28), (2**31, 2**33)])
def test_there_is_room_for_four_of_the_longest_bodies(body_bytes: int, buffered_bytes: int) -> None:
    assert Limits(max_body_bytes=body_bytes).buffered_bytes == buffered_bytes


def test_a_client_that_does_not_take_its_answers_is_cut_off() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(request("/1"))
    driven.transport.taken = 0
    driven.connection.pause_writing()
    driven.pass_s(9)
    assert not driven.transport.aborted
    driven.pass_s(1)
    assert driven.transport.aborted


def test_a_client_that_takes_its_answers_slowly_is_waited_for() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(*[request("/" + "x" * 100)] * 60)
    driven.transport.taken = 0
    driven.connection.pause_writing()
    for second in range(100):
        driven.transport.taken = (second + 1) * 110
        driven.pass_s(1)
        assert not driven.transport.aborted
    for _ in range(11):
        driven.pass_s(1)
    assert driven.transport.aborted


def test_after_the_last_answer_the_rest_is_read_for_a_while_and_then_closed() -> None:
    driven = Driven(limits=_LIMITS)
    driven.send(b"bad\r\n\r\n")
    assert driven.transport.ended
    driven.send(b"still sending" * 1000)
    closed = []
    for _ in range(2):
        driven.pass_s(1)
        closed.append(driven.transport.closed)
    assert closed == [False, True]
    assert not driven.transport.aborted


def test_a_last_answer_that_is_not_taken_does_not_keep_the_connection() -> None:
    driven = Driven(limits=_LIMITS)
    driven.transport.taken = 0
    driven.send(request("/1", headers=("Connection: close",)))
    driven.pass_s(9)
    assert not driven.transport.closed
    driven.pass_s(1)
    assert driven.transport.aborted


def test_time_does_not_run_against_a_body_that_is_not_asked_for_yet() -> None:
    driven = Driven(limits=_LIMITS, later=True)
    driven.send(request("/1") + request("/2", method="POST", headers=("Expect: 100-continue", "Content-Length: 3")))
    driven.pass_s(100)
    assert not driven.over
    driven.reply(0)
    driven.pass_s(9)
    driven.send(b"abc")
    driven.reply(1)
    assert driven.statuses == [200, 200]


def test_bodies_that_are_not_whole_share_one_bound() -> None:
    driven = Driven(limits=Limits(max_buffered_bytes=1000))
    driven.send(request(body=b"x" * 2000)[:-1100])
    assert driven.shared.buffered_bytes == 900
    driven.send(b"x" * 101)
    assert driven.statuses == [503]
    assert driven.answers[0].headers["retry-after"] == "1"
    assert driven.shared.buffered_bytes == 0
