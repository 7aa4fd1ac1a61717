"""The alert's document: something that a person should look at, whether it still holds, and who has seen it.

An alert is known by its rule and its subject: the same trouble with the same thing is one alert, however often it is
found. Of what people are told, the document only says that there is something new (`news`); who is told of it, when and
how, is for shared.alerts.notifications.
"""

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of
from shared.core.severity import Severity
from shared.store.aggregate import Aggregate
from shared.store.ports import Container


class AlertRule(StrEnum):
    """What an alert is about."""

    ARTIFACT_ALTERED = "artifact_altered"
    """A stored part of a version is not what was registered, or is gone."""
    DEAD_LETTERS = "dead_letters"
    """Messages of a queue failed for the last time, and wait for somebody to look."""
    ROLLOUT_ROLLED_BACK = "rollout_rolled_back"
    """An endpoint's latest rollout was taken back because its version failed."""
    ROLLOUT_HELD = "rollout_held"
    """A rollout goes on only when somebody says so: nothing could be concluded, or be asked."""
    APPROVAL_OVERDUE = "approval_overdue"
    """A rollout awaits an approval for longer than an approval link holds."""
    VERSION_UNLOADABLE = "version_unloadable"
    """A pod cannot load the version that is being rolled out."""
    PLAN_UNAPPLIED = "plan_unapplied"
    """A pod goes on with a plan whose candidate was taken back a while ago."""
    VERSION_QUARANTINED = "version_quarantined"
    """A version failed, and no rollout of it begins until somebody clears it."""
    DATA_DRIFT = "data_drift"
    """What a serving version is asked or answers is not as its reference data were."""
    CONCURRENT_DRIFT = "concurrent_drift"
    """A candidate or a shadow is asked or answers otherwise than stable does in the same hours."""
    SLOW_DRIFT = "slow_drift"
    """Small drifts of a serving version that last."""
    PERFORMANCE_DROP = "performance_drop"
    """A serving version answers worse than when it was validated, by labels or by a calibrated estimate."""
    ERROR_RATE = "error_rate"
    """Too many of an endpoint's requests fail."""
    SLOW = "slow"
    """An endpoint's 95th percentile latency is too long."""
    UNHEALTHY = "unhealthy"
    """Pods of an endpoint cannot load a version, took one out of traffic, died, or report no more."""
    RESOURCES = "resources"
    """A pod of an endpoint is about to run out of memory, or pods refuse requests for want of capacity."""
    POLICY = "policy"
    """A rule of the model's own policy."""
    STAGE_OVERDUE = "stage_overdue"
    """A stage of a rollout lasts longer than it may."""
    DECISION_LATE = "decision_late"
    """Nothing has looked at a rollout for too long."""
    OUTBOX_STUCK = "outbox_stuck"
    """What a change called for is not delivered."""
    PLAN_ASTRAY = "plan_astray"
    """Storage does not hold the plan that an endpoint calls for: what it says is passed over."""
    COUNTING_BEHIND = "counting_behind"
    """What an endpoint's pods report is not counted: no alert on its traffic can be told."""
    SINK_DOWN = "sink_down"
    """A sink of alerts does not take what it is sent."""
    NOTICE_DROPPED = "notice_dropped"
    """A sink of alerts refused a message for so long that it was given up: somebody was not told."""


class AlertState(StrEnum):
    """Whether the trouble holds."""

    PENDING = "pending"
    """It holds, and not yet for as long as its rule asks. Nobody is told."""
    FIRING = "firing"
    RESOLVED = "resolved"


SEVERITIES = {
    AlertRule.ERROR_RATE: Severity.CRITICAL,
    AlertRule.SLOW: Severity.CRITICAL,
    AlertRule.UNHEALTHY: Severity.CRITICAL,
    AlertRule.RESOURCES: Severity.CRITICAL,
    AlertRule.ARTIFACT_ALTERED: Severity.CRITICAL,
    AlertRule.PLAN_ASTRAY: Severity.CRITICAL,
    AlertRule.NOTICE_DROPPED: Severity.CRITICAL,
    AlertRule.VERSION_QUARANTINED: Severity.INFO,
}
"""How grave an alert of a rule is; of those that are not named here: a warning."""


class Acknowledgement(BaseModel):
    """Somebody has seen an alert. It holds until the alert changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str
    at: AwareDatetime
    reason: str = ""


class Alert(Aggregate):
    """A trouble with a subject, now or before."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["alert"] = "alert"
    model: str
    """The model that it concerns; `-` where it is about none."""
    rule: AlertRule
    subject: str
    """What it is about, as in `version:digits:3` or `queue:validations`."""
    state: AlertState = AlertState.FIRING
    severity: Severity = Severity.WARNING
    sentence: str
    """What was found last, and what to do; once it is resolved, why it is."""
    evidence: dict[str, Any] = Field(default_factory=dict)
    """What was found. A text under `page` is the path, below the API's address, of what shows more."""
    since: AwareDatetime
    """When it began to fire, or to be pending, the last time."""
    changed_at: AwareDatetime
    count: int = 1
    """How often something new was found since then. The same finding seen again is nothing new."""
    acknowledged: Acknowledgement | None = None
    silenced_by: str | None = None
    """The silence that kept the last news of it from being sent."""
    news: int = 0
    """Numbers what there is to be told of it: that it fires, is acknowledged, is over."""
    news_pending: bool = False
    """Whether the latest news has not reached every sink's mailbox yet."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"alert:{self.model}:{self.id.removeprefix('alert-')}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model


def alert_id(rule: AlertRule, subject: str) -> str:
    """The id of an alert: one for each rule and subject."""
    return f"alert-{digest_of([rule.value, subject])[:32]}"
