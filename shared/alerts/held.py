"""What a mailbox holds: news that waits, what the sink was told, how it fails; and what is to become of the news."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from shared.alerts.documents import Alert
from shared.alerts.notices import News


class Waiting(BaseModel):
    """News that waits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    number: NonNegativeInt
    withheld_by: str = ""
    """The silence that holds it back."""
    at: AwareDatetime | None = None
    """Since when there has been something to tell."""


class Told(BaseModel):
    """What the sink was told last of an alert."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    news: Literal[News.FIRING, News.ACKNOWLEDGED, News.RESOLVED]
    number: NonNegativeInt
    since: AwareDatetime
    """When the alert began to fire, the time that it was told of."""
    at: AwareDatetime
    model: str
    is_quiet: bool = False
    """Nothing was sent: somebody had acknowledged it first."""


class Failing(BaseModel):
    """The sink has taken nothing since."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: AwareDatetime
    last: AwareDatetime | None = None
    """When it was tried last; None: that was not kept."""
    tries: NonNegativeInt
    why: str = Field(max_length=1_000)


class Dropped(BaseModel):
    """The last notice that was given up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    notice_id: str
    at: AwareDatetime
    alerts: NonNegativeInt
    """How many it was about."""
    status: int
    why: str = Field(max_length=1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to become of the news in a mailbox."""

    groups: list[list[tuple[Alert, News]]] = field(default_factory=list)
    """To be told now, a group for each model, the gravest first."""
    withheld: dict[str, str] = field(default_factory=dict)
    """Silenced: the silence of each alert."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Nobody need be told: of each alert, the number of the news that this was found of."""
    quiet: dict[str, Told] = field(default_factory=dict)
    """Acknowledged before anything was sent."""
