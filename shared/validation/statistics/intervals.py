"""Confidence intervals: exact where there is an exact one, else from a seeded bootstrap or the estimate's variance.

All are two-sided at `level`. None has no width: where every observation agrees, the exact interval of a proportion
stands in, or there is none, for a sample without an error does not prove that there is none. benchmarks/intervals.py
measures how often each covers the truth. Loads numpy, and scipy.special where it is called: for the sandboxed process.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.validation.statistics.evidence import Codes, Flags, Floats
from shared.validation.statistics.metrics import midranks

LEVEL = 0.95
REPLICATES = 1_000
MAX_BOOTSTRAP_ROWS = 10_000
_BLOCK_VALUES = 2_000_000
"""Weights that the bootstrap holds at once: 16 MB."""
_ROUNDING = 1e-12

type Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """An interval, and how it came about."""

    interval: Interval
    method: str


def clopper_pearson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """The exact interval of a proportion (Clopper and Pearson 1934). `successes` may be fractional, in [0, n]."""
    from scipy.special import betaincinv  # noqa: PLC0415

    tail = (1 - level) / 2
    failures = n - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    return low, high


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """The score interval of a proportion (Wilson 1927)."""
    z = normal_quantile((1 + level) / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(first: tuple[float, float], second: tuple[float, float], level: float = LEVEL) -> Interval:
    """The interval of the difference of two independent proportions (Newcombe 1998, method 10).

    Each side is (successes, n); the difference is first minus second.
    """
    one, other = first[0] / first[1], second[0] / second[1]
    low_one, high_one = wilson(*first, level)
    low_other, high_other = wilson(*second, level)
    difference = one - other
    return (
        difference - math.hypot(one - low_one, high_other - other),
        difference + math.hypot(high_one - one, other - low_other),
    )


def normal_quantile(probability: float) -> float:
    """The standard normal distribution's quantile."""
    from scipy.special import ndtri  # noqa: PLC0415

    return float(ndtri(probability))


def auc_influence(positive: Flags, scores: Floats) -> tuple[float, Floats]:
    """The area under the ROC curve, and each row's influence on it (DeLong et al. 1988, by midranks: Sun, Xu 2014).

    The variance of the area is the sum of the squared influences over n squared.
    """
    hits = int(positive.sum())
    others = len(positive) - hits
    ranks = midranks(scores)
    influence = np.empty(len(scores))
    # The share of the other side that each row is on the right side of.
    influence[positive] = (ranks[positive] - midranks(scores[positive])) / others
    influence[~positive] = 1.0 - (ranks[~positive] - midranks(scores[~positive])) / hits
    area = float(influence[positive].mean())
    n = len(scores)
    # Divided by one less, as variances of samples are, where there is more than one.
    influence[positive] = (influence[positive] - area) * n / math.sqrt(hits * max(hits - 1, 1))
    influence[~positive] = (influence[~positive] - area) * n / math.sqrt(others * max(others - 1, 1))
    return area, influence


def auc_interval(true: Codes, scores: Floats, classes: Codes, *, weighted: bool, level: float = LEVEL) -> Estimated:
    """The interval of an area under the ROC curve, on the logit scale, by DeLong's variance.

    With one class in `classes` it is that class's; with several, the mean over them, by support where `weighted`.
    """
    shares = np.array([(true == at).mean() for at in classes])
    weights = shares / shares.sum() if weighted and len(classes) > 1 else np.full(len(classes), 1 / len(classes))
    area, influence = 0.0, np.zeros(len(true))
    for at, share, weight in zip(classes, shares, weights, strict=True):
        own, moved = auc_influence(true == at, scores[:, at])
        area += weight * own
        influence += weight * moved
        if weighted and len(classes) > 1:
            influence += ((true == at) - share) * own
    error = math.sqrt(float((influence**2).sum())) / len(true)
    least = min(float(np.minimum(shares, 1 - shares).min()) * len(true), len(true))
    if not 0 < area < 1 or error == 0:
        return Estimated(interval=clopper_pearson(area * least, least, level), method="clopper-pearson, rarest class")
    z = normal_quantile((1 + level) / 2)
    centre, half = math.log(area / (1 - area)), z * error / (area * (1 - area))
    return Estimated(interval=(_expit(centre - half), _expit(centre + half)), method="delong, logit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResampledMeans:
    """Means of columns, as measured, in each bootstrap sample, and with each row left out: [m], [r, m] and [n, m]."""

    measured: Floats
    replicates: Floats
    left_out: Floats

    def interval(self, statistic: Callable[[Floats], Floats], level: float = LEVEL) -> Interval | None:
        """The interval of a statistic that maps means of shape [r, m] to values of shape [r]; see `bca`."""
        value = float(statistic(self.measured[None])[0])
        left_out = statistic(self.left_out)
        return bca(value, statistic(self.replicates), left_out, np.ones(len(left_out)), level)


def bca(value: float, replicates: Floats, left_out: Floats, weights: Floats, level: float = LEVEL) -> Interval | None:
    """The BCa interval (Efron 1987) of a statistic: its value, and its values in bootstrap samples, shape [r].

    `left_out` holds its values with one row left out, each standing for `weights` such rows. None where the statistic
    does not vary: such a sample says nothing of its spread.
    """
    from scipy.special import ndtr, ndtri  # noqa: PLC0415

    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates) or np.ptp(replicates) <= _ROUNDING * max(1.0, abs(value)):
        return None
    below = ((replicates < value).sum() + 0.5 * (replicates == value).sum()) / len(replicates)
    edge = 0.5 / len(replicates)
    bias = float(ndtri(np.clip(below, edge, 1 - edge)))
    away = (weights @ left_out) / weights.sum() - left_out
    spread = float(weights @ away**2)
    acceleration = float(weights @ away**3) / (6 * spread**1.5) if spread > 0 else 0.0
    z = ndtri(np.array([(1 - level) / 2, (1 + level) / 2])) + bias
    ends = ndtr(bias + z / np.maximum(1 - acceleration * z, 1e-3))
    low, high = np.quantile(replicates, ends)
    return float(min(low, value)), float(max(high, value))


def resample_means(columns: Floats, *, seed: int) -> ResampledMeans:
    """Bootstrap the rows of `columns`, shape [n, m], n >= 2.

    More than `MAX_BOOTSTRAP_ROWS` rows are first averaged in that many random groups, which leaves the distribution of
    the means as it is.
    """
    generator = np.random.default_rng(seed)
    columns, sizes = _grouped(columns, generator)
    n = len(columns)
    replicates = np.empty((REPLICATES, columns.shape[1]))
    block = max(1, _BLOCK_VALUES // n)
    for start in range(0, REPLICATES, block):
        taken = min(block, REPLICATES - start)
        drawn = generator.integers(0, n, size=(taken, n), dtype=np.int32)
        drawn += (np.arange(taken, dtype=np.int32) * n)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=taken * n).reshape(taken, n).astype(np.float64)
        replicates[start : start + taken] = weights @ columns / (weights @ sizes)[:, None]
    total = columns.sum(axis=0)
    return ResampledMeans(
        measured=total / sizes.sum(),
        replicates=replicates,
        left_out=(total - columns) / (sizes.sum() - sizes)[:, None],
    )


def resample_counts(cells: Floats, *, seed: int) -> Floats:
    """Bootstrap samples of a table of counts: [c] gives [r, c], each with as many rows as `cells`."""
    n = int(cells.sum())
    return np.random.default_rng(seed).multinomial(n, cells / n, size=REPLICATES).astype(np.float64)


def _grouped(columns: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Rows summed within random groups, and the groups' sizes."""
    n = len(columns)
    if n <= MAX_BOOTSTRAP_ROWS:
        return columns, np.ones(n)
    starts = np.linspace(0, n, MAX_BOOTSTRAP_ROWS, endpoint=False).astype(np.int64)
    return np.add.reduceat(columns[generator.permutation(n)], starts), np.diff(starts, append=n).astype(np.float64)


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
