"""The numbers that a version predicts, counted into buckets of fixed bounds: that they drift shows in the metrics.

Counted are the finite numbers of the first output, where that has at most MAX_NUMBERS a row; of texts, and of wider
rows, nothing. An array is kept as it is until some hundreds have come, and then all are counted at once: that costs a
batch little, and memory is bounded.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aks_serving.tensors import Array

if TYPE_CHECKING:
    from aks_serving.model import Signature

MAX_NUMBERS = 16
_TENTHS = tuple(n / 10 for n in range(1, 10))
BOUNDS = (
    -1e4,
    -1e3,
    -1e2,
    -10.0,
    -1.0,
    -0.1,
    0.0,
    *_TENTHS,
    1.0,
    2.0,
    3.0,
    4.0,
    5.0,
    10.0,
    20.0,
    50.0,
    1e2,
    1e3,
    1e4,
    1e6,
)
"""A number is counted at the first bound that is not below it, or beyond the last."""

_BOUNDS = np.array(BOUNDS)
_MAX_FRESH = 256
_MAX_FRESH_NUMBERS = 8192


class Values:
    """Numbers counted by the place of their bound, and their sum."""

    __slots__ = ("_counts", "_fresh", "_fresh_numbers", "_sum")

    def __init__(self, counts: Mapping[int, int] | None = None, total: float = 0.0) -> None:
        self._counts = dict(counts or {})
        self._sum = total
        self._fresh: list[Array] = []
        self._fresh_numbers = 0

    @property
    def counts(self) -> dict[int, int]:
        """Numbers by the place of their bound in BOUNDS; its length for those beyond the last."""
        self._fold()
        return self._counts

    @property
    def sum(self) -> float:
        """The sum of the numbers."""
        self._fold()
        return self._sum

    def gave(self, array: Array) -> None:
        """Count an output. The array must not change afterwards."""
        self._fresh.append(array)
        self._fresh_numbers += array.size
        if len(self._fresh) >= _MAX_FRESH or self._fresh_numbers >= _MAX_FRESH_NUMBERS:
            self._fold()

    def add(self, other: "Values") -> None:
        """Add others to these."""
        for place, count in other.counts.items():
            self._counts[place] = self._counts.get(place, 0) + count
        self._sum += other.sum

    def _fold(self) -> None:
        if not self._fresh:
            return
        fresh, self._fresh, self._fresh_numbers = self._fresh, [], 0
        numbers = np.concatenate([array.ravel() for array in fresh]).astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        places, counts = np.unique(np.searchsorted(_BOUNDS, finite), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self._counts[place] = self._counts.get(place, 0) + count
        self._sum += float(finite.sum())


def are_counted(signature: "Signature") -> bool:
    """Whether the first output of a model is such that its numbers are counted."""
    if not signature.outputs:
        return False
    first = signature.outputs[0]
    # An empty shape may be of any rank.
    rows = first.shape[1:]
    return (
        first.datatype != "BYTES" and bool(first.shape) and min(rows, default=1) > 0 and math.prod(rows) <= MAX_NUMBERS
    )
