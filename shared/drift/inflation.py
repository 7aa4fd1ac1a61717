"""By how much windows of healthy traffic differ more than independent rows would: the empirical null of drift.

Rows of one user, of one hour, of one job resemble each other, so counts of them vary more than a chi-square test of as
many independent rows allows, and more in some directions (the level of a number) than in others. How much more is
learned from the version's own healthy windows: the eigenvalues of their covariance beside that of independent rows
(design effects: Rao and Scott 1981, "The analysis of categorical data from complex sample surveys"). The statistic is
then taken for a sum of chi-squares so weighted: of the largest eigenvalue, and of the others as if they were alike.
Those who want one number of degrees of freedom are told what the eigenvalues' mean and spread leave (Satterthwaite
1946; Rao and Scott 1984, section 3), whose chi-square ends sooner than the sum does.

The windows must be as long as those that are scored: hours within a day differ more, and otherwise, than days. Loads
numpy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import NumberFeature, Profile

type Floats = NDArray[np.float64]

LEAST_WINDOWS = 8
_LEAST_EXPECTED = 5.0
_LEAST_OF_MEDIAN = 10.0
_MOST_FOLLOWING = 0.8
_AT_THE_MEAN = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflation:
    """The eigenvalues of a covariance beside that of independent rows: mean, never below 1, and mean square.

    Windows of `rows` rows stand behind them, worth `freedom` independent ones less one; None where nothing is
    estimated.
    """

    mean: float = 1.0
    mean_square: float = 1.0
    freedom: float | None = None
    rows: float = 1.0

    def of(self, rows: float, reference: float, *, of_both: bool = False) -> "Inflation":
        """That of the difference of a window of so many rows from a reference of so many.

        The reference's rows are independent unless it is `of_both`. What exceeds 1 grows in proportion with rows beyond
        `self.rows`, as it does where each window has a level of its own; where it would not grow, this errs to the
        side of quiet.
        """
        weight = self._growth(rows) / rows + (self._growth(reference) / reference if of_both else 0.0)
        weight /= 1 / rows + 1 / reference
        more = self.mean - 1.0
        square = self.mean_square - 2 * self.mean + 1.0
        return Inflation(
            mean=1.0 + weight * more,
            mean_square=1.0 + 2 * weight * more + weight**2 * square,
            freedom=self.freedom,
            rows=rows,
        )

    def p_value(self, statistic: float, degrees: int) -> float:
        """The chance of a chi-square statistic as large, of so many degrees of freedom before it was inflated."""
        from scipy.special import chdtrc  # noqa: PLC0415

        if degrees < 1 or statistic <= 0.0:
            return 1.0
        if self.freedom is None:
            left = self.left_of(degrees)
            return float(chdtrc(left, statistic / self.mean * left / degrees))
        most, others = self.eigenvalues(degrees)
        # The mean is itself an estimate, that of its largest eigenvalue above all.
        weights = np.array([most, others, -statistic / self.freedom])
        return _above_nought(weights, np.array([1.0, degrees - 1.0, self.freedom]))

    def eigenvalues(self, degrees: int) -> tuple[float, float]:
        """The largest of so many eigenvalues, and that of all others, where these are alike."""
        apart = max(0.0, self.mean_square - self.mean**2)
        if degrees == 1:
            return self.mean, self.mean
        return self.mean + math.sqrt((degrees - 1) * apart), max(0.0, self.mean - math.sqrt(apart / (degrees - 1)))

    def left_of(self, degrees: int) -> float:
        """The degrees of freedom that are left of so many."""
        return min(float(degrees), max(1.0, degrees * self.mean**2 / self.mean_square))

    def also(self, freedom: float | None) -> "Inflation":
        """This one, of rows whose number is itself estimated with so many degrees of freedom."""
        if freedom is None:
            return self
        return replace(self, freedom=freedom if self.freedom is None else 1 / (1 / freedom + 1 / self.freedom))

    def _growth(self, rows: float) -> float:
        return max(1.0, rows / self.rows)


NONE = Inflation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflations:
    """Those of a feature: of its bins, and of the share that is missing, infinite or unseen."""

    bins: Inflation = NONE
    unusable: Inflation = NONE


UNKNOWN = Inflations()


def inflations(profile: Profile, windows: Sequence[FeatureCounts]) -> Mapping[str, Inflations]:
    """The inflations of each feature by name, from windows that are taken to be healthy, in the order of time.

    Windows of less than a tenth of the median's rows are left out; of fewer than eight others nothing is known. Windows
    must be counted by this profile.
    """
    rows = np.array([window.rows for window in windows], dtype=np.float64)
    is_held = rows >= max(1.0, float(np.median(rows[rows > 0])) / _LEAST_OF_MEDIAN) if rows.any() else rows > 0
    if is_held.sum() < LEAST_WINDOWS:
        return {feature.name: UNKNOWN for feature in profile.features}
    held = [window.cells for window, holds in zip(windows, is_held.tolist(), strict=True) if holds]
    table = np.array(held, dtype=np.float64)
    cells = profile.cells()
    found = {}
    for feature in profile.features:
        start, stop = cells[feature.name].start, cells[feature.name].start + feature.bins
        unusable = table[:, stop - 1] + (table[:, stop] if isinstance(feature, NumberFeature) else 0.0)
        two = np.column_stack([table[:, start:stop].sum(axis=1) - unusable, unusable])
        found[feature.name] = Inflations(bins=inflation_of(table[:, start:stop]), unusable=inflation_of(two))
    return found


def inflations_beside(
    profile: Profile, windows: Sequence[FeatureCounts], worth: Sequence[float] | None = None
) -> Mapping[str, Inflations]:
    """The inflations of each feature by name, from how each window differs from the one before it.

    For what is compared within the same hours: a level that moves slowly is common to both sides, and none of theirs.
    What is left, rows that go together within a window, inflates both, and no more of several windows than of one.
    `worth` is how many independent rows those of each window are worth, where their subjects are known: what is said
    is then by how much more these differ. Of fewer than LEAST_WINDOWS nothing is known.
    """
    each = [float(window.rows) for window in windows] if worth is None else worth
    held = [(window, size / window.rows) for window, size in zip(windows, each, strict=True) if window.rows]
    if len(held) < LEAST_WINDOWS:
        return {feature.name: UNKNOWN for feature in profile.features}
    table = np.array([window.cells for window, _ in held], dtype=np.float64) * np.array([[by] for _, by in held])
    cells = profile.cells()
    found = {}
    for feature in profile.features:
        start, stop = cells[feature.name].start, cells[feature.name].start + feature.bins
        unusable = table[:, stop - 1] + (table[:, stop] if isinstance(feature, NumberFeature) else 0.0)
        two = np.column_stack([table[:, start:stop].sum(axis=1) - unusable, unusable])
        found[feature.name] = Inflations(bins=_of_neighbours(table[:, start:stop]), unusable=_of_neighbours(two))
    return found


def _of_neighbours(table: Floats) -> Inflation:
    """From the chi-squares of windows and those before them: by their degrees of freedom, and how they go together."""
    rows = table.sum(axis=1)
    table = _joined(table, _LEAST_EXPECTED * rows.sum() / rows.min())
    degrees, pairs = table.shape[1] - 1, len(table) - 1
    if degrees < 1:
        return NONE
    n, m = rows[1:, None], rows[:-1, None]
    together = table[1:] + table[:-1]
    apart = table[1:] * np.sqrt(m / n) - table[:-1] * np.sqrt(n / m)
    standard = np.divide(apart, np.sqrt(together), out=np.zeros_like(apart), where=together > 0)
    products = np.square(standard @ standard.T)
    mean = max(1.0, float(np.trace(standard @ standard.T)) / pairs / degrees)
    if mean == 1.0:  # nothing is estimated: few windows need not be allowed for
        return NONE
    # Of pairs without a window in common the squared products come to the sum of squares of the eigenvalues.
    square = float(products[np.triu_indices(pairs, 2)].mean()) / degrees
    found = Inflation(mean=mean, mean_square=min(max(square, mean**2), degrees * mean**2), rows=math.inf)
    # Each window but the first and the last stands in two of the pairs; and each pair is of so many directions.
    return replace(found, freedom=pairs / 2 * found.left_of(degrees))


def inflation_of(table: Floats) -> Inflation:
    """The inflation that counts of windows show, [windows, bins]: of LEAST_WINDOWS or more, each of a row or more."""
    rows = table.sum(axis=1)
    table = _joined(table, _LEAST_EXPECTED * rows.sum() / rows.min())
    degrees, freedom = table.shape[1] - 1, len(table) - 1
    if degrees < 1:
        return NONE
    expected = rows[:, None] * table.sum(axis=0) / rows.sum()
    standard = (table - expected) / np.sqrt(expected)
    total = float(np.square(standard).sum())
    trace = total / freedom
    # Unbiased for the sum of squares of the eigenvalues (Srivastava 2005, equation 2.1).
    square = float(np.square(standard.T @ standard).sum()) / freedom**2 - trace**2 / freedom
    square *= freedom**2 / ((freedom - 1) * (freedom + 2))
    # Windows that follow one another resemble each other: they vary less about their own mean, and are worth fewer
    # (Bayley and Hammersley 1946, for an autocorrelation that falls from window to window by one factor).
    follow = float((standard[1:] * standard[:-1]).sum()) / total if total else 0.0
    follow = min(max(0.0, follow + (1 + 3 * follow) / len(table)), _MOST_FOLLOWING)
    trace *= freedom / max(1.0, len(table) - (1 + follow) / (1 - follow))
    mean = max(1.0, trace / degrees)
    mean_square = min(max(square / degrees, mean**2), degrees * mean**2)
    found = Inflation(mean=mean, mean_square=mean_square, rows=float(rows.mean()))
    # It is the largest eigenvalue's windows that follow one another: the others are of independent rows.
    follow = min(follow * mean * degrees / found.eigenvalues(degrees)[0], _MOST_FOLLOWING)
    return replace(found, freedom=freedom * (1 - follow**2) / (1 + follow**2))


def _above_nought(weights: Floats, degrees: Floats) -> float:
    """The chance that a sum of weighted chi-squares, of so many degrees of freedom each, is above nought: by a
    saddlepoint (Kuonen 1999, "Saddlepoint approximations for distributions of quadratic forms in normal variables").
    Some of `weights` are above nought and some below; [n].
    """
    from scipy.special import ndtr  # noqa: PLC0415

    low, high = 0.5 / weights.min(), 0.5 / weights.max()
    for _ in range(100):
        at = (low + high) / 2
        if (degrees * weights / (1 - 2 * at * weights)).sum() < 0:
            low = at
        else:
            high = at
    shares = 2 * at * weights
    root = math.copysign(math.sqrt(max(0.0, float((degrees * np.log1p(-shares)).sum()))), at)
    slope = math.copysign(math.sqrt(float((degrees / 2 * np.square(shares / (1 - shares))).sum())), at)
    if abs(root) < _AT_THE_MEAN:
        skew = float((8 * degrees * weights**3).sum()) / math.pow(float((2 * degrees * weights**2).sum()), 1.5)
        return float(ndtr(-root - skew / 6))
    return float(ndtr(-root - math.log(slope / root) / root))


def _joined(table: Floats, least: float) -> Floats:
    """Bins with the rarest joined until each total is at least `least`, or two are left: however few rows are outside
    the most frequent bin, a window's are tested. One bin where it holds all.
    """
    table = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    totals = np.cumsum(table.sum(axis=0))
    together = int((table.sum(axis=0) < least).sum())
    while 0 < together < table.shape[1] and totals[together - 1] < least:
        together += 1
    together = min(together, table.shape[1] - 1)
    if not together:
        return table
    joined = np.column_stack([table[:, :together].sum(axis=1), table[:, together:]])
    return joined[:, joined.any(axis=0)]
