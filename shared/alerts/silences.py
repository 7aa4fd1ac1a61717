"""A silence: for a time, no sink is told of the alerts that it matches. They fire and are listed all the same."""

import fnmatch
from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.alerts.documents import Alert
from shared.registration.documents import NO_MODEL
from shared.store.aggregate import Aggregate
from shared.store.ports import Container


class Matcher(BaseModel):
    """Which alerts are meant: those that fit every pattern that is given. `*` stands for any text, `?` for a letter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(default="", max_length=100)
    model: str = Field(default="", max_length=100)
    subject: str = Field(default="", max_length=300)

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if not (self.rule or self.model or self.subject):
            raise ValueError("it names no alert: give a rule, a model or a subject, each of which may hold *")
        return self

    def matches(self, alert: Alert) -> bool:
        """Whether an alert is meant."""
        wanted = ((self.rule, alert.rule.value), (self.model, alert.model), (self.subject, alert.subject))
        return all(not pattern or fnmatch.fnmatchcase(found, pattern) for pattern, found in wanted)


class Silence(Aggregate):
    """Somebody does not want to be told for a while, and says why."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["silence"] = "silence"
    model: str = NO_MODEL
    match: Matcher
    by: str
    reason: str
    since: AwareDatetime
    until: AwareDatetime
    is_over: bool = False
    """Whether somebody ended it, or it was found to have run out."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"silence:{self.model}:{self.id.removeprefix('silence-')}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    def holds(self, now: datetime) -> bool:
        """Whether it is in force."""
        return not self.is_over and self.since <= now < self.until


def silence_on(alert: Alert, silences: Iterable[Silence], now: datetime) -> Silence | None:
    """The silence in force that matches an alert and lasts longest, if any."""
    found = [silence for silence in silences if silence.holds(now) and silence.match.matches(alert)]
    return max(found, key=lambda silence: silence.until, default=None)
