"""Rules of a model's own for alerts on its endpoint: on traffic, rollouts and drift, beside those that hold for all."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from shared.core.severity import Severity
from shared.registry.rollout_policy import PolicyPart

LONGEST_WINDOW_S = 1_800.0


class AlertMetric(StrEnum):
    """What is measured, over an endpoint's pods and versions."""

    ERROR_RATE = "error_rate"
    """The share of the requests that failed; one that another version then answered did not."""
    REFUSED_RATE = "refused_rate"
    """The share of the requests that pods refused for want of capacity."""
    P50_MS = "p50_ms"
    P95_MS = "p95_ms"
    P99_MS = "p99_ms"
    REQUESTS_PER_S = "requests_per_s"
    MEMORY_SHARE = "memory_share"
    """The largest share of its memory limit that a pod uses."""
    HEALTHY_SHARE = "healthy_share"
    """The share of the pods that report in which every version is loaded and in traffic, and no two processes died."""
    FEEDBACK_VALUE = "feedback_value"
    """The mean value of the feedback that came."""
    DRIFT_PSI = "drift_psi"
    """The largest population stability index of a feature, less what it stays below without drift, by the latest report
    on the stable version. 0 where there is none of the last day.
    """
    STAGE_AGE_S = "stage_age_s"
    """How long the stage of the rollout under way has lasted; 0 without one."""
    DECISION_LAG_S = "decision_lag_s"
    """By how much the next look at the rollout is overdue; 0 without one."""

    @property
    def is_of_traffic(self) -> bool:
        """Whether it is measured on what pods report of late."""
        return self not in {AlertMetric.DRIFT_PSI, AlertMetric.STAGE_AGE_S, AlertMetric.DECISION_LAG_S}


class AlertRulePolicy(PolicyPart):
    """A rule: it fires while a metric is above or below a limit."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    metric: AlertMetric
    above: float | None = None
    below: float | None = None
    window_s: float = Field(default=300.0, ge=60, le=LONGEST_WINDOW_S)
    """Measured over so long up to now, in whole minutes; of no meaning to what is measured of a rollout or a report."""
    for_s: float = Field(default=0.0, ge=0, le=86_400)
    """It is pending until it holds for so long."""
    min_count: int = Field(default=20, ge=1, le=1_000_000_000)
    """With fewer requests, pieces of feedback or rows, nothing is said of a share, a percentile, a mean or drift."""
    severity: Severity = Severity.WARNING

    @model_validator(mode="after")
    def _has_one_limit(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError(f"alert rule {self.name} needs one limit: give above or below")
        return self
