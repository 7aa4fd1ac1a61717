"""The body of an HTTP/1 request, read as it comes: of a known length, or in chunks (RFC 9112, 7.1).

Nothing after the body is ever taken for a part of it. Chunks are read strictly, within bounds: what is not a chunk
raises RefusedError, extensions are skipped, trailers are checked and dropped.

What was read is held as one run of bytes: however small the pieces it came in, `size_bytes` is what it takes, and at
most an eighth more.
"""

import re

from aks_serving.http.head import RefusedError

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")
_FRAMING = frozenset({b"connection", b"content-length", b"host", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""What a trailer must not say (RFC 9110, 6.5.1): who takes trailers for headers would read another request."""
_MAX_LINE_BYTES = 4096
_MAX_OVERHEAD_BYTES = 16 * 1024
"""Of lines around the data, beside as many bytes as there are of data: reading a line takes longer than its bytes say.
Any body may have some three thousand chunks of one byte; a longer one needs chunks of five bytes in the mean.
"""
_STEPS = 2048
"""Lines and pieces of data that are read at once: a millisecond or two."""


class FixedBody:
    """Reads one body of a known length."""

    __slots__ = ("_data", "_length")

    def __init__(self, length: int) -> None:
        self._length = length
        self._data = bytearray()

    @property
    def size_bytes(self) -> int:
        """What was read."""
        return len(self._data)

    @property
    def whole(self) -> bool:
        """Whether all of it was read."""
        return len(self._data) == self._length

    def feed(self, data: bytes) -> bytes:
        """Read on. What is left of `data` after the end of the body; empty until then."""
        left = self._length - len(self._data)
        self._data += data if len(data) <= left else data[:left]
        return data[left:]

    def body(self) -> bytes:
        """What was read."""
        return bytes(self._data)


class ChunkedBody:
    """Reads one body in chunks. `whole` once its last line was read."""

    __slots__ = ("_data", "_left", "_max_bytes", "_overhead", "_rest", "_state", "whole")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._rest = b""
        self._left = 0
        self._overhead = 0
        self._state = ChunkedBody._size
        self.whole = False

    @property
    def size_bytes(self) -> int:
        """What of its data was read."""
        return len(self._data)

    def feed(self, data: bytes) -> bytes:
        """Read on, for no more than a while. What is left of `data`: to be fed again, or where the body is whole, what
        came after it. Raises RefusedError.
        """
        data = self._rest + data if self._rest else data
        self._rest = b""
        at = 0
        for _ in range(_STEPS):
            after = self._state(self, data, at)
            if after < 0:
                self._rest = data[at:]
                return b""
            at = after
            if self.whole:
                break
        return data[at:]

    def body(self) -> bytes:
        """What was read."""
        return bytes(self._data)

    def _size(self, data: bytes, at: int) -> int:
        line, after = self._line(data, at)
        if after < 0:
            return after
        size = _SIZE.fullmatch(line)
        if size is None:
            raise RefusedError(400, "a chunk's size is not a hexadecimal number")
        self._left = int(size[1], 16)
        if len(self._data) + self._left > self._max_bytes:
            raise too_large(self._max_bytes)
        self._state = ChunkedBody._in_chunk if self._left else ChunkedBody._trailer
        return after

    def _in_chunk(self, data: bytes, at: int) -> int:
        part = data[at : at + self._left]
        if not part:
            return -1
        self._data += part
        self._left -= len(part)
        if not self._left:
            self._state = ChunkedBody._after_data
        return at + len(part)

    def _after_data(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            self._overhead += 2
            self._state = ChunkedBody._size
            return at + 2
        if end in {b"", b"\r"}:
            return -1
        raise RefusedError(400, "a chunk is longer than its size says")

    def _trailer(self, data: bytes, at: int) -> int:
        line, after = self._line(data, at)
        if after < 0:
            return after
        if not line:
            self.whole = True
        elif not _TRAILER.fullmatch(line):
            raise RefusedError(400, "a trailer is not a header")
        elif line.partition(b":")[0].lower() in _FRAMING:
            raise RefusedError(400, "a trailer says what only the head of a request may")
        return after

    def _line(self, data: bytes, at: int) -> tuple[bytes, int]:
        """The next line, and where the one after it begins: -1 where it is not whole yet."""
        end = data.find(b"\n", at)
        if end < 0:
            if len(data) - at > _MAX_LINE_BYTES:
                raise RefusedError(400, f"a chunk's line is longer than {_MAX_LINE_BYTES} bytes")
            return b"", -1
        if end == at or data[end - 1] != 0x0D or end - at > _MAX_LINE_BYTES:
            raise RefusedError(400, f"a chunk's line does not end with CR LF within {_MAX_LINE_BYTES} bytes")
        self._overhead += end + 1 - at
        if self._overhead > _MAX_OVERHEAD_BYTES + len(self._data):
            raise RefusedError(400, "the body's chunks are more lines than data: send larger ones")
        return data[at : end - 1], end + 1


def too_large(max_bytes: int) -> RefusedError:
    """What refuses a body that is larger than is taken."""
    return RefusedError(413, f"the body is larger than {max_bytes} bytes: send fewer rows at a time")
