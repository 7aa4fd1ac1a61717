"""What a body in the making takes of memory and of the event loop, however small the pieces it comes in."""

import tracemalloc

import pytest
from aks_serving.http.body import ChunkedBody, FixedBody
from aks_serving.http.head import RefusedError

_MIB = 1024 * 1024
_PIECE = 5


def _in_chunks(size: int, count: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, b"x" * size) * count


def _fed(body: ChunkedBody, data: bytes) -> bytes:
    """What is left of the data once the body takes no more of it."""
    while data and not body.whole:
        data = body.feed(data)
    return data


@pytest.mark.parametrize("body", [FixedBody(_MIB), ChunkedBody(_MIB)], ids=["of a known length", "in chunks"])
def test_a_body_that_is_not_whole_takes_the_memory_that_is_counted(body: FixedBody | ChunkedBody) -> None:
    piece = bytearray(b"x" * _PIECE if isinstance(body, FixedBody) else _in_chunks(_PIECE, 1))
    tracemalloc.start()
    try:
        for _ in range(_MIB // _PIECE):
            body.feed(bytes(piece))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert body.size_bytes == _MIB // _PIECE * _PIECE
    assert held < 1.25 * body.size_bytes
    assert not body.whole


@pytest.mark.parametrize(("size", "taken"), [(1, False), (4, False), (5, True), (4096, True)])
def test_a_long_body_has_at_least_as_many_bytes_as_the_lines_of_its_chunks(size: int, *, taken: bool) -> None:
    body = ChunkedBody(_MIB)
    sent = _in_chunks(size, 128 * 1024 // size) + b"0\r\n\r\n"
    if not taken:
        with pytest.raises(RefusedError, match="more lines than data"):
            _fed(body, sent)
        return
    assert _fed(body, sent) == b""
    assert body.whole
    assert len(body.body()) == 128 * 1024 // size * size
    assert _fed(ChunkedBody(_MIB), _in_chunks(1, 2000) + b"0\r\n\r\nnext") == b"next"
