"""What the control plane tells of the sinks of alerts: what waits for each, for how long, and what was given up.

Pure, as shared.observing.metrics, whose families these stand beside.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from shared.alerts.mailbox import Mailbox
from shared.rollout.metrics import Family


def sinks(boxes: Mapping[str, Mailbox], news_since: datetime | None, now: datetime) -> list[Family]:
    """How each sink is told. `news_since`: since when there is news that is in no mailbox yet."""
    told = sorted(boxes.items())
    return [
        _family(
            "slipway_sink_age_seconds",
            "gauge",
            "Since when the oldest news that a sink is to be told waits, but for what is silenced; 0 where none does.",
            [(name, _age_s(box, news_since, now)) for name, box in told],
        ),
        _family(
            "slipway_sink_waiting",
            "gauge",
            "Alerts that a sink is to be told of.",
            [(name, float(box.waits)) for name, box in told],
        ),
        _family(
            "slipway_sink_failed_tries",
            "gauge",
            "Tries that failed since a sink took a message the last time.",
            [(name, float(box.failing.tries if box.failing else 0)) for name, box in told],
        ),
        _family(
            "slipway_sink_notices_dropped_total",
            "counter",
            "Messages that were given up because a sink refused them for hours.",
            [(name, float(box.notices_dropped)) for name, box in told],
        ),
    ]


def _age_s(box: Mailbox, news_since: datetime | None, now: datetime) -> float:
    since = min((at for at in (box.waits_since, news_since) if at), default=now)
    return max(0.0, (now - since).total_seconds())


def _family(name: str, kind: str, text: str, samples: Sequence[tuple[str, float]]) -> Family:
    return Family(name=name, kind=kind, help=text, samples=tuple(((("sink", sink),), value) for sink, value in samples))
