"""What a model's policy says about drift of what its serving versions are asked and answer."""

from enum import StrEnum

from pydantic import Field

from shared.drift.limits import Limits
from shared.registry.rollout_policy import PolicyPart


class Following(StrEnum):
    """What follows an alarm, beside the report and the alert."""

    NOTHING = "nothing"
    HOLD = "hold"
    """An active rollout whose candidate drifts from the stable version, at the same time, is held."""
    ROLL_BACK = "roll-back"
    """It is taken back."""


class RetrainingPolicy(PolicyPart):
    """When to ask for retraining: one request for one cause."""

    enabled: bool = False
    cooldown_h: float = Field(default=24.0, ge=0, le=8_760)
    """The least time between two requests, whatever their causes."""
    most_in_30_days: int = Field(default=4, ge=1, le=1_000)


class DriftPolicy(PolicyPart):
    """Limits on drift. A feature drifted where one of the limits is reached and chance is ruled out.

    A limit of None leaves the measure unlimited; it is reported all the same.
    """

    psi: float | None = Field(default=0.2, gt=0, le=100)
    jensen_shannon: float | None = Field(default=None, gt=0, le=1)
    """The distance, to base 2."""
    hellinger: float | None = Field(default=None, gt=0, le=1)
    kolmogorov_smirnov: float | None = Field(default=None, gt=0, le=1)
    """Over the bins, of numbers alone."""
    wasserstein: float | None = Field(default=None, gt=0, le=1_000)
    """In standard deviations of the reference, of numbers alone."""
    unusable: float | None = Field(default=0.05, gt=0, le=1)
    """The share of rows that are missing, infinite or of an unseen category, above the reference's."""
    false_discovery_rate: float = Field(default=0.05, gt=0, le=0.5)
    """Of the features that are said to have drifted, the share that may not have (Benjamini and Hochberg 1995)."""
    min_rows: int = Field(default=100, ge=20, le=1_000_000_000)
    """A window with fewer rows concludes nothing."""
    span_h: float = Field(default=24.0, ge=0.25, le=744)
    """A report is of so many hours up to now."""
    performance_drop: float | None = Field(default=0.05, gt=0, le=1)
    """By how much less accurate than at validation a version is when its performance has dropped; for regression by
    what share of the mean absolute error it has grown. None reports and limits nothing."""
    mean_days_between_false_alarms: float = Field(default=90.0, ge=1, le=36_500)
    """Of the detector of slow drift."""
    following: Following = Following.NOTHING
    following_min_rows: int = Field(default=1_000, ge=20, le=1_000_000_000)
    """Nothing follows before what was compared of either version, in the same hours, is worth so many independent rows:
    those of one subject are worth one."""
    following_min_hours: int = Field(default=8, ge=1, le=744)
    """Nor before so many hours; so with a span of less than half of them nothing follows."""
    retraining: RetrainingPolicy = RetrainingPolicy()

    @property
    def limits(self) -> Limits:
        """What a score is held against."""
        return Limits(
            psi=self.psi,
            jensen_shannon=self.jensen_shannon,
            hellinger=self.hellinger,
            kolmogorov_smirnov=self.kolmogorov_smirnov,
            wasserstein=self.wasserstein,
            unusable=self.unusable,
            false_discovery_rate=self.false_discovery_rate,
            min_rows=self.min_rows,
        )
