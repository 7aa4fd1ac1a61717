"""A connection over TLS: what it sends is given to the TLS layer a piece at a time, as that passes it on.

An event loop's TLS layer encrypts all that it is given and hands it to the socket's transport, whose buffer it does not
tell of: whole answers would wait there uncounted, for clients that read slowly or not at all. So all but a piece waits
here, where it is counted and the client's pace seen.
"""

import asyncio
from typing import cast

from aks_serving.http.protocol import Connection
from aks_serving.http.state import Shared

_PIECE_BYTES = 64 * 1024
"""With as much again in the socket's transport it is what a connection holds uncounted."""
_MARK_BYTES = 16 * 1024
"""Of what the TLS layer keeps: from there on it wants no more, until all of it is passed on."""


class SecuredConnection(Connection):
    """A `Connection` over an event loop's TLS."""

    __slots__ = ("_pieces",)

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._pieces: _Pieces

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        below = cast("asyncio.Transport", transport)
        self._pieces = _Pieces(below)
        super().connection_made(self._pieces)
        below.set_write_buffer_limits(high=_MARK_BYTES, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pieces.rest.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._pieces.stopped = True
        if not self._choked:
            super().pause_writing()

    def resume_writing(self) -> None:
        self._pieces.stopped = False
        self._pieces.go_on()
        if not self._pieces.stopped:
            super().resume_writing()


class _Pieces(asyncio.Transport):
    """A TLS transport, and what it was not given yet."""

    def __init__(self, below: asyncio.Transport) -> None:
        super().__init__()
        self._below = below
        self._closing = False
        self.rest = bytearray()
        self.stopped = False
        """Whether the TLS layer wants no more for now."""

    def go_on(self) -> None:
        """Give the TLS layer of the rest what it takes."""
        rest = self.rest
        while rest and not self.stopped:
            piece = rest[:_PIECE_BYTES]
            del rest[:_PIECE_BYTES]
            self._below.write(piece)
        if self._closing and not rest:
            self._below.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.rest or self.stopped or len(data) > _PIECE_BYTES:
            self.rest += data
            self.go_on()
        else:
            self._below.write(data)

    def get_write_buffer_size(self) -> int:
        return len(self.rest) + self._below.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return self._below.can_write_eof()

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def close(self) -> None:
        self._closing = True
        self.go_on()

    def abort(self) -> None:
        self.rest.clear()
        self._below.abort()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()
