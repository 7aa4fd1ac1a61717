"""What the control plane tells of itself beside its rollouts: drift, alerts, dead letters, error budgets, deliveries.

Pure. Everything is read from documents at a scrape, as in shared.rollout.metrics, whose families these stand beside.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.alerts.documents import AlertState
from shared.budgets.sums import RequestSums
from shared.core.severity import Severity
from shared.registry.rollout_policy import ErrorBudget
from shared.rollout.metrics import Family, Labels
from shared.watching.documents import Alarm, DriftReport, ReportSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """What of a container is still to be delivered: how many documents, and since when the oldest entry waits."""

    count: int
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgeted:
    """An endpoint with an error budget, and what was counted of it."""

    endpoint: str
    budget: ErrorBudget
    sums: RequestSums


def outbox_ages(outboxes: Mapping[str, Undelivered], now: datetime) -> Family:
    """How old what is to be delivered is."""
    return _gauge(
        "slipway_outbox_age_seconds",
        "Since when the oldest change of a container waits to be told; 0 where none does, absent where none says.",
        [
            ((("container", name),), max(0.0, (now - found.since).total_seconds()) if found.since else 0.0)
            for name, found in sorted(outboxes.items())
            # Something waits, and how long is not known: 0 would say that all is well.
            if found.since or not found.count
        ],
    )


def drift(reports: Sequence[DriftReport], now: datetime) -> list[Family]:
    """The latest report of each serving version."""
    told = [(_of(one), one, latest) for one, latest in latest_of(reports)]
    return [
        _gauge(
            "model_feature_drift_psi",
            "Population stability index of a feature's latest hours against the version's reference data.",
            [
                ((*labels, ("feature", feature)), psi)
                for labels, _, latest in told
                for feature, psi in sorted(latest.psi.items())
            ],
        ),
        _gauge(
            "model_drift_alarm",
            "1 for an alarm that stands against a serving version, 0 for every other.",
            [
                ((*labels, ("alarm", alarm.value)), float(alarm in one.alarms))
                for labels, one, _ in told
                for alarm in Alarm
            ],
        ),
        _gauge(
            "model_drift_rows",
            "Rows that a serving version's latest report is of.",
            [(labels, float(latest.rows)) for labels, _, latest in told],
        ),
        _gauge(
            "model_drift_report_age_seconds",
            "Since when a serving version's latest report is.",
            [(labels, max(0.0, (now - latest.made_at).total_seconds())) for labels, _, latest in told],
        ),
    ]


def alerts(bodies: Sequence[Mapping[str, Any]]) -> Family:
    """The alerts that are not over."""
    counted = Counter((body["model"], body["rule"], body.get("severity", ""), body["state"]) for body in bodies)
    names = ("model", "rule", "severity", "state")
    samples = [(tuple(zip(names, found, strict=True)), float(n)) for found, n in sorted(counted.items())]
    # With nothing firing there is a sample all the same: what is absent and what is well must look apart.
    none = [((("model", "-"), ("rule", "-"), ("severity", s), ("state", AlertState.FIRING)), 0.0) for s in Severity]
    return _gauge("slipway_alerts", "Alerts that fire or are pending.", [*none, *samples])


def dead_letters(queues: Sequence[str], bodies: Sequence[Mapping[str, Any]]) -> Family:
    """The messages that failed for the last time and wait for somebody to look."""
    counted = Counter(body["queue"] for body in bodies)
    named = sorted({*queues, *counted})
    return _gauge(
        "slipway_dead_letters",
        "Messages of a queue that failed for the last time, and wait for somebody to look.",
        [((("queue", queue),), float(counted[queue])) for queue in named],
    )


def dead_letter_ages(queues: Sequence[str], bodies: Sequence[Mapping[str, Any]], now: datetime) -> Family:
    """For how long the oldest of them waits."""
    since: dict[str, datetime] = {}
    for body in bodies:
        at = datetime.fromisoformat(body["first_seen_at"])
        since[body["queue"]] = min(at, since.get(body["queue"], at))
    return _gauge(
        "slipway_dead_letter_age_seconds",
        "Since when the oldest message of a queue failed for the last time and waits; 0 where none does.",
        [
            ((("queue", queue),), max(0.0, (now - since.get(queue, now)).total_seconds()))
            for queue in sorted({*queues, *since})
        ],
    )


def budgets(found: Sequence[Budgeted], now: datetime) -> list[Family]:
    """The error budgets."""
    sums = [(one, one.sums.within(one.budget.hours, now)) for one in found]
    return [
        _gauge(
            "slipway_error_budget_left",
            "The share of an endpoint's error budget that is left: 1 for all of it, below 0 where it is overspent.",
            [
                (
                    (("endpoint", one.endpoint),),
                    1.0 - total.failed / ((1.0 - one.budget.objective) * total.requests) if total.requests else 1.0,
                )
                for one, total in sums
            ],
        ),
        _gauge(
            "slipway_error_budget_counted_seconds",
            "How long ago all of an endpoint's requests had been counted. Absent where they never were.",
            [
                ((("endpoint", one.endpoint),), max(0.0, (now - one.sums.whole_at).total_seconds()))
                for one in found
                if one.sums.whole_at
            ],
        ),
    ]


def latest_of(reports: Sequence[DriftReport]) -> list[tuple[DriftReport, ReportSummary]]:
    """The latest report of each version, as what it was then: a stable version is not the candidate any more that was
    once reported on.
    """
    found = [(one, one.latest) for one in reports if one.latest]
    last = {(one.endpoint, one.version): one for one, _ in sorted(found, key=lambda entry: entry[1].made_at)}
    return [(one, latest) for one, latest in found if last[one.endpoint, one.version] is one]


def _of(report: DriftReport) -> Labels:
    return (("model", report.endpoint), ("version", str(report.version)), ("variant", report.role))


def _gauge(name: str, text: str, samples: Sequence[tuple[Labels, float]]) -> Family:
    return Family(name=name, kind="gauge", help=text, samples=tuple(samples))
