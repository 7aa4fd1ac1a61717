"""Traffic for the benchmarks of drift: features of many kinds, independent or with a level of each window's own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.drift.profiling import profile_of
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile

type Table = NDArray[np.float64]

KINDS = 12
_STEP = 20_000


@dataclass(slots=True, kw_only=True)
class Levels:
    """What a window's features are about: an AR(1) process from window to window, `spread` wide, in deviations."""

    generator: np.random.Generator
    features: int
    spread: float
    memory: float = 0.6
    _now: Table = field(init=False)

    def __post_init__(self) -> None:
        self._now = self.generator.normal(0.0, self.spread, self.features)

    def next(self) -> Table:
        """The levels of the next window."""
        fresh = self.generator.normal(0.0, self.spread, self.features)
        self._now = self.memory * self._now + np.sqrt(1 - self.memory**2) * fresh
        return self._now


def rows_of(generator: np.random.Generator, rows: int, features: int, levels: Table | None = None) -> Table:
    """Rows of features of twelve kinds in turn, moved by `levels` on the normal scale beneath."""
    normal = generator.normal(size=(rows, features))
    if levels is not None:
        normal += levels
    # One that goes with the one before it.
    normal[:, 1::KINDS] = 0.9 * normal[:, 0 : features - 1 : KINDS] + np.sqrt(1 - 0.81) * normal[:, 1::KINDS]
    for place in range(features):
        shape = _SHAPES.get(place % KINDS)
        if shape is not None:
            normal[:, place] = shape(normal[:, place], generator)
    return normal


def _with_gaps(column: Table, generator: np.random.Generator) -> Table:
    return np.where(generator.random(len(column)) < 0.05, np.nan, column)


_SHAPES: dict[int, Callable[[Table, np.random.Generator], Table]] = {
    2: lambda column, generator: column / np.sqrt(generator.chisquare(2, len(column)) / 2),
    3: lambda column, _: np.exp(column),
    4: lambda column, _: np.where(column < 1.0, 0.0, column),
    5: lambda column, _: np.floor(np.exp(column * 0.7)),
    6: lambda column, _: np.full_like(column, 3.0),
    7: _with_gaps,
    8: lambda column, _: (column > 2.3).astype(np.float64),
    9: lambda column, _: column.round(1),
    10: lambda column, _: np.floor((column * 4) % 24),
}
"""Heavy tails, skew, mostly nought, counts, constant, gaps, a rare flag, rounded, hours; the others stay normal."""


def reference_profile(
    generator: np.random.Generator, rows: int, features: int, levels: Levels | None = None
) -> Profile:
    """A profile of so many reference rows; with `levels`, of rows from many windows."""
    parts = (
        [rows_of(generator, rows // 200, features, levels.next()) for _ in range(200)]
        if levels
        else [rows_of(generator, rows, features)]
    )
    found = profile_of({"x": np.concatenate(parts)}, {})
    if found is None:
        raise ValueError(f"{rows} rows are too few for a profile")
    return found


def window_of(
    generator: np.random.Generator, profile: Profile, rows: int, features: int, levels: Table | None = None
) -> FeatureCounts:
    """The counts of a window of fresh rows."""
    tally = FeatureTally(profile)
    for start in range(0, rows, _STEP):
        some = min(_STEP, rows - start)
        tally.saw({"x": rows_of(generator, some, features, levels)}, some)
    return tally.take()
