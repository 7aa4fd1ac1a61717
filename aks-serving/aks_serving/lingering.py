"""How long a pod goes on with versions that the plan has in other pods by now: the Gateway hears of a plan later than
pods do, and sends on what it sends until then. However late it hears, what it sends meanwhile is answered.
"""

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from math import inf

from shared.routing.plan import RoutePlan

log = logging.getLogger(__name__)

LINGER_S = 600.0
"""So long without a request, and they are let go."""
HEARD_S = 120.0
"""So long without a request, and they make room in memory for others: where the Gateway works, it has heard."""


class Lingering:
    """Of one endpoint. `now_s` is monotonic, and the same in all processes of the pod."""

    def __init__(self, now_s: Callable[[], float], others_asked_s: Callable[[], float]) -> None:
        """`others_asked_s` tells when the pod's other processes were last asked for what lingers there (`now_s`)."""
        self._now_s = now_s
        self._others_asked_s = others_asked_s
        self._left_s = -inf
        self._quiet_since_s: float | None = None
        self._last_run_s = 0.0

    def note(self, plan: RoutePlan, published: RoutePlan, *, served: AbstractSet[int]) -> None:
        """A plan was taken while versions are served: as this pod follows it, and as it was published.

        They left where it has nothing for this pod, and others something; a further plan like it buys no more time.
        One that has nothing anywhere is no leave: nothing is to be served.
        """
        if not published.routes or served & {route.version for route in plan.routes}:
            self._quiet_since_s = None
        elif served and not plan.routes and self._quiet_since_s is None:
            self._left_s = self._quiet_since_s = self._now_s()
            log.info(
                "endpoint %s: generation %d has no version for this pod; what it serves goes on until %.0f s pass "
                "without a request",
                plan.endpoint,
                plan.generation,
                LINGER_S,
            )

    def saw(self, last_run_s: float) -> None:
        """What is served last ran a request then (perf_counter). Only that it is another time than before counts."""
        if self._quiet_since_s is not None and last_run_s != self._last_run_s:
            self._quiet_since_s = self._now_s()
        self._last_run_s = last_run_s

    def end(self) -> None:
        """Something else is served now."""
        self._quiet_since_s = None

    @property
    def has_left(self) -> bool:
        """Whether what is served is elsewhere by the plan."""
        return self._quiet_since_s is not None

    @property
    def asked_s(self) -> float | None:
        """When it was last asked for, or it left (`now_s`); None where nothing has left."""
        return self._quiet_since_s

    @property
    def may_go_on(self) -> bool:
        """Whether it left, or was asked for, so lately that the Gateway may not have heard."""
        return self._is_within(LINGER_S)

    def gives_way(self, *, to_next: bool) -> bool:
        """Whether it makes room in memory: nobody has asked for it for long enough.

        `to_next`: the plan has the endpoint's next version here, with which the control plane begins only where the
        Gateway has heard; then what is asked for is the next one.
        """
        if to_next:
            return self.has_left and self._now_s() - self._left_s >= HEARD_S
        return self.has_left and not self._is_within(HEARD_S)

    def _is_within(self, limit_s: float) -> bool:
        if self._quiet_since_s is None:
            return False
        if self._now_s() - self._quiet_since_s < limit_s:
            return True
        # The other processes are looked at only where it matters, for their reports are large.
        self._quiet_since_s = max(self._quiet_since_s, self._others_asked_s())
        return self._now_s() - self._quiet_since_s < limit_s
