"""Alerts: fired and resolved by what finds trouble, listed for people.

Both calls say how things stand, and may come again: what is known already changes nothing. Who calls them looks at the
state anew each time, so that a crash between a finding and its alert is made good by the next look.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from shared.alerts.documents import Alert, AlertRule, AlertState, alert_id
from shared.core.clock import Clock
from shared.core.errors import InvalidInputError
from shared.store.repository import AggregatePage, Repository


class AlertService:
    """Keeps alerts."""

    def __init__(self, *, alerts: Repository[Alert], clock: Clock) -> None:
        self._alerts = alerts
        self._clock = clock

    def fire(
        self, rule: AlertRule, subject: str, sentence: str, *, model: str, evidence: Mapping[str, Any] | None = None
    ) -> Alert:
        """Say that a trouble holds. The same evidence again changes nothing, however the sentence reads by now."""
        now = self._clock.now()
        found = dict(evidence or {})
        fresh = Alert(
            id=alert_id(rule, subject),
            model=model,
            rule=rule,
            subject=subject,
            sentence=sentence,
            evidence=found,
            since=now,
            changed_at=now,
        )
        fresh.record("alert_fired", now, rule=rule, subject=subject, sentence=sentence, evidence=found)

        def again(alert: Alert) -> bool:
            if alert.state is AlertState.FIRING and alert.evidence == found:
                return False
            if alert.state is AlertState.RESOLVED:
                alert.state, alert.since, alert.count = AlertState.FIRING, now, 0
            alert.count += 1
            alert.sentence, alert.evidence, alert.changed_at = sentence, found, now
            alert.record("alert_fired", now, rule=rule, subject=subject, sentence=sentence, evidence=found)
            return True

        self._alerts.find_or_create(fresh)
        return self._alerts.change(model, fresh.id, again)

    def resolve(self, rule: AlertRule, subject: str, sentence: str, *, model: str) -> Alert | None:
        """Say that a trouble is over, and why. None where it never was."""
        now = self._clock.now()

        def end(alert: Alert) -> bool:
            if alert.state is AlertState.RESOLVED:
                return False
            alert.state, alert.sentence, alert.changed_at = AlertState.RESOLVED, sentence, now
            alert.record("alert_resolved", now, rule=rule, subject=subject, sentence=sentence)
            return True

        identity = alert_id(rule, subject)
        if self._alerts.find(model, identity) is None:
            return None
        return self._alerts.change(model, identity, end)

    def firing(self, rule: AlertRule) -> Iterator[Alert]:
        """The alerts of a rule that fire now."""
        return self._alerts.where(rule=rule.value, state=AlertState.FIRING.value)

    def alerts(self, state: str | None = None, continuation: str | None = None) -> AggregatePage[Alert]:
        """A page of all alerts, or of those in a state. Raises InvalidInputError."""
        if state is None:
            return self._alerts.page(continuation=continuation)
        if state not in set(AlertState):
            raise InvalidInputError(f"{state[:40]!r} is not an alert's state: use {' or '.join(AlertState)}")
        return self._alerts.page(continuation=continuation, state=state)
