"""What a connection does with good requests, and with handlers that answer late, twice, never or wrongly."""

import asyncio
import itertools
import re
import time
from email.utils import parsedate_to_datetime

import pytest
from aks_serving.exchange import OK, Exchange, Head, Response
from aks_serving.http.answers import Dated
from aks_serving.http.limits import Limits
from hypothesis import given
from hypothesis import strategies as st

from tests.serving.http.driven import Driven, answers_in, chunked, request, told

pytestmark = pytest.mark.anyio

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DATE = re.compile(rb"date: [^\r]+\r\n")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_handler_sees_the_whole_request() -> None:
    driven = Driven()
    headers = ("X-Slipway-User: ada", "Accept: a", "accept:  b ", "X-Empty:")
    driven.send(request("/a%20b/%C3%A9?q=%20&r", body=b'{"x": 1}', headers=headers))
    assert driven.answers[0].json() == {
        "method": "POST",
        "path": "/a b/\u00e9",
        "query": "q=%20&r",
        "headers": {
            "host": "localhost",
            "x-slipway-user": "ada",
            "accept": "a, b",
            "x-empty": "",
            "content-length": "8",
        },
        "body": '{"x": 1}',
    }
    assert driven.answers[0].headers["content-type"] == "application/json"
    assert "connection" not in driven.answers[0].headers
    assert not driven.over


def test_the_same_request_again_is_read_the_same() -> None:
    driven = Driven()
    first = request("/a?b", body=b"abc", headers=("X-A: b",))
    driven.send(first, first, request("/a?b", body=b"abcd", headers=("X-A: b",)), first)
    one, two, three, four = (answer.json() for answer in driven.answers)
    assert one == two == four
    assert three["body"] == "abcd"


def test_heads_that_come_again_are_kept_and_do_not_pile_up() -> None:
    driven = Driven()
    for number in range(3000):
        for _ in range(3):
            driven.send(request("/a", headers=(f"X-Request-Id: {number}",)))
        driven.send(request("/a", headers=(f"X-Long: {'x' * 2048}",)))
    assert len(driven.seen) == 12_000
    assert 0 < len(driven.shared.heads) <= 1024
    assert max(map(len, driven.shared.heads)) <= 2048
    assert all(
        exchange.headers[b"x-request-id"] == b"%d" % (place // 4)
        for place, exchange in enumerate(driven.seen)
        if place % 4 < 3
    )


def test_heads_that_never_come_again_put_none_out_that_does() -> None:
    driven = Driven()
    driven.send(*[request("/again")] * 3)
    one = driven.seen[-1].head
    for number in range(5000):
        driven.send(request("/a", body=b"1", headers=(f"traceparent: {number}",)))
    driven.send(request("/again"))
    assert driven.seen[0].head is None
    assert one is not None
    assert {exchange.head for exchange in driven.seen[3:-1]} == {None}
    assert driven.seen[-1].head is one
    assert len(driven.shared.heads) == 1
    assert len(driven.shared.sights) <= 1024


def test_a_body_cut_off_from_a_known_head_is_waited_for() -> None:
    driven = Driven()
    sent = request(body=b"abcdef")
    driven.send(sent, sent[:-3], sent[-3:], sent + sent[:-1], sent[-1:])
    assert [exchange.body for exchange in driven.seen] == [b"abcdef"] * 4


_MIXED = (
    request("/health"),
    request("/predict", body=b"x" * 70, headers=("X-Slipway-User: ada",)),
    request("/v2", method="HEAD"),
    chunked(b"abc", b"d", b"efghij" * 10, trailer=b"X-T: y\r\n"),
    request("/predict", body=b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    b"\r\n" + request("/after-an-empty-line"),
    chunked(path="/no-chunk"),
    request("/predict", body=b"y", headers=("Expect: 100-continue",)),
)


def _outcome(*pieces: bytes, later: bool = False) -> tuple[list[object], list[str]]:
    driven = Driven(later=later)
    driven.send(*pieces)
    if later:
        for number in reversed(range(len(driven.seen))):
            driven.reply(number)
    plain = [told(exchange).body.decode() for exchange in driven.seen]
    # llhttp would wait for a HEAD's body. A second may pass between two answers.
    return [_DATE.sub(b"", driven.transport.written.replace(_CONTINUE, b""))], plain


def test_every_way_to_cut_a_stream_in_two_gives_the_same_answers() -> None:
    stream = b"".join(_MIXED)
    whole = _outcome(stream)
    assert len(whole[1]) == len(_MIXED)
    for at in range(len(stream) + 1):
        assert _outcome(stream[:at], stream[at:]) == whole, at


def test_byte_by_byte_gives_the_same_answers() -> None:
    stream = b"".join(_MIXED) * 2
    assert _outcome(*(bytes([byte]) for byte in stream)) == _outcome(stream)


@given(st.data())
def test_however_a_pipeline_is_cut_and_answered_the_answers_are_the_same(data: st.DataObject) -> None:
    requests = data.draw(st.lists(st.sampled_from(_MIXED), min_size=1, max_size=12))
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert _outcome(*pieces, later=data.draw(st.booleans())) == _outcome(*requests)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_answers_leave_in_the_order_of_their_requests(order: list[int], together: int) -> None:
    driven = Driven(later=True)
    paths = [f"/{number}" for number in range(6)]
    driven.send(b"".join(map(request, paths[:together])), *map(request, paths[together:]))
    for done, number in enumerate(order):
        driven.reply(number)
        answered = set(order[: done + 1])
        ready = next((n for n in range(6) if n not in answered), 6)
        assert [answer.json()["path"] for answer in driven.answers] == paths[:ready]


def test_pipelined_answers_of_one_turn_are_one_write() -> None:
    driven = Driven()
    driven.send(b"".join(request(f"/{number}", body=b"abc") for number in range(20)))
    assert len(driven.statuses) == 20
    assert driven.transport.writes == 1


async def test_at_its_bound_of_pipelined_requests_a_connection_is_not_read() -> None:
    driven = Driven(limits=Limits(max_pipelined=4), later=True)
    paths = [f"/{number}" for number in range(11)]
    driven.send(b"".join(map(request, paths)))
    handed = [len(driven.seen)]
    assert driven.paused()
    while len(driven.statuses) < len(paths):
        for number in range(len(driven.statuses), len(driven.seen)):
            driven.reply(number)
        await _turn()
        handed.append(len(driven.seen))
        assert driven.connection.in_flight <= 4
    assert handed[0] == 4
    assert [answer.json()["path"] for answer in driven.answers] == paths
    assert not driven.paused()
    driven.send(request("/more"))
    assert driven.seen[-1].path == "/more"


async def _turn() -> None:
    await asyncio.sleep(0)


async def test_a_client_that_does_not_read_its_answers_is_not_read_either() -> None:
    driven = Driven()
    driven.send(request("/1"))
    driven.connection.pause_writing()
    assert driven.paused()
    driven.send(request("/2"))  # what the kernel had already given
    assert len(driven.seen) == 1
    driven.connection.resume_writing()
    await _turn()
    assert not driven.paused()
    assert [exchange.path for exchange in driven.seen] == ["/1", "/2"]


async def test_a_connection_that_had_its_share_of_a_turn_lets_others_in_and_goes_on_after() -> None:
    def handle(exchange: Exchange) -> None:
        driven.now_s += 0.003
        exchange.reply(told(exchange))
        handled.append(exchange.path)

    handled: list[str] = []
    driven = Driven(handle=handle)
    paths = [f"/{number}" for number in range(5)]
    driven.send(b"".join(map(request, paths)))
    turns = [len(handled)]
    assert driven.paused()
    while driven.paused():
        await _turn()
        turns.append(len(handled))
    assert turns == [3, 5, 5]
    assert [answer.json()["path"] for answer in driven.answers] == paths


async def test_a_body_of_many_tiny_chunks_lets_others_in_before_it_is_whole() -> None:
    driven, ticks = Driven(), itertools.count()
    driven.shared.clock = lambda: next(ticks) * 0.003
    driven.send(chunked(*[b"bytes"] * 10_000) + request("/2"))
    turns = 1
    while driven.paused():
        turns += not driven.seen
        await _turn()
    assert turns > 3
    assert [len(exchange.body) for exchange in driven.seen] == [50_000, 0]
    assert driven.statuses == [200, 200]


async def test_what_a_client_sent_does_not_count_as_slow_while_the_server_holds_it_off() -> None:
    def handle(exchange: Exchange) -> None:
        driven.now_s += 0.006
        exchange.reply(told(exchange))

    driven = Driven(limits=Limits(head_s=10), handle=handle)
    driven.send(request("/1") + request("/2")[:9])
    assert driven.paused()
    driven.pass_s(11)
    await _turn()
    assert not driven.paused()
    driven.pass_s(9)
    driven.send(request("/2")[9:])
    assert driven.statuses == [200, 200]


async def test_a_client_that_is_lost_while_it_waits_for_its_next_turn_is_asked_nothing_more() -> None:
    def handle(exchange: Exchange) -> None:
        driven.now_s += 0.006
        handled.append(exchange)

    handled: list[Exchange] = []
    driven = Driven(handle=handle)
    driven.send(request("/1") * 3)
    driven.connection.connection_lost(None)
    await _turn()
    assert len(handled) == 2
    assert all(exchange.gone for exchange in handled)


@pytest.mark.parametrize(
    ("sent", "connection"),
    [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n", "close"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nConnection: close\r\n\r\n", "close"),
        ("GET / HTTP/1.0\r\n\r\n", "close"),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "close"),
    ],
)
def test_a_connection_is_kept_or_closed_as_the_client_asks(sent: str, connection: str | None) -> None:
    driven = Driven()
    driven.send(sent.encode(), request("/next"))
    assert driven.answers[0].headers.get("connection") == connection
    assert driven.transport.ended == (connection == "close")
    assert len(driven.seen) == (1 if connection == "close" else 2)


def test_answers_before_the_last_do_not_say_close() -> None:
    driven = Driven(later=True)
    driven.send(request("/1") + request("/2", headers=("Connection: close",)) + request("/3"))
    assert len(driven.seen) == 2
    driven.reply(1)
    assert not driven.over
    driven.reply(0)
    assert [answer.headers.get("connection") for answer in driven.answers] == [None, "close"]
    assert driven.transport.ended


def test_a_head_is_answered_without_its_body() -> None:
    driven = Driven()
    driven.send(request("/x"))
    full = driven.transport.written
    driven.send(request("/x", method="HEAD"))
    head = driven.transport.written[len(full) :]
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1
    length = len(told(driven.seen[1]).body)
    assert b"content-length: %d\r\n" % length in head


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_an_upgrade_is_answered_as_plain_http(upgrade: str) -> None:
    driven = Driven()
    driven.send(request("/1", headers=("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}")))
    driven.send(request("/2"))
    assert driven.statuses == [200, 200]


def test_an_absolute_target_is_a_path() -> None:
    driven = Driven()
    for target in ("http://localhost/a?b=c", "HTTPS://LOCALHOST/a?b=c", "http://localhost", "http://localhost?b"):
        driven.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    driven.send(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
    seen = [(exchange.path, exchange.query) for exchange in driven.seen]
    assert seen == [("/a", b"b=c"), ("/a", b"b=c"), ("/", b""), ("/", b"b"), ("*", b"")]


def _expecting(path: str = "/predict", length: int = 3) -> bytes:
    return request(path, method="POST", headers=("Expect: 100-continue", f"Content-Length: {length}"))


def test_a_body_is_asked_for_where_it_does_not_come_unasked() -> None:
    driven = Driven()
    driven.send(_expecting())
    assert driven.transport.written == _CONTINUE
    driven.send(b"abc")
    assert driven.seen[0].body == b"abc"
    before = driven.transport.written
    driven.send(_expecting() + b"abc")
    assert driven.seen[1].body == b"abc"
    assert _CONTINUE not in driven.transport.written[len(before) :]


def test_a_body_that_would_be_refused_is_not_asked_for() -> None:
    driven = Driven(limits=Limits(max_body_bytes=2))
    driven.send(_expecting())
    assert driven.statuses == [413]
    assert _CONTINUE not in driven.transport.written


def test_an_expectation_of_http_1_0_is_not_met() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert driven.transport.written == b""
    driven.send(b"abc")
    assert driven.statuses == [200]


def test_a_body_is_asked_for_after_the_answers_before_it() -> None:
    driven = Driven(later=True)
    driven.send(request("/1") + _expecting("/2"))
    assert driven.transport.written == b""
    driven.reply(0)
    assert driven.transport.written.endswith(_CONTINUE)
    driven.send(b"abc")
    driven.reply(1)
    assert driven.statuses == [200, 200]


def test_a_body_that_came_meanwhile_is_not_asked_for() -> None:
    driven = Driven(later=True)
    driven.send(request("/1") + _expecting("/2"), b"a")
    driven.reply(0)
    driven.send(b"bc")
    driven.reply(1)
    assert _CONTINUE not in driven.transport.written
    assert driven.seen[1].body == b"abc"


def test_who_goes_away_is_told_to_the_handler_and_gets_nothing() -> None:
    driven = Driven(later=True)
    driven.send(request("/1") + request("/2"))
    driven.connection.eof_received()
    driven.connection.connection_lost(None)
    assert [exchange.gone for exchange in driven.seen] == [True, True]
    driven.reply(1)
    driven.reply(0)
    assert driven.transport.written == b""
    assert driven.connection.in_flight == 0
    assert not driven.shared.connections


def test_a_handler_that_raises_is_logged_and_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.path == "/bad":
            raise KeyError("secret")
        exchange.reply(told(exchange))

    driven = Driven(handle=handle)
    driven.send(request("/bad") + request("/good"), request("/bad"), request("/good"))
    assert driven.statuses == [500, 200, 500, 200]
    assert "secret" not in driven.transport.written.decode()
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_a_handler_that_answers_and_then_raises_is_answered_once(caplog: pytest.LogCaptureFixture) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.reply(told(exchange))
        raise KeyError("late")

    driven = Driven(handle=handle)
    driven.send(request("/1"))
    assert driven.statuses == [200]
    assert "late" in caplog.text


def test_a_second_answer_is_an_error_of_the_handler() -> None:
    driven = Driven(later=True)
    driven.send(request("/1"), request("/2"))
    driven.reply(1)
    driven.reply(0)
    for number in (0, 1):
        with pytest.raises(RuntimeError, match="answered twice"):
            driven.reply(number)
    assert driven.statuses == [200, 200]


@pytest.mark.parametrize("value", [b"a\r\nX-B: c", b"a\nb", b"a\rb"])
def test_a_line_break_in_an_answers_header_is_never_sent(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven(handle=lambda exchange: exchange.reply(Response(OK, b"{}", ((b"x-a", value),))))
    driven.send(request("/1"))
    assert driven.statuses == [500]
    assert value not in driven.transport.written
    assert "line break" in caplog.text


def test_an_answers_own_headers_are_sent() -> None:
    head = Head(503, ((b"retry-after", b"1"),), content_type=b"text/plain")
    driven = Driven(handle=lambda exchange: exchange.reply(Response(head, b"busy", ((b"x-a", b"b"), (b"x-c", b"")))))
    driven.send(request("/1"))
    [answer] = driven.answers
    assert answer.headers == {
        "content-type": "text/plain",
        "retry-after": "1",
        "x-a": "b",
        "x-c": "",
        "content-length": "4",
    }
    assert (answer.status, answer.body) == (503, b"busy")


def test_a_date_is_written_once_a_second() -> None:
    dated = Dated()
    assert dated.line == b"content-length: "
    dated.tell(784111777.0)  # the example of RFC 9110, 5.6.7
    line = dated.line
    assert line == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: "
    dated.tell(784111777.9)
    assert dated.line is line
    for now_s, second in ((784111778.0, b":38 GMT"), (784111700.5, b":20 GMT")):
        dated.tell(now_s)
        assert second in dated.line


def test_every_answer_has_a_date() -> None:
    before_s = int(time.time())
    driven = Driven()
    driven.send(request("/1"), request("/2"), b"no request\r\n\r\n")
    dates = [parsedate_to_datetime(answer.date).timestamp() for answer in driven.answers]
    assert len(dates) == 3
    assert all(before_s <= date_s <= time.time() for date_s in dates)


def test_where_one_side_cannot_be_closed_alone_as_in_tls_both_are() -> None:
    driven = Driven(half_closes=False)
    driven.send(request("/1", headers=("Connection: close",)))
    assert driven.statuses == [200]
    assert driven.transport.closed


def test_what_comes_after_the_end_is_not_kept() -> None:
    driven = Driven(later=True)
    driven.send(request("/1", headers=("Connection: close",)))
    driven.send(b"x" * 10_000, request("/2"))
    driven.reply(0)
    driven.send(b"y" * 10_000, request("/3"))
    assert len(driven.seen) == 1
    assert len(answers_in(driven.transport.written)) == 1


@given(st.binary(max_size=400))
def test_no_bytes_raise_or_stay_without_an_answer_or_a_wait(sent: bytes) -> None:
    driven = Driven()
    driven.send(sent, b"\r\n\r\n")
    driven.pass_s(100)
    assert driven.over or driven.statuses == [200]


@given(st.lists(st.sampled_from([
    b"GET ", b"POST ", b"/", b" HTTP/1.1", b"\r\n", b"\r", b"\n", b"Host: a", b"Content-Length: 3", b"abc", b":", b" ",
    b"Transfer-Encoding: chunked", b"3\r\nabc\r\n", b"0\r\n\r\n", b"Connection: close", b"\r\n\r\n", b"\x00", b"\xff",
    b"GET / HTTP/1.1\r\nHost: a\r\n", b"Expect: 100-continue\r\n",
]), max_size=14))  # fmt: skip
def test_no_mixture_of_pieces_raises_and_time_ends_each(pieces: list[bytes]) -> None:
    driven = Driven()
    driven.send(*pieces)
    assert len(driven.statuses) >= len(driven.seen) - 1
    for _ in range(3):
        driven.pass_s(100)
    assert driven.over
