"""A model's policy: what its versions must show before they serve, and how they come to serve.

The release manager sets it, not the drop. A rollout keeps the policy that was in force when it started.
"""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from shared.registry.alert_policy import AlertRulePolicy
from shared.registry.drift_policy import DriftPolicy
from shared.registry.rollout_policy import PolicyPart, RolloutPolicy
from shared.routing.plan import MAX_FILE_BYTES, SubjectSource

type Metric = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
type ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
type PublicKey = Annotated[
    str, StringConstraints(min_length=64, max_length=2_000, pattern=r"^-----BEGIN PUBLIC KEY-----")
]


class ValidationPolicy(PolicyPart):
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
    """How many times the champion's latency (p50, p95 or p99, of processor time) a version may be proven to take.

    None reports and limits nothing.
    """
    latency_floor_ms: float = Field(default=1.0, ge=0, le=3_600_000)
    """A latency up to here, of processor time, is never too long, whatever the champion's.

    Processor time is what a call takes that has a core to itself; what callers wait, the rollout's gates look at.
    """


class SigningPolicy(PolicyPart):
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


class RetentionPolicy(PolicyPart):
    """Which versions a clean-up may archive, and how long drift reports stay.

    Versions that serve, roll out or have an alias are never touched.
    """

    keep_latest: int = Field(default=10, ge=1, le=1_000_000)
    """The newest validated versions that stay."""
    keep_days: float = Field(default=90.0, ge=0, le=36_500)
    """Versions younger than this stay."""
    keep_reports_days: float = Field(default=400.0, ge=1, le=36_500)
    """Drift reports older than this are deleted, but for those that something still stands on."""


class ServingPolicy(PolicyPart):
    """How the model server answers. What is in force when a rollout starts holds until the next one starts."""

    subject: SubjectSource = SubjectSource()


class Policy(PolicyPart):
    """The whole policy of a model. Every field has a default; an unknown one is refused."""

    validation: ValidationPolicy = ValidationPolicy()
    signing: SigningPolicy = SigningPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    serving: ServingPolicy = ServingPolicy()
    drift: DriftPolicy = DriftPolicy()
    alerts: tuple[AlertRulePolicy, ...] = Field(default=(), max_length=50)
    """Rules of its own for alerts on its endpoint's traffic."""

    @model_validator(mode="after")
    def _rules_differ(self) -> Self:
        names = [rule.name for rule in self.alerts]
        if len(set(names)) != len(names):
            raise ValueError(f"two alert rules have one name among {names}: name each differently")
        return self
