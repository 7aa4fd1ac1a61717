"""How much less rows are worth to a mean of theirs than independent ones: its design effect, from healthy hours.

A mean is one direction of the counts, and of hours with levels of their own one direction varies by far more than all
do in the mean (Kish 1965, section 8.2). What an hour of the day usually is, is no such level: an hour is held against
the others of its hour of the day where enough of them are known, else against all. Loads numpy.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from shared.drift.inflation import LEAST_WINDOWS

type Floats = NDArray[np.float64]


def design_effects(means: Floats, variances: Floats, rows: Floats, hours: Sequence[datetime]) -> Floats:
    """Those of means, [hours, means], of so many rows each; `variances` are those of one row.

    An effect is of an hour of the mean number of rows, and never below 1: nor is it known of fewer hours than
    LEAST_WINDOWS.
    """
    nothing = np.ones(means.shape[1])
    if len(hours) < LEAST_WINDOWS:
        return nothing
    of_day = np.array([hour.astimezone(UTC).hour for hour in hours])
    alike = of_day[:, None] == of_day
    if (alike.sum(axis=1) > 1).sum() < LEAST_WINDOWS:
        alike[:] = True
    others = (alike & ~np.eye(len(hours), dtype=bool)) * rows
    behind = others.sum(axis=1)
    is_held = behind > 0
    apart = means[is_held] - others[is_held] @ means / behind[is_held, None]
    ratios = np.square(apart) / (1 / rows[is_held] + 1 / behind[is_held])[:, None]
    effects: Floats = np.maximum(
        1.0, np.divide(ratios.mean(axis=0), variances, out=nothing.copy(), where=variances > 0)
    )
    return effects
