"""The rules of alerts on an endpoint: those on its traffic that hold for every endpoint, and those of a policy.

Pure: a rule is held against what the pods reported of late (shared.budgets), or against what is measured beside that
(shared.alerts.beside). Where that cannot be told, because too
little came or windows are not counted yet, nothing is said: the alert stays as it is. What a rule finds is worse than
before only where it has doubled, so that a value that wavers is no news.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.alerts.documents import AlertRule
from shared.budgets.recent import MinuteSum, minute_of
from shared.budgets.sums import Mark, RequestSums
from shared.core.severity import Severity
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.telemetry.histogram import quantile
from shared.telemetry.names import IDLE
from shared.telemetry.window import host_of, start_of

BEHIND = timedelta(minutes=5)
"""How long ago all windows were counted for the last time at most, for anything to be said."""
FRESH = 2 * IDLE
"""A pod whose latest window is older reports no more."""
_GONE = timedelta(minutes=15)
"""After so long without a window, a pod is taken for gone, and no more expected."""
_STOPS = 3
"""Where a place is told to stop so often, something ends what is started there: nobody scales it in twice."""
_NAMED = 3

STANDARD: dict[AlertRule, tuple[AlertRulePolicy, ...]] = {
    AlertRule.ERROR_RATE: (
        AlertRulePolicy(name="error-rate", metric=AlertMetric.ERROR_RATE, above=0.05, severity=Severity.CRITICAL),
    ),
    AlertRule.SLOW: (AlertRulePolicy(name="p95", metric=AlertMetric.P95_MS, above=2_000, severity=Severity.CRITICAL),),
    AlertRule.UNHEALTHY: (
        AlertRulePolicy(
            name="healthy", metric=AlertMetric.HEALTHY_SHARE, below=1.0, for_s=120, severity=Severity.CRITICAL
        ),
    ),
    AlertRule.RESOURCES: (
        AlertRulePolicy(
            name="memory", metric=AlertMetric.MEMORY_SHARE, above=0.9, for_s=60, severity=Severity.CRITICAL
        ),
        AlertRulePolicy(
            name="capacity", metric=AlertMetric.REFUSED_RATE, above=0.05, for_s=60, severity=Severity.CRITICAL
        ),
    ),
}
"""The rules that hold for every endpoint. Of several of one alert the first that is broken is told."""
_PERCENTILES = {AlertMetric.P50_MS: 0.50, AlertMetric.P95_MS: 0.95, AlertMetric.P99_MS: 0.99}
_UNITS = dict.fromkeys(_PERCENTILES, " ms") | {AlertMetric.STAGE_AGE_S: " s", AlertMetric.DECISION_LAG_S: " s"}
_SHARES = frozenset(
    {AlertMetric.ERROR_RATE, AlertMetric.REFUSED_RATE, AlertMetric.MEMORY_SHARE, AlertMetric.HEALTHY_SHARE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A metric's value now, and what it is of, in words."""

    value: float
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Whether a rule is broken; None: it cannot be told."""

    rule: AlertRule
    subject: str
    is_broken: bool | None
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    for_s: float = 0.0
    severity: Severity = Severity.WARNING


def judge(
    endpoint: str,
    sums: RequestSums | None,
    own: Iterable[AlertRulePolicy],
    now: datetime,
    *,
    beside: Callable[[AlertRulePolicy], Measured | None] = lambda _: None,
) -> Iterator[Judged]:
    """Each alert that there may be on an endpoint, by the standing rules and its policy's `own`. `beside` tells what
    a rule measures that is not of traffic.
    """
    is_told = sums is not None and sums.whole_at is not None and now - sums.whole_at <= BEHIND
    known = sums if is_told else None
    for alert, rules in STANDARD.items():
        subject = f"endpoint:{endpoint}"
        judged = [_judged(alert, subject, endpoint, rule, _of_traffic(rule, known, now)) for rule in rules]
        yield min(judged, key=lambda one: (not one.is_broken, one.is_broken is None))
    for rule in own:
        found = _of_traffic(rule, known, now) if rule.metric.is_of_traffic else beside(rule)
        yield _judged(AlertRule.POLICY, f"endpoint:{endpoint}:{rule.name}", endpoint, rule, found)


def measured(metric: AlertMetric, sums: RequestSums, now: datetime, *, window_s: float, least: int) -> Measured | None:
    """A metric over a time up to now; None where too little came to tell."""
    if metric is AlertMetric.MEMORY_SHARE:
        return _memory(sums, now)
    if metric is AlertMetric.HEALTHY_SHARE:
        return _healthy(sums, now)
    since = minute_of(now - timedelta(seconds=window_s))
    total = sum((one for minute, one in sums.minutes.items() if minute >= since), start=MinuteSum())
    span = f"in the last {window_s / 60:.3g} minutes"
    if not (total.requests or total.refused) and metric is not AlertMetric.FEEDBACK_VALUE:
        return Measured(value=0.0, of=f"no request came {span}")
    if metric in _PERCENTILES:
        answered = sum(total.latency_ms.values())
        value = quantile(total.latency_ms, _PERCENTILES[metric]) if answered >= least else None
        return None if value is None else Measured(value=value, of=f"of {answered} answers {span}")
    return _of_requests(metric, total, span, window_s=window_s, least=least)


def _of_requests(metric: AlertMetric, total: MinuteSum, span: str, *, window_s: float, least: int) -> Measured | None:
    count = total.requests
    match metric:
        case AlertMetric.REQUESTS_PER_S:
            return Measured(value=count / window_s, of=f"{count} requests {span}")
        case AlertMetric.ERROR_RATE if count >= least:
            return Measured(value=total.failed / count, of=f"{total.failed} of {count} requests failed {span}")
        case AlertMetric.REFUSED_RATE if count + total.refused >= least:
            asked = count + total.refused
            of = f"{total.refused} of {asked} requests were refused for want of capacity {span}"
            return Measured(value=total.refused / asked, of=of)
        case AlertMetric.FEEDBACK_VALUE if total.valued >= least:
            mean = total.value_millionths / 1e6 / total.valued
            return Measured(value=mean, of=f"the mean of {total.valued} pieces of feedback {span}")
    return None


def _memory(sums: RequestSums, now: datetime) -> Measured | None:
    at = sums.whole_at or now
    found = [
        (mark.memory_share, pod)
        for pod, mark in sums.marks.items()
        if mark.memory_share is not None and at - mark.ended_at <= FRESH and not mark.is_last
    ]
    if not found:
        return None
    share, pod = max(found)
    return Measured(value=share, of=f"of its memory limit, which the pod {pod} uses")


def _healthy(sums: RequestSums, now: datetime) -> Measured | None:
    """The share of pods that nothing ails; 0 where pods reported of late, and none does any more.

    A pod that stops says so, and is expected no more, unless its place is started and told to stop again and again: a
    failed probe ends a pod as scaling in does. One that fell silent may have been taken away all the same with
    its last window lost, or replaced. As many as report now are taken for that; of those that are silent beyond, no
    more is known than that the endpoint has lost them.
    """
    # Of what was written since, nothing is known: it is no sign that a pod is silent.
    at = sums.whole_at or now
    known = {pod: mark for pod, mark in sums.marks.items() if at - mark.ended_at <= _GONE}
    expected = {pod: mark for pod, mark in known.items() if not mark.is_last}
    fresh = {pod: mark for pod, mark in expected.items() if at - mark.ended_at <= FRESH}
    stops = _stops(known)
    if not known:
        return None
    if not expected and not stops:
        return Measured(value=1.0, of=f"of the pods: the last of {len(known)} stopped, as they were told to")
    if not fresh and not stops:
        return Measured(value=0.0, of=f"of the pods: none of {len(expected)} reports any more")
    places = {host_of(pod) for pod in fresh}
    silent = sorted(pod for pod in expected if pod not in fresh and host_of(pod) not in places)
    troubles = {pod: mark.trouble or stops.get(host_of(pod), "") for pod, mark in sorted(fresh.items())}
    ailing = [f"{pod} {trouble}" for pod, trouble in troubles.items() if trouble]
    stopped = [f"{place} {trouble}" for place, trouble in stops.items() if place not in places]
    ailing += stopped
    ailing += [f"{pod} reports no more" for pod in silent[len(fresh) :]]
    pods = len(fresh) + len(stopped) + max(0, len(silent) - len(fresh))
    named = "; ".join(ailing[:_NAMED]) + (f"; and {len(ailing) - _NAMED} more" if len(ailing) > _NAMED else "")
    return Measured(value=(pods - len(ailing)) / pods, of=f"of {pods} pods" + (f": {named}" if named else ""))


def _stops(known: Mapping[str, Mark]) -> dict[str, str]:
    """The places that were told to stop again and again, and how often."""
    last = {(host_of(pod), start_of(pod)) for pod, mark in known.items() if mark.is_last}
    counts = Counter(place for place, _ in last)
    return {place: f"was told to stop {n} times of late" for place, n in sorted(counts.items()) if n >= _STOPS}


def _of_traffic(rule: AlertRulePolicy, sums: RequestSums | None, now: datetime) -> Measured | None:
    return measured(rule.metric, sums, now, window_s=rule.window_s, least=rule.min_count) if sums else None


def _judged(alert: AlertRule, subject: str, endpoint: str, rule: AlertRulePolicy, found: Measured | None) -> Judged:
    if found is None:
        return Judged(rule=alert, subject=subject, is_broken=None, sentence="")
    is_above = rule.above is not None
    limit = rule.above if rule.above is not None else rule.below or 0.0
    is_broken = found.value > limit if is_above else found.value < limit
    said = (
        f"{endpoint}: {rule.metric} is {_shown(rule.metric, found.value)} ({found.of}), "
        f"{'above' if is_above else 'below'} {_shown(rule.metric, limit)}"
    )
    evidence = {
        "endpoint": endpoint,
        "metric": rule.metric.value,
        "limit": limit,
        "doubled": _doubled(found.value, limit) if is_above else _doubled(limit - found.value, limit),
    }
    return Judged(
        rule=alert,
        subject=subject,
        is_broken=is_broken,
        sentence=said if is_broken else f"{rule.metric} is {_shown(rule.metric, found.value)} ({found.of})",
        evidence=evidence,
        for_s=rule.for_s,
        severity=rule.severity,
    )


def _doubled(value: float, limit: float) -> int:
    """How often a value has doubled since its limit."""
    return max(0, math.floor(math.log2(value / limit))) if limit > 0 and value > limit else 0


def _shown(metric: AlertMetric, value: float) -> str:
    if metric in _SHARES:
        return f"{value:.4g} ({value:.2%})"
    return f"{value:.4g}{_UNITS.get(metric, '')}"
