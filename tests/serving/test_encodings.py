"""Content codings: read within the limit, chosen by the client's liking."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from aks_serving.encodings import UnsupportedCodingError, chosen, decoded, encoded, packed
from aks_serving.errors import BodyTooLargeError
from aks_serving.exchange import OK, Response

from shared.core.errors import InvalidInputError

_BODY = b'{"inputs": []}' * 200
_LIMIT = 10_000


def _bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        (_BODY, b""),
        (_BODY, b"identity"),
        (gzip.compress(_BODY, mtime=0), b"gzip"),
        (gzip.compress(_BODY, mtime=0), b" GZip "),
        (gzip.compress(_BODY, mtime=0), b"x-gzip"),
        (gzip.compress(_BODY, 9, mtime=0), b"identity, gzip"),
        (gzip.compress(_BODY[:100], mtime=0) + gzip.compress(_BODY[100:], mtime=0), b"gzip"),
        (zlib.compress(_BODY), b"deflate"),
        (_bare(_BODY), b"deflate"),
        (gzip.compress(b"", mtime=0) + gzip.compress(_BODY, mtime=0), b"gzip"),
    ],
)
def test_every_known_coding_is_read(body: bytes, codings: bytes) -> None:
    assert decoded(body, codings, _LIMIT) == _BODY


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, _bare])
def test_a_body_may_be_as_long_as_the_limit_and_no_longer(pack: Callable[[bytes], bytes]) -> None:
    coding = b"gzip" if pack is gzip.compress else b"deflate"
    assert len(decoded(pack(b"a" * _LIMIT), coding, _LIMIT)) == _LIMIT
    with pytest.raises(BodyTooLargeError):
        decoded(pack(b"a" * (_LIMIT + 1)), coding, _LIMIT)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b"\0" * (64 << 20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decoded(bomb, b"gzip", 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_members_of_two_bodies_count_together() -> None:
    with pytest.raises(BodyTooLargeError):
        decoded(gzip.compress(b"a" * 6000, mtime=0) * 2, b"gzip", _LIMIT)
    with pytest.raises(InvalidInputError, match="more than 16 gzip members"):
        decoded(gzip.compress(b"", mtime=0) * 1000, b"gzip", _LIMIT)


@pytest.mark.parametrize(
    ("body", "codings", "said"),
    [
        (b"", b"gzip", "cut off"),
        (b"not packed", b"gzip", "is not the gzip"),
        (b"not packed", b"deflate", "deflate"),
        (gzip.compress(_BODY, mtime=0)[:-1], b"gzip", "cut off"),
        (gzip.compress(_BODY, mtime=0)[:-8] + bytes(8), b"gzip", "is not the gzip"),
        (gzip.compress(_BODY, mtime=0) + b"more", b"gzip", "is not the gzip"),
        (zlib.compress(_BODY)[:-1], b"deflate", "cut off"),
        (zlib.compress(_BODY) + b"x", b"deflate", "goes on after"),
        (zlib.compress(_BODY), b"gzip", "is not the gzip"),
        (gzip.compress(gzip.compress(_BODY, mtime=0), mtime=0), b"gzip, gzip", "packed 2 times: pack it once"),
        (gzip.compress(zlib.compress(_BODY), mtime=0), b"deflate, gzip", "packed 2 times"),
    ],
)
def test_what_is_not_that_coding_is_refused(body: bytes, codings: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decoded(body, codings, _LIMIT)


@pytest.mark.parametrize("codings", [b"br", b"zstd", b"gzip, br", b"\xff" * 99, b"gzip;q=1"])
def test_an_unknown_coding_is_named(codings: bytes) -> None:
    with pytest.raises(UnsupportedCodingError, match="use gzip or deflate"):
        decoded(gzip.compress(_BODY, mtime=0), codings, _LIMIT)


def test_no_damage_to_a_packed_body_is_read_as_another_body() -> None:
    chance = random.Random(4)
    whole = gzip.compress(chance.randbytes(300))
    for at in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        try:
            found = decoded(bytes(damaged), b"gzip", _LIMIT)
        except (InvalidInputError, BodyTooLargeError):
            continue
        assert found == gzip.decompress(whole), at  # the header's time, name and system say nothing of the body


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"", b""),
        (b"identity", b""),
        (b"gzip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"gzip, deflate, br", b"gzip"),
        (b"deflate, gzip;q=0.9", b"deflate"),
        (b"gzip;q=0.5, deflate;q=0.6", b"deflate"),
        (b"GZIP; Q=0.3", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b"*", b"gzip"),
        (b"*;q=0", b""),
        (b"gzip;q=0, *", b"deflate"),
        (b"gzip;q=0", b""),
        (b"gzip;q=0.4, identity;q=0.5", b""),
        (b"gzip;q=0.5, identity;q=0.5", b"gzip"),
        (b"br, zstd", b""),
        (b"gzip;q=2", b""),
        (b"gzip;q=-1", b""),
        (b"gzip;q=nan", b""),
        (b"gzip;q=", b""),
        (b"gzip;level=1", b"gzip"),
        (b",;,=;q", b""),
        (b"\xff\xfe", b""),
        (b"br," * 5000 + b"gzip", b""),
    ],
)
def test_the_clients_favourite_is_chosen(accepted: bytes, coding: bytes) -> None:
    assert chosen(accepted) == coding


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_what_is_packed_is_read_back_and_what_is_short_goes_as_it_is(coding: bytes) -> None:
    body, said = encoded(_BODY, coding)
    assert (said, len(body) < len(_BODY), decoded(body, said, _LIMIT)) == (coding, True, _BODY)
    assert encoded(b"short", coding) == (b"short", b"")
    assert encoded(_BODY, b"") == (_BODY, b"")


def test_a_packed_response_says_so_and_keeps_its_headers() -> None:
    response = Response(OK, _BODY, ((b"a", b"b"),))
    found = packed(response, b"deflate")
    assert found.extra == ((b"content-encoding", b"deflate"), (b"a", b"b"))
    assert zlib.decompress(found.body) == _BODY
    assert packed(response, b"br") is response
