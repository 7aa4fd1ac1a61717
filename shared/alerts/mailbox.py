"""A sink's mailbox: the news that waits for it, the notice that is under way, and what it was told.

- News is taken in once, by its number, and leaves only in a notice, or where nobody need be told: it is silenced and
  over, or somebody acknowledged the alert before anything was sent.
- One notice is under way at a time. It is stored before it is sent, and struck out after: a process that dies between
  has it sent again, under its id. While the sink takes nothing, what is new waits, and is told together later.
- What fired and was told is told to be over, once. What fired and was over before it could be told is told too.
- A notice that the sink refuses as often and as long as is said below is halved, and so is a half that it refuses, till
  what is refused is about one alert. That is dropped, with a record; while it fires, it is told again by and by. A
  notice that the sink does not take because it is down is tried without end.

Pure: shared.alerts.notifications loads, decides by this, and saves.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field, NonNegativeInt

from shared.alerts.documents import Alert
from shared.alerts.held import Dropped, Failing, Plan, Told, Waiting
from shared.alerts.notices import Item, News, Notice, halves
from shared.core.alert_settings import AlertSink
from shared.registration.documents import NO_MODEL
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

LEASE = timedelta(minutes=5)
"""How long who sends a notice has for it, before it is taken for lost."""
IS_DOWN_AFTER = 3
"""So many tries fail in a row before a sink counts as down."""
REFUSALS = 10
REFUSED_FOR = timedelta(hours=6)
"""A notice is given up that its sink refused so often, the first time so long ago: what is to be mended at the sink, or
in its settings, has had its time, and what waits behind it is not kept any longer.
"""
_KNOWN_DOWN_FOR = timedelta(days=1)
"""So long after its last try a sink that nothing is to be told to counts as down."""
_LONGEST_ASKED = timedelta(hours=1)
"""How long a sink may ask to be left alone."""
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(minutes=30)
_KEPT = timedelta(days=1)
"""How long it is kept that somebody was told that an alert is over: its news may be taken in again."""
_KEPT_AT_LEAST = timedelta(hours=1)
"""So long it is kept even where there is no room: longer than a call may take, which may take news in again."""
MOST = 2_500
"""Alerts that a mailbox holds: a document has 2 MB at most. Of more, the news stays with them until there is room."""


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
    parts: tuple[Notice, ...] = ()
    """The other parts of one that was halved: they follow."""
    notices: NonNegativeInt = 0
    failing: Failing | None = None
    dropped: Dropped | None = None
    notices_dropped: NonNegativeInt = 0
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

    def is_down(self, now: datetime) -> bool:
        """Whether the sink takes nothing. Where there is nothing to tell it for a day, nobody knows."""
        if self.failing is None or self.failing.tries < IS_DOWN_AFTER:
            return False
        return self.waits > 0 or now - (self.failing.last or self.failing.since) < _KNOWN_DOWN_FOR

    @property
    def waits(self) -> int:
        """Of how many alerts the sink is to be told that no silence holds back."""
        return len(self._under_way.keys() | {key for key, one in self.waiting.items() if not one.withheld_by})

    @property
    def waits_since(self) -> datetime | None:
        """Since when the oldest news waits that no silence holds back; None where none does."""
        begun = [one.at for one in (self.notice, *self.parts) if one]
        begun += [one.at for one in self.waiting.values() if one.at and not one.withheld_by]
        return min(begun, default=None)

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
                withheld_by, at = (waits.withheld_by, waits.at) if waits else ("", alert.changed_at)
                new[alert.id] = Waiting(model=alert.model, number=alert.news, withheld_by=withheld_by, at=at)
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

    def begin(self, plan: Plan, notice: Notice | None) -> bool:
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

    def fail(
        self, notice: Notice, why: str, now: datetime, *, refused: int | None = None, retry_after_s: float = 0.0
    ) -> bool:
        """Note that the sink did not take the notice: refused with a status, or not. False where it is under way no
        more.
        """
        if self.notice is None or self.notice.notice_id != notice.notice_id:
            return False
        why = why[:1_000]
        failing = self.failing or Failing(since=now, tries=0, why=why)
        self.failing = Failing(since=failing.since, last=now, tries=failing.tries + 1, why=why)
        asked = min(_LONGEST_ASKED, timedelta(seconds=retry_after_s))
        wait = max(asked, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(10, max(0, self.notice.attempts - 1))))
        update = {"try_at": now + wait, "failed": why, "failures": self.notice.failures + 1}
        if refused is not None:
            update |= {"refusals": self.notice.refusals + 1, "refused_since": self.notice.refused_since or now}
        self.notice = self.notice.model_copy(update=update)
        since = self.notice.refused_since
        if refused is not None and since and self.notice.refusals >= REFUSALS and now - since >= REFUSED_FOR:
            self._give_up(self.notice, refused, now)
        return True

    def withdraw(self, notice: Notice, unwanted: Collection[str], now: datetime) -> bool:
        """Take back a notice that no sink has, for alerts of which nobody is to be told any more: what it says waits
        again, and is told anew without them. False where it may be at the sink, or somebody is at it.
        """
        held = self.notice
        if held is None or held.notice_id != notice.notice_id or now < held.try_at or not held.is_untaken:
            return False
        self._wait_again(held.items, held.at)
        self._go_on()
        self.record("notice_withdrawn", now, notice_id=held.notice_id, unwanted=sorted(unwanted))
        return True

    def finish(self, notice: Notice, now: datetime) -> bool:
        """Note that the sink has the notice. False where that is known."""
        if self.notice is None or self.notice.notice_id != notice.notice_id:
            return False
        self._take_for_told(notice, now)
        self.failing = None
        self.sent_at = (*(at for at in self.sent_at if now - at < _KEPT), now)
        listed = [line.alert_id for line in notice.lines]
        self.record(
            "notice_sent", now, notice_id=notice.notice_id, subject=notice.subject, alerts=listed, more=len(notice.more)
        )
        return True

    def _give_up(self, notice: Notice, status: int, now: datetime) -> None:
        """Drop a notice of one alert; of one of several, send the halves, so that none takes the others along."""
        if len(notice.lines) > 1:
            parts = halves(notice, now)
            self.notice, self.parts = parts[0], (*parts[1:], *self.parts)
            self.record("notice_halved", now, notice_id=notice.notice_id, parts=[part.notice_id for part in parts])
            return
        if self.failing and now - self.failing.since < REFUSED_FOR:
            # The sink took something meanwhile: it is not that it refuses whatever it is sent.
            self._wait_again(notice.more, notice.at)
            notice = notice.model_copy(update={"more": ()})
        self._drop(notice, status, now)

    def _drop(self, notice: Notice, status: int, now: datetime) -> None:
        """What the notice says fires counts as told: while it fires, it is told again when it is repeated."""
        self._take_for_told(notice, now)
        self.notices_dropped += 1
        alerts = [item.alert_id for item in notice.items]
        self.dropped = Dropped(notice_id=notice.notice_id, at=now, alerts=len(alerts), status=status, why=notice.failed)
        self.record(
            "notice_dropped",
            now,
            sink=self.sink,
            notice_id=notice.notice_id,
            subject=notice.subject,
            alerts=alerts,
            status=status,
            refusals=notice.refusals,
            why=notice.failed,
            hint="mend the sink or its settings; `slipway alerts show` tells of each of the alerts",
        )

    def _take_for_told(self, notice: Notice, now: datetime) -> None:
        self._forget(now - _KEPT)
        told = dict(self.told)
        for item in notice.items:
            news = News.FIRING if item.news is News.REPEATED else item.news
            told[item.alert_id] = Told(news=news, number=item.number, since=item.since, at=now, model=item.model)
        self.told = told
        self._go_on()

    def _wait_again(self, items: Iterable[Item], since: datetime) -> None:
        """Have what a notice said wait for another."""
        again = dict(self.waiting)
        for item in items:
            # What is only repeated is due again by itself.
            if item.news is not News.REPEATED and item.alert_id not in again:
                again[item.alert_id] = Waiting(model=item.model, number=item.number, at=since)
        self.waiting = again

    def _go_on(self) -> None:
        """Have the next part be under way, if there is one."""
        self.notice, self.parts = (self.parts[0], self.parts[1:]) if self.parts else (None, ())

    @property
    def _under_way(self) -> dict[str, int]:
        """The alerts that are being told, with the number of their news."""
        notices = (self.notice, *self.parts) if self.notice else ()
        return {item.alert_id: item.number for notice in notices for item in notice.items}

    @property
    def _held(self) -> set[str]:
        """The alerts that are held here."""
        return {*self.told, *self.waiting, *self._under_way}

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
        notices = (self.notice, *self.parts) if self.notice else ()
        under_way = (item.number for one in notices for item in one.items if item.alert_id == alert_id)
        return max(told.number if told else 0, waits.number if waits else 0, *under_way, 0)


def _concerns(alert: Alert, sink: AlertSink) -> bool:
    """Whether a sink is to be told of an alert at all."""
    is_grave = alert.severity.rank <= sink.severity.rank
    return is_grave and any(fnmatchcase(alert.model, pattern) for pattern in sink.models)
