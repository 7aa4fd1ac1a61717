"""A model's policy: what its versions must show before they serve, and how they come to serve.

The release manager sets it, not the drop. A rollout keeps the policy that was in force when it started.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.routing.plan import FULL_WEIGHT_BP, MAX_FILE_BYTES, Guard, SubjectSource

_LONGEST_S = 30 * 86_400.0

type Metric = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
type ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
type PublicKey = Annotated[
    str, StringConstraints(min_length=64, max_length=2_000, pattern=r"^-----BEGIN PUBLIC KEY-----")
]


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
    minimum: dict[Metric, float] = Field(default_factory=dict, max_length=50)
    """Least values of further metrics, by name, as in `roc_auc`."""
    maximum: dict[Metric, float] = Field(default_factory=dict, max_length=50)
    """Greatest values of metrics of which less is better, by name, as in `log_loss` or `rmse`."""
    max_size_bytes: int = Field(default=500_000_000, ge=1, le=MAX_FILE_BYTES)
    """The ONNX file and its external data together."""
    max_memory_bytes: int = Field(default=2_000_000_000, ge=1, le=1_000_000_000_000)
    """What the version may be predicted to cost a server."""
    require_validation_data: bool = True
    """Whether a version without validation data is rejected; otherwise only its file is checked."""
    require_reference_data: bool = False
    """Whether a version without reference data is rejected: without it nobody can see drift."""
    min_rows: int = Field(default=20, ge=1, le=1_000_000_000)
    """Rows of validation data below which metrics conclude nothing."""
    max_rtol: float = Field(default=1e-3, ge=0, le=1)
    """The largest relative tolerance that a manifest may claim for an output."""
    max_atol: float = Field(default=1e-4, ge=0, le=1e6)
    """The largest absolute tolerance that a manifest may claim for an output."""
    allow_nan: bool = False
    """Whether the validation data's features and the model's outputs may hold NaN; labels and the predictions that are
    compared with them never may. While a version serves, an output that is no finite number is its failure."""
    noninferiority_margin: float | None = Field(default=0.02, ge=0, le=1)
    """How much worse than the champion, on the same rows, a version may be.

    For classification in accuracy; for regression as a share of the champion's mean absolute error. None leaves it
    unchecked.
    """
    slice_gap: float | None = Field(default=0.10, gt=0, le=1)
    """How much worse than the rest a slice may fare; for regression as a share of the rest's mean absolute error."""
    slices: tuple[ColumnName, ...] = Field(default=(), max_length=100)
    """Columns of the validation data by whose parts a version is judged, whatever its manifest names."""
    min_slice_rows: int = Field(default=30, ge=5, le=1_000_000_000)
    fairness_gap: float | None = Field(default=None, ge=0, le=1)
    """The largest gap between groups of a protected column; a manifest must then name one.

    None reports gaps and limits nothing.
    """
    drift_psi: float | None = Field(default=0.1, gt=0, le=100)
    """PSI of a feature in the validation data against the reference data. None reports and limits nothing."""
    latency_ratio: float | None = Field(default=2.0, ge=1, le=1_000)
    """How many times the champion's latency (p50, p95 or p99) a version may be proven to take.

    None reports and limits nothing.
    """
    latency_floor_ms: float = Field(default=1.0, ge=0, le=3_600_000)
    """A latency up to here is never too long, whatever the champion's."""


class SigningPolicy(_PolicyPart):
    """Cryptographic signatures of drops."""

    required: bool = False
    """Whether a drop without a signature is refused. One that has a signature needs a good one in any case."""
    trusted_keys: tuple[PublicKey, ...] = Field(default=(), max_length=20)
    """Public keys in PEM: elliptic curve keys."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.required and not self.trusted_keys:
            raise ValueError("signatures are required and no key is trusted: name one in trusted_keys")
        return self


class RetentionPolicy(_PolicyPart):
    """Which versions a clean-up may archive. Versions that serve, roll out or have an alias are never touched."""

    keep_latest: int = Field(default=10, ge=1, le=1_000_000)
    """The newest validated versions that stay."""
    keep_days: float = Field(default=90.0, ge=0, le=36_500)
    """Versions younger than this stay."""


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
    approvals: int = Field(default=0, ge=0, le=20)
    """How many people other than the version's author must have approved it before it is rolled out."""
    strategy: Strategy = Strategy.CANARY
    stages: tuple[Stage, ...] = (Stage(weight_bp=1_000, duration_s=300), Stage(weight_bp=5_000, duration_s=600))
    gates: Gates = Gates()
    guard: Guard = Guard()
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


class ServingPolicy(_PolicyPart):
    """How the model server answers. What is in force when a rollout starts holds until the next one starts."""

    subject: SubjectSource = SubjectSource()


class Policy(_PolicyPart):
    """The whole policy of a model. Every field has a default; an unknown one is refused."""

    validation: ValidationPolicy = ValidationPolicy()
    signing: SigningPolicy = SigningPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    serving: ServingPolicy = ServingPolicy()
