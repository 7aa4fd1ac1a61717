"""Where a look says what it found: AlertService, as those see it who look."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from shared.alerts.documents import Alert, AlertRule
from shared.core.severity import Severity


class Alerts(Protocol):
    """Where alerts are kept. Saying the same again changes nothing."""

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
        """Say that a trouble holds, by a look that began then."""
        ...

    def resolve(
        self, rule: AlertRule, subject: str, sentence: str, *, model: str, looked_at: datetime | None = None
    ) -> Alert | None:
        """Say that a trouble is over, by a look that began then."""
        ...

    def firing(self, rule: AlertRule) -> Iterator[Alert]:
        """The alerts of a rule that fire now."""
        ...

    def holding(self, rule: AlertRule) -> Iterator[Alert]:
        """The alerts of a rule that fire now, or are pending."""
        ...
