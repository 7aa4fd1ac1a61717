"""What a server tells of itself, over all of its processes: each asks the others' last reports, and adds its own.

A process tells before it shows: what was shown once is then in the sum for good, also where this process dies. Counters
never fall. What is so now, of a process that is gone, is not told.
"""

from collections.abc import Callable
from math import inf

import msgspec

from aks_serving.board import State
from aks_serving.counts import VersionTally, by_version
from aks_serving.engine import Engine
from aks_serving.prometheus import Transport
from aks_serving.reports import Http, Present, Report, Siblings, Totals, counts_of, joined, present_of, refused_of
from aks_serving.serving import Servings
from aks_serving.uplink import Uplink
from aks_serving.windows import Windows


class Together:
    """This process and the others. Used from the event loop alone."""

    def __init__(
        self,
        siblings: Siblings | None,
        *,
        engine: Engine,
        uplink: Uplink,
        windows: Windows,
        servings: Callable[[], Servings],
        not_ready_here: Callable[[], str],
        asked_s: Callable[[], dict[str, float]],
    ) -> None:
        """`siblings` is None where there are no other processes. `asked_s` tells when this process was last asked for
        what lingers in it, by endpoint (aks_serving.lingering).
        """
        self._siblings = siblings
        self._engine = engine
        self._uplink = uplink
        self._windows = windows
        self._servings = servings
        self._not_ready_here = not_ready_here
        self._asked_s = asked_s
        self.transport: Transport | None = None
        """What carries the API by HTTP here, for the metrics."""

    def tell(self) -> None:
        """Have the other processes know what was counted here, and whether this process is ready."""
        if self._siblings is not None:
            report = msgspec.structs.replace(
                self._report(), counts=counts_of(self._counted()), refused=self._windows.refused()
            )
            self._siblings.tell(report, State.NOT_READY if self._not_ready_here() else State.READY)

    def not_ready(self) -> str:
        """Why the server is not ready, this process or another; empty where all are."""
        return self._not_ready_here() or ("" if self._siblings is None else self._siblings.not_ready())

    def others_asked_s(self, endpoint: str) -> float:
        """When the other processes were last asked for what lingers in them of an endpoint."""
        return max((report.asked_s.get(endpoint, -inf) for report in self._others()), default=-inf)

    @property
    def waiting(self) -> int:
        """Requests that wait or run."""
        return self._engine.waiting + sum(report.waiting for report in self._others())

    @property
    def windows_lost(self) -> int:
        """Telemetry windows that storage never got."""
        carried = self._siblings.carried.lost if self._siblings is not None else 0
        return self._uplink.lost + carried + sum(report.lost for report in self._others())

    def totals(self) -> dict[str, dict[int, VersionTally]]:
        """Counts since the start, by endpoint and version."""
        return {endpoint: by_version(tallies) for endpoint, tallies in self.variants().items()}

    def variants(self) -> Totals:
        """As `totals`, by endpoint and variant: of a version, what it did in each role that it had."""
        if self._siblings is None:
            return self._counted()
        self.tell()
        return joined([self._counted(), self._siblings.carried.totals(), *(r.totals() for r in self._others())])

    def refused(self) -> dict[str, dict[str, int]]:
        """Requests that no version ran since the start, by endpoint and why."""
        if self._siblings is None:
            return self._windows.refused()
        parts = [self._windows.refused(), self._siblings.carried.refused, *(r.refused for r in self._others())]
        return refused_of(parts)

    def present(self) -> Present:
        """What is so now."""
        if self._siblings is None:
            return present_of(self._report(), [])
        self.tell()
        return present_of(self._report(), [self._siblings.carried, *self._others()])

    def memory_bytes(self) -> dict[str, dict[int, int]]:
        """What each loaded version takes of memory, by endpoint and version."""
        found: dict[str, dict[int, int]] = {}
        for part in (self._memory_here(), *(report.memory_bytes for report in self._others())):
            for endpoint, sizes in part.items():
                mine = found.setdefault(endpoint, {})
                for version, size in sizes.items():
                    mine[version] = mine.get(version, 0) + size
        return found

    def _report(self) -> Report:
        """What this process tells the others, but what it counted of requests."""
        servings, transport = self._servings(), self.transport
        return Report(
            lost=self._uplink.lost,
            waiting=self._engine.waiting,
            memory_bytes=self._memory_here(),
            generations={name: serving.plan.generation for name, serving in servings.items()},
            in_flight={name: serving.tally.in_flight for name, serving in servings.items()},
            tripped={name: dict(serving.tripped) for name, serving in servings.items()},
            http=None if transport is None else Http(transport.connections, dict(transport.refused)),
            asked_s=self._asked_s(),
        )

    def _memory_here(self) -> dict[str, dict[int, int]]:
        return {
            endpoint: {version: lane.loaded.memory_bytes for version, lane in serving.lanes.items()}
            for endpoint, serving in self._servings().items()
        }

    def _counted(self) -> Totals:
        return {endpoint: dict(tallies) for endpoint, tallies in self._windows.totals().items()}

    def _others(self) -> list[Report]:
        return [] if self._siblings is None else self._siblings.others()
