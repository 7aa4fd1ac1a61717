"""What watching keeps: how each serving version stands, its reports, and the requests for retraining.

A serving version in a role has one document, which holds its latest report, what its detectors know and which alarms
stand. Each report stays as a record of its own, archived by the change that made it the latest.
"""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from shared.core.verdict import Outcome
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

RETRAINING_ID = "retraining"


class Against(StrEnum):
    """What traffic was held against."""

    REFERENCE = "reference"
    """The reference data that the version was validated with."""
    CONCURRENT = "concurrent"
    """What the stable version saw in the same hours."""


class Alarm(StrEnum):
    """What can be wrong with a serving version."""

    DATA_DRIFT = "data_drift"
    CONCURRENT_DRIFT = "concurrent_drift"
    SLOW_DRIFT = "slow_drift"
    PERFORMANCE_DROP = "performance_drop"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DriftedFeature(_Part):
    """A feature that drifted, with the figures of it."""

    name: str
    psi: float
    q_value: float
    effect: float


class DriftFinding(_Part):
    """What was found of one version in one role against one reference: what alerts and the rollout's tick read."""

    model: str
    endpoint: str
    version: int
    role: str
    against: Against
    outcome: Outcome
    sentence: str
    features: tuple[DriftedFeature, ...] = ()
    """Those that drifted, the most to blame first."""
    rows: NonNegativeInt = 0
    report_id: str
    at: AwareDatetime


class Measure(StrEnum):
    """What performance is measured by."""

    ACCURACY = "accuracy"
    ABSOLUTE_ERROR = "mean absolute error"


class EstimateSummary(_Part):
    """What is estimated of a version's performance without labels, in the unit of `measure`."""

    measure: Measure
    value: float
    may_gate: bool
    miss: float | None = None
    """What recent estimates missed by, beyond chance; None: no labels to tell by."""


class ReportSummary(_Part):
    """A report, but for the figures of each feature, which stand in its blobs of the reports container."""

    report_id: str
    since: AwareDatetime
    until: AwareDatetime
    """It is of the rows counted in these whole hours; the last may not be over."""
    made_at: AwareDatetime
    rows: NonNegativeInt
    asked: NonNegativeInt | None = None
    """Of how many rows these are those that the pods counted; None: it was not looked at."""
    outcome: Outcome
    findings: tuple[DriftFinding, ...]
    most_to_blame: tuple[DriftedFeature, ...]
    """The inputs that lie farthest from the reference, whether they drifted or not, the farthest first."""
    sentences: tuple[str, ...]
    """What was found, a sentence a verdict."""
    psi: dict[str, float] = Field(default_factory=dict)
    """Of each feature against the reference, by its name."""
    psi_noise: dict[str, float] = Field(default_factory=dict)
    """Below which that of each stays without drift, nearly always. Of none where the report is older than that it was
    kept here.
    """
    estimate: EstimateSummary | None = None
    """None: there is none, or the report is older than that it was kept here."""
    report_blob: str
    page_blob: str


class Episode(_Part):
    """An alarm that stands, from the report that raised it on."""

    since: AwareDatetime
    seen: AwareDatetime
    """Up to where the latest report reaches that found it."""
    passes: NonNegativeInt = 0
    """Hourly reports since then that found nothing."""
    sentence: str
    features: tuple[str, ...] = ()
    """Those that drifted when it began, the most to blame first."""
    report_id: str
    """The report that raised it."""
    may_follow: bool = False
    """Whether something may follow for a rollout: inputs drifted, in as many rows and hours as the policy asks for."""


class Span(_Part):
    """Some hours."""

    since: AwareDatetime
    until: AwareDatetime


class DriftReport(Aggregate):
    """A version in a role, as it is watched, with its latest report."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["drift_report"] = "drift_report"
    model: str
    endpoint: str
    version: int
    role: str
    latest: ReportSummary | None = None
    hourly_until: AwareDatetime | None = None
    """Up to where the last hourly report reaches. The next one reaches an hour or more farther."""
    slow_until: AwareDatetime | None = None
    """Up to which hour the detector of slow drift was fed."""
    slow_blob: str | None = None
    """Where its state lies in the reports container."""
    alarms: dict[Alarm, Episode] = Field(default_factory=dict)
    is_alarming: bool = False
    counts_from: AwareDatetime | None = None
    """Of a candidate or a shadow: what was counted before its hour is another rollout's."""
    alarmed: tuple[Span, ...] = ()
    """Hours in which an alarm stood: nothing is learned from them. The latest only."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"drift_report:{self.model}:{self.version}:{self.role}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model


class DriftRecord(BaseModel):
    """A report, archived as a document."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: str
    kind: Literal["drift_record"] = "drift_record"
    model: str
    endpoint: str
    version: int
    role: str
    report: ReportSummary


class RetrainingState(StrEnum):
    """How a request for retraining stands."""

    OPEN = "open"
    TAKEN = "taken"
    """Somebody, or a training job, works on it."""
    DONE = "done"
    REFUSED = "refused"

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self in {RetrainingState.DONE, RetrainingState.REFUSED}


class RetrainingRequest(BaseModel):
    """A request for retraining: one for one cause."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str
    """Made of the cause: the model, the version, what was wrong with it, and since when."""
    version: int
    alarm: Alarm
    features: tuple[str, ...]
    sentence: str
    report_id: str
    episode_since: AwareDatetime
    at: AwareDatetime
    state: RetrainingState = RetrainingState.OPEN
    changed_at: AwareDatetime
    by: str = "policy"
    reason: str = ""


class Retraining(Aggregate):
    """The requests for retraining of one model. One document, so that cooldown and budget hold whoever asks."""

    container: ClassVar[Container] = Container.REPORTS

    id: str = RETRAINING_ID
    kind: Literal["retraining"] = "retraining"
    model: str
    requests: list[RetrainingRequest] = Field(default_factory=list)
    """The latest, in the order of their making."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"retraining:{self.model}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model


def drift_report_id(version: int, role: str) -> str:
    """The id of the document of a version in a role."""
    return f"drift-{version:09d}-{role}"
