"""Evidence that is looked at again and again while rows come: p-values that hold at all looks together.

A test at each look would spend its level at each. Here chance is ruled out by how far the counts lie apart beside what
a mixture of drifts of all directions and many sizes makes likely (Robbins 1970, "Statistical methods related to the law
of the iterated logarithm"; in several dimensions Howard, Ramdas, McAuliffe and Sekhon 2021, section 3.2): without drift
such a ratio comes to 1 / p, ever, with a chance of p at most (Ville 1939). It is a function of the counts as they are:
there is no state to lose, and a look that is taken twice, or not at all, changes nothing.

Rows of one subject are alike: both sides count as what their rows are worth (shared.telemetry.subjects). Loads scipy
where a p-value is computed.
"""

import math
from dataclasses import dataclass

from shared.telemetry.subjects import Worth

BEST_AT = 50.0
"""Where the mixture asks for least: so many rows of each of two like sides, halved. Far more cost little."""
LEAST_WORTH = 20.0
"""Rows of a side that are worth less conclude nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Looks at two sides. `part` is which of the stretches of time that are looked at one after the other: the level is
    spent on all of them together, a half on the first.
    """

    reference: Worth
    actual: Worth
    part: int = 0

    @property
    def worth(self) -> float:
        """What the lesser side's rows are worth."""
        return min(self.reference.rows, self.actual.rows)

    @property
    def is_enough(self) -> bool:
        """Whether anything can be concluded."""
        return self.worth >= LEAST_WORTH

    @property
    def freedom(self) -> float | None:
        """Degrees of freedom that stand behind what the rows are worth; None where it is no estimate."""
        known = [side for side in (self.reference, self.actual) if side.freedom is not None]
        if not known:
            return None
        # Of a sum of two estimates, each weighed by its share of the variance (Satterthwaite 1946).
        whole = 1 / self.reference.rows + 1 / self.actual.rows
        return whole**2 / sum(1 / (side.rows**2 * (side.freedom or 1.0)) for side in known)

    def p_value(self, single: float, degrees: float) -> float:
        """The p-value that holds at all looks, of one that holds at one, of a test of so many degrees of freedom."""
        from scipy.special import chdtri  # noqa: PLC0415

        if degrees <= 0 or single >= 1:
            return 1.0
        if single <= 0:
            return 0.0
        size = 1 / (1 / self.reference.rows + 1 / self.actual.rows)
        statistic = float(chdtri(degrees, single))
        log = degrees / 2 * math.log1p(size / BEST_AT) - size / (size + BEST_AT) * statistic / 2
        return min(1.0, math.exp(min(0.0, log)) * (self.part + 1) * (self.part + 2))
