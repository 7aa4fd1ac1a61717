"""How often a shadow disagrees with the answers that were given, and by how much, with 95 % intervals.

The rate's interval is Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001, equation 4), which is never
empty and never leaves [0, 1]. The mean difference's is Student's t, with the requests compared as the sample's size
where there are fewer of them than numbers: the numbers of one request go together, and counting each of them by itself
would make the interval too narrow. Both hold at one look, not at the best of many.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from shared.telemetry.window import ShadowCounts

_Z = NormalDist().inv_cdf(0.975)
_FEWEST = 10
"""Below it, no interval is given for the mean: the expansion of the t quantile is off by more than 0.01 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value and its 95 % interval, from a sample of `n`."""

    value: float
    low: float
    high: float
    n: int


def disagreement(counts: ShadowCounts) -> Estimate | None:
    """The share of requests to which the shadow gave another first output; None where none was compared."""
    n, k = counts.compared, counts.disagreements
    if n == 0:
        return None
    rate, z2 = k / n, _Z * _Z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Estimate(value=rate, low=low, high=high, n=n)


def mean_difference(counts: ShadowCounts) -> Estimate | None:
    """The mean of the shadow's numbers less the answers'; None where fewer than ten requests gave any."""
    numbers = counts.numbers
    n = min(numbers, counts.compared)
    if n < _FEWEST:
        return None
    mean = counts.difference / numbers
    variance = max(0.0, counts.difference_squared / numbers - mean * mean) * n / (n - 1)
    half = _t(n - 1) * math.sqrt(variance / n)
    return Estimate(value=mean, low=mean - half, high=mean + half, n=n)


def root_mean_square(counts: ShadowCounts) -> float | None:
    """The root of the mean squared difference; None where no numbers were compared."""
    return math.sqrt(counts.difference_squared / counts.numbers) if counts.numbers else None


def _t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun 1964, equation 26.7.5)."""
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    correction: float = sum(term / freedom**power for power, term in enumerate(terms, start=1))
    return z + correction
