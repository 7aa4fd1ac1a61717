"""Bins of a feature, made from reference data, and the counts of other data in them.

Numbers get the reference's deciles. A value that many rows share has a bin of its own, so that constants, counts and
features that are mostly 0 drift visibly; missing values (NaN) have one too, and infinities lie in the outermost. Text
gets its most frequent values, one bin for all others, and thus for those never seen. Every row falls in one bin.
Loads numpy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

type Codes = NDArray[np.int64]
type Floats = NDArray[np.float64]

QUANTILES = 10
MAX_CATEGORIES = 20
_LABEL_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberBins:
    """Bins of numbers: up to each of `edges` (rising), above the last, and missing."""

    edges: tuple[float, ...]

    @classmethod
    def of(cls, reference: Floats, quantiles: int = QUANTILES) -> "NumberBins":
        """Bins with equal shares of the reference as far as ties allow. Without finite values, one bin and missing."""
        finite = np.sort(reference[np.isfinite(reference)])
        if not len(finite):
            return cls(edges=())
        # The order statistics themselves, for a bin ends at a value that occurs.
        ranks = np.ceil(len(finite) * np.arange(1, quantiles) / quantiles).astype(np.int64) - 1
        cuts, times = np.unique(finite[np.maximum(ranks, 0)], return_counts=True)
        with np.errstate(over="ignore"):
            before = np.nextafter(cuts[times > 1], -np.inf)
        edges = np.unique(np.concatenate([cuts, before[np.isfinite(before)]]))
        return cls(edges=tuple(edges.tolist()))

    def codes(self, values: Floats) -> Codes:
        """The bin of each row, the missing in the last. Shape [n] gives [n]."""
        place = np.searchsorted(np.array(self.edges), values, side="left").astype(np.int64)
        place[np.isnan(values)] = len(self.edges) + 1
        return place

    def counts(self, values: Floats) -> Codes:
        """Rows in each bin, the missing last. Shape [edges + 2]."""
        return np.bincount(self.codes(values), minlength=len(self.edges) + 2).astype(np.int64)

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each bin."""
        if not self.edges:
            return ("any number", "missing")
        names = [f"up to {_short(self.edges[0])}"]
        for low, high in zip(self.edges, self.edges[1:], strict=False):
            is_value = np.nextafter(high, -np.inf) == low
            names.append(_short(high) if is_value else f"({_short(low)}, {_short(high)}]")
        return (*names, f"above {_short(self.edges[-1])}", "missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryBins:
    """Bins of text: each of `categories`, and all else."""

    categories: tuple[str, ...]

    @classmethod
    def of(cls, reference: NDArray[np.str_], most: int = MAX_CATEGORIES) -> "CategoryBins":
        """The most frequent values of the reference; of equally frequent ones the first in order."""
        values, times = np.unique(reference, return_counts=True)
        order = np.argsort(-times, kind="stable")[:most]
        return cls(categories=tuple(values[order].tolist()))

    def codes(self, values: NDArray[np.str_]) -> Codes:
        """The bin of each row, all else in the last. Shape [n] gives [n]."""
        found, place = np.unique(values, return_inverse=True)
        known = {category: code for code, category in enumerate(self.categories)}
        of_value = np.array([known.get(value, len(known)) for value in found.tolist()], dtype=np.int64)
        return of_value[place]

    def counts(self, values: NDArray[np.str_]) -> Codes:
        """Rows in each bin, all else last. Shape [categories + 1]."""
        return np.bincount(self.codes(values), minlength=len(self.categories) + 1).astype(np.int64)

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each bin."""
        return (*self.categories, "all else")


def _short(value: float) -> str:
    return f"{value:.{_LABEL_DIGITS}g}"
