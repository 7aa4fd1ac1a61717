"""Whether estimates of performance may be relied on: held against what labels later said. Pure; loads scipy.special.

An estimate may gate only while labels show that it is calibrated: enough windows, each a day that is over, have got
theirs, and the most that estimates can have missed by, beyond what the chance of labels explains, is within a
tolerance. Few labels show nothing, and then it does not gate. An estimate that is off by the tolerance is let gate in
5 % of cases, and one that is off by more in fewer. The bound takes misses for draws around nought; where they are all
to one side it is the safer for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_WINDOWS = 8
RECENT_WINDOWS = 30
_LEAST_LABELS = 30
_ALLOWED = 0.05
"""How often an estimate that is off by the tolerance may gate."""
_HALVINGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """A window's estimate beside what its labels say: both values with their standard errors."""

    estimate: float
    estimate_error: float
    realised: float
    realised_error: float
    labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How well recent estimates were met."""

    windows: int
    bias: float | None
    """Mean of estimates less realised values."""
    miss: float | None
    """Root mean square of the same, less what the chance of labels explains."""
    most: float | None
    """What it is at most, at 95 %."""
    covered: float | None
    """The share of windows whose difference lies within its 95 % interval."""
    may_gate: bool
    sentence: str


def calibration_of(windows: Sequence[Realised], *, tolerance: float) -> Calibration:
    """Of windows in the order of time: the latest RECENT_WINDOWS with labels enough count. `tolerance` is in the unit
    of the performance.
    """
    recent = [one for one in windows if one.labels >= _LEAST_LABELS][-RECENT_WINDOWS:]
    count = len(recent)
    if not count:
        return Calibration(
            windows=0,
            bias=None,
            miss=None,
            most=None,
            covered=None,
            may_gate=False,
            sentence=f"no day that is over has an estimate and {_LEAST_LABELS} labels yet: the estimate does not gate",
        )
    differences = [one.estimate - one.realised for one in recent]
    variances = [one.estimate_error**2 + one.realised_error**2 for one in recent]
    # Whatever the estimate's own error, it is a miss: that of its fit is the same in every window.
    by_chance = [one.realised_error**2 for one in recent]
    excess = math.fsum(d * d - v for d, v in zip(differences, by_chance, strict=True)) / count
    miss, most = math.sqrt(max(0.0, excess)), _most(differences, by_chance)
    may_gate = count >= LEAST_WINDOWS and most <= tolerance
    return Calibration(
        windows=count,
        bias=math.fsum(differences) / count,
        miss=miss,
        most=most,
        covered=sum(d * d <= 1.96**2 * v for d, v in zip(differences, variances, strict=True)) / count,
        may_gate=may_gate,
        sentence=_said(count, miss, most, tolerance),
    )


def _said(count: int, miss: float, most: float, tolerance: float) -> str:
    said = f"in {count} days with labels, estimates missed what was realised by {miss:.3g} beyond chance, and by "
    said += f"{most:.3g} at most"
    if count < LEAST_WINDOWS:
        return f"{said}; {LEAST_WINDOWS} days are needed before the estimate gates"
    if most <= tolerance:
        return f"{said}, within the tolerance of {tolerance:.3g}: the estimate may gate"
    if miss <= tolerance:
        return (
            f"{said}: too few labels to tell that {tolerance:.3g}, the tolerance, is kept; the estimate does not gate"
        )
    return f"{said}, above the tolerance of {tolerance:.3g}: the estimate does not gate"


def _most(differences: Sequence[float], variances: Sequence[float]) -> float:
    """The greatest standard deviation of misses that the differences do not speak against.

    Cochran's Q with that variance added to each window's own falls to the chi-square's lower quantile (Viechtbauer
    2007, "Confidence intervals for the amount of heterogeneity in meta-analysis", section 3.1, about nought instead of
    their mean).
    """
    from scipy.special import chdtri  # noqa: PLC0415

    limit = float(chdtri(len(differences), 1.0 - _ALLOWED))
    squares = [d * d for d in differences]
    low, high = 0.0, math.fsum(squares) / limit
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle and math.fsum(s / (v + middle) for s, v in zip(squares, variances, strict=True)) > limit:
            low = middle
        else:
            high = middle
    return math.sqrt(high)
