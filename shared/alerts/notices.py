"""A notice: what one sink is told in one message.

It holds all that is said, so that it reads the same however often it is sent, and has one id, by which who gets it
twice knows it.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from shared.alerts.documents import Alert
from shared.core.severity import Severity

LISTED = 20
"""Alerts that a notice tells of one by one; of more it tells how many there are."""
MODELS_NAMED = 10
_MOST_CHARACTERS = 600


class News(StrEnum):
    """What is told of an alert."""

    FIRING = "firing"
    REPEATED = "repeated"
    """It still fires, and nobody acknowledged it."""
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Item(BaseModel):
    """An alert that a notice is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alert_id: str
    model: str
    news: News
    number: NonNegativeInt
    """The alert's news up to which this tells."""
    since: AwareDatetime


class Line(Item):
    """What a notice says of an alert."""

    rule: str
    subject: str
    severity: Severity
    sentence: str
    changed_at: AwareDatetime
    count: int
    acknowledged_by: str = ""
    link: str
    """To what shows more; without a public address, the path below the API's."""


class Notice(BaseModel):
    """A message to a sink, and how far its sending has come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    notice_id: str
    at: AwareDatetime
    """When it was made."""
    models: tuple[str, ...]
    """The models that it is about, ten at most."""
    lines: tuple[Line, ...]
    more: tuple[Item, ...] = ()
    """Alerts that it only counts."""
    attempts: NonNegativeInt = 0
    """How often it was tried."""
    try_at: AwareDatetime
    """Nobody tries it before: somebody is at it, or the sink is given time."""
    failed: str = Field(default="", max_length=1_000)
    """Why the last try failed."""
    failures: NonNegativeInt = 0
    """Tries that are known to have failed."""
    refusals: NonNegativeInt = 0
    """Those of them at which the sink was there and refused it."""
    refused_since: AwareDatetime | None = None
    """When it did so first."""

    @property
    def is_untaken(self) -> bool:
        """Whether no try of it may have come through: each failed, and nobody died at one."""
        return self.attempts == self.failures

    @property
    def says_firing(self) -> tuple[Item, ...]:
        """The alerts that it says fire."""
        return tuple(item for item in self.items if item.news in {News.FIRING, News.REPEATED})

    @property
    def items(self) -> tuple[Item, ...]:
        """All alerts that it is about."""
        return (*self.lines, *self.more)

    @property
    def severity(self) -> Severity:
        """The gravest of what it lists."""
        return min((line.severity for line in self.lines), key=lambda severity: severity.rank)

    @property
    def is_all_over(self) -> bool:
        """Whether nothing that it tells of fires any more."""
        return all(item.news is News.RESOLVED for item in self.items)

    @property
    def subject(self) -> str:
        """What it is about, in one line."""
        total = len(self.items)
        named = ", ".join(model for model in self.models if model != "-") or "Slipway"
        if total == 1:
            (line,) = self.lines
            return f"[{line.news}] {line.rule} of {line.subject} ({line.severity})"
        over = sum(item.news is News.RESOLVED for item in self.items)
        counted = [f"{count} {word}" for count, word in ((total - over, "firing"), (over, "resolved")) if count]
        return f"[{' and '.join(counted)}] {total} alerts of {named}"

    @property
    def closing(self) -> str:
        """How many alerts it does not list; empty where it lists all."""
        return f"and {len(self.more)} more: `slipway alerts list`" if self.more else ""


def line_of(alert: Alert, news: News, *, public_url: str) -> Line:
    """What is said of an alert now."""
    page = alert.evidence.get("page")
    path = page if isinstance(page, str) and page else f"alerts/{quote(alert.id, safe='')}"
    sentence = alert.sentence
    return Line(
        alert_id=alert.id,
        model=alert.model,
        news=news,
        number=alert.news,
        since=alert.since,
        rule=alert.rule.value,
        subject=alert.subject,
        severity=alert.severity,
        sentence=sentence if len(sentence) <= _MOST_CHARACTERS else f"{sentence[:_MOST_CHARACTERS]}…",
        changed_at=alert.changed_at,
        count=alert.count,
        acknowledged_by=alert.acknowledged.by if alert.acknowledged else "",
        link=f"{public_url}/{path.lstrip('/')}" if public_url else f"/api/{path.lstrip('/')}",
    )


def item_of(alert: Alert, news: News) -> Item:
    """An alert that is counted only."""
    return Item(alert_id=alert.id, model=alert.model, news=news, number=alert.news, since=alert.since)


def halves(notice: Notice, now: datetime) -> tuple[Notice, Notice]:
    """Two notices that say together what one says, untried. They keep how often it was refused, and since when."""
    middle = len(notice.lines) // 2
    parts = (notice.lines[:middle], ()), (notice.lines[middle:], notice.more)
    first, second = (
        notice.model_copy(
            update={
                "notice_id": f"{notice.notice_id}-{number}",
                "models": tuple(dict.fromkeys(item.model for item in (*lines, *more)))[:MODELS_NAMED],
                "lines": lines,
                "more": more,
                "attempts": 0,
                "failures": 0,
                "try_at": now,
            }
        )
        for number, (lines, more) in enumerate(parts, start=1)
    )
    return first, second


def gravest_first(told: Iterable[tuple[Alert, News]]) -> list[tuple[Alert, News]]:
    """What fires before what is over, the gravest first, and of these the oldest."""
    return sorted(told, key=lambda one: (one[1] is News.RESOLVED, one[0].severity.rank, one[0].since, one[0].id))
