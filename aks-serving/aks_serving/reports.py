"""What the workers of one server tell each other: their counts since the start, and what is so now.

What a dead worker counted stays in its seat (aks_serving.board), and who takes the seat next carries it on, so that the
sum over all seats never falls.
"""

from collections.abc import Container, Mapping, Sequence

import msgspec

from aks_serving.board import Board, Seat, State
from aks_serving.counts import Latencies, Variant, VersionTally, added
from aks_serving.values import Values
from shared.telemetry.histogram import merged
from shared.telemetry.window import ShadowCounts

type Totals = dict[str, dict[Variant, VersionTally]]
"""Counts since the start, by endpoint and variant."""


class Counts(msgspec.Struct):
    """A version's counts as a report carries them: see aks_serving.counts.VersionTally."""

    requests: int
    errors: int
    fallbacks: int
    pinned: int
    latency_ms: dict[int, int]
    latency_ms_sum: float
    shadow: dict[str, int | str] | None = None
    others: dict[str, tuple[dict[int, int], float]] = {}
    """Latencies by outcome: the buckets and the sum."""
    runs: tuple[int, float, dict[int, int], dict[int, int]] = (0, 0.0, {}, {})
    """Rows, seconds, sizes and times: see aks_serving.counts.Runs."""
    values: tuple[dict[int, int], float] = ({}, 0.0)
    """See aks_serving.values."""
    pinned_errors: int = 0
    looked: dict[str, int] = {}
    """Rows whose features were to be counted, by what became of them."""


class Http(msgspec.Struct):
    """What an HTTP transport tells of itself, or several of themselves together."""

    connections: int = 0
    """Connections that are open."""
    refused: dict[int, int] = {}
    """Requests that the transport answered itself since the start, by status."""


class Report(msgspec.Struct):
    """A worker's counts since the start, those of its seat's earlier workers among them, and what is so now."""

    counts: dict[str, list[tuple[int, str, Counts]]] = {}
    """By endpoint, the version, its role, and what was counted of it in that role."""
    seen_s: dict[str, dict[int, float]] = {}
    """By endpoint and version, when it was last counted, or in a plan that answers, by a monotonic clock."""
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
    in_flight: dict[str, int] = {}
    """By endpoint, requests and copies whose outcome is not known yet."""
    tripped: dict[str, dict[int, str]] = {}
    """By endpoint, versions that this worker took out of traffic, and why."""
    http: Http | None = None
    """None where no HTTP transport of ours carries the API."""
    asked_s: dict[str, float] = {}
    """By endpoint whose versions linger here, when it was last asked for them: see aks_serving.lingering."""

    def totals(self) -> Totals:
        """The counts, to be added to others."""
        return {
            name: {(version, role): _tally(counts) for version, role, counts in found}
            for name, found in self.counts.items()
        }

    def left(self) -> "Report":
        """What stays true of it when its worker is gone: what was counted."""
        http = None if self.http is None else Http(refused=self.http.refused)
        return Report(counts=self.counts, seen_s=self.seen_s, refused=self.refused, lost=self.lost, http=http)


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Report).decode


class Siblings:
    """What a worker knows of the others, and they of it."""

    def __init__(self, board: Board, *, place: int, seat: int) -> None:
        self._board = board
        self._place = place
        self._mine = seat
        self._seat = board.seat(place, seat)
        self.carried = read_report(self._seat).left()
        """What earlier workers in this seat counted."""
        self._seat.state = State.STARTING

    def tell(self, report: Report, state: State) -> None:
        """Have the others know. `report` is without what is carried, which is added here."""
        parts = [report, self.carried]
        whole = msgspec.structs.replace(
            report,
            # Adding takes by far the most of this, and as a rule there is nothing to be added.
            counts=counts_of(joined([part.totals() for part in parts])) if self.carried.counts else report.counts,
            seen_s=_latest([part.seen_s for part in parts]),
            refused=summed([part.refused for part in parts]),
            lost=sum(part.lost for part in parts),
            http=http_of(parts),
        )
        self._seat.write(_ENCODE(whole))
        self._seat.state = state

    def forget(self, kept: Mapping[str, Container[int]]) -> None:
        """Of what is carried, keep these versions alone, by endpoint. What is told next is without the rest."""
        counts = {
            name: [one for one in found if one[0] in kept.get(name, ())] for name, found in self.carried.counts.items()
        }
        seen_s = {
            name: {version: at_s for version, at_s in found.items() if version in kept.get(name, ())}
            for name, found in self.carried.seen_s.items()
        }
        self.carried = msgspec.structs.replace(self.carried, counts=counts, seen_s=seen_s)

    def others(self) -> list[Report]:
        """The reports of all other seats: of workers that are gone, their counts alone."""
        found = []
        for place in range(self._board.places):
            for number, seat in enumerate(self._board.seats(place)):
                if (place, number) == (self._place, self._mine):
                    continue
                report = read_report(seat)
                found.append(report.left() if seat.state is State.GONE else report)
        return found

    def not_ready(self) -> str:
        """Why some other place has no worker that is ready; empty where all have one."""
        for place in range(self._board.places):
            if place != self._place and all(seat.state is not State.READY for seat in self._board.seats(place)):
                return f"worker {place + 1} of {self._board.places} is not ready"
        return ""


def read_report(seat: Seat) -> Report:
    """The last report of a seat that is whole; an empty one where there never was any."""
    data = seat.read()
    return _DECODE(data) if data else Report()


def joined(parts: list[Totals]) -> Totals:
    """The sum of counts by endpoint and variant."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: added([part.get(name, {}) for part in parts]) for name in names}


def summed[Key](parts: Sequence[Mapping[str, Mapping[Key, int]]]) -> dict[str, dict[Key, int]]:
    """The sum of numbers by endpoint and a key."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: merged([part.get(name, {}) for part in parts]) for name in names}


def _latest(parts: Sequence[Mapping[str, Mapping[int, float]]]) -> dict[str, dict[int, float]]:
    """Of times by endpoint and version, the latest of each."""
    latest: dict[str, dict[int, float]] = {}
    for part in parts:
        for name, found in part.items():
            times = latest.setdefault(name, {})
            times.update({version: max(at_s, times.get(version, at_s)) for version, at_s in found.items()})
    return latest


def http_of(parts: Sequence[Report]) -> Http | None:
    """What the transports of several workers tell, together; None where there is none."""
    told = [part.http for part in parts if part.http is not None]
    if not told:
        return None
    return Http(connections=sum(http.connections for http in told), refused=merged([http.refused for http in told]))


def tripped_of(mine: Report, others: Sequence[Report]) -> dict[str, dict[int, str]]:
    """What a worker and the others tripped, by endpoint, and why. Of a trip under another generation than its own,
    nothing.
    """
    tripped = {name: dict(found) for name, found in mine.tripped.items()}
    for other in others:
        for name, found in other.tripped.items():
            if name in mine.generations and other.generations.get(name) == mine.generations[name]:
                tripped[name] = dict(found) | tripped.get(name, {})
    return tripped


def counts_of(totals: Mapping[str, Mapping[Variant, VersionTally]]) -> dict[str, list[tuple[int, str, Counts]]]:
    """Counts as a report carries them."""
    return {
        name: [(version, role, _counts(tally)) for (version, role), tally in found.items()]
        for name, found in totals.items()
    }


def _counts(tally: VersionTally) -> Counts:
    latency_ms = dict(tally.latency_ms)
    return Counts(
        requests=tally.requests,
        errors=tally.errors,
        fallbacks=tally.fallbacks,
        pinned=tally.pinned,
        latency_ms=latency_ms,
        latency_ms_sum=tally.latency_ms_sum,
        shadow=None if tally.shadow is None else tally.shadow.model_dump(mode="json"),
        others={outcome: (dict(found.buckets), found.sum_ms) for outcome, found in tally.others.items()},
        runs=(tally.runs.rows, tally.runs.took_s, dict(tally.runs.sizes), dict(tally.runs.times)),
        values=(dict(tally.runs.values.counts), tally.runs.values.sum),
        pinned_errors=tally.pinned_errors,
        looked=dict(tally.looked),
    )


def _tally(counts: Counts) -> VersionTally:
    tally = VersionTally()
    tally.requests, tally.errors = counts.requests, counts.errors
    tally.fallbacks, tally.pinned, tally.pinned_errors = counts.fallbacks, counts.pinned, counts.pinned_errors
    tally.latency_ms.update(counts.latency_ms)
    tally.latency_ms_sum = counts.latency_ms_sum
    for outcome, (buckets, sum_ms) in counts.others.items():
        found = tally.others[outcome] = Latencies()
        found.buckets, found.sum_ms = buckets, sum_ms
    tally.looked.update(counts.looked)
    runs = tally.runs
    runs.rows, runs.took_s, runs.sizes, runs.times = counts.runs
    runs.values = Values(*counts.values)
    if counts.shadow is not None:
        tally.shadow = ShadowCounts.model_validate(counts.shadow)
    return tally
