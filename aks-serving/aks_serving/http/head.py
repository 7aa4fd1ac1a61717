"""The head of an HTTP/1 request, from its bytes: strict, and without state.

`parse` takes what RFC 9112 lets a client send and nothing that two readers could understand in two ways: where the RFC
allows a server to be lenient (line ends, folded lines, spaces, repeated lengths) this is not. What it does not take
raises `RefusedError`, which holds the status and the sentence to answer with. It never guesses.
"""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from aks_serving.exchange import joined
from aks_serving.http.limits import Limits

CHUNKED = -1
END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST = re.compile(rb"(%b) ([!-~]+) HTTP/1\.([01])" % _TOKEN)
_ANY_VERSION = re.compile(rb"%b [!-~]+ HTTP/[0-9]\.[0-9]" % _TOKEN)
_NAME = re.compile(_TOKEN)
_FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)([/?][^#]*)?")
_HOST = re.compile(rb"[!$%&'()*+,\-.;=_~0-9A-Za-z:\[\]]*")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEVER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r[^\n]")
_LENGTH_DIGITS = 18
_METHOD_BYTES = 32
_KNOWN_BYTES = 256
"""A line up to this length is remembered: clients send the same ones again and again."""
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"content-type", b"authorization"})


class RefusedError(Exception):
    """A request that is answered by the transport itself, and after which its connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RequestHead:
    """A request's line and headers. Shared by the requests that sent the same bytes, once it is `kept`; never changed
    otherwise.

    `length` is the body's, `CHUNKED` where it is not known before. `plain` is true where nothing about the request asks
    for a special answer: HTTP/1.1, kept alive, a known length, no expectation, and not HEAD.
    """

    __slots__ = ("close", "expects", "headers", "kept", "length", "method", "path", "plain", "query", "version")

    def __init__(self, method: str, path: str, query: bytes, headers: dict[bytes, bytes], version: int) -> None:
        """`version` is the minor one: 0 or 1. Raises RefusedError."""
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.version = version
        self.kept = False
        self.length = _length(headers, version)
        self.close = _closes(headers.get(b"connection"), version)
        self.expects = version == 1 and _expects(headers)
        self.plain = version == 1 and self.length >= 0 and not self.close and not self.expects and method != "HEAD"


def parse(head: bytes, limits: Limits) -> RequestHead:
    """The head of a request, from its first byte to its empty line, both included. Raises RefusedError."""
    lines = head[: -len(END)].split(b"\r\n")
    line = lines.pop(0)
    if len(line) > limits.max_line_bytes:
        raise _line_too_long(limits)
    known = _known_request_line if len(line) <= _KNOWN_BYTES else _request_line
    method, path, query, version, authority = known(line)
    headers = _headers(lines, limits)
    host = headers.get(b"host")
    if host is None and version == 1:
        raise RefusedError(400, "the request has no Host header: HTTP/1.1 wants one")
    if authority and host is not None and authority.lower() != host.lower():
        raise RefusedError(400, "the request's target and its Host header name different hosts")
    return RequestHead(method, path, query, headers, version)


def check_begun(begun: bytes, seen: int, limits: Limits) -> None:
    """Check a head that is not whole yet, of which the first `seen` bytes were checked before. Raises RefusedError as
    soon as no more bytes could make it right.
    """
    if _NEVER.search(begun, max(seen - 1, 0)):
        raise RefusedError(400, "the request's head holds a control character, or a line that does not end with CR LF")
    line_end = begun.find(b"\r\n")
    if (len(begun) if line_end < 0 else line_end) > limits.max_line_bytes:
        raise _line_too_long(limits)
    if line_end >= max(seen - 1, 0):
        _request_line(begun[:line_end])
    if len(begun) > limits.max_head_bytes:
        raise head_too_large(limits)


def head_too_large(limits: Limits) -> RefusedError:
    """What refuses a request whose head is larger than is taken."""
    return RefusedError(431, f"the request's headers are more than {limits.max_head_bytes} bytes")


def _line_too_long(limits: Limits) -> RefusedError:
    return RefusedError(414, f"the request line is longer than {limits.max_line_bytes} bytes")


def _request_line(line: bytes) -> tuple[str, str, bytes, int, bytes]:
    """Method, path, query, minor version, and the host that the target names. Raises RefusedError."""
    request = _REQUEST.fullmatch(line)
    if request is None:
        raise _bad_line(line)
    method, target, minor = request.groups()
    if len(method) > _METHOD_BYTES:
        raise RefusedError(501, f"the method is longer than {_METHOD_BYTES} bytes: no such method is known here")
    authority, rest = _origin(method, target)
    raw, _, query = rest.partition(b"?")
    return method.decode(), _decoded(raw), query, int(minor), authority


def _bad_line(line: bytes) -> RefusedError:
    if _ANY_VERSION.fullmatch(line):
        return RefusedError(505, "this HTTP version is not spoken here: use HTTP/1.1")
    return RefusedError(400, "the request line is not `METHOD target HTTP/1.1`")


def _headers(lines: list[bytes], limits: Limits) -> dict[bytes, bytes]:
    """Names in lower case, values of one name joined."""
    if len(lines) > limits.max_headers:
        raise RefusedError(431, f"the request has {len(lines)} headers: at most {limits.max_headers} are taken")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, value = _known_field(line) if len(line) <= _KNOWN_BYTES else _field(line)
        if name in headers:
            if name in _SINGLE:
                raise RefusedError(400, f"the header {name.decode()} came twice: send it once")
            value = joined(name, headers[name], value)
        headers[name] = value
    return headers


def _field(line: bytes) -> tuple[bytes, bytes]:
    """A header's name and value. Raises RefusedError."""
    field = _FIELD.fullmatch(line)
    if field is None:
        raise RefusedError(400, _bad_field(line))
    name, value = field[1].lower(), field[2].strip(b" \t")
    if name == b"host" and not _HOST.fullmatch(value):
        raise RefusedError(400, "the Host header is not a host name")
    if name == b"transfer-encoding" and b"\t" in field[2].lstrip(b" \t"):
        raise RefusedError(400, "a tab follows the Transfer-Encoding, which not all servers read alike")
    return name, value


def _bad_field(line: bytes) -> str:
    """What is wrong with it."""
    if line[:1] in {b" ", b"\t"}:
        return "a header is folded over two lines: send it on one"
    if b"\n" in line or b"\r" in line:
        return "a header's line does not end with CR LF"
    name, colon, _ = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        return "a header's name is not a token that a colon follows at once"
    return "a header's value holds a control character"


def _length(headers: dict[bytes, bytes], version: int) -> int:
    coding = headers.get(b"transfer-encoding")
    length = headers.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise RefusedError(400, "the request has both Content-Length and Transfer-Encoding: send one")
        if coding.lower() != b"chunked" or version == 0:
            raise RefusedError(400, "the only Transfer-Encoding taken is `chunked`, of HTTP/1.1")
        return CHUNKED
    if length is None:
        return 0
    if not length.isdigit():
        raise RefusedError(400, "Content-Length is not a whole number of bytes")
    if len(length) > _LENGTH_DIGITS:
        raise RefusedError(413, "Content-Length is larger than any body taken")
    return int(length)


def _closes(connection: bytes | None, version: int) -> bool:
    if connection is None or connection == b"keep-alive":
        return connection is None and version == 0
    options = [option.strip(b" \t") for option in connection.lower().split(b",")]
    return b"close" in options or (version == 0 and b"keep-alive" not in options)


def _expects(headers: dict[bytes, bytes]) -> bool:
    expected = headers.get(b"expect")
    if expected is None:
        return False
    if expected.lower() != b"100-continue":
        raise RefusedError(417, "the only expectation met is `100-continue`")
    return True


def _origin(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """The host that a target of any form names, and its path and query. Raises RefusedError."""
    if target[:1] == b"/":
        if b"#" in target:
            raise RefusedError(400, "the request's target holds a fragment: encode `#` as %23")
        return b"", target
    if target == b"*" and method == b"OPTIONS":
        return b"", target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RefusedError(400, "the request's target is neither a path that begins with `/` nor an http URL")
    authority, rest = absolute.groups()
    if not _HOST.fullmatch(authority):
        raise RefusedError(400, "the request's target does not name a host")
    if rest is None:
        return authority, b"/"
    return authority, rest if rest[:1] == b"/" else b"/" + rest


def _decoded(path: bytes) -> str:
    if b"%" in path:
        if _BAD_PERCENT.search(path):
            raise RefusedError(400, "the path holds a `%` that two hexadecimal digits do not follow")
        path = unquote_to_bytes(path)
    try:
        text = path.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, "the path is not UTF-8") from error
    if _CONTROL.search(text):
        raise RefusedError(400, "the path holds a control character")
    return text


_known_field = lru_cache(1024)(_field)
_known_request_line = lru_cache(256)(_request_line)
