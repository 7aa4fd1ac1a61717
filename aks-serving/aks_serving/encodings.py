"""Content codings of HTTP bodies: gzip and deflate, of requests and of responses (RFC 9110, sections 8.4 and 12.5.3).

    body = decoded(body, headers[b"content-encoding"], max_body_bytes)
    response = packed(response, headers[b"accept-encoding"])

A request's body is unpacked once, and only up to the server's limit: a small body that stands for a large one costs no
more memory than the limit allows. The work is done on the caller's thread: about 4 ms to unpack a MiB, and 10 ms to
pack one.
"""

import gzip
import zlib
from functools import lru_cache

from aks_serving.errors import BodyTooLargeError
from aks_serving.exchange import Response
from shared.core.errors import InvalidInputError

CODINGS = (b"gzip", b"deflate")
MIN_WORTHWHILE_BYTES = 1024
"""A shorter body is sent as it is."""

_KNOWN = frozenset({*CODINGS, b"x-gzip"})
_MAX_MEMBERS = 16
_LEVEL = 1
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""The windowBits that tell zlib which form it reads."""


class UnsupportedCodingError(InvalidInputError):
    """The body has a content coding that this server does not know."""

    def __init__(self, coding: bytes) -> None:
        shown = coding[:40].decode("latin-1")
        super().__init__(f"the body's Content-Encoding is {shown!r}: use gzip or deflate, or send it as it is")


def decoded(body: bytes, codings: bytes, limit: int) -> bytes:
    """A body without its coding, which is the value of Content-Encoding; at most `limit` bytes.

    Raises UnsupportedCodingError, BodyTooLargeError, or InvalidInputError for a body that is not what it is said to be.
    """
    layers = [coding for part in codings.lower().split(b",") if (coding := part.strip()) not in (b"", b"identity")]
    for coding in layers:
        if coding not in _KNOWN:
            raise UnsupportedCodingError(coding)
    if len(layers) > 1:
        # Packed twice, a few hundred bytes stand for the longest body: nobody needs that but an attacker.
        raise InvalidInputError(f"the body is said to be packed {len(layers)} times: pack it once")
    if not layers:
        return body
    return _unpacked(body, _deflate_form(body) if layers[0] == b"deflate" else _GZIP, limit)


@lru_cache(maxsize=256)
def chosen(accepted: bytes) -> bytes:
    """The coding of a response for a value of Accept-Encoding: the client's favourite; empty to send it as it is.

    Where several are liked best, gzip is before deflate, and both before none. What cannot be read is passed over.
    """
    weights: dict[bytes, float] = {}
    for part in accepted.lower().split(b",")[:32]:
        name, _, parameters = part.partition(b";")
        weights[name.strip().removeprefix(b"x-")] = _weight(parameters)
    others = weights.get(b"*", 0.0)
    best = max(CODINGS, key=lambda coding: weights.get(coding, others))
    weight = weights.get(best, others)
    # A client that names codings and not identity takes identity too, and likes it least.
    return best if weight > 0.0 and weight >= weights.get(b"identity", others) else b""


def encoded(body: bytes, coding: bytes) -> tuple[bytes, bytes]:
    """A body in a coding that `chosen` gave, and the coding; as it is, and b"", where it is too short to gain by it."""
    if not coding or len(body) < MIN_WORTHWHILE_BYTES:
        return body, b""
    packed = gzip.compress(body, _LEVEL, mtime=0) if coding == b"gzip" else zlib.compress(body, _LEVEL)
    return packed, coding


def packed(response: Response, accepted: bytes) -> Response:
    """A response in the coding that the client likes best, for the value of its Accept-Encoding."""
    body, coding = encoded(response.body, chosen(accepted))
    if not coding:
        return response
    return Response(response.head, body, ((b"content-encoding", coding), *response.extra))


def _unpacked(body: bytes, form: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for _ in range(_MAX_MEMBERS):
        unpacker = zlib.decompressobj(form)
        try:
            part = unpacker.decompress(body, limit - size + 1)
        except zlib.error as error:
            raise InvalidInputError(f"the body is not the {_name(form)} that it is said to be: {error}") from error
        size += len(part)
        if size > limit:
            raise BodyTooLargeError(limit)
        parts.append(part)
        if not unpacker.eof:
            raise InvalidInputError(f"the body is {_name(form)} that is cut off: send all of it")
        body = unpacker.unused_data
        if not body:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if form != _GZIP:
            raise InvalidInputError(f"the body goes on after its {_name(form)} data")
    # Each costs a copy of all that follows it.
    raise InvalidInputError(f"the body is more than {_MAX_MEMBERS} gzip members: pack it as one")


def _deflate_form(body: bytes) -> int:
    """What is called deflate is zlib's form by the standard, and bare deflate from some clients."""
    zlib_header = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _ZLIB if zlib_header else _RAW


def _name(form: int) -> str:
    return "gzip" if form == _GZIP else "deflate"


def _weight(parameters: bytes) -> float:
    name, _, value = parameters.partition(b"=")
    if name.strip() != b"q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
