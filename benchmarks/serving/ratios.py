"""What the rounds say: medians, and ratios within a round with their spread.

A machine is not the same from one minute to the next. So every server is measured once in each round, a ratio is
taken between two measurements of the same round, and what is told is the median of those ratios, the least and the
greatest. The median of ratios is not the ratio of medians.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some figures, the least and the greatest of them, and how many there are."""

    median: float
    least: float
    greatest: float
    rounds: int

    @classmethod
    def of(cls, figures: Iterable[float]) -> Self:
        """Raises ValueError where there are none."""
        found = sorted(figures)
        if not found:
            raise ValueError("there are no figures: no round measured both")
        return cls(median=statistics.median(found), least=found[0], greatest=found[-1], rounds=len(found))

    def __str__(self) -> str:
        return f"{figure(self.median)} ({figure(self.least)} to {figure(self.greatest)})"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """What is measured: a server, a model, a form of body and its rows, a number of connections."""

    subject: str
    workload: str
    form: str
    rows: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one round found of a cell. `cpu_us` is the server's CPU time for each request."""

    cell: Cell
    round: int
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: float


def of_cell(measurements: Iterable[Measurement], cell: Cell, figure_name: str = "rate") -> dict[int, float]:
    """A figure of a cell, by round."""
    return {one.round: float(getattr(one, figure_name)) for one in measurements if one.cell == cell}


def spread(measurements: Iterable[Measurement], cell: Cell, figure_name: str = "rate") -> Spread | None:
    """A figure of a cell over the rounds; None where no round measured it."""
    found = of_cell(measurements, cell, figure_name)
    return Spread.of(found.values()) if found else None


def ratio(measurements: Sequence[Measurement], cell: Cell, to: Cell, figure_name: str = "rate") -> Spread | None:
    """A cell's figure over another's, taken round by round; None where no round measured both."""
    over, under = of_cell(measurements, cell, figure_name), of_cell(measurements, to, figure_name)
    both = over.keys() & under.keys()
    return Spread.of(over[number] / under[number] for number in both) if both else None


def figure(value: float) -> str:
    """A figure with as many digits as say something: 12,345 and 27.5 and 0.024."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
