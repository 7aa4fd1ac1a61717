"""How far two distributions lie apart, from counts in the same bins.

Pure functions of counts, shape [b], at least one row on either side; no result is NaN. Golden vectors hold them to
scipy's values and to their formulas. Loads numpy, and scipy.special where it is called.
"""

import math

import numpy as np
from numpy.typing import NDArray

type Counts = NDArray[np.int64] | NDArray[np.float64]
type Floats = NDArray[np.float64]

PSEUDOCOUNT = 0.5
"""Added to each bin for PSI, which an empty bin would make infinite (Jeffreys' prior)."""
_LEAST_EXPECTED = 5.0
"""Bins are joined until the smaller sample expects this many rows in each (Cochran 1954)."""


def shares(counts: Counts, pseudocount: float = 0.0) -> Floats:
    """The share of each bin."""
    smoothed = counts + pseudocount
    result: Floats = smoothed / smoothed.sum()
    return result


def psi(reference: Counts, actual: Counts, *, pseudocount: float = PSEUDOCOUNT) -> float:
    """The population stability index: the sum of (q - p) ln(q / p) over the bins that either side has rows in (Siddiqi
    2006, "Credit Risk Scorecards"; the divergence J of Kullback and Leibler 1951, "On information and sufficiency").
    """
    held = (reference + actual) > 0
    p, q = shares(reference[held], pseudocount), shares(actual[held], pseudocount)
    return float((q - p) @ np.log(q / p))


def psi_noise(reference: Counts, actual: Counts, probability: float = 0.95) -> float:
    """The PSI that two samples of these sizes stay below, with `probability`, where nothing drifted.

    (1/n + 1/m) times the quantile of chi-square with one degree less than there are bins (Yurdakul and Naranjo
    2020). Holds where the bins expect five rows or more.
    """
    from scipy.special import chdtri  # noqa: PLC0415

    degrees = int(((reference + actual) > 0).sum()) - 1
    if degrees < 1:
        return 0.0
    return float((1 / reference.sum() + 1 / actual.sum()) * chdtri(degrees, 1 - probability))


def jensen_shannon(reference: Counts, actual: Counts) -> float:
    """The Jensen-Shannon distance to base 2, in [0, 1]: the root of the divergence (Lin 1991, "Divergence measures
    based on the Shannon entropy"), which is a metric (Endres and Schindelin 2003); as scipy's.
    """
    p, q = shares(reference), shares(actual)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(0.0, divergence)))


def hellinger(reference: Counts, actual: Counts) -> float:
    """The Hellinger distance, in [0, 1] (Hellinger 1909), scaled so that what shares no bin is 1 apart."""
    # Not the root of 1 less the overlap, which of near ones is off by 1e-8.
    apart = np.sqrt(shares(reference)) - np.sqrt(shares(actual))
    return min(1.0, float(np.sqrt(np.square(apart).sum() / 2)))


def kolmogorov_smirnov(reference: Counts, actual: Counts) -> float:
    """The greatest distance of the cumulative shares, for bins in order. With a bin a value, that of the samples
    (Kolmogorov 1933; of two samples, Smirnov 1939).
    """
    return float(np.abs(np.cumsum(shares(reference)) - np.cumsum(shares(actual)))[:-1].max(initial=0.0))


def wasserstein(reference: Counts, actual: Counts, positions: Floats) -> float:
    """The earth mover's distance, in the unit of `positions`: where each bin lies, rising, finite, shape [b]. On a line
    it is the area between the cumulative shares (Vallender 1974, "Calculation of the Wasserstein distance between
    probability distributions on the line").
    """
    away = np.abs(np.cumsum(shares(reference)) - np.cumsum(shares(actual)))[:-1]
    return float(away @ np.diff(positions))


def chi_square(reference: Counts, actual: Counts) -> tuple[float, int, float]:
    """The chi-square test that both are samples of one distribution (Pearson 1900; of two samples, 1911): statistic,
    degrees of freedom, p-value.

    The rarest bins are joined first, until the smaller sample expects five rows in each. Where that leaves one bin, as
    where nearly all rows of the larger sample lie in one, the rows outside the most frequent bin are told by a bound
    that holds however few are expected. One bin that holds all rows has a p-value of 1.
    """
    from scipy.special import chdtrc  # noqa: PLC0415

    counts = np.vstack([reference, actual]).astype(np.float64)
    table = _joined(counts)
    degrees = table.shape[1] - 1
    if degrees < 1:
        return _outside_the_most_frequent(counts)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, degrees, float(chdtrc(degrees, statistic))


def _outside_the_most_frequent(table: Floats) -> tuple[float, int, float]:
    """As `chi_square`, of both rows of counts, [2, b], in two bins: the most frequent one, and all others.

    Of one distribution, the smaller sample's rows in a bin are drawn from those of both without replacement, which
    Chernoff's bound holds for (Hoeffding 1963, theorems 1 and 4). Twice that is the p-value, and the statistic is the
    one that has it, of one degree of freedom.
    """
    from scipy.special import ndtri_exp, rel_entr  # noqa: PLC0415

    totals, sizes = table.sum(axis=0), table.sum(axis=1)
    most = int(np.argmax(totals))
    two = np.column_stack([table[:, most], sizes - table[:, most]])
    if not two[:, 1].any():
        return 0.0, 0, 1.0
    away = rel_entr(two / sizes[:, None], two.sum(axis=0) / two.sum()).sum(axis=1)
    log_tail = -max(float((sizes * away).max()), math.log(2))
    return float(ndtri_exp(log_tail)) ** 2, 1, 2 * math.exp(log_tail)


def _joined(table: Floats) -> Floats:
    """Both rows of counts, [2, b], with the bins that expect too few rows in one bin at the end."""
    totals = table.sum(axis=0)
    least = _LEAST_EXPECTED * table.sum() / table.sum(axis=1).min()
    order = np.argsort(totals, kind="stable")
    table, totals = table[:, order], totals[order]
    too_few = int((totals < least).sum())
    if not too_few:
        return table
    together = too_few
    # The bin of the joined ones must itself expect enough.
    while together < len(totals) and totals[:together].sum() < least:
        together += 1
    return np.column_stack([table[:, :together].sum(axis=1), table[:, together:]])


def _relative_entropy(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(p[held] @ np.log2(p[held] / q[held]))
