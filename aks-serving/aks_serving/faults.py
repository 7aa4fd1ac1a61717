"""Log lines of runs that a version failed: enough to find out why, and never one for each of a thousand requests.

Each line says which endpoint, version and rollout, and of a request that its caller traces in which trace. A request's
inputs are not in it, but what the runtime said of them is.
"""

import logging
from time import monotonic

from aks_serving.errors import ModelRunError
from shared.core import tracing
from shared.core.tracing import About, Span
from shared.routing.plan import RoutePlan

EVERY_S = 10.0

log = logging.getLogger(__name__)


class Faults:
    """Tells of the failures of one plan's versions: of each the first, then one every EVERY_S and how many were not
    told of; and each of a request that its caller traces. Used from the event loop alone.
    """

    __slots__ = ("_told", "_untold")

    def __init__(self) -> None:
        self._told: dict[int, float] = {}
        """When each version was told of last."""
        self._untold: dict[int, int] = {}

    def tell(self, plan: RoutePlan, version: int, error: ModelRunError, span: Span | None) -> None:
        """A version failed a run."""
        now_s, told_s = monotonic(), self._told.get(version)
        if span is None and told_s is not None and now_s < told_s + EVERY_S:
            self._untold[version] = self._untold.get(version, 0) + 1
            return
        self._told[version] = now_s
        more = self._untold.pop(version, 0)
        about: About = {"endpoint": plan.endpoint, "version": version}
        if plan.rollout_id:
            about = {**about, "rollout_id": plan.rollout_id}
        if span is not None:
            span.note(failed_version=version, endpoint=plan.endpoint)
        with tracing.within(None if span is None else span.context, about):
            since = f" ({more} more since the last such line)" if more else ""
            log.warning("endpoint %s: %s%s", plan.endpoint, error, since)
