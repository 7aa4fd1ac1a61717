"""Whether the candidate predicts otherwise than stable does: PSI of what both gave, in the same bins.

PSI of two samples of one distribution is no zero: about (k - 1) (1/n + 1/m) over k bins (Yurdakul and Naranjo 2020,
"Statistical properties of the population stability index", J. Risk Model Validation 14). That much is taken off, and
nothing counts as drift that a chi-square test of the same bins, at level 0.01, would ascribe to chance. Rows of one
request go together, so no side counts for more rows than it answered requests.
"""

import math
from collections.abc import Sequence

from shared.core.verdict import Outcome, Verdict
from shared.rollout.traffic import Traffic, answered
from shared.telemetry.predictions import pooled

LEVEL = 0.01
_Z = 2.5758
"""Of a two-sided interval of 99 %."""


def psi_verdict(check: str, traffic: Traffic, *, limit: float, least: int) -> Verdict:
    """The verdict on the candidate's predictions against stable's."""
    candidate, stable, when = traffic.candidate, traffic.stable, traffic.when
    rows = sum(candidate.predictions.values()), sum(stable.predictions.values())
    sizes = [min(n, answered(side)) for n, side in zip(rows, (candidate, stable), strict=True)]
    if min(sizes) < least:
        # Nothing waits for what will not come: servers that do not count, or stable's while it has no traffic.
        is_counted = any(rows) or min(answered(candidate), answered(stable)) < least
        is_awaited = is_counted and (traffic.is_concurrent or sizes[1] >= least)
        said = f"predictions of {sizes[0]} requests of the candidate and of {sizes[1]} of stable's {when} were counted"
        return Verdict(
            check=check,
            outcome=Outcome.INCONCLUSIVE,
            sentence=f"{said}: each needs {least}",
            n=sizes[0],
            limit=limit,
            advisory=not is_awaited,
        )
    bins = pooled(stable.predictions, candidate.predictions)
    value, interval, p_value = _drift(bins, sizes[1] / rows[1], sizes[0] / rows[0])
    said = (
        f"PSI of the predictions of {sizes[0]} requests of the candidate against {sizes[1]} of stable's {when} is "
        f"{value:.3f} over {len(bins)} bins, what chance alone adds being taken off"
    )
    if value <= limit:
        outcome, then = Outcome.PASS, f"within the limit of {limit:g}"
    elif p_value <= LEVEL:
        outcome, then = Outcome.FAIL, f"above the limit of {limit:g}, and no chance (chi-square, p = {p_value:.2g})"
    else:
        outcome, then = Outcome.INCONCLUSIVE, f"above the limit of {limit:g}, perhaps by chance (p = {p_value:.2g})"
    return Verdict(
        check=check,
        outcome=outcome,
        sentence=f"{said}: {then}",
        n=sizes[0],
        value=value,
        limit=limit,
        interval=interval,
    )


def _drift(
    bins: Sequence[tuple[int, int]], stable_share: float, candidate_share: float
) -> tuple[float, tuple[float, float], float]:
    """PSI less its mean by chance, its 99 % interval, and the p-value of the chi-square test.

    Rows count for the shares given. The interval is the delta method's, with the variance of the chi-square that PSI
    is by chance alone, so that it has a width near zero too.
    """
    import numpy as np  # noqa: PLC0415

    from shared.drift.distances import PSEUDOCOUNT, chi_square, psi, shares  # noqa: PLC0415

    if len(bins) < 2:
        return 0.0, (0.0, 0.0), 1.0
    table = np.array(bins, dtype=np.float64)
    stable, candidate = table[:, 0] * stable_share, table[:, 1] * candidate_share
    n, m, freedom = stable.sum(), candidate.sum(), len(bins) - 1
    found = psi(stable, candidate)
    chance = freedom * (1 / n + 1 / m)
    p, q = shares(stable, PSEUDOCOUNT), shares(candidate, PSEUDOCOUNT)
    by_q, by_p = np.log(q / p) + 1 - p / q, np.log(p / q) + 1 - q / p
    variance = (q @ by_q**2 - (q @ by_q) ** 2) / m + (p @ by_p**2 - (p @ by_p) ** 2) / n
    deviation = math.sqrt(max(0.0, float(variance)) + 2 * freedom * float(1 / n + 1 / m) ** 2)
    value = max(0.0, float(found - chance))
    return value, (max(0.0, value - _Z * deviation), value + _Z * deviation), chi_square(stable, candidate)[2]
