"""The alert on plans: what storage holds of an endpoint is not what it calls for, so that its word is passed over."""

from shared.alerts.documents import AlertRule
from shared.alerts.ports import Alerts
from shared.core.clock import Clock
from shared.rollout.stored_plans import StoredPlans

_OVER = "storage holds the plan that the endpoint calls for"


class PlanAlerts:
    """Has the alerts say which plans are astray. Each look reads both anew: the next one makes a crash good."""

    def __init__(self, *, plans: StoredPlans, alerts: Alerts, clock: Clock) -> None:
        self._plans = plans
        self._alerts = alerts
        self._clock = clock

    def settle(self) -> None:
        """Fire what holds, and resolve what does not."""
        now = self._clock.now()
        holding = list(self._alerts.holding(AlertRule.PLAN_ASTRAY))
        unread: set[str] = set()
        suspects = frozenset(alert.model for alert in holding)
        found = list(self._plans.astray(left_out=unread, suspects=suspects))
        for one in found:
            self._alerts.fire(
                AlertRule.PLAN_ASTRAY,
                f"endpoint:{one.endpoint}",
                one.sentence,
                model=one.endpoint,
                evidence={"blob": one.blob, "stored": one.stored, "called_for": one.called_for},
                looked_at=now,
            )
        astray = {one.endpoint for one in found}
        for alert in holding:
            if alert.model not in astray | unread:
                self._alerts.resolve(alert.rule, alert.subject, _OVER, model=alert.model, looked_at=now)
