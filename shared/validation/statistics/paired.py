"""Paired tests of two models on the same rows: is one not worse than the other by more than a margin?

Proportions: an exact unconditional test. Rows that only one model answers right are counted; Tango's score (1998)
orders the tables, and the tail probability is computed, not approximated, and maximised over the share of rows on
which the models differ (Liu et al. 2002). So a difference at the margin passes at most as often as the level says.
Means: Student's t of the paired values, held against skewness by Johnson's correction (1978). No test of means sees
what the rows do not hold: a candidate that is far worse in rows rarer than a few among those given may pass.
benchmarks/noninferiority.py measures both. Loads numpy, and scipy.special where it is called.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.validation.statistics.evidence import Floats
from shared.validation.statistics.intervals import Interval, normal_quantile

LEVEL = 0.05
"""How often a difference at the margin may pass."""
MAX_EXACT_ROWS = 20_000
_FEW = 200
"""Rows expected to differ below which the tail is exact whatever their number."""
_NUISANCE_POINTS = 48
_BISECTIONS = 50
_LARGEST_RATIO = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Discordance:
    """Of `n` rows, those that only the candidate (`gained`) and only the champion (`lost`) answers right."""

    n: int
    gained: int
    lost: int

    @property
    def difference(self) -> float:
        """The candidate's accuracy minus the champion's."""
        return (self.gained - self.lost) / self.n

    @property
    def mirrored(self) -> "Discordance":
        """The same as the champion's side sees it."""
        return Discordance(n=self.n, gained=self.lost, lost=self.gained)


def p_value_above(table: Discordance, least: float) -> float:
    """How probable a table at least as favourable is where the true difference is `least` in (-1, 1), or less.

    Exact up to `MAX_EXACT_ROWS` rows, and wherever few of them differ; beyond, by the normal distribution.
    """
    score = float(tango_score(np.array([table.gained]), np.array([table.lost]), table.n, least)[0])
    if table.n > MAX_EXACT_ROWS and max(table.n * abs(least), table.gained + table.lost) > _FEW:
        return 0.5 * math.erfc(score / math.sqrt(2))
    return _exact_tail(score, table.n, least)


def tango_score(gained: Floats, lost: Floats, n: int, difference: float) -> Floats:
    """Tango's score (1998) of tables against a true difference of proportions. Shapes [r]."""
    linear = -gained - lost + (2 * n - gained + lost) * difference
    product = -lost * difference * (1 - difference)
    share = (np.sqrt(np.maximum(linear**2 - 8 * n * product, 0.0)) - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    away = gained - lost - n * difference
    scores: Floats = away / np.sqrt(np.maximum(variance, 1e-12))
    return scores


def tango_interval(table: Discordance, tail: float = LEVEL) -> Interval:
    """The difference's interval by Tango's score, `tail` outside either end."""
    z = normal_quantile(1 - tail)
    return _tango_bound(table, z), -_tango_bound(table.mirrored, z)


def _tango_bound(table: Discordance, z: float) -> float:
    """The least difference that the score does not reject."""
    gained, lost = np.array([table.gained]), np.array([table.lost])
    low, high = -1.0, table.difference
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if tango_score(gained, lost, table.n, middle)[0] > z:
            low = middle
        else:
            high = middle
    return low


def mcnemar(table: Discordance) -> float:
    """The exact two-sided p-value of McNemar's test (1947) that both models are equally often right."""
    from scipy.special import bdtr  # noqa: PLC0415

    differing = table.gained + table.lost
    return min(1.0, 2 * float(bdtr(float(min(table.gained, table.lost)), differing, 0.5))) if differing else 1.0


def _exact_tail(score: float, n: int, difference: float) -> float:
    """The greatest probability, over the share of rows lost, of a table whose score is at least `score`."""
    least, most = max(0.0, -difference), (1 - difference) / 2
    needed = _gains_needed(score, n, difference)

    def tail(share: float) -> float:
        return _tail_at(share, needed, n, difference)

    # Denser towards few differing rows, where the counts' steps make the probability jump.
    grid = least + (most - least) * np.linspace(0.0, 1.0, _NUISANCE_POINTS) ** 2
    tails = [tail(share) for share in grid]
    top = int(np.argmax(tails))
    around = np.linspace(grid[max(top - 1, 0)], grid[min(top + 1, len(grid) - 1)], 9)[1:-1]
    return min(1.0, max(*tails, *(tail(share) for share in around)))


def _gains_needed(score: float, n: int, difference: float) -> Floats:
    """For each number of lost rows 0 to n, the least number of gained ones whose score is at least `score`.

    The score rises with the gained rows. n + 1 where none do. Shape [n + 1].
    """
    lost = np.arange(n + 1, dtype=np.float64)
    low, high = np.full(n + 1, -1.0), n - lost + 1
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        reached = tango_score(middle, lost, n, difference) >= score - 1e-9
        high = np.where(reached & (high - low > 1), middle, high)
        low = np.where(~reached & (high - low > 1), middle, low)
    return np.where(high > n - lost, n + 1.0, high)


def _tail_at(share: float, needed: Floats, n: int, difference: float) -> float:
    """The probability of the tables that `needed` lets in, where a row is lost with probability `share`."""
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy  # noqa: PLC0415

    gain = share + difference
    spread = 8 * math.sqrt(n * share * (1 - share))
    # More than 1 - 1e-14 of the outcomes.
    first, last = max(0, math.floor(n * share - spread) - 1), min(n, math.ceil(n * share + spread) + 40)
    lost = np.arange(first, last + 1, dtype=np.float64)
    log_chance = gammaln(n + 1) - gammaln(lost + 1) - gammaln(n - lost + 1)
    chance = np.exp(log_chance + xlogy(lost, share) + xlog1py(n - lost, -share))
    wanted = needed[first : last + 1]
    given = min(1.0, max(0.0, gain / (1 - share))) if share < 1 else 0.0
    left = (n - lost).astype(np.int64)
    within = np.where((wanted > 0) & (wanted <= left), bdtrc(np.clip(wanted - 1, 0, left), left, given), 0.0)
    return float(chance @ np.where(wanted <= 0, 1.0, within))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedErrors:
    """Moments of two models' absolute errors on the same rows: means, and central moments by their powers."""

    n: int
    candidate: float
    champion: float
    central: dict[tuple[int, int], float]

    @classmethod
    def of(cls, candidate: Floats, champion: Floats) -> "PairedErrors":
        """From each row's errors. Shapes [n]."""
        one, other = candidate - candidate.mean(), champion - champion.mean()
        powers = [(i, j) for i in range(4) for j in range(4) if 2 <= i + j <= 3]
        return cls(
            n=len(candidate),
            candidate=float(candidate.mean()),
            champion=float(champion.mean()),
            central={(i, j): float((one**i * other**j).mean()) for i, j in powers},
        )

    def p_value_below(self, ratio: float) -> float:
        """How probable errors as low as the candidate's are where their mean is `ratio` of the champion's, or more."""
        return self._tail(ratio, -1)

    def p_value_above(self, ratio: float) -> float:
        """How probable errors as high as the candidate's are where their mean is `ratio` of the champion's, or less."""
        return self._tail(ratio, 1)

    def interval(self, tail: float = LEVEL) -> Interval:
        """The interval of the ratio of mean errors, candidate by champion, `tail` outside either end."""
        measured = self.candidate / self.champion
        return (
            _last(lambda ratio: self.p_value_above(ratio) <= tail, 0.0, measured),
            _last(lambda ratio: self.p_value_below(ratio) <= tail, max(_LARGEST_RATIO, 2 * measured), measured),
        )

    def _tail(self, ratio: float, sign: int) -> float:
        from scipy.special import stdtr  # noqa: PLC0415

        mean = sign * (self.candidate - ratio * self.champion)
        variance = self._central(2, ratio) * self.n / (self.n - 1) if self.n > 1 else 0.0
        if variance <= 0:
            return 0.0 if mean > 0 and self.n > 1 else 1.0
        skew = sign * self._central(3, ratio)
        corrected = mean + skew / (6 * variance * self.n) + skew / (3 * variance**2) * mean**2
        worse = min(mean, corrected) / math.sqrt(variance / self.n)
        return float(stdtr(self.n - 1, -worse))

    def _central(self, power: int, ratio: float) -> float:
        """A central moment of the candidate's error minus `ratio` times the champion's."""
        return sum(math.comb(power, k) * (-ratio) ** k * self.central[power - k, k] for k in range(power + 1))


def _last(rejected: Callable[[float], bool], outer: float, inner: float) -> float:
    """Where, on the way from `outer` to `inner`, a ratio is no longer rejected."""
    if not rejected(outer):
        return outer
    for _ in range(_BISECTIONS):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if rejected(middle) else (outer, middle)
    return outer
