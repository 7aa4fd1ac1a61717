"""Tells sinks of alerts: news is taken into each sink's mailbox, and from there sent, until the sink has it.

Called by message when there is news, and by timer for what is to be tried again, repeated, or no longer silenced.
Several calls at once do no harm: every step is one conditional write, and a notice is claimed before it is sent. A call
that dies leaves what it had begun to the next. One sink's trouble keeps no other from being told; what a sink does not
take stays in its mailbox, and an alert says so.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from pydantic import ValidationError

from shared.alerts.documents import Alert, AlertState
from shared.alerts.held import Plan
from shared.alerts.mailbox import REFUSALS, Mailbox
from shared.alerts.notices import Notice
from shared.alerts.planning import next_notice, plan_of, unwanted
from shared.alerts.ports import Alerts
from shared.alerts.silences import Silence
from shared.alerts.sink_alerts import settle_sinks
from shared.core.alert_settings import AlertSettings, AlertSink
from shared.core.clock import Clock
from shared.core.messages import TellNews
from shared.events.posting import BusyError, RefusedError
from shared.registration.documents import NO_MODEL
from shared.store.repository import Repository

AT_ONCE = 50
"""Notices that a call sends to a sink at most."""
_ONE_BY_ONE = 50

_log = logging.getLogger(__name__)


class NoticeSink(Protocol):
    """Takes notices. One may come twice, under the same id."""

    def post(self, notice: Notice) -> None:
        """Hand over a notice; on return the sink has it. Raises UnavailableError, after which it may have it too:
        RefusedError where the same again will hardly pass, BusyError where it says how long to wait.
        """
        ...


class SilencedAlerts(Alerts, Protocol):
    """What is asked and told of alerts."""

    def silences(self) -> list[Silence]:
        """The silences in force, and those that are to come."""
        ...

    def expire_silences(self) -> int:
        """Note which silences have run out."""
        ...


class NotificationService:
    """Tells sinks."""

    def __init__(
        self,
        *,
        alerts: Repository[Alert],
        mailboxes: Repository[Mailbox],
        service: SilencedAlerts,
        sinks: Mapping[str, NoticeSink],
        settings: AlertSettings,
        clock: Clock,
    ) -> None:
        """`sinks` are those of the settings, by name."""
        self._alerts = alerts
        self._mailboxes = mailboxes
        self._service = service
        self._sinks = dict(sinks)
        self._settings = settings
        self._clock = clock

    def tell(self, message: TellNews) -> None:
        """Tell the sinks of an alert, and of what else is news. What a call before this took in is left to it."""
        alert = self._alerts.find(message.model, message.alert_id)
        if alert is None or not alert.news_pending or not self._settings.sinks:
            return
        # Other news is taken along, however fresh, so that the messages of a storm after the first have little to do.
        self._take_in(list(self._alerts.readable(news_pending=True)))
        self._send_all()

    def settle(self) -> None:
        """Tell the sinks what there is to tell, and have alerts say which of them take nothing."""
        if not self._settings.sinks:
            return
        waited = self._clock.now() - timedelta(seconds=self._settings.group_wait_s)
        news = list(self._alerts.readable(news_pending=True))
        if any(alert.changed_at <= waited for alert in news):
            self._take_in(news)
        self._open()
        self._service.expire_silences()
        self._send_all()
        now = self._clock.now()
        settle_sinks(self._service, self.mailboxes(), now)

    def mailboxes(self) -> dict[str, Mailbox]:
        """The mailboxes of the sinks, by sink; without those that cannot be read, or are not there yet."""
        found = {sink.name: self._mailbox(sink) for sink in self._settings.sinks}
        return {sink: box for sink, box in found.items() if box}

    def _take_in(self, alerts: list[Alert]) -> None:
        """Put news into the mailboxes, and then note that it is there. What one has no room for stays news."""
        left: set[str] = set()
        for sink in self._settings.sinks:
            try:
                box = self._opened(sink)
                take_in = partial(Mailbox.take_in, alerts=alerts, sink=sink, now=self._clock.now())
                box = self._mailboxes.change(box.partition, box.id, take_in)
                left |= {alert.id for alert in alerts if not box.has(alert, sink)}
            except Exception:  # noqa: BLE001 - whatever is wrong with one mailbox, the others take it in
                _log.exception("the mailbox of the sink %s takes no news in", sink.name)
                left |= {alert.id for alert in alerts}
        if left:
            _log.warning("the news of %s alerts waits for room in a mailbox", len(left))
        for alert in alerts:
            if alert.id not in left:
                self._alerts.change(alert.partition, alert.id, partial(_is_taken, taken=alert.news))

    def _open(self) -> None:
        """Give each new sink its mailbox."""
        for sink in self._settings.sinks:
            try:
                self._opened(sink)
            except Exception:  # noqa: BLE001 - whatever is wrong with one mailbox, the others are opened
                _log.exception("the mailbox of the sink %s is not opened", sink.name)

    def _opened(self, sink: AlertSink) -> Mailbox:
        """A sink's mailbox. A new one holds what already fires, other than what is news to all."""
        found = self._mailboxes.find(NO_MODEL, f"mailbox-{sink.name}")
        if found is not None:
            return found
        new = Mailbox(id=f"mailbox-{sink.name}", sink=sink.name)
        firing = self._alerts.readable(state=AlertState.FIRING.value, news_pending=False)
        new.take_in(firing, sink, self._clock.now())
        return self._mailboxes.find_or_create(new)

    def _send_all(self) -> None:
        for sink in self._settings.sinks:
            try:
                self._send(sink)
            except Exception:  # noqa: BLE001 - whatever is wrong with one sink, the others are told
                _log.exception("the sink %s of alerts is told later", sink.name)

    def _send(self, sink: AlertSink) -> None:
        known: dict[str, Alert | None] = {}
        for _ in range(AT_ONCE):
            # Posts take their time: somebody may have silenced alerts meanwhile.
            silences = self._service.silences()
            self._take_back(sink, silences, known)
            notice = self._next(sink, silences, known)
            if notice is None:
                return
            try:
                self._sinks[sink.name].post(notice)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a sink, its notice stays
                self._note_failure(sink, notice, error)
                return
            now = self._clock.now()
            self._change(sink, partial(Mailbox.finish, notice=notice, now=now))

    def _note_failure(self, sink: AlertSink, notice: Notice, error: Exception) -> None:
        _log.warning("the sink %s of alerts did not take %s: %s", sink.name, notice.notice_id, error)
        why = " ".join(str(error).split()) or type(error).__name__
        refused = error.status if isinstance(error, RefusedError) else None
        wait_s = error.retry_after_s if isinstance(error, BusyError) else 0.0
        now = self._clock.now()
        noted = partial(Mailbox.fail, notice=notice, why=why, now=now, refused=refused, retry_after_s=wait_s)
        box = self._change(sink, noted)
        if box.dropped and box.dropped.notice_id == notice.notice_id:
            _log.error(
                "%s to the sink %s of alerts is dropped after %d refusals", notice.notice_id, sink.name, REFUSALS
            )

    def _take_back(self, sink: AlertSink, silences: list[Silence], known: dict[str, Alert | None]) -> None:
        """Withdraw the notice that waits to be tried again where alerts in it were silenced or acknowledged since."""
        box, now = self._mailbox(sink), self._clock.now()
        notice = box.notice if box else None
        if notice is None or now < notice.try_at or not notice.is_untaken:
            return
        known |= self._load({item.alert_id: item.model for item in notice.says_firing})
        found = unwanted(notice, known, silences, now)
        if found:
            self._change(sink, partial(Mailbox.withdraw, notice=notice, unwanted=found, now=now))

    def _next(self, sink: AlertSink, silences: list[Silence], known: dict[str, Alert | None]) -> Notice | None:
        """The next notice for a sink, claimed for this call; None where there is none to send.

        `known` holds the alerts that were read for the notices before, and then those read for this one. Of news that
        another call takes in after that, nothing is said: it waits for the next notice, or the other call.
        """
        box, now = self._mailbox(sink), self._clock.now()
        needed = {} if box is None or box.notice is not None else box.needs(now, sink)
        if box is None or (box.notice is None and not needed):
            return None
        known |= self._load(
            {key: model for key, model in needed.items() if key not in known or box.is_after(known[key])}
        )
        plans: list[Plan] = []
        claimed: list[Notice] = []

        def claim(box: Mailbox) -> bool:
            plans.clear()
            claimed.clear()
            is_changed = False
            if box.notice is None and box.needs(now, sink):
                plan = plan_of(box, known, silences, sink, now)
                plans.append(plan)
                is_changed = box.begin(plan, next_notice(box, plan, sink, now, public_url=self._settings.public_url))
            notice = box.claim(now)
            claimed.extend([notice] if notice else [])
            return is_changed or notice is not None

        self._change(sink, claim)
        for plan in plans:
            self._note_silences(known, plan, claimed, now)
        return claimed[0] if claimed else None

    def _load(self, needed: Mapping[str, str]) -> dict[str, Alert | None]:
        """The alerts that are needed, as they stand; None where there is none. `needed` has the model of each."""
        found: dict[str, Alert | None] = {}
        if len(needed) > _ONE_BY_ONE:
            found = {alert.id: alert for alert in self._alerts.readable(state=AlertState.FIRING.value)}
        for alert_id, model in needed.items():
            found[alert_id] = found.get(alert_id) or self._alerts.find(model, alert_id)
        return found

    def _note_silences(self, alerts: dict[str, Alert | None], plan: Plan, claimed: list[Notice], now: datetime) -> None:
        """Have the alerts say which silence holds their news back, and that none does any more."""
        told = {item.alert_id: None for notice in claimed for item in notice.items}
        for alert_id, silence in (told | plan.withheld).items():
            alert = alerts.get(alert_id)
            if alert is not None and alert.silenced_by != silence:
                noted = self._alerts.change(alert.partition, alert.id, partial(_is_noted, silence=silence, now=now))
                alerts[alert_id] = noted

    def _mailbox(self, sink: AlertSink) -> Mailbox | None:
        """A sink's mailbox; None where there is none yet, or where it cannot be read."""
        try:
            return self._mailboxes.find(NO_MODEL, f"mailbox-{sink.name}")
        except ValidationError:
            _log.exception("the mailbox of the sink %s cannot be read: it is told when that is mended", sink.name)
            return None

    def _change(self, sink: AlertSink, decide: Callable[[Mailbox], bool]) -> Mailbox:
        return self._mailboxes.change(NO_MODEL, f"mailbox-{sink.name}", decide)


def _is_taken(alert: Alert, taken: int) -> bool:
    """Note that an alert's news up to a number is in the mailboxes."""
    if not alert.news_pending or alert.news > taken:
        return False
    alert.news_pending = False
    return True


def _is_noted(alert: Alert, silence: str | None, now: datetime) -> bool:
    """Note which silence holds the news of an alert back."""
    if alert.silenced_by == silence:
        return False
    alert.silenced_by = silence
    alert.record("alert_silenced" if silence else "alert_unsilenced", now, silence=silence or "")
    return True
