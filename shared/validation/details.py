"""The figures behind the verdicts, as the report keeps them: one model a section, bounded and without NaN.

A verdict's `evidence` points into these by JSON pointer, as in `/details/slices`. Every interval is two-sided at
`level`, and lies in the unit of its value.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, StringConstraints

from shared.registry.signature import SignatureDiff

MAX_CLASSES = 50
MAX_FINDINGS = 200

type _Name = Annotated[str, StringConstraints(max_length=200)]
type Interval = tuple[FiniteFloat, FiniteFloat]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MetricEstimate(_Section):
    """A metric on the validation data. `method` names how the interval came about, as in `clopper-pearson`."""

    name: _Name
    value: FiniteFloat
    interval: Interval | None = None
    level: float = 0.95
    method: _Name = ""
    n: NonNegativeInt
    higher_is_better: bool
    claimed: FiniteFloat | None = None
    """What the manifest claims."""


class Confusion(_Section):
    """Counts by true class (rows) and predicted class (columns), in the order of `classes`."""

    classes: tuple[_Name, ...] = Field(max_length=MAX_CLASSES)
    counts: tuple[tuple[NonNegativeInt, ...], ...] = Field(max_length=MAX_CLASSES)


class CalibrationBin(_Section):
    """Rows whose predicted probability (of the predicted class) falls in a bin: mean probability and share right."""

    n: NonNegativeInt
    predicted: FiniteFloat
    observed: FiniteFloat


class Comparison(_Section):
    """The candidate beside the champion on the same rows; `difference` is candidate minus champion.

    Its interval is one-sided where `method` says so: then the far end is the value's own bound.
    """

    metric: _Name
    champion_version: int | None
    candidate: FiniteFloat
    champion: FiniteFloat
    difference: FiniteFloat
    interval: Interval
    level: float
    method: _Name
    margin: NonNegativeFloat
    n: NonNegativeInt
    candidate_only: NonNegativeInt | None = None
    """Rows that only the candidate answers right; for classification."""
    champion_only: NonNegativeInt | None = None


class SliceFinding(_Section):
    """A part of the validation data: how it fares beside the rest."""

    column: _Name
    part: _Name
    """A category, or a range such as `[0.5, 1.25)`."""
    metric: _Name
    n: NonNegativeInt
    value: FiniteFloat
    rest: FiniteFloat
    gap: FiniteFloat
    """How much worse than the rest; negative where it is better."""
    interval: Interval | None = None
    p_value: FiniteFloat
    q_value: FiniteFloat
    """The p-value after Benjamini-Hochberg over all slices."""
    found: bool
    """Whether it is worse beyond the policy's gap, and the evidence holds after the correction."""


class FairnessFinding(_Section):
    """A gap between the groups of a protected column, by one definition."""

    column: _Name
    definition: _Name
    """`demographic_parity` or `equal_opportunity`."""
    gap: FiniteFloat
    interval: Interval | None = None
    highest: _Name
    lowest: _Name
    rates: dict[_Name, FiniteFloat] = Field(max_length=MAX_CLASSES)
    counts: dict[_Name, NonNegativeInt] = Field(max_length=MAX_CLASSES)


class ReferenceDriftFinding(_Section):
    """A feature's distribution in the validation data beside the reference data."""

    feature: _Name
    kind: _Name
    """`numeric` or `category`."""
    n_reference: NonNegativeInt
    n_validation: NonNegativeInt
    psi: FiniteFloat
    psi_noise: FiniteFloat
    """The PSI that samples of this size exceed in 5 % of cases without any drift."""
    jensen_shannon: FiniteFloat
    hellinger: FiniteFloat
    kolmogorov_smirnov: FiniteFloat | None = None
    wasserstein: FiniteFloat | None = None
    p_value: FiniteFloat
    q_value: FiniteFloat
    missing_reference: FiniteFloat = 0.0
    missing_validation: FiniteFloat = 0.0
    bins: tuple[_Name, ...] = Field(default=(), max_length=64)
    reference_shares: tuple[FiniteFloat, ...] = Field(default=(), max_length=64)
    validation_shares: tuple[FiniteFloat, ...] = Field(default=(), max_length=64)
    found: bool


class Quantile(_Section):
    """A latency quantile of candidate and champion, in processor time, and their ratio."""

    name: _Name
    """`p50`, `p95` or `p99`."""
    candidate_ms: NonNegativeFloat
    champion_ms: NonNegativeFloat | None = None
    ratio: FiniteFloat | None = None
    interval: Interval | None = None
    level: float = 0.99


class Latency(_Section):
    """Single calls, the candidate's and the champion's interleaved, on the machine that validated."""

    calls: NonNegativeInt
    rows_a_call: NonNegativeInt
    quantiles: tuple[Quantile, ...] = Field(max_length=10)


class LoadFigures(_Section):
    """What loading cost the sandbox, and what the version will cost a server."""

    load_s: NonNegativeFloat
    resident_bytes: NonNegativeInt
    """How much the process grew by the loaded model, after a run."""
    peak_bytes: NonNegativeInt
    predicted_server_bytes: NonNegativeInt
    ir_version: NonNegativeInt
    opsets: dict[_Name, NonNegativeInt] = Field(default_factory=dict, max_length=20)
    nodes: NonNegativeInt = 0
    initializers: NonNegativeInt = 0
    initializer_bytes: NonNegativeInt = 0


class RobustnessFinding(_Section):
    """What the model did with an input that nobody expects."""

    probe: _Name
    """`repeats`, `batch_against_single`, `outlier`, `nan`, `infinity`, `extremes`, `empty_batch`."""
    behaviour: _Name
    """As in `answers`, `answers with NaN`, `refuses with an error`, `differs`."""
    sentence: Annotated[str, StringConstraints(max_length=500)]
    worst_difference: FiniteFloat | None = None


class ProfileFigures(_Section):
    """What the reference profile was made from, and the estimate of performance without labels, where there is one.

    `estimate_level` is the accuracy, or the mean absolute error, of the `estimate_rows` labelled rows that it was
    fitted on, and `estimate_deviation` how far one row is from what is estimated for it.
    """

    source: _Name
    """`reference` or `validation`: which data."""
    rows: NonNegativeInt
    total_rows: NonNegativeInt
    features: NonNegativeInt
    estimate_rows: NonNegativeInt = 0
    estimate_level: FiniteFloat | None = None
    estimate_deviation: FiniteFloat | None = None


class Details(_Section):
    """All sections; one is absent where its check did not run."""

    load: LoadFigures | None = None
    signature: SignatureDiff | None = None
    metrics: tuple[MetricEstimate, ...] = Field(default=(), max_length=MAX_FINDINGS)
    confusion: Confusion | None = None
    calibration: tuple[CalibrationBin, ...] = Field(default=(), max_length=50)
    comparison: tuple[Comparison, ...] = Field(default=(), max_length=20)
    slices: tuple[SliceFinding, ...] = Field(default=(), max_length=MAX_FINDINGS)
    slices_tested: NonNegativeInt = 0
    fairness: tuple[FairnessFinding, ...] = Field(default=(), max_length=50)
    drift: tuple[ReferenceDriftFinding, ...] = Field(default=(), max_length=MAX_FINDINGS)
    features_tested: NonNegativeInt = 0
    robustness: tuple[RobustnessFinding, ...] = Field(default=(), max_length=50)
    latency: Latency | None = None
    profile: ProfileFigures | None = None
