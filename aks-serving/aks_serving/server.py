"""The model server, put together: what polls, loads, answers, counts and stops. No HTTP here but the API's handler."""

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from aks_serving.batches import LoadedModel
from aks_serving.cache import DiskCache
from aks_serving.convictions import Convictions
from aks_serving.counts import VersionTally
from aks_serving.deployment import Deployment
from aks_serving.deployments import Deployments
from aks_serving.engine import Engine
from aks_serving.errors import LoadCode, LoadError
from aks_serving.features import Features
from aks_serving.kept_plans import KeptPlans
from aks_serving.lanes import Lane
from aks_serving.lives import Lives
from aks_serving.loader import Loader, LoadWatch
from aks_serving.memory import Room, group_limit, memory_share
from aks_serving.numbering import Numbering
from aks_serving.poller import Poller
from aks_serving.ports import Storage
from aks_serving.predictor import divert_waiting
from aks_serving.priority import give_way
from aks_serving.prometheus import Facts, Transport
from aks_serving.readiness import is_idle, why_not_ready
from aks_serving.rehearsal import ROUNDS, rehearse
from aks_serving.reports import Siblings
from aks_serving.serving import Serving, Servings
from aks_serving.settings import Settings
from aks_serving.together import Together
from aks_serving.tracing import PlanSpans
from aks_serving.uplink import Uplink
from aks_serving.watchdog import Watchdog
from aks_serving.windows import Windows
from shared.core.clock import Clock, SystemClock
from shared.core.errors import UnavailableError
from shared.core.ids import EndpointName
from shared.routing.plan import Route, RoutePlan

log = logging.getLogger(__name__)

_RELOAD_WAIT_S = 30.0
_SWITCH_S = 5e-4
"""How long the event loop waits for a thread that loads to let go of the interpreter: by default ten times as long."""
LOAD_HANG_S = 600.0
FLUSH_S = 3.0
_LOOK_EVERY_S = 0.1
_HEAR_EVERY_S = 0.5
_READ_AGAIN_EVERY_S = 1.0
_FORGET_EVERY_S = 60.0


class ModelServer:
    """One process's endpoints. Made and used on a running event loop; see aks_serving.api.Server."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        *,
        clock: Clock | None = None,
        siblings: Siblings | None = None,
        replace: Callable[[], None] = lambda: None,
        reload_others: Callable[[], None] = lambda: None,
        load_hang_s: float = LOAD_HANG_S,
        rehearsal_rounds: int = ROUNDS,
        flush_s: float = FLUSH_S,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        """`siblings` are the server's other processes, where there are any; `reload_others` has them reload, and does
        not wait for it. `replace` is called when this process lost a thread to what hangs: another should take its
        place. A version hangs that is not made within `load_hang_s`, once it is fetched. `rehearsal_rounds` is how
        often a version is asked in each form before it serves, and `flush_s` how long a stop waits for the last
        windows to be kept. By `now_s` it is told how long a version lingers that the plan has elsewhere, and how long
        one is gone.
        """
        self._settings = settings
        self._now_s = now_s
        self._reload_others = reload_others
        self._cache = DiskCache(settings.cache_dir)
        self._loop = asyncio.get_running_loop()
        self._deployments = Deployments(self._deployment)
        limit_bytes = settings.memory_limit_bytes or group_limit()
        room = Room(limit_bytes, workers=settings.workers, evict=self._deployments.evict)
        self._loader = Loader(storage, self._cache, pinned_keys=settings.trusted_keys, room=room)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="load", initializer=give_way)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk")
        self._kept = KeptPlans(self._cache, disk=self._disk, needed=self._deployments.needed)
        # Storage may hang: neither what is told on disk nor a stop waits for it.
        self._seeking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seek", initializer=give_way)
        self._numbering = Numbering()
        self._engine = Engine(max_queue=settings.max_queue, max_queue_bytes=settings.max_queue_bytes)
        self._uplink = Uplink(storage.keep_window)
        self._lives = Lives(settings.cache_dir, pod=settings.pod)
        self._memory_share: float | None = None
        """As of the last measurement."""
        self._windows = Windows(
            pod=settings.pod,
            clock=clock or SystemClock(),
            keep=self._uplink.put,
            is_behind=self._deployments.is_behind,
            memory_share=lambda: self._memory_share,
            deaths=self._lives.deaths,
            slot=settings.slot,
            now_s=now_s,
        )
        self._features = Features(
            pod=settings.pod, clock=clock or SystemClock(), keep=self._uplink.put, share=settings.feature_share
        )
        self._poller = Poller(storage, endpoints=settings.endpoints, changed=self._offer)
        self._spans = PlanSpans()
        self._servings = Servings({})
        self._convictions = Convictions(settings.cache_dir, disk=self._disk, tripped=self._tripped)
        self._load_watch = LoadWatch(self._loader, hang_s=load_hang_s, found=self._found_load_hanging)
        self._rehearse = functools.partial(rehearse, rounds=rehearsal_rounds)
        self._replace = replace
        self._watchdog = Watchdog(
            self._engine, servings=lambda: self._servings, hang_s=settings.hang_s, replace=replace
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._first_round: list[Deployment] | None = None
        self._was_ready = False
        """Only where the settings name no endpoints."""
        self._stopping = False
        self._flush_s = flush_s
        self._together = Together(
            siblings,
            engine=self._engine,
            uplink=self._uplink,
            windows=self._windows,
            servings=lambda: self._servings,
            not_ready_here=self.not_ready_here,
            asked_s=self._deployments.asked_s,
            now_s=now_s,
        )

    @property
    def servings(self) -> Servings:
        """What answers each endpoint now."""
        return self._servings

    @property
    def engine(self) -> Engine:
        """What runs the models."""
        return self._engine

    @property
    def transport(self) -> Transport | None:
        """What carries the API by HTTP in this process, for the metrics."""
        return self._together.transport

    @transport.setter
    def transport(self, transport: Transport | None) -> None:
        self._together.transport = transport

    def totals(self) -> dict[str, dict[int, VersionTally]]:
        """Counts since the start, by endpoint and version, of all processes. What it gives never falls."""
        return self._together.totals()

    def tripped(self) -> Mapping[str, Mapping[int, str]]:
        """By endpoint, the versions that a process took out of traffic under the plan that answers here, and why."""
        return self._together.tripped()

    def facts(self) -> Facts:
        """What a scrape tells of, of all processes. Its counters never fall."""
        return self._together.facts()

    def tell(self) -> None:
        """Have the other processes know what was counted here, and whether this process is ready."""
        self._together.tell()

    def found_hanging(self, lane: Lane, ran_s: float) -> None:
        """Keep on disk that a run hangs, for the process that takes this one's place. Blocks; on any thread.

        Which version hangs is known: that the process ends by it is no further sign against another.
        """
        self._lives.end()
        self._convictions.keep_hanging(self._servings, lane, ran_s)

    def not_ready(self) -> str:
        """Why the server is not ready, this process or another; empty where all are."""
        return self._together.not_ready()

    def not_ready_here(self) -> str:
        """Why this process is not ready; empty where it is.

        What it means where the settings name endpoints is said in aks_serving.readiness. Where they name none: the
        plans were found once, in storage or in the cache, each was tried, and of those that have a version with traffic
        for this pod one answers. What comes later changes nothing: who was ready once goes on with what it has.
        """
        if self._stopping:
            return "the server is stopping"
        if self._settings.endpoints:
            return why_not_ready(self._settings.endpoints, self._servings, self._settings.slot)
        if self._was_ready:
            return ""
        reason = self._why_never_ready()
        self._was_ready = not reason
        return reason

    @property
    def is_idle(self) -> bool:
        """Whether the plans of all endpoints of the settings have their versions in other pods."""
        return is_idle(self._settings.endpoints, self._servings)

    async def start(self) -> None:
        """Take the cached plans, and begin polling and reporting."""
        sys.setswitchinterval(_SWITCH_S)
        await self._read_keys_again()  # the parent read them when it started, which may be long ago
        cached = await asyncio.get_running_loop().run_in_executor(self._disk, self._read_disk)
        await self._measure_memory()
        for endpoint, data in cached.items():
            if not self._settings.endpoints or endpoint in self._settings.endpoints:
                self._deployments.offer(endpoint, data, is_kept=True)
        if self._deployments.planned:
            self._polled()
        self._tasks = [
            asyncio.create_task(self._poller.run(every_s=self._settings.poll_s, polled=self._polled)),
            asyncio.create_task(self._windows.run(every_s=self._settings.window_s)),
            asyncio.create_task(self._features.run(every_s=self._settings.feature_window_s)),
            asyncio.create_task(_again_and_again(self._seek_profiles, every_s=self._settings.feature_window_s)),
            asyncio.create_task(_again_and_again(self._measure_memory, every_s=self._settings.window_s)),
            asyncio.create_task(_again_and_again(self._look, every_s=_LOOK_EVERY_S)),
            asyncio.create_task(_again_and_again(self._load_watch.look, every_s=self._load_watch.tick_s)),
            asyncio.create_task(_again_and_again(self._hear_of_trips, every_s=_HEAR_EVERY_S)),
            asyncio.create_task(_again_and_again(self._end_lingering, every_s=_HEAR_EVERY_S)),
            asyncio.create_task(_again_and_again(self._read_keys_again, every_s=_READ_AGAIN_EVERY_S)),
            asyncio.create_task(_again_and_again(self._together.forget, every_s=_FORGET_EVERY_S)),
        ]
        self._watchdog.start()

    async def reload(self) -> None:
        """Poll the plans now, try failed loads again, and wait for what they load. Raises UnavailableError. The other
        processes do the same, and are not waited for.
        """
        self._reload_others()
        await self.reload_here()

    async def reload_here(self) -> None:
        """As `reload`, in this process alone."""
        await self._poller.poll()
        deployments = self._deployments.planned
        for deployment in deployments:
            deployment.retry_failed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELOAD_WAIT_S):
                for deployment in deployments:
                    await deployment.settled.wait()

    def stop_soon(self) -> None:
        """Be not ready from now on; requests are answered as before."""
        self._stopping = True
        self._lives.end()

    async def stop(self) -> None:
        """Stop polling and loading, send the last windows, and end. Requests must be done by now."""
        self._stopping = True
        self._lives.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for deployment in self._deployments.values():
            deployment.close()
        self._poller.close()
        self._engine.spare.close()
        self._windows.close_all(is_last=True)
        self._watchdog.close()
        self.tell()
        await self._features.close()
        await asyncio.to_thread(self._uplink.close, within_s=self._flush_s)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._seeking.shutdown(wait=False, cancel_futures=True)
        self._kept.flush()
        self._disk.shutdown(wait=True)
        self._engine.close()

    def _why_never_ready(self) -> str:
        if self._first_round is None:
            return "no plan was found yet, in storage or in the cache"
        loading = [d.endpoint for d in self._first_round if d.serving is None]
        return f"endpoint {loading[0]!r} is being loaded" if loading else self._deployments.why_none_answers()

    def _offer(self, endpoint: EndpointName, data: bytes) -> None:
        self._deployments.offer(endpoint, data)
        if self._deployments.is_behind(endpoint):
            self._windows.announce(endpoint)

    def _deployment(self, endpoint: EndpointName) -> Deployment:
        return Deployment(
            endpoint,
            pod=self._settings.pod,
            load=functools.partial(self._load, endpoint),
            threads=self._threads,
            engine=self._engine,
            numbering=self._numbering,
            guard=self._convictions.guard,
            applied=self._applied,
            laned=self._watchdog.watch,
            rehearse=self._rehearse,
            taken=self._taken,
            slot=self._settings.slot,
            now_s=self._now_s,
            others_asked_s=functools.partial(self._together.others_asked_s, endpoint),
        )

    def _taken(self, plan: RoutePlan) -> None:
        """Note what a plan has this process hold, before it loads any of it."""
        self._spans.taken(plan)
        self._lives.holds(plan.endpoint, plan.rollout_id, sorted(route.version for route in plan.routes))

    def _applied(self, deployment: Deployment, serving: Serving) -> None:
        self._features.applied(serving)
        self._servings = Servings({**self._servings, deployment.endpoint: serving})
        self._windows.applied(serving)
        self._spans.applied(serving)
        if serving.plan is deployment.wanted:
            self._kept.keep(deployment.endpoint, deployment.plan_data)

    def _tripped(self, plan: RoutePlan, version: int) -> None:
        self._windows.announce(plan.endpoint)
        serving = self._servings.get(plan.endpoint)
        lane = None if serving is None else serving.lanes.get(version)
        if serving is not None and serving.plan.generation == plan.generation and lane is not None:
            divert_waiting(lane)

    def _read_disk(self) -> dict[EndpointName, bytes]:
        """The cached plans, and with them what tripped before. Blocks."""
        self._convictions.read()
        self._lives.begin()
        return self._cache.plans()

    def _load(self, endpoint: EndpointName, route: Route) -> LoadedModel:
        """Load a version, unless that hung before under this generation. On a loader's thread."""
        wanted = self._deployments[endpoint].wanted
        self._convictions.check_load(wanted, route.version)
        with self._spans.loading(wanted, route):
            return self._loader.load(endpoint, route)

    def _found_load_hanging(self, route: Route, took_s: float) -> None:
        reason = f"it was not made within {took_s:.0f} s, and is tried again under a new generation"
        for plan in self._deployments.give_up(route, str(LoadError(LoadCode.HANGS, reason))):
            log.error(
                "endpoint %s: loading version %d hangs, since %.0f s; its thread is left behind",
                plan.endpoint,
                route.version,
                took_s,
            )
            self._convictions.keep_hung_load(plan, route.version, reason)
        self._replace()

    async def _measure_memory(self) -> None:
        settings = self._settings

        def measure() -> float | None:
            return memory_share(settings.memory_limit_bytes, workers=settings.workers)

        self._memory_share = await self._loop.run_in_executor(self._disk, measure)

    async def _seek_profiles(self) -> None:
        """Try again to have the profiles that storage did not give when their versions were loaded."""
        for endpoint, serving in list(self._servings.items()):
            for route, lane in list(self._features.lacking(serving)):
                with contextlib.suppress(UnavailableError):
                    seek = functools.partial(self._loader.profile, endpoint, route, lane.model.signature)
                    profile = await self._loop.run_in_executor(self._seeking, seek)
                    self._features.found(self._servings[endpoint], route.profile_digest or "", profile)

    async def _look(self) -> None:
        """Have the guards look."""
        for serving in self._servings.values():
            serving.look()

    async def _end_lingering(self) -> None:
        self._deployments.end_lingering()

    async def _read_keys_again(self) -> None:
        self._settings.override_keys.reload()

    async def _hear_of_trips(self) -> None:
        await self._convictions.hear(self._servings)

    def _polled(self) -> None:
        if self._first_round is None:
            self._first_round = self._deployments.planned


async def _again_and_again(do: Callable[[], Awaitable[None]], *, every_s: float) -> None:
    """Do it every so often for ever; what goes wrong is logged."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await do()
        except Exception:
            log.exception("what is done every %g s went wrong; it is done again", every_s)
