"""As much of HTTP/2 as a client needs that makes unary gRPC calls, one after the other, over one connection (RFC 9113).

A generator built on a gRPC library would measure the library: its client costs as much for a call as a server does.
Here a call's frames are put together once, and an answer is found by its frames alone: its message stands in DATA
frames, and an error has none (a status stands in a header block, which is not read).
"""

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED = 0x4, 0x8
_HEAD_BYTES = 9
_FRAME_BYTES = 16_384
_FIRST_WINDOW, _MOST_WINDOW = 65_535, 2**31 - 1
_INITIAL_WINDOW_SIZE = 4


class Http2Error(Exception):
    """The server ended the connection or a call, or wrote what is no HTTP/2."""


class Calls:
    """The frames of one connection. Give what comes to `feed`; write what `opening`, `call` and `feed` give."""

    def __init__(self, authority: str, path: str) -> None:
        """All calls are of the one method at `path`."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", authority)]
        fields += [("content-type", "application/grpc"), ("te", "trailers")]
        self._block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
        self._data = b""
        self._message = bytearray()
        self._stream = -1
        self._window = _FIRST_WINDOW

    @property
    def opening(self) -> bytes:
        """What a connection begins with: answers may be as long as they like."""
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _MOST_WINDOW)
        window = struct.pack(">I", _MOST_WINDOW - _FIRST_WINDOW)
        return PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW, 0, 0, window)

    def may_call(self, message: bytes) -> bool:
        """Whether the server takes so many bytes now; what it says later may change it."""
        return self._window >= len(message) + 5

    def call(self, message: bytes) -> bytes:
        """Begin a call; the last one is over. Raises ValueError for a message that does not fit into one frame."""
        if len(message) + 5 > _FRAME_BYTES:
            raise ValueError(f"a message has {len(message)} bytes: at most {_FRAME_BYTES - 5} go into one frame")
        self._stream += 2
        self._window -= len(message) + 5
        self._message.clear()
        data = struct.pack(">BI", 0, len(message)) + message
        head = frame(_HEADERS, _END_HEADERS, self._stream, self._block)
        return head + frame(_DATA, _END_STREAM, self._stream, data)

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """What is to be written now, and the answer's message where it is whole: empty where the call failed.

        Raises Http2Error.
        """
        reply, answer = b"", None
        for kind, flags, stream, body in self._frames(data):
            if kind in {_DATA, _HEADERS} and stream == self._stream:
                if kind == _DATA:
                    self._message += _unpadded(flags, body)
                if flags & _END_STREAM:
                    answer = _unpacked(bytes(self._message))
            elif kind in {_SETTINGS, _PING} and not flags & _ACK:
                reply += frame(kind, _ACK, 0, body if kind == _PING else b"")
            elif kind == _WINDOW and stream == 0:
                self._window += int.from_bytes(body)
            elif kind in {_RESET, _GO_AWAY}:
                raise Http2Error(f"the server ended it with frame {kind}: {body[:200]!r}")
        return reply, answer

    def _frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._data + data if self._data else data
        at = 0
        while len(data) - at >= _HEAD_BYTES:
            size = int.from_bytes(data[at : at + 3])
            end = at + _HEAD_BYTES + size
            if end > len(data):
                break
            kind, flags, stream = struct.unpack_from(">BBI", data, at + 3)
            yield kind, flags, stream, data[at + _HEAD_BYTES : end]
            at = end
        self._data = data[at:]


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One frame."""
    return len(body).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + body


def _text(value: str) -> bytes:
    """A string as HPACK has it, neither compressed nor indexed (RFC 7541, 5.2)."""
    raw = value.encode("ascii")
    if len(raw) > 126:
        raise ValueError(f"{value!r} has {len(raw)} characters: use at most 126")
    return bytes([len(raw)]) + raw


def _unpadded(flags: int, body: bytes) -> bytes:
    return body[1 : len(body) - body[0]] if flags & _PADDED else body


def _unpacked(data: bytes) -> bytes:
    """The message behind gRPC's prefix of a flag and a length; empty where there is none."""
    if not data:
        return b""
    flag, size = struct.unpack_from(">BI", data)
    if flag or len(data) != size + 5:
        raise Http2Error(f"an answer of {len(data)} bytes begins with {data[:5]!r}: it is not one message as it is")
    return data[5:]
