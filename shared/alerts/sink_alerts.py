"""Alerts on the sinks of alerts themselves: one that takes nothing, and one that was given up on with a message.

Read off the mailboxes, so that a crash in between is made good by the next look.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.alerts.documents import AlertRule
from shared.alerts.mailbox import REFUSED_FOR, Mailbox
from shared.alerts.ports import Alerts
from shared.registration.documents import NO_MODEL

DROPPED_TOLD_FOR = timedelta(days=1)
"""How long it is alerted that a notice was dropped."""
_OVER = {
    AlertRule.SINK_DOWN: "it takes what it is sent, or nothing was to be sent to it for a day",
    AlertRule.NOTICE_DROPPED: "nothing was dropped for a day",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    rule: AlertRule
    sentence: str
    evidence: dict[str, Any]


def settle_sinks(alerts: Alerts, boxes: Mapping[str, Mailbox], now: datetime) -> None:
    """Fire what holds of the sinks, and resolve what does not. `boxes` by sink, read no earlier than `now`."""
    found: set[tuple[AlertRule, str]] = set()
    for sink, box in boxes.items():
        for one in _troubles(sink, box, now):
            subject = f"sink:{sink}"
            alerts.fire(one.rule, subject, one.sentence, model=NO_MODEL, evidence=one.evidence, looked_at=now)
            found.add((one.rule, f"sink:{sink}"))
    for rule, sentence in _OVER.items():
        for alert in list(alerts.firing(rule)):
            if (rule, alert.subject) not in found:
                alerts.resolve(rule, alert.subject, sentence, model=alert.model, looked_at=now)


def _troubles(sink: str, box: Mailbox, now: datetime) -> Iterator[_Trouble]:
    if box.is_down(now) and box.failing:
        sentence = (
            f"the sink {sink} of alerts took nothing in {box.failing.tries} tries: {box.failing.why}. "
            "What it is to be told is kept, and told when it is back"
        )
        yield _Trouble(rule=AlertRule.SINK_DOWN, sentence=sentence, evidence={"sink": sink})
    lost = box.dropped
    if lost and now - lost.at < DROPPED_TOLD_FOR:
        sentence = (
            f"the sink {sink} of alerts refused a message about {lost.alerts} alerts for more than "
            f"{REFUSED_FOR.total_seconds() / 3_600:g} hours, and was not told of them: {lost.why}. Mend the sink or "
            f"its settings; `slipway audit show {box.stream}` names the alerts, and what still fires is told again"
        )
        evidence = {"sink": sink, "notice_id": lost.notice_id, "status": lost.status}
        yield _Trouble(rule=AlertRule.NOTICE_DROPPED, sentence=sentence, evidence=evidence)
