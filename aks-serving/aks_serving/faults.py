"""Log lines of runs that a version failed: enough to find out why, and a bounded number a second.

Each line says which endpoint, version and rollout, and of a request that its caller traces in which trace. A request's
inputs are not in it, but what the runtime said of them is.
"""

import logging
from collections.abc import Callable
from time import monotonic

from aks_serving.errors import ModelRunError
from shared.core import tracing
from shared.core.tracing import About, Span
from shared.routing.plan import RoutePlan

EVERY_S = 10.0
MOST_TRACED = 10
"""Lines a second about a version's traced requests: whether one is traced is its caller's to say."""

log = logging.getLogger(__name__)


class Faults:
    """Tells of the failures of one plan's versions: of each the first, then one every EVERY_S and how many were not
    told of; and those of requests that their callers trace, MOST_TRACED a second. Used from the event loop alone.
    """

    __slots__ = ("_monotonic", "_told", "_traced", "_untold")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._monotonic = clock
        self._told: dict[int, float] = {}
        """When each version was told of last."""
        self._traced: dict[int, tuple[float, int]] = {}
        """Since when each version's traced failures are counted, up to a second, and how many were told of."""
        self._untold: dict[int, int] = {}

    def tell(self, plan: RoutePlan, version: int, error: ModelRunError, span: Span | None) -> None:
        """A version failed a run."""
        now_s = self._monotonic()
        if span is not None:
            span.note(failed_version=version, endpoint=plan.endpoint)
        if not (self._is_due(version, now_s) if span is None else self._has_room(version, now_s)):
            self._untold[version] = self._untold.get(version, 0) + 1
            return
        self._told[version] = now_s
        more = self._untold.pop(version, 0)
        about: About = {"endpoint": plan.endpoint, "version": version}
        if plan.rollout_id:
            about = {**about, "rollout_id": plan.rollout_id}
        with tracing.within(None if span is None else span.context, about):
            since = f" ({more} more since the last such line)" if more else ""
            log.warning("endpoint %s: %s%s", plan.endpoint, error, since)

    def _is_due(self, version: int, now_s: float) -> bool:
        told_s = self._told.get(version)
        return told_s is None or now_s >= told_s + EVERY_S

    def _has_room(self, version: int, now_s: float) -> bool:
        since_s, told = self._traced.get(version, (now_s, 0))
        if now_s >= since_s + 1.0:
            since_s, told = now_s, 0
        self._traced[version] = since_s, told + 1
        return told < MOST_TRACED
