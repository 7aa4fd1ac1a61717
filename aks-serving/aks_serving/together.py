"""What a server tells of itself, over all of its processes: each asks the others' last reports, and adds its own.

A process tells before it shows: what was shown once is then in the sum for good, also where this process dies. Counters
never fall. What is so now, of a process that is gone, is not told.

A version that no process had in its plan for an hour is no longer shown, and after another hour its counts are
forgotten: by then nobody shows them, so that a sum of which one process forgot its part is never seen. So a server that
serves for months tells of no more than one that began today.
"""

from collections.abc import Callable, Mapping
from math import inf
from time import monotonic

import msgspec

from aks_serving.board import State
from aks_serving.counts import VersionTally, by_version
from aks_serving.engine import Engine
from aks_serving.prometheus import Facts, Transport
from aks_serving.reports import Http, Report, Siblings, Totals, counts_of, http_of, joined, summed, tripped_of
from aks_serving.serving import Servings
from aks_serving.uplink import Uplink
from aks_serving.windows import Windows
from shared.telemetry.histogram import merged

_SHOWN_S = 3600.0
_KEPT_S = 2 * _SHOWN_S


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
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        """`siblings` is None where there are no other processes. `asked_s` tells when this process was last asked for
        what lingers in it, by endpoint (aks_serving.lingering). `now_s` is the clock of all processes.
        """
        self._now_s = now_s
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
                self._report(),
                counts=counts_of(self._counted()),
                seen_s=self._windows.seen_s(),
                refused=self._windows.refused(),
            )
            self._siblings.tell(report, State.NOT_READY if self._not_ready_here() else State.READY)

    async def forget(self) -> None:
        """Let go of what was counted of versions that are long gone; to be called now and then."""
        kept = self._seen(self._parts(), _KEPT_S)
        self._windows.forget(kept)
        if self._siblings is not None:
            self._siblings.forget(kept)
        self.tell()

    def not_ready(self) -> str:
        """Why the server is not ready, this process or another; empty where all are."""
        return self._not_ready_here() or ("" if self._siblings is None else self._siblings.not_ready())

    def others_asked_s(self, endpoint: str) -> float:
        """When the other processes were last asked for what lingers in them of an endpoint."""
        others = [] if self._siblings is None else self._siblings.others()
        return max((report.asked_s.get(endpoint, -inf) for report in others), default=-inf)

    def totals(self) -> dict[str, dict[int, VersionTally]]:
        """Counts since the start, by endpoint and version."""
        return {endpoint: by_version(tallies) for endpoint, tallies in self._totals(self._parts()).items()}

    def tripped(self) -> Mapping[str, Mapping[int, str]]:
        """By endpoint, the versions that are out of traffic under the plan that answers here, and why."""
        return tripped_of(self._report(), self._parts())

    def facts(self) -> Facts:
        """What a scrape tells of."""
        mine, others = self._report(), self._parts()
        parts = [mine, *others]
        return Facts(
            totals=self._totals(others),
            servings=self._servings(),
            refused=summed([self._windows.refused(), *(part.refused for part in others)]),
            waiting=sum(part.waiting for part in parts),
            windows_lost=sum(part.lost for part in parts),
            memory_bytes=summed([part.memory_bytes for part in parts]),
            in_flight=merged([part.in_flight for part in parts]),
            tripped=tripped_of(mine, others),
            transport=http_of(parts),
        )

    def _parts(self) -> list[Report]:
        """What the others tell, and earlier processes in this one's place counted; this one tells them first."""
        if self._siblings is None:
            return []
        self.tell()
        return [self._siblings.carried, *self._siblings.others()]

    def _totals(self, others: list[Report]) -> Totals:
        """Counts since the start, by endpoint and variant: of a version, what it did in each role that it had."""
        seen = self._seen(others, _SHOWN_S)
        totals = joined([self._counted(), *(part.totals() for part in others)])
        return {
            endpoint: {variant: tally for variant, tally in tallies.items() if variant[0] in seen.get(endpoint, ())}
            for endpoint, tallies in totals.items()
        }

    def _seen(self, others: list[Report], within_s: float) -> dict[str, set[int]]:
        """The versions that a process counted, or had in its plan, within that time, by endpoint."""
        since_s = self._now_s() - within_s
        seen: dict[str, set[int]] = {}
        for times in (self._windows.seen_s(), *(part.seen_s for part in others)):
            for endpoint, found in times.items():
                seen.setdefault(endpoint, set()).update(v for v, at_s in found.items() if at_s >= since_s)
        return seen

    def _report(self) -> Report:
        """What this process tells the others, but what it counted of requests."""
        servings, transport = self._servings(), self.transport
        return Report(
            lost=self._uplink.lost,
            waiting=self._engine.waiting,
            memory_bytes={
                name: {version: lane.loaded.memory_bytes for version, lane in serving.lanes.items()}
                for name, serving in servings.items()
            },
            generations={name: serving.plan.generation for name, serving in servings.items()},
            in_flight={name: serving.tally.in_flight for name, serving in servings.items()},
            tripped={name: dict(serving.tripped) for name, serving in servings.items()},
            http=None if transport is None else Http(transport.connections, dict(transport.refused)),
            asked_s=self._asked_s(),
        )

    def _counted(self) -> Totals:
        return {endpoint: dict(tallies) for endpoint, tallies in self._windows.totals().items()}
