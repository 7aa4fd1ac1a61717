"""Whether a pod is ready that is to serve certain endpoints, and why not.

Every one of them has a version that answers, but for those whose plans have their versions in other pods; one at least
is served here. An endpoint that got pods of its own takes the others of a shared pod out of no traffic.
"""

from collections.abc import Mapping, Sequence

from aks_serving.errors import pods_of
from aks_serving.serving import Serving
from shared.core.slots import Slot


def why_not_ready(endpoints: Sequence[str], servings: Mapping[str, Serving], slot: Slot | None) -> str:
    """A sentence; empty where it is ready. `slot` is the pod's."""
    for name in endpoints:
        serving = servings.get(name)
        if serving is None or not (serving.answers or serving.is_elsewhere):
            return f"endpoint {name!r} has no version that answers yet"
    return _why_idle(servings[endpoints[0]], slot) if is_idle(endpoints, servings) else ""


def is_idle(endpoints: Sequence[str], servings: Mapping[str, Serving]) -> bool:
    """Whether the plans of all of them, one at least, have their versions in other pods."""
    found = [servings.get(name) for name in endpoints]
    return bool(found) and all(serving is not None and serving.is_elsewhere for serving in found)


def _why_idle(serving: Serving, slot: Slot | None) -> str:
    plan = serving.plan
    mine = "the shared pods, of which this is one" if slot is None else f"slot {slot}, of which this pod is"
    return (
        f"generation {plan.generation} of the plan of endpoint {plan.endpoint!r} has no version for {mine}: "
        f"it is served by {pods_of(route.slot for route in serving.elsewhere)}"
    )
