"""How the admin API shows the domain's documents."""

from typing import Any

from shared.registration.documents import Drop
from shared.registry.documents import Model, ModelVersion
from shared.rollout.documents import Endpoint, Rollout


def model_view(model: Model) -> dict[str, Any]:
    """A model."""
    return model.model_dump(mode="json", include={"model", "policy", "latest_version"})


def version_view(version: ModelVersion) -> dict[str, Any]:
    """A version of a model."""
    return version.model_dump(
        mode="json",
        include={
            "model",
            "version",
            "state",
            "drop",
            "digest",
            "artifact_digest",
            "artifact_size_bytes",
            "registered_at",
            "decided_at",
            "attempts",
            "manifest",
            "validation",
        },
    )


def drop_view(drop: Drop) -> dict[str, Any]:
    """A drop."""
    shown = drop.model_dump(
        mode="json", include={"blob", "etag", "state", "code", "reason", "version", "seen_at", "attempts"}
    )
    return {"drop_id": drop.id, **shown}


def rollout_view(endpoint: str, rollout: Rollout) -> dict[str, Any]:
    """A rollout."""
    shown = rollout.model_dump(
        mode="json",
        include={
            "rollout_id",
            "state",
            "stage",
            "started_at",
            "stage_started_at",
            "ended_at",
            "tick",
            "next_tick_at",
            "failed_checks",
            "verdicts",
            "reason",
            "requested_by",
        },
    )
    return {
        "endpoint": endpoint,
        "version": rollout.candidate.version,
        "stable": rollout.stable.version if rollout.stable else None,
        "strategy": rollout.policy.strategy.value,
        "stages": [stage.model_dump(mode="json") for stage in rollout.policy.stages],
        "weight_bp": rollout.weight_bp,
        **shown,
    }


def endpoint_view(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint."""
    return {
        "endpoint": endpoint.endpoint,
        "stable": endpoint.stable.version if endpoint.stable else None,
        "generation": endpoint.generation,
        "queued_version": endpoint.queued_version,
        "rollout": rollout_view(endpoint.endpoint, endpoint.rollout) if endpoint.rollout else None,
    }
