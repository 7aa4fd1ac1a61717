"""How the admin API shows the domain's documents."""

from collections.abc import Mapping
from typing import Any

from shared.registration.documents import Drop
from shared.registry.aliases import Alias, AliasMove, stage_of
from shared.registry.documents import Model, ModelVersion
from shared.registry.policy import Policy
from shared.rollout.documents import Endpoint, Rollout
from shared.rollout.starts import why_held


def model_view(model: Model, production_version: int | None) -> dict[str, Any]:
    """A model."""
    shown = model.model_dump(mode="json", include={"model", "policy", "policy_version", "latest_version"})
    return shown | {"production_version": production_version}


def version_view(version: ModelVersion, aliases: list[str], policy: Policy) -> dict[str, Any]:
    """A version of a model, with the aliases that name it; `policy` is its model's."""
    shown = version.model_dump(
        mode="json",
        include={
            "model",
            "version",
            "state",
            "drop",
            "digest",
            "artifact_digest",
            "artifact_size_bytes",
            "model_file",
            "external",
            "signed_by",
            "signature",
            "registered_at",
            "decided_at",
            "archived_at",
            "attempts",
            "manifest",
            "validation",
            "approvals",
            "altered",
            "rollout_pending",
        },
    )
    return {
        **shown,
        "aliases": sorted(aliases),
        "stage": stage_of(version.state, aliases),
        "rollout_held": why_held(version, policy.rollout),
    }


def alias_view(alias: Alias) -> dict[str, Any]:
    """An alias and its latest move."""
    latest = alias.latest
    return {
        "model": alias.model,
        "alias": alias.alias,
        "version": alias.version,
        "sequence": alias.sequence,
        "since": latest.at.isoformat() if latest else None,
        "by": latest.by if latest else "",
        "reason": latest.reason if latest else "",
    }


def move_view(move: AliasMove) -> dict[str, Any]:
    """A move of an alias."""
    return move.model_dump(mode="json", exclude={"generation"})


def policy_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """A policy as it was set."""
    return {name: record[name] for name in ("model", "policy_version", "policy", "by", "at")}


def drop_view(drop: Drop) -> dict[str, Any]:
    """A drop."""
    shown = drop.model_dump(
        mode="json",
        include={
            "blob",
            "etag",
            "state",
            "code",
            "reason",
            "waiting_for",
            "version",
            "seen_at",
            "attempts",
            "failures",
            "last_error",
        },
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
            "policy_version",
            "forced",
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
        "refused": endpoint.refused.model_dump(mode="json") if endpoint.refused else None,
        "rollout": rollout_view(endpoint.endpoint, endpoint.rollout) if endpoint.rollout else None,
    }
