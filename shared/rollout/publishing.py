"""What an endpoint tells the outside of where it stands: the plan in force, and when it is to be looked at next."""

from datetime import datetime
from typing import Any

import msgspec

from shared.core.contracts import Contract
from shared.core.messages import RolloutTick
from shared.rollout.convergence import fresh
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.gateway import gateway_routes, manifest_blob_name
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.ports import BlobContainer


def publish(endpoint: Endpoint) -> None:
    """Publish the plan as its next generation, and where a version ever had a slot, the Gateway's routes that it makes:
    in one change of the endpoint, so that neither is without the other.
    """
    endpoint.generation += 1
    if endpoint.active:
        endpoint.active.guards = guards_of(endpoint.active)
    plan = endpoint.plan()
    assert plan is not None  # noqa: S101 - the generation is not 0
    endpoint.publish(
        BlobContainer.ROUTES,
        plan_blob_name(endpoint.endpoint),
        _dumped(plan),
        generation=endpoint.generation,
    )
    # For good: whatever the Gateway was told of the endpoint once would stand in the way of what it is not told.
    endpoint.is_gated = endpoint.is_gated or plan.is_slotted
    if endpoint.is_gated:
        endpoint.publish(
            BlobContainer.MANIFESTS,
            manifest_blob_name(endpoint.endpoint),
            gateway_routes(plan),
            generation=endpoint.generation,
        )


def _dumped(plan: RoutePlan) -> dict[str, Any]:
    """A plan's body, without what is None by default: a server of an older release refuses fields it does not know."""
    body = _told(plan)
    return body | {"routes": [_told(route) for route in plan.routes]}


def _told(of: Contract) -> dict[str, Any]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(of)}
    # A None that is not the default says something, as no header does of a subject's source.
    return {
        name: value
        for name, value in of.model_dump(mode="json").items()
        if value is not None or defaults[name] is not None
    }


def guards_of(rollout: Rollout) -> int:
    """How many guards a rollout has: one of each pod that reports under each plan with traffic that it is to have.

    Not among them are pods that come later, and plans that are made beyond the stages': for a share that somebody sets,
    and for pods that are gone. There are never fewer than there were: what guards of earlier plans used up stays so.
    """
    progress = rollout.progress
    pods = fresh(rollout.pods, progress.looked_at) if progress.looked_at else ()
    return max(rollout.guards, max(1, len(pods)) * max(1, sum(bool(stage.weight_bp) for stage in rollout.stages)))


def schedule(endpoint: Endpoint, rollout: Rollout, at: datetime) -> None:
    """Ask for the rollout's next tick."""
    rollout.next_tick_at = at
    endpoint.send(
        RolloutTick(endpoint=endpoint.endpoint, rollout_id=rollout.rollout_id, tick=rollout.tick + 1), not_before=at
    )


def routes_of(endpoint: Endpoint) -> list[dict[str, Any]]:
    """What the audit keeps of the plan in force: which content served which share of the traffic."""
    plan = endpoint.plan()
    named = {"version", "role", "weight_bp", "mirror_bp", "artifact_digest"}
    routes = plan.routes if plan else ()
    return [
        route.model_dump(mode="json", include=named if route.slot is None else {*named, "slot"}) for route in routes
    ]
