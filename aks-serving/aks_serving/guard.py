"""The pod's own guard: takes a candidate out of traffic that fails more requests than stable does at the same time.

It needs no control plane. The two error rates are compared by a test that may be looked at as often as one likes
(shared.sequential.excess, made for the control plane's gates as well): a candidate that is no worse than stable trips,
under one generation and at any time, with at most the level's probability. An outage of both arms is no proof. What
trips stays tripped for the generation; a new generation has a new guard.

Counting costs a batch a few additions. The test runs where a batch ends a slice of time that holds requests of both
arms; slices are cut by the clock and never by what failed, since a test that chose its moments by the outcomes would
prove too much. `Trips` keeps what tripped on the pod's disk, for the process that takes this one's place and for the
pod's other processes. A full or broken disk is logged and stops nothing.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from aks_serving.cache import DiskCache
from shared.core.errors import InvalidInputError
from shared.core.ids import endpoint_name
from shared.routing.plan import Guard
from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessTest

log = logging.getLogger(__name__)

_SLICE_S = 0.1
_MAX_REASON_LENGTH = 1_000

type _Trip = tuple[str, int, int]
"""An endpoint, a generation of its plan, and a version."""


class TripGuard:
    """The guard of one candidate under one generation of a plan. Used from the event loop alone."""

    __slots__ = (
        "_candidate",
        "_candidate_failed",
        "_due_s",
        "_enabled",
        "_level",
        "_now_s",
        "_on_trip",
        "_stable",
        "_stable_failed",
        "_test",
        "tripped",
        "version",
    )

    def __init__(
        self,
        settings: Guard,
        *,
        version: int,
        tripped: str | None = None,
        on_trip: Callable[[str], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`version` is the candidate's; `tripped` says why it tripped before, where it did. The plan's level is for one
        process: the pod's others, each of which reports and has a guard of its own, have had their part of it.

        `on_trip` is called once, with the reason, in the call that trips; it must not block.
        """
        self.version = version
        self.tripped: str | None = tripped
        """Why the candidate gets no more traffic, in a sentence, or None."""
        self._level = settings.level
        self._test = ExcessTest(claim=Claim.WORSE, margin=settings.margin)
        self._on_trip = on_trip
        self._now_s = now_s
        self._enabled = settings.enabled
        self._due_s = now_s() + _SLICE_S
        self._candidate = self._candidate_failed = self._stable = self._stable_failed = 0

    def observe(self, candidate_ok: int, candidate_failed: int, stable_ok: int, stable_failed: int) -> None:
        """Count requests that the plan assigned to the candidate and to stable and that were tried.

        The candidate failed those that it did not answer, also where stable then did; what stable does in its place
        counts in neither arm. A request that was refused as invalid, shed, expired or cancelled counts nowhere, nor
        one that stable failed too in the candidate's place: it says nothing against the candidate.
        """
        self._candidate += candidate_ok + candidate_failed
        self._candidate_failed += candidate_failed
        self._stable += stable_ok + stable_failed
        self._stable_failed += stable_failed
        if self._candidate and self._stable and self._now_s() >= self._due_s:
            self._look()

    def trip(self, reason: str) -> None:
        """Take the candidate out of traffic at once, also where the guard is not enabled: its run hangs, for instance.

        The first reason stays.
        """
        if self.tripped is None:
            self.tripped = reason[:_MAX_REASON_LENGTH]
            self._on_trip(self.tripped)

    def _look(self) -> None:
        block = Block(
            candidate=self._candidate,
            candidate_failed=self._candidate_failed,
            stable=self._stable,
            stable_failed=self._stable_failed,
        )
        self._candidate = self._candidate_failed = self._stable = self._stable_failed = 0
        if self._enabled and self.tripped is None:
            self._test.add(block)
            if self._test.proves(self._level):
                self.trip(self._sentence())
        self._due_s = self._now_s() + _SLICE_S

    def _sentence(self) -> str:
        total, margin = self._test.total, self._test.margin
        beyond = f" plus {margin:.2%}" if margin else ""
        return (
            f"the candidate failed {_share(total.candidate_failed, total.candidate)}, stable at the same time "
            f"{_share(total.stable_failed, total.stable)}: more than stable's rate{beyond}, proven at level "
            f"{self._level:g} (p at most {self._test.p_value:.2g})"
        )


class Trips:
    """What tripped on this pod, kept in its cache directory, which several processes may share. On any thread.

    A note is a file of its own, `trips/<endpoint>.<generation>.<version>`, written whole or not at all; that it is
    there is what counts, its text is the reason. Losing one costs the candidate's next failures, and no more.
    """

    def __init__(self, directory: Path, *, name: str = "trips") -> None:
        """`name` is that of their folder in the cache directory."""
        self._cache = DiskCache(directory)
        self._folder = directory / name
        self._lock = threading.Lock()
        self._own: dict[_Trip, str] = {}
        """Those of this process, which a disk that refuses them cannot take."""
        self._noted: dict[_Trip, str] = {}
        """Those on disk, as they were read last."""
        self._latest: dict[str, int] = {}
        """By endpoint, the highest generation that was asked for."""
        self._passed_over: set[str] = set()

    def keep(self, endpoint: str, generation: int, version: int, reason: str) -> None:
        """Keep a trip; the first reason stays. Blocks. Raises InvalidInputError where `endpoint` is no endpoint's."""
        name = f"{endpoint_name(endpoint)}.{generation}.{version}"
        reason = reason[:_MAX_REASON_LENGTH]
        with self._lock:
            self._own.setdefault((endpoint, generation, version), reason)
        if (self._folder / name).exists():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._cache.private_folder() as private:
                with (private / name).open("xb") as file:
                    file.write(reason.encode())
                    file.flush()
                    os.fsync(file.fileno())
                (private / name).replace(self._folder / name)
        except OSError as error:
            log.warning("endpoint %s: that version %d tripped is not kept on disk: %s", endpoint, version, error)

    def of(self, endpoint: str, generation: int) -> dict[int, str]:
        """The versions that tripped under a generation, and why: here, and elsewhere as of the last `read`. Does not
        block. Those of older generations are forgotten.

        Raises InvalidInputError where `endpoint` is no endpoint's name.
        """
        endpoint_name(endpoint)
        with self._lock:
            self._latest[endpoint] = max(generation, self._latest.get(endpoint, 0))
            self._own = {trip: why for trip, why in self._own.items() if not self._is_old(trip)}
            return {
                version: why
                for trips in (self._own, self._noted)
                for (name, number, version), why in trips.items()
                if (name, number) == (endpoint, generation)
            }

    def read(self) -> None:
        """Read what is on disk, and remove the notes of older generations. Blocks."""
        with self._lock:
            before = self._noted
        noted: dict[_Trip, str] = {}
        for path in self._notes():
            try:
                trip = _trip(path)
                with self._lock:
                    is_old = self._is_old(trip)
                if is_old:
                    path.unlink(missing_ok=True)
                else:
                    noted[trip] = before.get(trip) or _reason(path)
            except (InvalidInputError, OSError) as error:
                if path.name not in self._passed_over:
                    log.warning("the note %s is passed over: %s", path, error)
                self._passed_over.add(path.name)
        with self._lock:
            self._noted = noted

    def _is_old(self, trip: "_Trip") -> bool:
        return trip[1] < self._latest.get(trip[0], 0)

    def _notes(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*"))
        except OSError as error:
            log.warning("what tripped cannot be read from disk: %s", error)
            return []


def _trip(path: Path) -> _Trip:
    """The endpoint, generation and version that a note's name says. Raises InvalidInputError."""
    endpoint, *parts = path.name.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and len(part) <= 12 for part in parts):
        raise InvalidInputError(f"{path.name!r} is not `<endpoint>.<generation>.<version>`: it may be removed")
    return endpoint_name(endpoint), int(parts[0]), int(parts[1])


def _reason(path: Path) -> str:
    with path.open("rb") as file:
        text = file.read(_MAX_REASON_LENGTH * 4).decode(errors="replace")
    return text or "it tripped before, and the note of why is empty"


def _share(failed: int, requests: int) -> str:
    return f"{failed} of {requests} requests ({failed / requests:.2%})"
