"""What two readers could understand in two ways is refused: the connection closes, and nothing behind it is taken."""

import pytest
from aks_serving.http.limits import Limits

from tests.serving.http.driven import Driven, request

_LINE = b"POST /predict HTTP/1.1\r\n"
_HOST = b"Host: a\r\n"
_NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST /predict HTTP/1.1", b"Host: a", *lines, b"", b""]) + body


def _chunks(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", body=body)


_REFUSED: dict[str, tuple[int, bytes]] = {
    "length and chunks": (400, _post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nGET")),
    "chunks and length": (400, _post(b"Transfer-Encoding: chunked", b"Content-Length: 6", body=b"0\r\n\r\nGET")),
    "two lengths": (400, _post(b"Content-Length: 3", b"Content-Length: 5", body=b"abcde")),
    "two equal lengths": (400, _post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc")),
    "a list of lengths": (400, _post(b"Content-Length: 3, 3", body=b"abc")),
    "a signed length": (400, _post(b"Content-Length: +3", body=b"abc")),
    "a negative length": (400, _post(b"Content-Length: -3", body=b"abc")),
    "a hexadecimal length": (400, _post(b"Content-Length: 0x3", body=b"abc")),
    "an underscored length": (400, _post(b"Content-Length: 1_0", body=b"abcdefghij")),
    "an empty length": (400, _post(b"Content-Length:", body=b"")),
    "a length in other digits": (400, _post("Content-Length: \u0663".encode(), body=b"abc")),
    "a length with a space inside": (400, _post(b"Content-Length: 1 0", body=b"abcdefghij")),
    "a length beyond 64 bits": (413, _post(b"Content-Length: 18446744073709551619", body=b"abc")),
    "another coding": (400, _post(b"Transfer-Encoding: gzip", body=b"abc")),
    "identity": (400, _post(b"Transfer-Encoding: identity", body=b"abc")),
    "chunked twice in a list": (400, _post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    "chunked not last": (400, _post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    "chunked twice": (400, _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "chunked and identity": (400, _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
    "chunked with a tab inside": (400, _post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    "chunked with a tab after it": (400, _post(b"Transfer-Encoding: chunked\t", body=b"0\r\n\r\n")),
    "chunked with a space and a tab after it": (400, _post(b"Transfer-Encoding: chunked \t ", body=b"0\r\n\r\n")),
    "chunked with a quote": (400, _post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n")),
    "an empty coding": (400, _post(b"Transfer-Encoding:", body=b"0\r\n\r\n")),
    "chunks of HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a space before the colon": (400, _post(b"Content-Length : 3", body=b"abc")),
    "a tab before the colon": (400, _post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n")),
    "a folded header": (400, _post(b"X-A: b", b" Content-Length: 3", body=b"abc")),
    "a header folded with a tab": (400, _post(b"X-A: b", b"\tc", body=b"")),
    "a first header that is folded": (400, _LINE + b" Host: a\r\n\r\n"),
    "a bare line feed in the head": (400, _LINE + b"Host: a\nContent-Length: 3\r\n\r\nabc"),
    "line feeds alone": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "a bare carriage return": (400, _LINE + b"Host: a\rContent-Length: 3\r\n\r\nabc"),
    "a carriage return too many": (400, _LINE + b"Host: a\r\r\n\r\n"),
    "a head ended by line feeds": (400, _LINE + b"Host: a\r\n\nabc\r\n\r\n"),
    "a NUL in a value": (400, _post(b"X-A: b\x00c")),
    "a NUL in a name": (400, _post(b"X\x00A: b")),
    "no colon": (400, _post(b"X-A")),
    "no name": (400, _post(b": b")),
    "a name in brackets": (400, _post(b"X(A): b")),
    "a name beyond ASCII": (400, _post("X-\xe9: b".encode())),
    "a control character in a value": (400, _post(b"X-A: b\x01c")),
    "a DEL in a value": (400, _post(b"X-A: b\x7fc")),
    "no Host": (400, _LINE + b"X-A: b\r\n\r\n"),
    "no header at all": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, _LINE + _HOST + _HOST + b"\r\n"),
    "two hosts in one": (400, _LINE + b"Host: a, b\r\n\r\n"),
    "a Host with a path": (400, _LINE + b"Host: a/b\r\n\r\n"),
    "a Host with a user": (400, _LINE + b"Host: u@a\r\n\r\n"),
    "a Host with a space": (400, _LINE + b"Host: a b\r\n\r\n"),
    "a target of another host": (400, b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target with a user": (400, b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target of another scheme": (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target that is no path": (400, b"GET predict HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a tunnel": (400, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    "a star for GET": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a fragment": (400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a percent without digits": (400, b"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a percent at the end": (400, b"GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a path that is not UTF-8": (400, b"GET /a%ff HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an overlong path": (400, b"GET /%c0%af HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an encoded NUL": (400, b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an encoded line break": (400, b"GET /a%0d%0ab HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a raw byte in the path": (400, b"GET /a\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a tab for a space": (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a space behind the version": (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    "a space before the method": (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "a version in lower case": (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    "another version": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/2 with prior knowledge": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a method of endless length": (501, b"A" * 40 + b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "TLS on a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "two empty lines before": (400, b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an expectation of something else": (417, _post(b"Expect: more", b"Content-Length: 3", body=b"abc")),
    "a chunk's size that is no number": (400, _chunks(b"x\r\na\r\n0\r\n\r\n")),
    "a chunk's size that is empty": (400, _chunks(b"\r\na\r\n0\r\n\r\n")),
    "a chunk's size with a sign": (400, _chunks(b"+1\r\na\r\n0\r\n\r\n")),
    "a chunk's size with 0x": (400, _chunks(b"0x1\r\na\r\n0\r\n\r\n")),
    "a chunk's size with an underscore": (400, _chunks(b"1_0\r\nabcdefghijklmnop\r\n0\r\n\r\n")),
    "a chunk's size with a space before": (400, _chunks(b" 1\r\na\r\n0\r\n\r\n")),
    "a chunk's size with a space behind": (400, _chunks(b"1 \r\na\r\n0\r\n\r\n")),
    "a chunk's size beyond 64 bits": (400, _chunks(b"10000000000000001\r\na\r\n0\r\n\r\n")),
    "a chunk's size ended by a line feed": (400, _chunks(b"1\na\r\n0\r\n\r\n")),
    "a chunk ended by a line feed": (400, _chunks(b"1\r\na\n0\r\n\r\n")),
    "a chunk without an end": (400, _chunks(b"1\r\na0\r\n\r\n")),
    "a chunk longer than its size": (400, _chunks(b"1\r\nab\r\n0\r\n\r\n")),
    "a carriage return in an extension": (400, _chunks(b"1;a\rb\r\na\r\n0\r\n\r\n")),
    "a NUL in an extension": (400, _chunks(b"1;a\x00b\r\na\r\n0\r\n\r\n")),
    "a line feed after the last chunk": (400, _chunks(b"0\r\n\n")),
    "a trailer that is no header": (400, _chunks(b"0\r\nGET / HTTP/1.1\r\n\r\n")),
    "a trailer with a length": (400, _chunks(b"0\r\nContent-Length: 3\r\n\r\n")),
    "a trailer that closes": (400, _chunks(b"0\r\nX-A: b\r\nConnection: close\r\n\r\n")),
    "a trailer that is folded": (400, _chunks(b"0\r\nX-A: b\r\n c\r\n\r\n")),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_ambiguous_is_refused_and_nothing_behind_it_is_taken(name: str) -> None:
    status, sent = _REFUSED[name]
    driven = Driven()
    driven.send(sent + _NEXT)
    assert driven.statuses == [status]
    [answer] = driven.answers
    assert answer.json()["error"]
    assert answer.headers["connection"] == "close"
    assert driven.seen == []
    assert driven.transport.ended


@pytest.mark.parametrize("name", _REFUSED)
def test_it_is_refused_also_when_it_comes_byte_by_byte_behind_a_good_request(name: str) -> None:
    status, sent = _REFUSED[name]
    driven = Driven()
    driven.send(request("/first"))
    for byte in sent + _NEXT:
        driven.send(bytes([byte]))
    assert driven.statuses == [200, status]
    assert [exchange.path for exchange in driven.seen] == ["/first"]
    assert driven.transport.ended


def test_a_trailer_never_becomes_a_header() -> None:
    driven = Driven()
    trailed = _chunks(b"1\r\na\r\n0\r\nX-Slipway-User: mallory\r\n\r\n")
    driven.send(trailed + _NEXT)
    first, second = driven.seen
    assert (first.body, second.path) == (b"a", "/next")
    assert b"x-slipway-user" not in first.headers | second.headers


_LARGE: dict[str, tuple[int, bytes]] = {
    "the request line": (414, b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a request line without an end": (414, b"GET /" + b"a" * 200),
    "the headers": (431, _post(b"X-A: " + b"a" * 300)),
    "headers without an end": (431, _LINE + b"X-A: " + b"a" * 500),
    "the number of headers": (431, _post(*[b"X: y"] * 11)),
    "the length told": (413, _post(b"Content-Length: 65")),
    "chunks together": (413, _chunks(b"20\r\n" + b"a" * 32 + b"\r\n21\r\n")),
    "a chunk's line": (400, _chunks(b"1;" + b"a" * 5000 + b"\r\na\r\n0\r\n\r\n")),
    "a chunk's line without an end": (400, _chunks(b"1;" + b"a" * 5000)),
    "the lines of small chunks": (400, _chunks((b"1;" + b"a" * 1000 + b"\r\na\r\n") * 40)),
    "trailers": (400, _chunks(b"0\r\n" + b"X-A: b\r\n" * 4000)),
}


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", _LARGE)
def test_what_is_too_large_is_refused_as_soon_as_that_is_known(name: str, *, whole: bool) -> None:
    status, sent = _LARGE[name]
    limits = Limits(max_line_bytes=100, max_head_bytes=256, max_headers=10, max_body_bytes=64)
    driven = Driven(limits=limits)
    driven.send(*([sent] if whole else [bytes([byte]) for byte in sent]))
    assert driven.statuses == [status]
    assert driven.seen == []
    assert driven.transport.ended


def test_what_is_just_within_the_limits_is_taken() -> None:
    line = b"GET /" + b"a" * 86 + b" HTTP/1.1"
    assert len(line) == 100
    limits = Limits(max_line_bytes=100, max_head_bytes=256, max_headers=10, max_body_bytes=64)
    driven = Driven(limits=limits)
    driven.send(line + b"\r\nHost: a\r\n\r\n")
    driven.send(_post(b"Content-Length: 64", *[b"X: y"] * 8, body=b"a" * 64))
    driven.send(_chunks(b"20\r\n" + b"a" * 32 + b"\r\n20;x=y\r\n" + b"b" * 32 + b"\r\n0\r\n\r\n"))
    assert driven.statuses == [200, 200, 200]
    assert [len(exchange.body) for exchange in driven.seen] == [0, 64, 64]
