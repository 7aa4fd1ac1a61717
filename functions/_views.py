"""How the admin API shows the domain's documents."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.registration.documents import Drop
from shared.registry.aliases import Alias, AliasMove, stage_of
from shared.registry.documents import Model, ModelVersion
from shared.registry.policy import Policy
from shared.rollout.convergence import Convergence
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.rollbacks import Quarantine, Rollback
from shared.rollout.standing import standing
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
    return {name: record[name] for name in ("model", "policy_version", "policy", "by", "at")} | {
        # Those that were set before reasons were kept have none.
        "reason": record.get("reason", "")
    }


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


def rollout_view(endpoint: Endpoint, rollout: Rollout, now: datetime) -> dict[str, Any]:
    """A rollout of an endpoint, as it stands now."""
    shown = rollout.model_dump(
        mode="json",
        include={
            "rollout_id",
            "state",
            "stage",
            "started_at",
            "stage_started_at",
            "halted_at",
            "ended_at",
            "tick",
            "next_tick_at",
            "failed_checks",
            "errored_checks",
            "failing_since",
            "verdicts",
            "reason",
            "requested_by",
            "promoted_by",
            "policy_version",
            "forced",
            "overridden",
            "approvals",
            "rolled",
            "reverted",
        },
    )
    stands = standing(endpoint, rollout, now)
    pods = stands.convergence
    return {
        "endpoint": endpoint.endpoint,
        "version": rollout.candidate.version,
        "slot": rollout.candidate.slot,
        "stable": rollout.stable.version if rollout.stable else None,
        "stable_slot": rollout.stable.slot if rollout.stable else None,
        "shadows": [target.version for target in rollout.shadows],
        "strategy": rollout.policy.strategy.value,
        "stages": [stage.model_dump(mode="json", exclude={"gates"}) for stage in rollout.stages],
        "switch_approval": rollout.needs_approval(len(rollout.stages)),
        "watch_s": rollout.policy.watch_s,
        "failure_limit": rollout.policy.failure_limit,
        "weight_bp": rollout.weight_bp,
        "mirror_bp": rollout.mirror_bp,
        "exposures": rollout.progress.exposures.model_dump(mode="json"),
        **shown,
        "waiting": stands.waiting.value,
        "waiting_for": stands.sentence,
        "stage_age_s": stands.stage_age_s,
        "stage_limit_s": stands.stage_limit_s,
        "stage_left_s": stands.stage_left_s,
        "left_s": stands.left_s,
        "convergence": pods and _convergence_view(pods),
    }


def endpoint_view(endpoint: Endpoint, now: datetime) -> dict[str, Any]:
    """An endpoint, as it stands now."""
    return {
        "endpoint": endpoint.endpoint,
        "stable": endpoint.stable.version if endpoint.stable else None,
        "slot": endpoint.stable.slot if endpoint.stable else None,
        "good": [target.version for target in endpoint.good],
        "generation": endpoint.generation,
        "queued_version": endpoint.queued_version,
        "refused": endpoint.refused.model_dump(mode="json") if endpoint.refused else None,
        "quarantined": [quarantine_view(found) for found in endpoint.quarantined],
        "rollback": rollback_view(endpoint.rollback) if endpoint.rollback else None,
        "rollout": rollout_view(endpoint, endpoint.rollout, now) if endpoint.rollout else None,
    }


def rollback_view(rollback: Rollback) -> dict[str, Any]:
    """A rollback."""
    return rollback.model_dump(mode="json")


def quarantine_view(found: Quarantine) -> dict[str, Any]:
    """A version in quarantine."""
    return found.model_dump(mode="json")


def _convergence_view(pods: Convergence) -> dict[str, Any]:
    return {
        "is_reached": pods.is_reached,
        "reporting": list(pods.reporting),
        "ready": list(pods.ready),
        "failing": dict(pods.failing),
        "silent": list(pods.silent),
        "sentence": pods.sentence,
    }
