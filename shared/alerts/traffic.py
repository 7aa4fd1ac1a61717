"""Alerts on every endpoint, by the standing rules on traffic and by its policy's: each is looked at anew, by timer."""

import logging
from datetime import datetime
from functools import partial
from typing import Protocol

from shared.alerts.beside import measured_beside
from shared.alerts.documents import Alert, AlertRule
from shared.alerts.ports import Alerts
from shared.alerts.rules import STANDARD, Judged, judge
from shared.budgets.sums import SUMS_ID, RequestSums
from shared.core.clock import Clock
from shared.core.ids import ModelName
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.registry.documents import Model
from shared.rollout.endpoint import Endpoint
from shared.routing.plan import Role
from shared.store.ports import Container, DocumentStore
from shared.store.repository import Repository
from shared.watching.documents import DriftReport, drift_report_id

_log = logging.getLogger(__name__)


class Models(Protocol):
    """Tells policies."""

    def model(self, name: ModelName) -> Model:
        """A model. Raises NotFoundError."""
        ...


class TrafficAlerts:
    """Has the alerts say how the endpoints' traffic is."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        models: Models,
        documents: DocumentStore,
        alerts: Alerts,
        clock: Clock,
    ) -> None:
        self._endpoints = endpoints
        self._models = models
        self._documents = documents
        self._alerts = alerts
        self._clock = clock

    def settle(self) -> None:
        """Fire what holds, resolve what does not. An endpoint that cannot be judged keeps no other from being so."""
        holding = {
            (alert.rule, alert.subject): alert
            for rule in (*STANDARD, AlertRule.POLICY)
            for alert in list(self._alerts.holding(rule))
        }
        unread: set[str] = set()
        # Before anything is read: what is late by then was late when it was looked at.
        now = self._clock.now()
        for endpoint in list(self._endpoints.readable(left_out=unread)):
            try:
                self._settle(endpoint, holding, now)
            except Exception:  # noqa: BLE001 - whatever is wrong with one endpoint, the others are looked at
                _log.exception("the traffic of endpoint %s is not judged", endpoint.endpoint)
                holding = {key: alert for key, alert in holding.items() if alert.model != endpoint.endpoint}
        for alert in holding.values():
            if alert.model not in unread:
                over = "there is no such rule any more"
                self._alerts.resolve(alert.rule, alert.subject, over, model=alert.model, looked_at=now)

    def _settle(self, endpoint: Endpoint, holding: dict[tuple[AlertRule, str], Alert], now: datetime) -> None:
        """Judge an endpoint, and take what was said of out of `holding`."""
        name = endpoint.endpoint
        stored = self._documents.get(Container.ENDPOINTS, name, SUMS_ID)
        sums = RequestSums.model_validate(stored.body) if stored else None
        own = self._own_rules(name)
        is_drift_asked = any(rule.metric is AlertMetric.DRIFT_PSI for rule in own)
        report = self._report(endpoint) if is_drift_asked else None
        beside = partial(measured_beside, endpoint=endpoint, report=report, now=now)
        for judged in judge(name, sums, own, now, beside=beside):
            alert = holding.pop((judged.rule, judged.subject), None)
            if judged.is_broken:
                self._fire(judged, name, now)
            elif judged.is_broken is False and alert is not None:
                self._alerts.resolve(judged.rule, judged.subject, judged.sentence, model=name, looked_at=now)

    def _report(self, endpoint: Endpoint) -> DriftReport | None:
        """The latest report on the stable version."""
        if endpoint.stable is None:
            return None
        identity = drift_report_id(endpoint.stable.version, Role.STABLE.value)
        stored = self._documents.get(Container.REPORTS, endpoint.endpoint, identity)
        return DriftReport.from_body(stored.body) if stored else None

    def _own_rules(self, endpoint: str) -> tuple[AlertRulePolicy, ...]:
        return self._models.model(ModelName(endpoint)).policy.alerts

    def _fire(self, judged: Judged, endpoint: str, looked_at: datetime) -> None:
        self._alerts.fire(
            judged.rule,
            judged.subject,
            judged.sentence,
            model=endpoint,
            evidence=judged.evidence,
            for_s=judged.for_s,
            severity=judged.severity,
            looked_at=looked_at,
        )
