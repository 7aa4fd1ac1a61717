"""Alerts: fired and resolved by what finds trouble; listed, acknowledged and silenced by people.

Fire and resolve say how things stand, and may come again: what is known already changes nothing. Who calls them looks
at the state anew each time, so that a crash between a finding and its alert is made good by the next look. Where there
are sinks, a change that they are to be told of is marked as news by the same write, and a message has them told.
"""

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from shared.alerts.documents import SEVERITIES, Acknowledgement, Alert, AlertRule, AlertState, alert_id
from shared.alerts.silences import Matcher, Silence
from shared.core import tracing
from shared.core.canonical import digest_of
from shared.core.clock import Clock
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.messages import TellNews
from shared.core.severity import Severity
from shared.core.tracing import Value
from shared.registration.documents import NO_MODEL
from shared.store.repository import AggregatePage, Repository
from shared.store.unreadable import Unreadable
from shared.telemetry.names import CLOCK_SKEW

_log = logging.getLogger(__name__)

LONGEST_SILENCE = timedelta(days=90)


class AlertService:
    """Keeps alerts."""

    def __init__(
        self,
        *,
        alerts: Repository[Alert],
        clock: Clock,
        silences: Repository[Silence] | None = None,
        tells_after: timedelta | None = None,
    ) -> None:
        """`tells_after` is how long news waits for more of its kind to be told with; None: there is nobody to tell."""
        self._alerts = alerts
        self._silences = silences
        self._clock = clock
        self._tells_after = tells_after

    def fire(
        self,
        rule: AlertRule,
        subject: str,
        sentence: str,
        *,
        model: str,
        evidence: Mapping[str, Any] | None = None,
        for_s: float = 0.0,
        severity: Severity | None = None,
        looked_at: datetime | None = None,
    ) -> Alert:
        """Say that a trouble holds. The same evidence again changes nothing, however the sentence reads by now, unless
        it is graver.

        With `for_s` the alert is pending until it was said for so long, at whatever times. Where several may look at
        once, `looked_at` tells when the look began (None: now), and what a later look changed stands.
        """
        now = self._clock.now()
        found_at = looked_at or now
        found = dict(evidence or {})
        fresh = Alert(
            id=alert_id(rule, subject),
            model=model,
            rule=rule,
            subject=subject,
            state=AlertState.PENDING if for_s > 0 else AlertState.FIRING,
            severity=severity or SEVERITIES.get(rule, Severity.WARNING),
            sentence=sentence,
            evidence=found,
            since=found_at,
            changed_at=found_at,
        )
        if fresh.state is AlertState.FIRING:
            self._tell(fresh, "alert_fired", now)

        def again(alert: Alert) -> bool:
            if self._is_overtaken(alert, looked_at):
                return False
            was, is_graver = alert.state, fresh.severity.rank < alert.severity.rank
            if was is AlertState.RESOLVED:
                alert.state, alert.since, alert.count = fresh.state, found_at, 0
                alert.acknowledged, alert.silenced_by = None, None
            elif was is AlertState.PENDING:
                if found_at - alert.since < timedelta(seconds=for_s):
                    return False
                alert.state, alert.count = AlertState.FIRING, 0
            elif alert.evidence == found and not is_graver:
                return self._begin_telling(alert, now)
            alert.count += 1
            alert.sentence, alert.evidence, alert.severity = sentence, found, fresh.severity
            alert.changed_at = found_at
            if alert.state is AlertState.PENDING:
                return True
            is_news = was is not AlertState.FIRING or alert.acknowledged is not None or is_graver
            alert.acknowledged = None
            self._tell(alert, "alert_fired", now, is_news=is_news)
            return True

        self._alerts.find_or_create(fresh)
        return _said(self._alerts.change(model, fresh.id, again), found_at)

    def resolve(
        self, rule: AlertRule, subject: str, sentence: str, *, model: str, looked_at: datetime | None = None
    ) -> Alert | None:
        """Say that a trouble is over, and why. None where it never was. `looked_at` is as `fire` has it."""
        now = self._clock.now()
        found_at = looked_at or now

        def end(alert: Alert) -> bool:
            was = alert.state
            if was is AlertState.RESOLVED or self._is_overtaken(alert, looked_at):
                return False
            alert.state, alert.sentence, alert.changed_at = AlertState.RESOLVED, sentence, found_at
            alert.acknowledged = None
            if was is AlertState.FIRING:
                self._tell(alert, "alert_resolved", now)
            return True

        identity = alert_id(rule, subject)
        if self._alerts.find(model, identity) is None:
            return None
        return _said(self._alerts.change(model, identity, end), found_at)

    def firing(self, rule: AlertRule) -> Iterator[Alert]:
        """The alerts of a rule that fire now, as far as they can be read."""
        return self._alerts.readable(rule=rule.value, state=AlertState.FIRING.value)

    def holding(self, rule: AlertRule) -> Iterator[Alert]:
        """The alerts of a rule that fire now, or are pending."""
        yield from self.firing(rule)
        yield from self._alerts.readable(rule=rule.value, state=AlertState.PENDING.value)

    def alerts(self, state: str | None = None, continuation: str | None = None) -> AggregatePage[Alert]:
        """A page of all alerts, or of those in a state. Raises InvalidInputError."""
        if state is None:
            return self._alerts.page(continuation=continuation)
        if state not in set(AlertState):
            raise InvalidInputError(f"{state[:40]!r} is not an alert's state: use {' or '.join(AlertState)}")
        return self._alerts.page(continuation=continuation, state=state)

    def alert(self, identity: str) -> Alert:
        """One alert. Raises NotFoundError."""
        found = next(iter(self._alerts.where(id=identity)), None)
        if found is None:
            raise NotFoundError(f"the alert {identity[:80]!r}", hint="`slipway alerts list --all` names them")
        return found

    def acknowledge(self, identity: str, *, by: str, reason: str = "") -> Alert:
        """Note that somebody has seen an alert, until it changes. Raises NotFoundError; ConflictError where it does
        not fire. Who acknowledges again what they have acknowledged changes nothing.
        """
        now = self._clock.now()

        def note(alert: Alert) -> bool:
            if alert.state is not AlertState.FIRING:
                raise ConflictError(f"the alert {identity} is {alert.state}: one that fires can be acknowledged")
            if alert.acknowledged and alert.acknowledged.by == by:
                return False
            alert.acknowledged = Acknowledgement(by=by, at=now, reason=reason)
            alert.record("alert_acknowledged", now, by=by, reason=reason)
            self._mark_news(alert, now)
            return True

        found = self.alert(identity)
        return self._alerts.change(found.partition, found.id, note)

    def silence(
        self, match: Matcher, *, by: str, reason: str, until: datetime, since: datetime | None = None, command_id: str
    ) -> Silence:
        """Keep the sinks from being told of what matches, for a time. Raises InvalidInputError.

        The same `command_id` again gives the silence that it made.
        """
        now = self._clock.now()
        begins = since or now
        if not max(begins, now) < until <= now + LONGEST_SILENCE:
            raise InvalidInputError(
                f"the silence would end at {until:%Y-%m-%d %H:%M %Z}: use an end after its beginning and within "
                f"{LONGEST_SILENCE.days} days"
            )
        made = Silence(
            id=f"silence-{digest_of([command_id])[:32]}", match=match, by=by, reason=reason, since=begins, until=until
        )
        made.record("silence_made", now, **made.model_dump(mode="json", include={"match", "by", "reason", "until"}))
        return self._kept_silences.find_or_create(made)

    def expire_silence(self, identity: str, *, by: str, reason: str = "") -> Silence:
        """End a silence. Raises NotFoundError. One that is over stays as it is."""
        now = self._clock.now()

        def end(silence: Silence) -> bool:
            if silence.is_over:
                return False
            silence.is_over = True
            silence.record("silence_expired", now, by=by, reason=reason)
            return True

        if self._kept_silences.find(NO_MODEL, identity) is None:
            raise NotFoundError(f"the silence {identity[:80]!r}", hint="`slipway alerts silences` names them")
        return self._kept_silences.change(NO_MODEL, identity, end)

    def silences(self, unreadable: list[Unreadable] | None = None) -> list[Silence]:
        """The silences in force, and those that are to come. What cannot be read is added to `unreadable`."""
        now = self._clock.now()
        found = self._kept_silences.readable(partition=NO_MODEL, unreadable=unreadable, is_over=False)
        return [one for one in found if now < one.until]

    def expire_silences(self) -> int:
        """Note which silences have run out. How many."""
        now = self._clock.now()
        over = [one for one in self._kept_silences.readable(partition=NO_MODEL, is_over=False) if one.until <= now]
        for silence in over:
            self.expire_silence(silence.id, by="slipway", reason="its time is over")
        return len(over)

    def _is_overtaken(self, alert: Alert, looked_at: datetime | None) -> bool:
        """Whether a later look has changed the alert. One that is far to come was by a clock that was wrong."""
        return looked_at is not None and looked_at < alert.changed_at <= self._clock.now() + CLOCK_SKEW

    @property
    def _kept_silences(self) -> Repository[Silence]:
        if self._silences is None:
            raise InvalidInputError("alerts cannot be silenced here: nothing keeps silences")
        return self._silences

    def _tell(self, alert: Alert, kind: str, now: datetime, *, is_news: bool = True) -> None:
        """Have the audit tell that an alert fires or is over, and the sinks, where it is news to them."""
        said: dict[str, Any] = {"rule": alert.rule, "subject": alert.subject, "sentence": alert.sentence}
        if alert.state is AlertState.FIRING:
            said["evidence"] = alert.evidence
        alert.record(kind, now, **said)
        if is_news:
            self._mark_news(alert, now)

    def _begin_telling(self, alert: Alert, now: datetime) -> bool:
        """Tell of an alert that began to fire when there was nobody to tell."""
        if self._tells_after is None or alert.news:
            return False
        self._mark_news(alert, now)
        return True

    def _mark_news(self, alert: Alert, now: datetime) -> None:
        if self._tells_after is None:
            return
        alert.news += 1
        alert.news_pending = True
        message = TellNews(model=alert.model, alert_id=alert.id, news=alert.news)
        alert.send(message, not_before=now + self._tells_after)


def _said(alert: Alert, found_at: datetime) -> Alert:
    """The alert, told of in the log where it has just changed."""
    if alert.changed_at == found_at:
        about: dict[str, Value] = {"model": alert.model, "rule": alert.rule.value, "alert_id": alert.id}
        found = {key: alert.evidence.get(key) for key in ("version", "rollout_id", "report_id")}
        about |= {key: value for key, value in found.items() if isinstance(value, str | int)}
        with tracing.within(None, about):
            _log.info("alert %s about %s is %s: %s", alert.rule, alert.subject, alert.state, alert.sentence)
    return alert
