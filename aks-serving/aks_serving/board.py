"""A piece of shared memory that the parent makes before it forks its workers, and in which they tell each other.

Each place has three seats, since one worker may leave, one serve and one start there at a time. The parent gives each
worker a seat that no living one has. A worker writes to its own seat alone, and reads the others'. A seat holds what
was last written twice, the older one while the newer is being written: whoever dies in the midst of writing leaves the
older one whole. There is no file and nothing to tidy. What is written is aks_serving.reports'; this knows bytes, and
imports nothing that the parent does not need.
"""

import logging
import mmap
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum

log = logging.getLogger(__name__)

SEATS_A_PLACE = 3
_CAPACITY_BYTES = 4 * 1024 * 1024
_HEAD = struct.Struct("<BBxxII II")
"""The state, which half holds what was written last, and the length and checksum of either half."""
_HEAD_BYTES = mmap.PAGESIZE
_TRIES = 50


class State(IntEnum):
    """What the worker in a seat does."""

    GONE = 0
    STARTING = 1
    READY = 2
    NOT_READY = 3


class Board:
    """The shared memory, in the parent and in each of its workers. Pages that nothing is written to take no memory."""

    def __init__(self, *, places: int) -> None:
        self.places = places
        self._seat_bytes = _HEAD_BYTES + 2 * _CAPACITY_BYTES
        self._memory = mmap.mmap(-1, places * SEATS_A_PLACE * self._seat_bytes)

    def seat(self, place: int, seat: int) -> "Seat":
        """One of the seats of a place."""
        index = place * SEATS_A_PLACE + seat
        start = index * self._seat_bytes
        return Seat(memoryview(self._memory)[start : start + self._seat_bytes])

    def seats(self, place: int) -> Iterator["Seat"]:
        """All seats of a place."""
        for seat in range(SEATS_A_PLACE):
            yield self.seat(place, seat)


class Seat:
    """Where one worker writes, and all read."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._full = False

    @property
    def state(self) -> State:
        """What the worker here does, as it or the parent said last."""
        return State(self._memory[0])

    @state.setter
    def state(self, state: State) -> None:
        self._memory[0] = state

    def write(self, data: bytes) -> None:
        """Replace what stands here. What does not fit is logged once, and the last stays."""
        if len(data) > _CAPACITY_BYTES:
            if not self._full:
                log.error("this worker's counts take %d bytes, more than the %d it has", len(data), _CAPACITY_BYTES)
            self._full = True
            return
        state, half, *lengths = _HEAD.unpack_from(self._memory)
        half = 1 - half
        start = _HEAD_BYTES + half * _CAPACITY_BYTES
        self._memory[start : start + len(data)] = data
        lengths[half * 2 : half * 2 + 2] = len(data), zlib.crc32(data)
        _HEAD.pack_into(self._memory, 0, state, 1 - half, *lengths)
        self._memory[1] = half  # last, and a single byte: until then readers take the other half

    def read(self) -> bytes:
        """What was last written whole; nothing where there never was anything."""
        for _ in range(_TRIES):
            _, half, *lengths = _HEAD.unpack_from(self._memory)
            length, checksum = lengths[half * 2 : half * 2 + 2]
            start = _HEAD_BYTES + half * _CAPACITY_BYTES
            data = bytes(self._memory[start : start + length])
            if zlib.crc32(data) == checksum:
                return data
        log.error("a worker's counts cannot be read: they changed each time")
        return b""
