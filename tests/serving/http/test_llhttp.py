"""Our reading of requests against llhttp's: what is taken here, llhttp takes too, and reads the same."""

import contextlib
from dataclasses import dataclass, field

import httptools
from aks_serving.http.head import CHUNKED, RefusedError, RequestHead
from aks_serving.http.limits import Limits
from aks_serving.http.reader import RequestReader
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.serving.http.driven import chunked, request

_LINES = (
    b"GET / HTTP/1.1",
    b"POST /predict?x=%20 HTTP/1.1",
    b"POST http://a/x HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET / HTTP/1.0",
    b"Host: a",
    b"Host:a:80\t",
    b"X-Empty:",
    b"X-Empty: \t ",
    b"X-A: b: c, \xe9",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Content-Length: 3",
    b"Content-Length: 003",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:\tCHUNKED ",
    b"Transfer-Encoding: chunked\t",
    b"transfer-encoding: identity",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"",
    b"3",
    b"3;a=b",
    b"abc",
    b"0",
    b"0;x",
    b"00",
)
_METHODS = frozenset({"GET", "POST", "OPTIONS"})
"""llhttp knows a list of methods; to us any token is one, which the handler does not answer."""
_SEPARATORS = (b"\r\n",) * 40 + (b"\n", b"\r", b"\r\n ", b" ", b"", b"\x00", b"\r\n\r\n", b":", b"\t")


@dataclass(slots=True)
class _Llhttp:
    """The requests that llhttp reads."""

    whole: list[tuple[bytes, bytes, dict[bytes, list[bytes]], bytes, bool]] = field(default_factory=list)
    url: bytes = b""
    headers: dict[bytes, list[bytes]] = field(default_factory=dict)
    body: bytes = b""
    in_head: bool = True
    parser: httptools.HttpRequestParser = field(init=False)

    def __post_init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.url, self.headers, self.body, self.in_head = b"", {}, b"", True

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # trailers come the same way
            self.headers.setdefault(name.lower(), []).append(value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self.in_head = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        kept = self.parser.should_keep_alive()
        self.whole.append((self.parser.get_method(), self.url, self.headers, self.body, kept))


def _ours(stream: bytes) -> tuple[list[tuple[RequestHead, bytes]], bool]:
    """The requests that we read until one that closes, and whether we refused what follows."""
    reader = RequestReader(Limits())
    reader.push(stream)
    taken: list[tuple[RequestHead, bytes]] = []
    try:
        while (request := reader.take(lambda _raw, _head: None)) is not None or reader.stopped_short:
            if request is None:
                continue
            taken.append(request)
            if request[0].close:
                break
    except RefusedError:
        return taken, True
    return taken, False


def _check(stream: bytes) -> int:
    """Compare; how many requests were compared."""
    taken, _ = _ours(stream)
    llhttp = _Llhttp()
    with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        llhttp.parser.feed_data(stream)  # it may refuse what follows, and stops at an upgrade, which we ignore
    for (head, body), (method, url, headers, its_body, kept) in zip(taken, llhttp.whole, strict=False):
        assert head.method.encode() == method
        assert {name: b", ".join(values) for name, values in headers.items()} == head.headers
        assert head.close != kept
        assert url.partition(b"?")[2] == head.query
        if b"upgrade" in headers:
            return len(taken)
        assert its_body == body
        assert head.length in {CHUNKED, len(body)}
    beyond_it = any(b"upgrade" in head.headers or head.method not in _METHODS for head, _ in taken)
    assert beyond_it or len(llhttp.whole) >= len(taken), "llhttp refused what we took"
    return len(taken)


@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.sampled_from(_LINES), st.sampled_from(_SEPARATORS)), max_size=16).map(
        lambda pieces: b"".join(line + separator for line, separator in pieces)
    )
)
@example(b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n")
@example(b"Transfer-Encoding: chunked\r\n\r\n0\r\nConnection: close\r\n")
def test_random_lines_are_read_as_llhttp_reads_them(stream: bytes) -> None:
    _check(b"POST /predict HTTP/1.1\r\nHost: a\r\n" + stream + b"\r\n\r\n")


@settings(max_examples=300)
@given(st.data())
@example(data=None).via("the streams unchanged")
def test_altered_requests_are_read_as_llhttp_reads_them(data: st.DataObject | None) -> None:
    streams = (
        request("/a", body=b"abc") + request("/b"),
        chunked(b"abc", b"defg", trailer=b"X-T: y\r\n") + request("/b"),
        request("/a", headers=("X-A: b", "x-a: c", "Connection: close")),
    )
    if data is None:
        assert [_check(stream) for stream in streams] == [2, 2, 1]
        return
    stream = bytearray(data.draw(st.sampled_from(streams)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stream) - 1))
        with_ = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b",", b"0", b"\xff"])
        )
        stream[at : at + data.draw(st.integers(0, 2))] = with_
    _check(bytes(stream))


def test_a_good_stream_is_not_refused() -> None:
    stream = request("/a", body=b"abc") + chunked(b"abc", trailer=b"X-T: y\r\n") + request("/b")
    taken, refused = _ours(stream)
    assert [body for _, body in taken] == [b"abc", b"abc", b""]
    assert not refused
