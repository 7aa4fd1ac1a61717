"""A sink's mailbox: the news that waits for it, the notice that is under way, and what it was told.

- News is taken in once, by its number, and leaves only in a notice, or where nobody need be told: it is silenced and
  over, or somebody acknowledged the alert before anything was sent.
- One notice is under way at a time. It is stored before it is sent, and struck out after: a process that dies between
  has it sent again, under its id. While the sink takes nothing, what is new waits, and is told together later.
- What fired and was told is told to be over, once. What fired and was over before it could be told is told too.
- Of more groups than the sink may be sent messages, all that are left are told in one.

Pure: shared.alerts.notifications loads, decides by this, and saves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from shared.alerts.documents import Alert, AlertState
from shared.alerts.notices import LISTED, News, Notice, gravest_first, item_of, line_of
from shared.alerts.silences import Silence, silence_on
from shared.core.alert_settings import AlertSink
from shared.core.canonical import digest_of
from shared.registration.documents import NO_MODEL
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

LEASE = timedelta(minutes=5)
"""How long who sends a notice has for it, before it is taken for lost."""
IS_DOWN_AFTER = 3
"""So many tries of a notice fail before its sink counts as down."""
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=30)
_KEPT = timedelta(days=1)
"""How long it is kept that somebody was told that an alert is over: its news may be taken in again."""
_KEPT_AT_LEAST = timedelta(hours=1)
"""So long it is kept even where there is no room: longer than a call may take, which may take news in again."""
_MODELS_NAMED = 10
MOST = 3_000
"""Alerts that a mailbox holds: a document has 2 MB at most. Of more, the news stays with them until there is room."""


class Waiting(BaseModel):
    """News that waits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    number: NonNegativeInt
    withheld_by: str = ""
    """The silence that holds it back."""


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


class Mailbox(Aggregate):
    """One for a sink."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["mailbox"] = "mailbox"
    model: str = NO_MODEL
    sink: str
    waiting: dict[str, Waiting] = Field(default_factory=dict)
    """By alert."""
    told: dict[str, Told] = Field(default_factory=dict)
    """By alert."""
    notice: Notice | None = None
    """The one under way."""
    notices: NonNegativeInt = 0
    sent_at: tuple[AwareDatetime, ...] = ()
    """When notices were sent of late."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"mailbox:{self.model}:{self.sink}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    @property
    def is_down(self) -> bool:
        """Whether the sink takes nothing."""
        return self.notice is not None and bool(self.notice.failed) and self.notice.attempts >= IS_DOWN_AFTER

    def take_in(self, alerts: Iterable[Alert], sink: AlertSink, now: datetime) -> bool:
        """Take news in that the sink is to be told, as far as there is room. Whether anything changed."""
        new: dict[str, Waiting] = {}
        arrived = list(alerts)
        is_less = self._make_room(arrived, now)
        held = self._held
        for alert in arrived:
            waits = self.waiting.get(alert.id)
            is_known = self._number(alert.id) > 0
            has_room = is_known or len(held | new.keys()) < MOST
            if has_room and not self.has(alert, sink):
                withheld_by = waits.withheld_by if waits else ""
                new[alert.id] = Waiting(model=alert.model, number=alert.news, withheld_by=withheld_by)
        if new:
            self.waiting = self.waiting | new
        return bool(new) or is_less

    def has(self, alert: Alert, sink: AlertSink) -> bool:
        """Whether an alert's news is here, or was, or is nothing to the sink."""
        number = self._number(alert.id)
        return number >= alert.news or (number == 0 and not _concerns(alert, sink))

    def needs(self, now: datetime, sink: AlertSink) -> dict[str, str]:
        """The alerts that the next notice may be about, with the model of each."""
        repeat = timedelta(seconds=sink.repeat_s)
        due = {
            key: told.model
            for key, told in self.told.items()
            if told.news is News.FIRING and told.at + repeat <= now and key not in self.waiting
        }
        return {key: waits.model for key, waits in self.waiting.items()} | due

    def begin(self, plan: "Plan", notice: Notice | None) -> bool:
        """Take what a plan says: what need not be told is left out, and a notice gets under way. False: nothing."""
        gone = {item.alert_id: item.number for item in notice.items} if notice else {}
        waiting = {
            key: one
            for key, one in self.waiting.items()
            if one.number > gone.get(key, -1) and one.number > plan.dropped.get(key, -1)
        }
        for key, silence in plan.withheld.items():
            if key in waiting:
                waiting[key] = waiting[key].model_copy(update={"withheld_by": silence})
        told = self.told | plan.quiet
        if notice is None and waiting == self.waiting and told == self.told:
            return False
        self.waiting, self.told = waiting, told
        if notice is not None:
            self.notice, self.notices = notice, self.notices + 1
        return True

    def is_after(self, alert: Alert | None) -> bool:
        """Whether news of an alert was taken in here after it was read."""
        return alert is not None and alert.news < self._number(alert.id)

    def claim(self, now: datetime) -> Notice | None:
        """The notice under way, where it is to be tried now; then nobody else tries it for a while."""
        if self.notice is None or now < self.notice.try_at:
            return None
        self.notice = self.notice.model_copy(update={"try_at": now + LEASE, "attempts": self.notice.attempts + 1})
        return self.notice

    def fail(self, notice: Notice, why: str, now: datetime) -> bool:
        """Note that the sink did not take the notice. False where it is under way no more."""
        if self.notice is None or self.notice.notice_id != notice.notice_id:
            return False
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(10, self.notice.attempts - 1))
        self.notice = self.notice.model_copy(update={"try_at": now + wait, "failed": why[:1_000]})
        return True

    def finish(self, notice: Notice, now: datetime) -> bool:
        """Note that the sink has the notice. False where that is known."""
        if self.notice is None or self.notice.notice_id != notice.notice_id:
            return False
        self._forget(now - _KEPT)
        told = dict(self.told)
        for item in notice.items:
            news = News.FIRING if item.news is News.REPEATED else item.news
            told[item.alert_id] = Told(news=news, number=item.number, since=item.since, at=now, model=item.model)
        self.told, self.notice = told, None
        self.sent_at = (*(at for at in self.sent_at if now - at < _KEPT), now)
        listed = [line.alert_id for line in notice.lines]
        self.record(
            "notice_sent", now, notice_id=notice.notice_id, subject=notice.subject, alerts=listed, more=len(notice.more)
        )
        return True

    @property
    def _held(self) -> set[str]:
        """The alerts that are held here."""
        under_way = {item.alert_id for item in self.notice.items} if self.notice else set()
        return {*self.told, *self.waiting, *under_way}

    def _make_room(self, arrived: Iterable[Alert], now: datetime) -> bool:
        """Forget who was told long ago that an alert is over, where there is no room otherwise. Whether any was."""
        before, wanted = len(self.told), {alert.id for alert in arrived}
        for kept in (_KEPT, _KEPT_AT_LEAST):
            if len(self._held | wanted) > MOST:
                self._forget(now - kept)
        return len(self.told) < before

    def _forget(self, before: datetime) -> None:
        self.told = {key: one for key, one in self.told.items() if one.news is not News.RESOLVED or one.at > before}

    def _number(self, alert_id: str) -> int:
        """The latest news of an alert that was taken in, and is still known of; 0: none."""
        told, waits = self.told.get(alert_id), self.waiting.get(alert_id)
        under_way = (item.number for item in (self.notice.items if self.notice else ()) if item.alert_id == alert_id)
        return max(told.number if told else 0, waits.number if waits else 0, *under_way, 0)


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


def plan_of(
    box: Mailbox,
    alerts: Mapping[str, Alert | None],
    silences: Iterable[Silence],
    sink: AlertSink,
    now: datetime,
) -> Plan:
    """What is to become of the news. `alerts` holds those that the mailbox needs; None: there is no such alert. News of
    one that is not there, or was read before the news was taken in, stays: what to tell of it is not known.
    """
    plan, ready = Plan(), dict[str, list[tuple[Alert, News]]]()
    held = list(silences)
    for key, model in box.needs(now, sink).items():
        if key not in alerts or box.is_after(alerts[key]):
            continue
        alert, waits, told = alerts[key], box.waiting.get(key), box.told.get(key)
        news = _news(alert, told, is_waiting=waits is not None) if alert else None
        if alert is None or news is None:
            plan.dropped[key] = alert.news if alert else waits.number if waits else 0
            if alert and alert.acknowledged and told is None:
                plan.quiet[key] = Told(
                    news=News.ACKNOWLEDGED, number=alert.news, since=alert.since, at=now, model=model, is_quiet=True
                )
            elif alert and told and told.is_quiet and alert.state is not AlertState.FIRING:
                update = {"news": News.RESOLVED, "number": alert.news, "at": now}
                plan.quiet[key] = told.model_copy(update=update)
            continue
        was_told = told is not None and told.news is not News.RESOLVED
        silence = silence_on(alert, held, now)
        if news is News.RESOLVED and not was_told and (silence or (waits and waits.withheld_by)):
            plan.dropped[key] = alert.news
        elif silence and news is not News.RESOLVED:
            plan.withheld[key] = silence.id
        else:
            ready.setdefault(model, []).append((alert, news))
    groups = [gravest_first(told) for told in ready.values()]
    plan.groups.extend(sorted(groups, key=lambda group: (group[0][0].severity.rank, group[0][0].changed_at)))
    return plan


def next_notice(box: Mailbox, plan: Plan, sink: AlertSink, now: datetime, *, public_url: str) -> Notice | None:
    """The notice to send next: of one group, or of all where no more messages are left. None: none is due or left."""
    since = now - timedelta(seconds=sink.per_s)
    left = sink.most - sum(at > since for at in box.sent_at)
    if box.notice is not None or not plan.groups or left <= 0:
        return None
    is_last = left == 1 and len(plan.groups) > 1
    told = gravest_first(one for group in plan.groups for one in group) if is_last else plan.groups[0]
    number = box.notices + 1
    return Notice(
        notice_id=f"notice-{digest_of([sink.name, number, now.isoformat()])[:32]}",
        at=now,
        models=tuple(dict.fromkeys(alert.model for alert, _ in told))[:_MODELS_NAMED],
        lines=tuple(line_of(alert, news, public_url=public_url) for alert, news in told[:LISTED]),
        more=tuple(item_of(alert, news) for alert, news in told[LISTED:]),
        try_at=now,
    )


def _news(alert: Alert, told: Told | None, *, is_waiting: bool) -> News | None:
    """What there is to tell of an alert, by what was told before; None where there is nothing."""
    told = None if told is not None and told.news is News.RESOLVED else told
    if alert.state is not AlertState.FIRING:
        if told is None:
            return News.RESOLVED if alert.state is AlertState.RESOLVED else None
        return None if told.is_quiet else News.RESOLVED
    is_told = told is not None and told.news is News.FIRING
    if alert.acknowledged:
        return News.ACKNOWLEDGED if is_told else None
    if not is_waiting:
        return News.REPEATED
    return None if is_told and told is not None and told.since == alert.since else News.FIRING


def _concerns(alert: Alert, sink: AlertSink) -> bool:
    """Whether a sink is to be told of an alert at all."""
    is_grave = alert.severity.rank <= sink.severity.rank
    return is_grave and any(fnmatchcase(alert.model, pattern) for pattern in sink.models)
