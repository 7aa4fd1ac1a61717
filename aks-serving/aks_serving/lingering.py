"""How long a pod goes on with versions that the plan has in other pods by now: the Gateway hears of a plan later than
pods do, and sends on what it sends until then.
"""

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from shared.routing.plan import RoutePlan

log = logging.getLogger(__name__)

LINGER_S = 600.0
HEARD_S = 120.0
"""So long after a plan took versions elsewhere they make room in memory for others: the Gateway has heard by then."""


class Lingering:
    """Of one endpoint. `now_s` is monotonic."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._left_s: float | None = None

    def note(self, plan: RoutePlan, published: RoutePlan, *, served: AbstractSet[int]) -> None:
        """A plan was taken while versions are served: as this pod follows it, and as it was published.

        They left where it has nothing for this pod, and others something; a further plan like it buys no more time.
        One that has nothing anywhere is no leave: nothing is to be served.
        """
        if not published.routes or served & {route.version for route in plan.routes}:
            self._left_s = None
        elif served and not plan.routes and self._left_s is None:
            self._left_s = self._now_s()
            log.info(
                "endpoint %s: generation %d has no version for this pod; what it serves goes on for %.0f s",
                plan.endpoint,
                plan.generation,
                LINGER_S,
            )

    def end(self) -> None:
        """Something else is served now."""
        self._left_s = None

    @property
    def has_left(self) -> bool:
        """Whether what is served is elsewhere by the plan."""
        return self._left_s is not None

    @property
    def may_go_on(self) -> bool:
        """Whether it left so lately that the Gateway may not have heard."""
        return self._left_s is not None and self._now_s() - self._left_s < LINGER_S

    @property
    def is_heard(self) -> bool:
        """Whether it left so long ago that the Gateway, where it works, has heard."""
        return self._left_s is not None and self._now_s() - self._left_s >= HEARD_S
