"""How the hours of a day differ, learned from hours that were healthy: so that a daily cycle is no drift.

A reference is of whole days, and the night lies far from it every night. An hour is held against the reference less
what its hour of the day usually lies from the mean of a day's rows, of which a busy hour has more. Over a whole day
that comes to nothing: what is left of a day is its own level, and a drift that lasts is seen as before. Loads numpy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from shared.telemetry.features import FeatureCounts

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """An hour of the day: how far its cells' shares lie from those of a day's rows, as so many `rows` say."""

    away: Floats
    rows: float


class Season:
    """What is known of the hours of a day (UTC)."""

    def __init__(self, learned: Iterable[tuple[datetime, FeatureCounts]]) -> None:
        """`learned` are hours with their counts, all of one profile."""
        totals: dict[int, Floats] = {}
        self._rows: dict[int, float] = {}
        seen: dict[int, int] = {}
        for hour, counts in learned:
            if counts.rows:
                at = hour.astimezone(UTC).hour
                totals[at] = totals.get(at, 0.0) + np.array(counts.cells, dtype=np.float64)
                self._rows[at] = self._rows.get(at, 0.0) + counts.rows
                seen[at] = seen.get(at, 0) + 1
        self._shares = {at: cells / self._rows[at] for at, cells in totals.items()}
        # Of a day that is seen in part, its hours count once, as those of whole days do.
        day = [self._rows[at] / seen[at] for at in totals]
        self._mean = np.average(list(self._shares.values()), axis=0, weights=day) if totals else np.zeros(0)

    def at(self, hour: datetime) -> Usual | None:
        """What is usual at an hour; None where it was never seen."""
        at = hour.astimezone(UTC).hour
        if at not in self._shares:
            return None
        return Usual(away=self._shares[at] - self._mean, rows=self._rows[at])
