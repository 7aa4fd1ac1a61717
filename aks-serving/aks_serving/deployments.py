"""The deployments of all endpoints of a process: which plans are wanted, what they need, what makes room for others."""

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError

from aks_serving.cache import digests
from aks_serving.deployment import Deployment
from aks_serving.serving import LOADING
from shared.core.ids import EndpointName
from shared.routing.plan import Route, RoutePlan

_EVICT_WAIT_S = 5.0


class Deployments(dict[EndpointName, Deployment]):
    """By endpoint. Made on a running event loop, and used from it alone, but for `evict` and `needed`."""

    def __init__(self, make: Callable[[EndpointName], Deployment]) -> None:
        """`make` makes the deployment of an endpoint that has none yet."""
        super().__init__()
        self._make = make
        self._loop = asyncio.get_running_loop()

    def offer(self, endpoint: EndpointName, data: bytes, *, is_kept: bool = False) -> None:
        """Have an endpoint take a published plan, or refuse it. `is_kept`: it was served before a restart."""
        if endpoint not in self:
            self[endpoint] = self._make(endpoint)
        self[endpoint].offer(data, is_kept=is_kept)

    @property
    def planned(self) -> list[Deployment]:
        """Those that have taken a plan."""
        return [deployment for deployment in self.values() if deployment.wanted is not None]

    def is_behind(self, endpoint: str) -> bool:
        """Whether another plan answers an endpoint than the wanted one, which has something for this pod."""
        deployment = self.get(EndpointName(endpoint))
        wanted, serving = (None, None) if deployment is None else (deployment.wanted, deployment.serving)
        if wanted is None or serving is None or not wanted.routes:
            return False
        return wanted.generation > serving.plan.generation

    def why_none_answers(self) -> str:
        """Why no endpoint has a version that answers; empty where one has, or no plan has any traffic for this pod."""
        servings = [found.serving for found in self.values() if found.serving is not None]
        if any(serving.answers for serving in servings):
            return ""
        for serving in servings:
            route = serving.stable or serving.candidate
            if route is not None and any(found.weight_bp for found in serving.plan.routes):
                reason = serving.failed.get(route.version) or serving.tripped.get(route.version, LOADING)
                version = f"version {route.version} of endpoint {serving.plan.endpoint!r}"
                return f"no endpoint has a version that answers: {version}: {reason}"
        return ""

    def asked_s(self) -> dict[str, float]:
        """By endpoint whose versions linger, when they were last asked for (aks_serving.lingering)."""
        return {name: found.asked_s for name, found in self.items() if found.asked_s is not None}

    def end_lingering(self) -> None:
        """Have every endpoint let go of what lingered for long enough."""
        for deployment in list(self.values()):
            deployment.look()

    def give_up(self, route: Route, reason: str) -> list[RoutePlan]:
        """Have a version that hangs while it is loaded fail: the plans that it was loaded for."""
        loading = [deployment for deployment in self.planned if deployment.is_loading(route)]
        plans = [deployment.wanted for deployment in loading if deployment.wanted is not None]
        for deployment in loading:
            deployment.give_up(route, reason)
        return plans

    def needed(self) -> frozenset[str]:
        """The artifacts of the wanted plans and of those that answer. On any thread."""
        found = list(self.values())
        plans = [deployment.serving.plan for deployment in found if deployment.serving is not None]
        plans += [deployment.wanted for deployment in found if deployment.wanted is not None]
        return frozenset().union(*(digests(plan) for plan in plans))

    def evict(self) -> "weakref.ref[object] | None":
        """Take the least recently used of what may go out of service: see aks_serving.memory. On a loader's thread."""
        try:
            return asyncio.run_coroutine_threadsafe(self.evict_one(), self._loop).result(_EVICT_WAIT_S)
        except (RuntimeError, TimeoutError, CancelledError):
            return None  # the loop is gone, at a stop, or stands

    async def evict_one(self) -> "weakref.ref[object] | None":
        """As `evict`, on the event loop."""
        evictable = [(lane, deployment) for deployment in self.values() for lane in deployment.evictable()]
        if not evictable:
            return None
        lane, deployment = min(evictable, key=lambda one: one[1].used_s(one[0]))
        deployment.evict(lane)
        return weakref.ref(lane)
