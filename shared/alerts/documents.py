"""The alert's document: something that a person should look at, and whether it still holds.

An alert is known by its rule and its subject: the same trouble with the same thing is one alert, however often it is
found. Who is told of it, and how, is not decided here.
"""

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

from shared.core.canonical import digest_of
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


class AlertState(StrEnum):
    """Whether the trouble holds."""

    FIRING = "firing"
    RESOLVED = "resolved"


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
    sentence: str
    """What was found last, and what to do; once it is resolved, why it is."""
    evidence: dict[str, Any] = Field(default_factory=dict)
    since: AwareDatetime
    """When it began to fire, the last time."""
    changed_at: AwareDatetime
    count: int = 1
    """How often something new was found since then. The same finding seen again is nothing new."""

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
