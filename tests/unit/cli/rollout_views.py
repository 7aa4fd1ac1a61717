"""Rollouts as the admin API shows them, made by its own view functions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from functions._views import endpoint_view, rollout_view
from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import RolloutPolicy, Stage
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.progress import PodSeen, Progress

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UNSURE = Verdict(check="error_rate", outcome=Outcome.INCONCLUSIVE, sentence="12 of 100 requests seen", n=12)
STAGES = (Stage(weight_bp=1_000, duration_s=300), Stage(weight_bp=5_000, duration_s=600, approval=True))


def target(version: int) -> Target:
    """A version as plans name it."""
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


def rollout_of(state: RolloutState = RolloutState.PROGRESSING, **fields: Any) -> Rollout:
    """Version 2's canary beside version 1, 60 s into its first stage."""
    given: dict[str, Any] = {
        "rollout_id": "rollout-1",
        "command_id": "start",
        "candidate": target(2),
        "stable": target(1),
        "policy": RolloutPolicy(stages=STAGES),
        "state": state,
        "stage": None if state is RolloutState.LOADING else 0,
        "started_at": NOW - timedelta(seconds=90),
        "published_at": NOW - timedelta(seconds=80),
        "stage_started_at": None if state is RolloutState.LOADING else NOW - timedelta(seconds=60),
        "halted_at": NOW if state.is_halted else None,
        "ended_at": NOW if state.is_over else None,
        "next_tick_at": NOW,
        "verdicts": [UNSURE],
        "requested_by": "ann",
        "progress": Progress(generation=4, pods={"pod-1": seen(1, 2)}),
    }
    return Rollout.model_validate(given | fields)


def seen(*loaded: int, **fields: Any) -> PodSeen:
    """A pod's word of just now, under the plan in force."""
    return PodSeen.model_validate({"sequence": 1, "generation": 4, "at": NOW, "loaded": loaded} | fields)


def view(state: RolloutState = RolloutState.PROGRESSING, **fields: Any) -> dict[str, Any]:
    """That rollout as the API shows it."""
    rollout = rollout_of(state, **fields)
    return rollout_view(_endpoint(rollout), rollout, NOW)


def endpoint_of(state: RolloutState = RolloutState.PROGRESSING, **fields: Any) -> dict[str, Any]:
    """Its endpoint as the API shows it."""
    return endpoint_view(_endpoint(rollout_of(state, **fields)), NOW)


def _endpoint(rollout: Rollout) -> Endpoint:
    return Endpoint(endpoint="m", stable=target(1), good=[target(1)], rollout=rollout, generation=4)
