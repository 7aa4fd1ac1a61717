"""Rollbacks: each time that traffic was taken back from a version, why, and how long it took; and quarantine."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Trigger(StrEnum):
    """What called for a rollback."""

    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    MEMORY = "memory"
    HEALTH = "health"
    PREDICTION_DRIFT = "prediction_drift"
    DATA_DRIFT = "data_drift"
    """Watching found that it is asked or answers otherwise than stable in the same hours."""
    QUERY = "query"
    DISAGREEMENT = "disagreement"
    FEEDBACK = "feedback"
    """What came of its predictions is provably worse, or below the least that policy asks for."""
    LATE_FEEDBACK = "late_feedback"
    """As feedback, of what came once the version was stable."""
    GUARD = "guard"
    """A pod took the version out of traffic by itself."""
    LOADING = "loading"
    """A pod could not load it, or not in time."""
    ALTERED = "altered"
    """A stored part of it is not what was registered."""
    NO_CONCLUSION = "no_conclusion"
    MANUAL = "manual"


class Rollback(BaseModel):
    """One rollback. `fault_at` is when the evidence that led to it begins, as far as it shows."""

    model_config = ConfigDict(extra="forbid")

    rollback_id: str
    rollout_id: str | None
    """None where a version was taken back that had no rollout under way."""
    trigger: Trigger
    from_version: int
    to_version: int | None
    """None where nothing was left to serve."""
    generation: int
    """The plan's generation that takes the version out of traffic."""
    fault_at: AwareDatetime
    detected_at: AwareDatetime
    zero_traffic_at: AwareDatetime | None = None
    """When the last pod that reports had applied that generation; None while not all have."""
    by: str
    reason: str


class RollbackRecord(BaseModel):
    """A rollback that the pods have applied, archived as a document beside its endpoint."""

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: Literal["rollback"] = "rollback"
    endpoint: str
    rollback: Rollback


class Unapplied(BaseModel):
    """That a rollout ended without a fault while its candidate had traffic, which the pods are to take from it; or that
    it was promoted in other pods than stable's, from which the Gateway is to take the traffic.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int
    """Of the plan that takes it away."""
    at: AwareDatetime


class Reverted(BaseModel):
    """That a version was taken back after its rollout had promoted it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to_version: int
    at: AwareDatetime
    by: str
    reason: str


class Quarantine(BaseModel):
    """A version that failed: no rollout of it begins until somebody clears it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    reason: str
    at: AwareDatetime
    rollout_id: str | None
