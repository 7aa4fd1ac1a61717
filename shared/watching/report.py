"""A drift report: what its JSON blob holds, and its page shows.

Strict and finite throughout: a report never holds NaN, for JSON has none.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from shared.core.verdict import Outcome, Verdict
from shared.drift.calibration import Realised
from shared.drift.scoring import FeatureScore
from shared.telemetry.profile import NumberFeature
from shared.watching.documents import Measure


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureFigures(_Part):
    """A feature's traffic beside what it was held against."""

    name: str
    kind: str
    source: str
    labels: tuple[str, ...]
    """A name for each bin, the missing or unseen last."""
    reference: tuple[NonNegativeInt, ...]
    """Rows in each bin, of what the traffic was held against."""
    actual: tuple[NonNegativeInt, ...]
    psi: float
    psi_noise: float
    jensen_shannon: float
    hellinger: float
    kolmogorov_smirnov: float | None
    wasserstein: float | None
    chi_square: float
    degrees: int
    inflation: float
    p_value: float
    q_value: float
    effect: float
    drifted: bool
    sentence: str
    missing_share: float
    infinite_share: float
    unseen_share: float
    unusable_rise: float
    mean: float | None
    reference_mean: float | None
    spread: float | None
    reference_spread: float | None

    @classmethod
    def of(cls, score: FeatureScore) -> "FeatureFigures":
        """The figures in a score."""
        feature = score.feature
        of_reference = (feature.mean, feature.spread) if isinstance(feature, NumberFeature) else (None, None)
        return cls(
            name=feature.name,
            kind=feature.kind,
            source=feature.source.kind,
            labels=score.labels,
            reference=tuple(score.reference.tolist()),
            actual=tuple(score.actual.tolist()),
            psi=score.psi,
            psi_noise=score.psi_noise,
            jensen_shannon=score.jensen_shannon,
            hellinger=score.hellinger,
            kolmogorov_smirnov=score.kolmogorov_smirnov,
            wasserstein=score.wasserstein,
            chi_square=score.chi_square,
            degrees=score.degrees,
            inflation=score.inflation,
            p_value=score.p_value,
            q_value=score.q_value,
            effect=score.effect,
            drifted=score.drifted,
            sentence=score.sentence,
            missing_share=score.missing_share,
            infinite_share=score.infinite_share,
            unseen_share=score.unseen_share,
            unusable_rise=score.unusable,
            mean=score.mean,
            reference_mean=of_reference[0],
            spread=score.spread,
            reference_spread=of_reference[1],
        )


class TrendPoint(_Part):
    """An hour of the span: its rows, and the PSI against the reference of the features that are shown."""

    hour: AwareDatetime
    rows: NonNegativeInt
    psi: dict[str, float] = Field(default_factory=dict)


class Performance(_Part):
    """How well a version answers, in the unit of `measure`."""

    measure: Measure
    level: float | None = None
    """At validation."""
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    realised: float | None = None
    realised_interval: tuple[float, float] | None = None
    labels: NonNegativeInt = 0
    delay_s: float | None = None
    """The median time from a prediction to its label."""
    may_gate: bool = False
    """Whether the estimate may raise an alarm: only while labels have borne it out."""
    miss: float | None = None
    """What estimates of days with labels missed by, beyond the chance of labels (shared.drift.calibration)."""
    calibration: str = ""
    history: tuple[Realised, ...] = ()


class Quality(_Part):
    """How much of the traffic stands behind a report."""

    hours: NonNegativeInt
    hours_with_rows: NonNegativeInt
    windows: NonNegativeInt
    left_out: NonNegativeInt
    """Windows that could not be read or contradict themselves."""
    dropped: NonNegativeInt = 0
    """Rows that the pods could not keep up with, and did not count."""
    asked: NonNegativeInt = 0
    """Rows there were, by the shares of them that the pods counted."""
    healthy_windows: NonNegativeInt
    """Earlier windows that chance is judged by."""


class SlowFigures(_Part):
    """The detector of slow drift: alarmed where the evidence comes to the limit. Both are natural logarithms."""

    windows: NonNegativeInt
    log_evidence: float | None
    limit: float
    blamed: tuple[str, ...] = ()
    """What moved of which feature, in words."""
    features: tuple[str, ...] = ()
    """These features."""


class DriftDetails(_Part):
    """The whole report of a version in a role."""

    schema_version: int = 1
    model: str
    endpoint: str
    version: int
    role: str
    profile: str | None
    since: AwareDatetime
    until: AwareDatetime
    rows: NonNegativeInt
    reference_rows: NonNegativeInt
    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    ranked: tuple[str, ...]
    """The inputs by how much they are to blame."""
    features: tuple[FeatureFigures, ...]
    beside: int | None = None
    """The version that the concurrent figures are beside."""
    concurrent: tuple[FeatureFigures, ...] = ()
    trend: tuple[TrendPoint, ...] = ()
    quality: Quality
    performance: Performance | None = None
    slow: SlowFigures | None = None
