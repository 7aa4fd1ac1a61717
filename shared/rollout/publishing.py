"""What an endpoint tells the outside of where it stands: the plan in force, and when it is to be looked at next."""

from datetime import datetime
from typing import Any

from shared.core.messages import RolloutTick
from shared.rollout.convergence import fresh
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.routing.plan import plan_blob_name
from shared.store.ports import BlobContainer


def publish(endpoint: Endpoint) -> None:
    """Publish the plan as its next generation."""
    endpoint.generation += 1
    if endpoint.active:
        endpoint.active.guards = guards_of(endpoint.active)
    plan = endpoint.plan()
    assert plan is not None  # noqa: S101 - the generation is not 0
    endpoint.publish(
        BlobContainer.ROUTES,
        plan_blob_name(endpoint.endpoint),
        plan.model_dump(mode="json"),
        generation=endpoint.generation,
    )


def guards_of(rollout: Rollout) -> int:
    """How many guards a rollout has: one of each pod that reports under each plan with traffic that it is to have.

    Not among them are pods that come later, and plans that are made beyond the stages': for a share that somebody sets,
    and for pods that are gone. There are never fewer than there were: what guards of earlier plans used up stays so.
    """
    progress = rollout.progress
    pods = fresh(progress.pods, progress.looked_at) if progress.looked_at else ()
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
    return [route.model_dump(mode="json", include=named) for route in plan.routes] if plan else []
