"""Metrics held against the policy's limits, and against what the manifest claims.

A point estimate at its limit passes; its interval is shown beside it. Too few rows conclude nothing, and a limit on
what cannot be measured is never passed. A claim weighs nothing: its verdict is advisory.
"""

from collections.abc import Mapping

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.validation.details import MetricEstimate
from shared.validation.refusal import excerpt
from shared.validation.statistics.results import Measured

CLAIM_TOLERANCE = 0.005
EVIDENCE = "/details/metrics"
_SHOWN = 5


def thresholds(measured: Measured, task: Task, policy: ValidationPolicy) -> list[Verdict]:
    """One verdict for each metric that the policy limits; without a limit, one that says so.

    Limits on names that the task does not have make one verdict together, so that their number is bounded.
    """
    least, most = _least(task, policy), dict(policy.maximum)
    known = set(measured.values) | set(measured.missing)
    estimates = {estimate.name: estimate for estimate in measured.estimates}
    verdicts = []
    for name in [*least, *(name for name in most if name not in least)]:
        if name in estimates:
            verdicts.append(_threshold(measured, estimates[name], least.get(name), most.get(name), policy))
        elif name in measured.missing:
            verdicts.append(_unmeasured(name, measured, least.get(name, most.get(name))))
    foreign = sorted({*least, *most} - known)
    if foreign:
        verdicts.append(_foreign(foreign, sorted(known), measured.rows))
    if verdicts:
        return verdicts
    sentence = f"measured on {measured.rows} rows; the policy sets no limits"
    return [Verdict(check="metrics", outcome=Outcome.PASS, sentence=sentence, n=measured.rows, evidence=EVIDENCE)]


def claims(measured: Measured, claimed: Mapping[str, float]) -> list[Verdict]:
    """What the manifest claims beside what was measured: advisory, and a FAIL where a claim is not borne out.

    A claim differs where it lies outside the metric's interval and more than `CLAIM_TOLERANCE` from its value.
    """
    if not claimed:
        return []
    estimates = {estimate.name: estimate for estimate in measured.estimates}
    differing = [
        f"{excerpt(name, 60)} is claimed as {value:g} and measured as {estimates[name].value:.4g}"
        for name, value in claimed.items()
        if name in estimates and _differs(estimates[name], value)
    ]
    unmeasured = [excerpt(name, 60) for name in claimed if name not in estimates]
    said = differing[:_SHOWN]
    if len(differing) > _SHOWN:
        said.append(f"and {len(differing) - _SHOWN} more differ")
    if unmeasured:
        said.append(f"not measured here: {', '.join(unmeasured[:_SHOWN])}")
    return [
        Verdict(
            check="claims",
            outcome=Outcome.FAIL if differing else Outcome.PASS,
            sentence="; ".join(said) or "the metrics claimed are those measured",
            n=measured.rows,
            evidence=EVIDENCE,
            advisory=True,
        )
    ]


def _least(task: Task, policy: ValidationPolicy) -> dict[str, float]:
    named: Mapping[str, float | None] = (
        {"r2": policy.r2}
        if task is Task.REGRESSION
        else {"accuracy": policy.accuracy, "precision": policy.precision, "recall": policy.recall, "f1": policy.f1}
    )
    limits = {name: limit for name, limit in named.items() if limit is not None}
    for name, limit in policy.minimum.items():
        limits[name] = max(limit, limits.get(name, limit))
    return limits


def _threshold(
    measured: Measured, estimate: MetricEstimate, least: float | None, most: float | None, policy: ValidationPolicy
) -> Verdict:
    below = least is not None and estimate.value < least
    above = most is not None and estimate.value > most
    limit = most if above or least is None else least
    if limit is None:
        raise ValueError(f"{estimate.name} has no limit: hold only limited metrics against theirs")
    compared = {
        (True, False): "is below the limit",
        (False, True): "is above the limit",
    }.get((below, above), "is not below the limit" if least is not None else "is not above the limit")
    outcome = Outcome.FAIL if below or above else Outcome.PASS
    sentence = f"{estimate.name} {_apart(estimate.value, limit)} on {measured.rows} rows {compared} {limit:g}"
    if measured.rows < policy.min_rows:
        outcome = Outcome.INCONCLUSIVE
        sentence += f"; {policy.min_rows} rows or more conclude anything: add validation data"
    return Verdict(
        check=estimate.name,
        outcome=outcome,
        sentence=sentence,
        n=measured.rows,
        value=estimate.value,
        limit=limit,
        interval=estimate.interval,
        evidence=f"{EVIDENCE}/{measured.estimates.index(estimate)}",
    )


def _unmeasured(name: str, measured: Measured, limit: float | None) -> Verdict:
    return Verdict(
        check=name,
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"{name} cannot be computed on {measured.rows} rows, and the policy limits it: "
        f"{excerpt(measured.missing[name], 300)}",
        n=measured.rows,
        limit=limit,
    )


def _foreign(names: list[str], known: list[str], rows: int) -> Verdict:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return Verdict(
        check="metrics",
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"the policy limits {', '.join(names[:_SHOWN])}{more}, which is not measured for this task: "
        f"use {', '.join(known)}",
        n=rows,
        evidence=EVIDENCE,
    )


def _differs(estimate: MetricEstimate, claimed: float) -> bool:
    if abs(claimed - estimate.value) <= CLAIM_TOLERANCE:
        return False
    return estimate.interval is None or not estimate.interval[0] <= claimed <= estimate.interval[1]


def _apart(value: float, limit: float) -> str:
    """A number with as many digits, four or more, as show on which side of the limit it lies."""
    for digits in range(4, 17):
        text = f"{value:.{digits}g}"
        shown = float(text)
        if (shown < limit, shown > limit) == (value < limit, value > limit):
            return text
    return repr(value)
