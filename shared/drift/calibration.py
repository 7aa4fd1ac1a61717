"""Whether estimates of performance may be relied on: held against what labels later said. Pure, without numpy.

An estimate may gate only while it is calibrated: enough windows have got their labels, and the estimates missed what
was realised by no more than a tolerance beyond what chance explains.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_WINDOWS = 8
RECENT_WINDOWS = 30
_LEAST_LABELS = 30


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
    """Root mean square of the same, less what chance explains."""
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
            covered=None,
            may_gate=False,
            sentence=f"no window has {_LEAST_LABELS} labels yet: the estimate does not gate",
        )
    differences = [one.estimate - one.realised for one in recent]
    variances = [one.estimate_error**2 + one.realised_error**2 for one in recent]
    bias = math.fsum(differences) / count
    excess = math.fsum(d * d - v for d, v in zip(differences, variances, strict=True)) / count
    miss = math.sqrt(max(0.0, excess))
    covered = sum(d * d <= 1.96**2 * v for d, v in zip(differences, variances, strict=True)) / count
    may_gate = count >= LEAST_WINDOWS and miss <= tolerance
    said = f"in {count} windows with labels, estimates missed what was realised by {miss:.3g} beyond chance"
    if count < LEAST_WINDOWS:
        said += f"; {LEAST_WINDOWS} windows are needed before the estimate gates"
    else:
        said += f", {'within' if may_gate else 'above'} the tolerance of {tolerance:g}"
        said += ": the estimate may gate" if may_gate else ": the estimate does not gate"
    return Calibration(windows=count, bias=bias, miss=miss, covered=covered, may_gate=may_gate, sentence=said)
