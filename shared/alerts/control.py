"""Alerts on the control plane itself: whether rollouts are looked at and requests counted in time, and whether what
changes called for goes out.

Read off the documents, so that a crash in between is made good by the next look.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.alerts.documents import AlertRule
from shared.alerts.ports import Alerts
from shared.alerts.rules import BEHIND
from shared.budgets.sums import SUMS_ID
from shared.core.clock import Clock
from shared.registration.documents import NO_MODEL
from shared.rollout.endpoint import Endpoint
from shared.rollout.standing import standing
from shared.store.aggregate import waiting_since
from shared.store.ports import Container, DocumentStore
from shared.store.repository import Repository

LAG_S = 120.0
"""By how much a rollout's next tick may be overdue."""
OVER_S = 60.0
"""By how much a stage may outlast its limit: the tick that ends it may be due."""
UNDELIVERED_S = 600.0
"""How long something may be undelivered: the sweep delivers it each minute."""
_RULES = {
    AlertRule.STAGE_OVERDUE: "the stage is over",
    AlertRule.DECISION_LATE: "the rollout is looked at",
    AlertRule.OUTBOX_STUCK: "everything is delivered",
    AlertRule.COUNTING_BEHIND: "its requests are counted",
}
_WITH_OUTBOXES = tuple(container for container in Container if container is not Container.AUDIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something about the control plane that a person should look at."""

    rule: AlertRule
    subject: str
    model: str
    sentence: str
    for_s: float = 0.0


class ControlAlerts:
    """Has the alerts say how the control plane does."""

    def __init__(
        self, *, endpoints: Repository[Endpoint], documents: DocumentStore, alerts: Alerts, clock: Clock
    ) -> None:
        self._endpoints = endpoints
        self._documents = documents
        self._alerts = alerts
        self._clock = clock

    def settle(self) -> None:
        """Fire what holds, and resolve what does not."""
        now = self._clock.now()
        # Those that hold are read first: what begins after that is not taken for over.
        holding = [alert for rule in _RULES for alert in list(self._alerts.holding(rule))]
        unread: set[str] = set()
        endpoints = list(self._endpoints.readable(left_out=unread))
        found = [trouble for endpoint in endpoints for trouble in troubles(endpoint, now)]
        names = [endpoint.endpoint for endpoint in endpoints] + sorted(unread)
        found += [behind for name in names if (behind := self._behind(name, now))]
        found += [trouble for container in _WITH_OUTBOXES for trouble in self._stuck(container, now)]
        for one in found:
            self._alerts.fire(one.rule, one.subject, one.sentence, model=one.model, for_s=one.for_s, looked_at=now)
        known = {(one.rule, one.subject) for one in found}
        for alert in holding:
            if (alert.rule, alert.subject) not in known and alert.model not in unread:
                self._alerts.resolve(alert.rule, alert.subject, _RULES[alert.rule], model=alert.model, looked_at=now)

    def _behind(self, endpoint: str, now: datetime) -> Trouble | None:
        stored = self._documents.get(Container.ENDPOINTS, endpoint, SUMS_ID)
        counted_at = (stored.body.get("whole_at") or stored.body.get("begun_at")) if stored else None
        if counted_at and now - datetime.fromisoformat(counted_at) <= BEHIND:
            return None
        last = f"since {counted_at[:16].replace('T', ' ')} UTC" if counted_at else "and never were"
        sentence = (
            f"not all that the pods of {endpoint} report is counted {last}, and till it is no alert on its traffic "
            "is told: see what the functions app's log says of count_requests"
        )
        return Trouble(
            rule=AlertRule.COUNTING_BEHIND,
            subject=f"endpoint:{endpoint}",
            model=endpoint,
            sentence=sentence,
            # Before it is counted for the first time, it may be too young for that.
            for_s=0.0 if counted_at else BEHIND.total_seconds(),
        )

    def _stuck(self, container: Container, now: datetime) -> Iterator[Trouble]:
        """What is undelivered for too long. What does not tell since when is, where something is so at every look."""
        oldest = [waiting_since(body) for body in self._undelivered(container)]
        is_late = any(since and (now - since).total_seconds() > UNDELIVERED_S for since in oldest)
        if not is_late and None not in oldest:
            return
        sentence = (
            f"documents of {container} have held something undelivered for {UNDELIVERED_S / 60:.0f} minutes: see the "
            "functions app's log for what keeps the sweep from delivering it"
        )
        yield Trouble(
            rule=AlertRule.OUTBOX_STUCK,
            subject=f"outbox:{container}",
            model=NO_MODEL,
            sentence=sentence,
            for_s=0.0 if is_late else UNDELIVERED_S,
        )

    def _undelivered(self, container: Container) -> Iterator[dict[str, Any]]:
        continuation = None
        while True:
            page = self._documents.query(container, where={"outbox_pending": True}, continuation=continuation)
            yield from (dict(stored.body) for stored in page.items)
            continuation = page.continuation
            if continuation is None:
                return


def troubles(endpoint: Endpoint, now: datetime) -> Iterator[Trouble]:
    """What is late about an endpoint's rollout."""
    rollout, ticking = endpoint.active, endpoint.ticking
    if ticking is not None:
        lag_s = (now - ticking.next_tick_at).total_seconds()
        if lag_s > LAG_S:
            sentence = (
                f"nothing has looked at rollout {ticking.rollout_id} of {endpoint.endpoint}, though its next tick was "
                f"due at {ticking.next_tick_at:%Y-%m-%d %H:%M:%S} UTC: see whether the functions app runs, and "
                "`slipway dead-letters list`"
            )
            yield Trouble(
                rule=AlertRule.DECISION_LATE,
                subject=f"rollout:{ticking.rollout_id}",
                model=endpoint.endpoint,
                sentence=sentence,
            )
    if rollout is None:
        return
    stands = standing(endpoint, rollout, now)
    age_s, limit_s = stands.stage_age_s, stands.stage_limit_s
    if age_s is not None and limit_s is not None and age_s > limit_s + OVER_S:
        sentence = (
            f"a stage of rollout {rollout.rollout_id} of {endpoint.endpoint} has outlasted its limit of {limit_s:g} s "
            f"by more than {OVER_S:g} s, and nothing ended or held it: {stands.sentence}"
        )
        yield Trouble(
            rule=AlertRule.STAGE_OVERDUE,
            subject=f"rollout:{rollout.rollout_id}",
            model=endpoint.endpoint,
            sentence=sentence,
        )
