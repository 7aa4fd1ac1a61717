"""One endpoint: the plan that is wanted, the versions that are loaded, and the snapshot that answers.

A plan is taken only where its generation is higher than any before. It is applied, by swapping one reference, once each
of its versions is loaded or has failed; until then the last one goes on. A plan that needs nothing loaded applies at
once, even while loads of an older plan go on. A version that failed to load takes no part; a plan whose stable version
failed is not applied while an older one can answer. What storage does not give, does not have, or has otherwise than
the plan says, is tried again later and later, and at once with the next plan.

A plan that names pods, or has versions in slots, is taken as this pod is to follow it. Where it has none for this pod
any more, and other pods have them, what is served goes on until LINGER_S pass without a request: the Gateway hears of a
plan later than pods do. Nothing here blocks the event loop.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import replace
from time import perf_counter
from weakref import WeakKeyDictionary

from aks_serving.batches import LoadedModel
from aks_serving.counts import Tally
from aks_serving.engine import Engine
from aks_serving.errors import LoadCode, LoadError
from aks_serving.guard import TripGuard
from aks_serving.lanes import Lane
from aks_serving.lingering import Lingering
from aks_serving.numbering import Numbering
from aks_serving.plans import MadeFrom, made_from, parsed_plan
from aks_serving.predictor import divert_waiting
from aks_serving.serving import LOADING, Serving
from shared.core.errors import InvalidInputError, SlipwayError, UnavailableError
from shared.core.ids import EndpointName
from shared.core.slots import Slot
from shared.routing.plan import Role, Route, RoutePlan

log = logging.getLogger(__name__)

_ATTEMPTS_BEFORE_APPLYING = 3
"""Tries, while storage does not answer, before the rest of a plan is applied without the version; trying goes on."""
_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 30.0
_MAX_ALTERED_BACKOFF_S = 600.0
"""Of a file that is another than the plan's: to see that it still is, is to fetch all of it."""
_MAY_BE_PUT_BACK = (LoadCode.MISSING, LoadCode.ALTERED)
"""Failures that end where storage has the right file again."""


class Deployment:
    """Brings an endpoint to what its latest plan wants. Used from the event loop alone."""

    def __init__(
        self,
        endpoint: EndpointName,
        *,
        pod: str,
        load: Callable[[Route], LoadedModel],
        threads: Executor,
        engine: Engine,
        numbering: Numbering,
        guard: Callable[[RoutePlan], tuple[TripGuard | None, dict[int, str]]],
        applied: Callable[["Deployment", Serving], None],
        laned: Callable[[Lane], None],
        rehearse: Callable[[RoutePlan, Route, LoadedModel], Awaitable[object]],
        taken: Callable[[RoutePlan], None],
        slot: Slot | None,
        now_s: Callable[[], float],
        others_asked_s: Callable[[], float],
    ) -> None:
        """`pod` is the name that this process has in its windows, and `slot` that which its pod is of.

        `load` blocks and runs on `threads`; `applied` is called with each new snapshot, already in force.
        `guard` gives what watches a plan's candidate, and what tripped under the plan before, to be added to.
        `laned` is called with each version's lane before it takes calls. `rehearse` has a loaded version answer before
        it serves, and does not raise. `taken` is called with each plan that is taken, before anything of it is
        loaded. `others_asked_s` is as aks_serving.lingering wants it.
        """
        self.endpoint = endpoint
        self.serving: Serving | None = None
        self.plan_data = b""
        """The wanted plan as it was published."""
        self.settled = asyncio.Event()
        """Set while every version of the wanted plan is loaded or has failed."""
        self._pod = pod
        self._load_route = load
        self._threads = threads
        self._engine = engine
        self._numbering = numbering
        self._guard = guard
        self._applied = applied
        self._laned = laned
        self._rehearse = rehearse
        self._taken = taken
        self._slot = slot
        self._wanted: RoutePlan | None = None
        self._published: RoutePlan | None = None
        """The wanted plan with what other pods have of it."""
        self._lingering = Lingering(now_s, others_asked_s)
        self._is_kept = False
        self._postponed: tuple[int, bytes] | None = None
        """A plan that is taken later, and its generation."""
        self._lanes: dict[MadeFrom, Lane] = {}
        self._failed: dict[MadeFrom, str] = {}
        self._waiting: set[MadeFrom] = set()
        self._evicted: set[MadeFrom] = set()
        self._loading: dict[MadeFrom, asyncio.Task[None]] = {}
        self._again = asyncio.Event()
        """Set, and replaced, where what failed is to be tried again without a pause."""
        self._loaded_s: WeakKeyDictionary[Lane, float] = WeakKeyDictionary()

    @property
    def wanted(self) -> RoutePlan | None:
        """The latest plan that was taken."""
        return self._wanted

    @property
    def asked_s(self) -> float | None:
        """When it was last asked for what lingers, or that left (by `now_s`); None where nothing lingers."""
        return self._lingering.asked_s

    def offer(self, data: bytes, *, is_kept: bool = False) -> None:
        """Take a published plan, or refuse it and say so in the log; the last one then goes on.

        `is_kept`: it is the one that was served before a restart. One that has nothing for this pod is taken once that
        is served again: the Gateway may not have heard.
        """
        try:
            published = parsed_plan(self.endpoint, data)
        except InvalidInputError as error:
            log.warning("endpoint %s: a plan is refused, the last one goes on: %s", self.endpoint, error)
            return
        if self._published is not None and published.generation <= self._published.generation:
            if published != self._published:
                log.warning(
                    "endpoint %s: a plan of generation %d is refused, generation %d goes on",
                    self.endpoint,
                    published.generation,
                    self._published.generation,
                )
            return
        plan = published.for_slot(self._slot).for_pod(self._pod)
        if self._returns and published.routes and not plan.routes:
            if self._postponed is None or published.generation > self._postponed[0]:
                self._postponed = published.generation, data
            return
        self._is_kept, self._postponed = is_kept, None
        self._wanted, self._published, self.plan_data = plan, published, data
        served = set() if self.serving is None else self.serving.lanes.keys()
        self._see_requests()
        self._lingering.note(plan, published, served=served)
        self._taken(plan)
        for key in {made_from(route) for route in plan.routes if route.weight_bp or route.mirror_bp} & self._evicted:
            self._evicted.discard(key)
            self._failed.pop(key, None)
        self._end_pauses()
        self._step()

    def look(self) -> None:
        """End what lingered for long enough."""
        self._see_requests()
        if self._lingering.has_left and not self._plans_any and not self._lingers:
            self._step()

    def retry_failed(self) -> None:
        """Try again to load what failed."""
        self._failed.clear()
        self._evicted.clear()
        self._end_pauses()
        self._step()

    def evictable(self) -> list[Lane]:
        """The loaded versions that are shadows and no more, in the wanted plan and in the one that answers, or that
        the plan has elsewhere and nobody has asked for lately.
        """
        self._see_requests()
        has_left = self._lingering.gives_way(to_next=self._plans_any)
        plans = [self._wanted, None if self.serving is None or has_left else self.serving.plan]
        routes = [route for plan in plans if plan is not None for route in plan.routes]
        needed = {route.version for route in routes if route.role is not Role.SHADOW}
        return [lane for key, lane in self._lanes.items() if key[0] not in needed and lane.idle]

    def is_loading(self, route: Route) -> bool:
        """Whether a version is being loaded as the route says."""
        return made_from(route) in self._loading

    def give_up(self, route: Route, reason: str) -> None:
        """Have a version that hangs while it is loaded fail; what its thread may yet give is dropped."""
        key = made_from(route)
        task = self._loading.pop(key, None)
        if task is not None:
            task.cancel()
            self._waiting.discard(key)
            self._fail(key, reason)
            self._step()

    def used_s(self, lane: Lane) -> float:
        """When a version was loaded, or last ran a request or a copy, whichever came last (perf_counter)."""
        return max(self._loaded_s.get(lane, 0.0), lane.last_run_s, lane.spare.used_s.get(lane, 0.0))

    def evict(self, lane: Lane) -> None:
        """Take a version out of service, for its memory. It is loaded again when a plan gives it traffic or copies."""
        key = next(key for key, found in self._lanes.items() if found is lane)
        del self._lanes[key]
        why = "the plan has it elsewhere" if self._lingering.has_left else "it is a shadow"
        reason = f"it made room in memory for another version, since {why}"
        log.warning("endpoint %s: version %d is unloaded: %s", self.endpoint, key[0], reason)
        self._evicted.add(key)
        self._failed[key] = reason
        serving = self.serving
        if serving is not None and serving.lanes.get(key[0]) is lane:
            self._swap(
                replace(
                    serving,
                    lanes={version: found for version, found in serving.lanes.items() if found is not lane},
                    failed={**serving.failed, key[0]: reason},
                    waiting=serving.waiting | {key[0]},
                    tally=Tally(),
                )
            )

    def close(self) -> None:
        """Stop loading."""
        for task in self._loading.values():
            task.cancel()

    def _step(self) -> None:
        plan = self._wanted
        if plan is None:
            return
        keys = {made_from(route): route for route in plan.routes}
        self._failed = {key: reason for key, reason in self._failed.items() if key in keys}
        self._evicted &= keys.keys()
        for key, route in keys.items():
            if key not in self._lanes and key not in self._loading and key not in self._failed:
                self._loading[key] = asyncio.create_task(self._load(key, route))
        if self.serving is not None:
            self.serving.coming.clear()
            self.serving.coming.update({key[0]: self._failed.get(key, LOADING) for key in keys})
        if not all(key in self._lanes or key in self._failed for key in keys):
            self.settled.clear()
            return
        if self._lingers:
            self.settled.set()
            return
        failed = {key[0]: reason for key, reason in self._failed.items() if key not in self._lanes}
        waiting = frozenset(key[0] for key in self._waiting | self._evicted if key[0] in failed)
        lanes = {key[0]: self._lanes[key] for key in keys if key in self._lanes}
        if plan.stable is not None and plan.stable.version in failed and self.serving and self.serving.is_whole:
            self._swap(replace(self.serving, failed=failed, waiting=waiting, tally=Tally()))
        else:
            self._serve(plan, lanes, failed, waiting)
            self._lanes = {key: lane for key, lane in self._lanes.items() if key in keys}
        self.settled.set()
        if self._postponed is not None:
            self.offer(self._postponed[1])

    def _serve(self, plan: RoutePlan, lanes: dict[int, Lane], failed: dict[int, str], waiting: frozenset[int]) -> None:
        if self.serving is not None and self.serving.plan == plan:
            guard, tripped = self.serving.guard, self.serving.tripped
        else:
            guard, tripped = self._guard(plan)
        self._swap(
            Serving(
                plan=plan,
                lanes=lanes,
                failed=failed,
                waiting=waiting,
                published=self._published,
                numbering=self._numbering,
                guard=guard,
                tripped=tripped,
            )
        )
        self._lingering.end()

    def _see_requests(self) -> None:
        lanes = () if self.serving is None else self.serving.lanes.values()
        self._lingering.saw(max((lane.last_run_s for lane in lanes), default=0.0))

    @property
    def _lingers(self) -> bool:
        """Whether what is served goes on though the wanted plan has it elsewhere."""
        is_served = self.serving is not None and bool(self.serving.lanes)
        return is_served and not self._plans_any and self._lingering.may_go_on

    @property
    def _returns(self) -> bool:
        """Whether what was served before a restart is being loaded."""
        return self._is_kept and self.serving is None and self._plans_any

    @property
    def _plans_any(self) -> bool:
        return self._wanted is not None and bool(self._wanted.routes)

    def _swap(self, serving: Serving) -> None:
        if serving == self.serving:
            return
        before, self.serving = self.serving, serving
        log.info(
            "endpoint %s: generation %d, loaded %s, failed %s",
            self.endpoint,
            serving.plan.generation,
            sorted(serving.lanes),
            dict(serving.failed),
        )
        self._applied(self, serving)
        if before is not None and before.candidate is not None:
            lane, route = before.lanes.get(before.candidate.version), serving.routes.get(before.candidate.version)
            if lane is not None and (route is None or not route.weight_bp):
                divert_waiting(lane)

    async def _load(self, key: MadeFrom, route: Route) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while self._wants(key):
            again = self._again
            try:
                loaded = await loop.run_in_executor(self._threads, self._load_route, route)
            except SlipwayError as error:
                attempt += 1
                if again.is_set():
                    continue  # to be tried again since it began: what it found is of before
                if self._fail_by(key, error, attempt):
                    await _pause(again, backoff_s(error, attempt))
                    continue
            except Exception:
                log.exception("endpoint %s: loading version %d went wrong", self.endpoint, route.version)
                self._fail(key, "loading it went wrong; the server's log says how")
            else:
                if self._wanted is not None:
                    await self._rehearse(self._wanted, route, loaded)
                self._failed.pop(key, None)
                if self._wants(key):
                    lane = self._lanes[key] = Lane(loaded, self._engine)
                    self._loaded_s[lane] = perf_counter()
                    self._laned(lane)
            break
        self._waiting.discard(key)
        del self._loading[key]
        self._step()

    def _fail_by(self, key: MadeFrom, error: SlipwayError, attempt: int) -> bool:
        """Note why a version is not loaded; whether trying again may help. An outage is no failure of the version, and
        the rest of the plan waits for its first attempts; a file that is not there, or another, may be put back.
        """
        is_out = isinstance(error, UnavailableError)
        may_pass = is_out or (isinstance(error, LoadError) and error.code in _MAY_BE_PUT_BACK)
        if self._wants(key) and (not is_out or attempt >= _ATTEMPTS_BEFORE_APPLYING):
            if is_out:
                self._waiting.add(key)
            else:
                self._waiting.discard(key)
            self._fail(key, f"{error}; trying again" if may_pass else str(error))
            if may_pass:
                self._step()
        return may_pass

    def _end_pauses(self) -> None:
        self._again.set()
        self._again = asyncio.Event()

    def _fail(self, key: MadeFrom, reason: str) -> None:
        if self._failed.get(key) != reason:
            log.error("endpoint %s: version %d is not loaded: %s", self.endpoint, key[0], reason)
        self._failed[key] = reason

    def _wants(self, key: MadeFrom) -> bool:
        return self._wanted is not None and any(made_from(route) == key for route in self._wanted.routes)


def backoff_s(error: SlipwayError, attempt: int) -> float:
    """How long a load waits until it is tried again: the longer the more attempts there were."""
    altered = isinstance(error, LoadError) and error.code is LoadCode.ALTERED
    return min(_BACKOFF_S * 2.0 ** min(attempt - 1, 12), _MAX_ALTERED_BACKOFF_S if altered else _MAX_BACKOFF_S)


async def _pause(again: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until loads are to be tried at once."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await again.wait()
