"""A model's policy: what its versions must show before they serve, and how they come to serve.

The release manager sets it, not the drop. A rollout keeps the policy that was in force when it started.
"""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.routing.plan import FULL_WEIGHT_BP

_LONGEST_S = 30 * 86_400.0


class _PolicyPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ValidationPolicy(_PolicyPart):
    """Thresholds on the validation data; a version at the threshold passes.

    Precision, recall and F1 are weighted by class support. None leaves a metric unchecked.
    """

    accuracy: float | None = Field(default=0.85, ge=0, le=1)
    precision: float | None = Field(default=0.80, ge=0, le=1)
    recall: float | None = Field(default=0.80, ge=0, le=1)
    f1: float | None = Field(default=None, ge=0, le=1)
    r2: float | None = Field(default=0.0, ge=-1_000, le=1)
    """For regression: the coefficient of determination; 0 is what predicting the mean scores."""
    max_size_bytes: int = Field(default=500_000_000, ge=1, le=2_000_000_000)
    require_validation_data: bool = True
    """Whether a version without validation data is rejected; otherwise only its file is checked."""
    allow_nan: bool = False
    """Whether the validation data's features and the model's outputs may hold NaN."""


class Strategy(StrEnum):
    """How a version takes over the traffic."""

    ALL_AT_ONCE = "all-at-once"
    CANARY = "canary"


class Stage(_PolicyPart):
    """A step of a canary: the candidate's share, and how long it must hold up there."""

    weight_bp: int = Field(ge=1, le=FULL_WEIGHT_BP)
    duration_s: float = Field(gt=0, le=_LONGEST_S)


class Gates(_PolicyPart):
    """Limits on the candidate, measured beside stable over the same time."""

    error_rate: float = Field(default=0.01, ge=0, le=1)
    """How far the candidate's error rate may exceed stable's."""
    p99_ms: float = Field(default=200.0, gt=0, le=3_600_000)
    """The candidate's 99th percentile latency must not exceed both this and `p99_ratio` times stable's."""
    p99_ratio: float = Field(default=1.5, ge=1, le=1_000)


class RolloutPolicy(_PolicyPart):
    """How a validated version is rolled out. `stages` and `gates` serve the canary strategy."""

    automatic: bool = True
    """Whether a rollout starts by itself once a version is validated."""
    strategy: Strategy = Strategy.CANARY
    stages: tuple[Stage, ...] = (Stage(weight_bp=1_000, duration_s=300), Stage(weight_bp=5_000, duration_s=600))
    gates: Gates = Gates()
    tick_s: float = Field(default=30.0, ge=0.5, le=3_600)
    """How often the gates look at the evidence."""
    min_requests: int = Field(default=100, ge=1, le=1_000_000_000)
    """Requests that each side needs in a stage before a gate concludes anything."""
    failure_limit: int = Field(default=3, ge=1, le=1_000)
    """Failed checks in a row that take the candidate back."""
    max_stage_s: float = Field(default=3_600.0, gt=0, le=_LONGEST_S)
    """A stage without a conclusion by then ends the rollout: no data never promotes."""
    load_timeout_s: float = Field(default=600.0, gt=0, le=_LONGEST_S)
    """A candidate that no server reports as loaded by then ends the rollout."""

    @model_validator(mode="after")
    def _stages_ramp_up(self) -> Self:
        weights = [stage.weight_bp for stage in self.stages]
        if self.strategy is Strategy.CANARY and not weights:
            raise ValueError("a canary needs at least one stage")
        if weights != sorted(set(weights)):
            raise ValueError(f"the weights of the stages must rise, and are {weights}")
        longest = max((stage.duration_s for stage in self.stages), default=0.0)
        if self.max_stage_s < longest:
            raise ValueError(f"max_stage_s is {self.max_stage_s}, less than the longest stage's {longest}")
        return self


class Policy(_PolicyPart):
    """The whole policy of a model. Every field has a default; an unknown one is refused."""

    validation: ValidationPolicy = ValidationPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
