"""What the workers of one server tell each other: a piece of shared memory that the parent makes before it forks them.

Each place has two seats, since a worker and its successor may both be there for a while. A worker writes its report to
its own seat alone, and reads the others'. A seat holds its last report twice, the older one while the newer is being
written: whoever dies in the midst of writing leaves the older one whole. What a dead worker counted stays in its seat,
and who takes the seat next carries it on, so the sum over all seats never falls. There is no file and nothing to tidy.
"""

import logging
import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum

import msgspec

from aks_serving.counts import Latencies, VersionTally, added
from shared.telemetry.histogram import merged
from shared.telemetry.window import ShadowCounts

log = logging.getLogger(__name__)

type Totals = dict[str, dict[int, VersionTally]]
"""Counts since the start, by endpoint and version."""

_SEATS_A_PLACE = 2
_CAPACITY_BYTES = 4 * 1024 * 1024
_HEAD = struct.Struct("<BBxxII II")
"""The state, which half holds the last report, and the length and checksum of either half."""
_HEAD_BYTES = mmap.PAGESIZE
_TRIES = 50


class State(IntEnum):
    """What the worker in a seat does."""

    GONE = 0
    STARTING = 1
    READY = 2
    NOT_READY = 3


class Counts(msgspec.Struct):
    """A version's counts as a report carries them: see aks_serving.counts.VersionTally."""

    requests: int
    errors: int
    fallbacks: int
    pinned: int
    latency_ms: dict[int, int]
    latency_ms_sum: float
    shadow: dict[str, float] | None = None
    others: dict[str, tuple[dict[int, int], float]] = {}
    """Latencies by outcome: the buckets and the sum."""
    runs: tuple[int, float, dict[int, int], dict[int, int]] = (0, 0.0, {}, {})
    """Rows, seconds, sizes and times: see aks_serving.counts.Runs."""


class Report(msgspec.Struct):
    """A worker's counts since the start, those of its seat's earlier workers among them, and what is so now."""

    counts: dict[str, dict[int, Counts]] = {}
    refused: dict[str, dict[str, int]] = {}
    """Requests that no version ran since the start, by endpoint and why."""
    lost: int = 0
    """Telemetry windows that storage never got."""
    waiting: int = 0
    """Requests that wait or run."""
    generations: dict[str, int] = {}
    """By endpoint, the generation of the plan that answers."""
    memory_bytes: dict[str, dict[int, int]] = {}
    """By endpoint and version, what the version takes of this worker's memory."""

    def totals(self) -> Totals:
        """The counts, to be added to others."""
        return {name: {v: _tally(counts) for v, counts in found.items()} for name, found in self.counts.items()}


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Report).decode


class Board:
    """The shared memory, in the parent and in each of its workers. Pages that no report reaches take no memory."""

    def __init__(self, *, places: int) -> None:
        self.places = places
        self._seat_bytes = _HEAD_BYTES + 2 * _CAPACITY_BYTES
        self._memory = mmap.mmap(-1, places * _SEATS_A_PLACE * self._seat_bytes)

    def seat(self, place: int, number: int) -> "Seat":
        """A seat of a place. Which of its two is by the `number` of the worker there: its successor has the other."""
        index = place * _SEATS_A_PLACE + number % _SEATS_A_PLACE
        start = index * self._seat_bytes
        return Seat(memoryview(self._memory)[start : start + self._seat_bytes])

    def seats(self, place: int) -> Iterator["Seat"]:
        """Both seats of a place."""
        for number in range(_SEATS_A_PLACE):
            yield self.seat(place, number)


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

    def write(self, report: Report) -> None:
        """Replace the report. One that does not fit is logged once, and the last one stays."""
        data = _ENCODE(report)
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

    def read(self) -> Report:
        """The last report that is whole; an empty one where there never was any."""
        for _ in range(_TRIES):
            _, half, *lengths = _HEAD.unpack_from(self._memory)
            length, checksum = lengths[half * 2 : half * 2 + 2]
            start = _HEAD_BYTES + half * _CAPACITY_BYTES
            data = bytes(self._memory[start : start + length])
            if zlib.crc32(data) == checksum:
                return _DECODE(data) if data else Report()
        log.error("a worker's counts cannot be read: they changed each time")
        return Report()


class Siblings:
    """What a worker knows of the others, and they of it."""

    def __init__(self, board: Board, *, place: int, number: int) -> None:
        self._board = board
        self._place = place
        self._mine = number % _SEATS_A_PLACE
        self._seat = board.seat(place, number)
        self.carried = self._seat.read()
        """What earlier workers in this seat counted."""
        self.carried.waiting = 0
        self._seat.state = State.STARTING

    def tell(self, report: Report, state: State) -> None:
        """Have the others know. `report` is without what is carried, which is added here."""
        parts = [report, self.carried]
        totals = [part.totals() for part in parts]
        self._seat.write(
            msgspec.structs.replace(
                report,
                counts=counts_of(joined(totals)),
                refused=refused_of([part.refused for part in parts]),
                lost=sum(part.lost for part in parts),
            )
        )
        self._seat.state = state

    def others(self) -> list[Report]:
        """The reports of all other seats: of workers that are gone, their counts alone."""
        found = []
        for place in range(self._board.places):
            for number, seat in enumerate(self._board.seats(place)):
                if (place, number) == (self._place, self._mine):
                    continue
                report = seat.read()
                if seat.state is State.GONE:
                    report = Report(counts=report.counts, refused=report.refused, lost=report.lost)
                found.append(report)
        return found

    def not_ready(self) -> str:
        """Why some other place has no worker that is ready; empty where all have one."""
        for place in range(self._board.places):
            if place != self._place and all(seat.state is not State.READY for seat in self._board.seats(place)):
                return f"worker {place + 1} of {self._board.places} is not ready"
        return ""


def joined(parts: list[Totals]) -> Totals:
    """The sum of counts by endpoint and version."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: added([part.get(name, {}) for part in parts]) for name in names}


def refused_of(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The sum of refusals by endpoint and why."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: merged([part.get(name, {}) for part in parts]) for name in names}


def counts_of(totals: Mapping[str, Mapping[int, VersionTally]]) -> dict[str, dict[int, Counts]]:
    """Counts as a report carries them."""
    return {name: {v: _counts(tally) for v, tally in found.items()} for name, found in totals.items()}


def _counts(tally: VersionTally) -> Counts:
    latency_ms = dict(tally.latency_ms)
    return Counts(
        requests=tally.requests,
        errors=tally.errors,
        fallbacks=tally.fallbacks,
        pinned=tally.pinned,
        latency_ms=latency_ms,
        latency_ms_sum=tally.latency_ms_sum,
        shadow=None if tally.shadow is None else tally.shadow.model_dump(),
        others={outcome: (dict(found.buckets), found.sum_ms) for outcome, found in tally.others.items()},
        runs=(tally.runs.rows, tally.runs.took_s, dict(tally.runs.sizes), dict(tally.runs.times)),
    )


def _tally(counts: Counts) -> VersionTally:
    tally = VersionTally()
    tally.requests, tally.errors = counts.requests, counts.errors
    tally.fallbacks, tally.pinned = counts.fallbacks, counts.pinned
    tally.latency_ms.update(counts.latency_ms)
    tally.latency_ms_sum = counts.latency_ms_sum
    for outcome, (buckets, sum_ms) in counts.others.items():
        found = tally.others[outcome] = Latencies()
        found.buckets, found.sum_ms = buckets, sum_ms
    runs = tally.runs
    runs.rows, runs.took_s, runs.sizes, runs.times = counts.runs
    if counts.shadow is not None:
        tally.shadow = ShadowCounts.model_validate(counts.shadow)
    return tally
