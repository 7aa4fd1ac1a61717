"""Is the candidate no worse than the champion, on the same rows, by more than the policy's margin?

PASS where the one-sided 95 % bound of the difference is within the margin, FAIL where the other bound proves it beyond,
else INCONCLUSIVE, saying how many rows it would take: that nothing was found is no proof, so too few rows never pass.
Loads numpy: for the sandboxed process.
"""

import math

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.validation.details import Comparison
from shared.validation.statistics.evidence import Floats, Predictions
from shared.validation.statistics.intervals import normal_quantile
from shared.validation.statistics.paired import (
    LEVEL,
    MAX_EXACT_ROWS,
    Discordance,
    PairedErrors,
    mcnemar,
    p_value_above,
    tango_interval,
)
from shared.validation.statistics.results import Compared

CHECK = "non_inferiority"
EVIDENCE = "/details/comparison/0"
_POWER = 0.8
_MOST_ROWS = 1_000_000_000


def compare(
    candidate: Predictions, champion: Predictions, *, champion_version: int | None, policy: ValidationPolicy
) -> Compared:
    """Compare two models' predictions of the same rows, in the same order.

    For classification in accuracy; for regression in mean absolute error, the margin being a share of the champion's.
    Without a margin in the policy the verdict is advisory.
    """
    if candidate.rows != champion.rows or candidate.task is not champion.task:
        raise ValueError(
            f"the candidate answers {candidate.rows} rows ({candidate.task}) and the champion {champion.rows} "
            f"({champion.task}): compare them on the same rows"
        )
    if candidate.task is Task.REGRESSION:
        return _errors(candidate, champion, champion_version, policy)
    return _accuracy(candidate, champion, champion_version, policy)


def _accuracy(candidate: Predictions, champion: Predictions, version: int | None, policy: ValidationPolicy) -> Compared:
    ours, theirs = candidate.correct, champion.correct
    table = Discordance(n=len(ours), gained=int((ours & ~theirs).sum()), lost=int((theirs & ~ours).sum()))
    margin = policy.noninferiority_margin
    outcome, low, high = _judged(table, margin)
    finding = Comparison(
        metric="accuracy",
        champion_version=version,
        candidate=float(ours.mean()),
        champion=float(theirs.mean()),
        difference=table.difference,
        interval=(low, high),
        level=1 - 2 * LEVEL,
        method="exact unconditional test at the margin; interval by Tango's score",
        margin=margin or 0.0,
        n=table.n,
        candidate_only=table.gained,
        champion_only=table.lost,
    )
    sentence = (
        f"accuracy {finding.candidate:.4g}, the champion's {finding.champion:.4g} on the same {table.n} rows: "
        f"{table.difference:+.4f} (90 % interval {low:+.4f} to {high:+.4f}); {table.gained} rows only the candidate "
        f"has right, {table.lost} only the champion (McNemar p {mcnemar(table):.3g})"
    )
    return Compared(
        findings=(finding,),
        verdict=_verdict(
            policy,
            finding,
            outcome,
            sentence,
            value=table.difference,
            interval=(low, high),
            limit=None if margin is None else -margin,
            more=_more_rows(table, margin),
        ),
    )


def _judged(table: Discordance, margin: float | None) -> tuple[Outcome, float, float]:
    """The outcome with the bounds of the difference, which never contradict the exact test."""
    low, high = tango_interval(table)
    if margin is None:
        return Outcome.PASS, low, high
    if margin >= 1:
        return Outcome.PASS, max(low, -1.0), high
    passes = p_value_above(table, -margin) <= LEVEL
    fails = not passes and p_value_above(table.mirrored, margin) <= LEVEL
    low = max(low, -margin) if passes else min(low, -margin)
    high = min(high, -margin) if fails else max(high, -margin)
    return Outcome.PASS if passes else Outcome.FAIL if fails else Outcome.INCONCLUSIVE, low, high


def _errors(candidate: Predictions, champion: Predictions, version: int | None, policy: ValidationPolicy) -> Compared:
    ours, theirs = candidate.absolute_errors, champion.absolute_errors
    margin = policy.noninferiority_margin
    moments = PairedErrors.of(ours, theirs)
    unit = moments.champion
    finding = Comparison(
        metric="mae",
        champion_version=version,
        candidate=moments.candidate,
        champion=unit,
        difference=moments.candidate - unit,
        interval=(0.0, 0.0),
        level=1 - 2 * LEVEL,
        method="paired t test with Johnson's correction",
        margin=(margin or 0.0) * unit,
        n=moments.n,
    )
    said = f"mean absolute error {moments.candidate:.4g}, the champion's {unit:.4g} on the same {moments.n} rows"
    if unit == 0:
        outcome = Outcome.PASS if moments.candidate == 0 else Outcome.FAIL
        error = moments.candidate
        finding = finding.model_copy(update={"interval": (error, error), "method": "the champion makes no error"})
        return Compared(
            findings=(finding,),
            verdict=_verdict(policy, finding, outcome, said, value=None, interval=None, limit=margin, more=""),
        )
    low, high = moments.interval()
    outcome, needed = Outcome.PASS, ""
    if margin is not None:
        passes = moments.p_value_below(1 + margin) <= LEVEL
        fails = not passes and moments.p_value_above(1 + margin) <= LEVEL
        outcome = Outcome.PASS if passes else Outcome.FAIL if fails else Outcome.INCONCLUSIVE
        needed = _more_rows_of_errors(ours, theirs, margin)
    interval = (low - 1, high - 1)
    finding = finding.model_copy(update={"interval": (interval[0] * unit, interval[1] * unit)})
    relative = moments.candidate / unit - 1
    return Compared(
        findings=(finding,),
        verdict=_verdict(
            policy,
            finding,
            outcome,
            f"{said}: {relative:+.2%} (90 % interval {interval[0]:+.2%} to {interval[1]:+.2%})",
            value=relative,
            interval=interval,
            limit=margin,
            more=needed,
        ),
    )


def _verdict(
    policy: ValidationPolicy,
    finding: Comparison,
    outcome: Outcome,
    sentence: str,
    *,
    value: float | None,
    interval: tuple[float, float] | None,
    limit: float | None,
    more: str,
) -> Verdict:
    margin = policy.noninferiority_margin
    if margin is None:
        said = f"{sentence}; the policy sets no margin"
    elif finding.n < policy.min_rows:
        outcome = Outcome.INCONCLUSIVE
        said = f"{sentence}; {policy.min_rows} rows or more conclude anything: add validation data"
    else:
        said = f"{sentence}; " + {
            Outcome.PASS: f"no worse by more than the margin {margin:g}",
            Outcome.FAIL: f"worse by more than the margin {margin:g}",
        }.get(outcome, f"not shown to be within the margin {margin:g}, nor beyond it: {more}")
    return Verdict(
        check=CHECK,
        outcome=outcome,
        sentence=said,
        n=finding.n,
        value=value,
        limit=limit,
        interval=interval,
        evidence=EVIDENCE,
        advisory=margin is None,
    )


def rows_for_agreement(margin: float) -> int | None:
    """How many rows it takes for two models that agree on every one to pass; None where no number does."""
    if margin <= 0:
        return None
    # As many as make it unlikely that none of the rows shows a difference of the margin.
    n = math.ceil(math.log(LEVEL) / math.log1p(-margin)) if margin < 1 else 1
    while n < MAX_EXACT_ROWS and p_value_above(Discordance(n=n, gained=0, lost=0), -margin) > LEVEL:
        n += max(1, n // 200)
    return n


def _more_rows(table: Discordance, margin: float | None) -> str:
    if margin is None:
        return ""
    room = table.difference + margin
    least = rows_for_agreement(margin)
    if room <= 0 or least is None:
        return _HOPELESS
    spread = (table.gained + table.lost) / table.n - table.difference**2
    return _wanted(max(least, _rows_for(spread, room)))


def _more_rows_of_errors(ours: Floats, theirs: Floats, margin: float) -> str:
    away = ours - (1 + margin) * theirs
    room = -float(away.mean())
    return _wanted(_rows_for(float(away.var()), room)) if room > 0 else _HOPELESS


_HOPELESS = "by these rows it is not better than the margin allows, and more of the like would not show it"


def _rows_for(variance: float, room: float) -> int:
    """The rows at which a difference of this spread passes with a probability of `_POWER`."""
    wanted = variance * ((normal_quantile(1 - LEVEL) + normal_quantile(_POWER)) / room) ** 2
    return math.ceil(min(wanted, _MOST_ROWS))


def _wanted(rows: int) -> str:
    return f"about {rows} rows like these would" if rows < _MOST_ROWS else "no practical number of rows would"
