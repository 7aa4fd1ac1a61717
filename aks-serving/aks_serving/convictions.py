"""What this pod has against versions: those that its guards tripped, those whose runs hang, those that hang in loading.

Each holds under one generation of the plan. It is kept on disk (aks_serving.guard.Trips), from which every process of
the pod hears of it, now and after its next start, also while storage does not answer.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from aks_serving.errors import LoadCode, LoadError
from aks_serving.guard import TripGuard, Trips
from aks_serving.lanes import Lane
from aks_serving.serving import Servings
from aks_serving.watchdog import convicted
from shared.routing.plan import RoutePlan

log = logging.getLogger(__name__)


class Convictions:
    """Of all endpoints."""

    def __init__(self, cache_dir: Path, *, disk: Executor, tripped: Callable[[RoutePlan, int], None]) -> None:
        """`disk` is where files are written; `tripped` is called with the plan and the version where a guard
        of this process trips it.
        """
        self._trips = Trips(cache_dir)
        self._hung_loads = Trips(cache_dir, name="hung-loads")
        self._disk = disk
        self._tripped = tripped

    def read(self) -> None:
        """Take what is on disk. Blocks."""
        self._trips.read()
        self._hung_loads.read()

    def guard(self, plan: RoutePlan) -> tuple[TripGuard | None, dict[int, str]]:
        """What watches a plan's candidate, and what tripped under the plan before, in any process of the pod."""
        tripped = self._trips.of(plan.endpoint, plan.generation)
        candidate = plan.candidate
        if candidate is None or plan.stable is None:
            return None, tripped

        def on_trip(reason: str) -> None:
            log.error(
                "endpoint %s: version %d gets no more traffic under generation %d: %s",
                plan.endpoint,
                candidate.version,
                plan.generation,
                reason,
            )
            tripped[candidate.version] = reason
            self._disk.submit(self._trips.keep, plan.endpoint, plan.generation, candidate.version, reason)
            self._tripped(plan, candidate.version)

        guard = TripGuard(
            plan.guard,
            version=candidate.version,
            tripped=tripped.get(candidate.version),
            on_trip=on_trip,
        )
        return guard, tripped

    async def hear(self, servings: Servings) -> None:
        """Take over what tripped in the pod's other processes."""
        if all(serving.guard is None for serving in servings.values()):
            return
        await asyncio.get_running_loop().run_in_executor(self._disk, self._trips.read)
        for endpoint, serving in servings.items():
            if serving.guard is not None and serving.guard.tripped is None:
                reason = self._trips.of(endpoint, serving.plan.generation).get(serving.guard.version)
                if reason is not None:
                    serving.guard.trip(reason)

    def keep_hanging(self, servings: Servings, lane: Lane, ran_s: float) -> None:
        """Keep that a run hangs, for the process that takes this one's place. Blocks; on any thread."""
        for serving, why in convicted(servings, lane, ran_s):
            self._trips.keep(serving.plan.endpoint, serving.plan.generation, lane.model.version, why)

    def check_load(self, plan: RoutePlan | None, version: int) -> None:
        """Raises LoadError where a version hung when it was loaded under this plan before. On any thread."""
        hung = {} if plan is None else self._hung_loads.of(plan.endpoint, plan.generation)
        if version in hung:
            raise LoadError(LoadCode.HANGS, hung[version])

    def keep_hung_load(self, plan: RoutePlan, version: int, reason: str) -> None:
        """Keep that loading a version hangs."""
        self._disk.submit(self._hung_loads.keep, plan.endpoint, plan.generation, version, reason)
