"""A histogram of positive values in logarithmic buckets: small, and merged by adding counts.

A value v falls in the bucket ceil(log(v) / log(GAMMA)); a quantile read from the buckets is within 1 % of the value at
that rank (DDSketch: Masson, Rim and Lee 2019, section 2.1, with relative accuracy (GAMMA - 1) / (GAMMA + 1)). Merging
windows equals observing them together, exactly.
"""

import math
from collections.abc import Iterable, Mapping

GAMMA = 1.02
_LOG_GAMMA = math.log(GAMMA)
_FLOOR_INDEX = math.ceil(math.log(1e-6) / _LOG_GAMMA)
"""Values below 1e-6, zero among them, share the lowest bucket."""


def bucket_index(value: float) -> int:
    """The bucket of a value of 0 or more. Raises ValueError for a negative or non-finite one."""
    if not 0.0 <= value < math.inf:
        raise ValueError(f"a histogram takes finite values of 0 or more, not {value}")
    return _FLOOR_INDEX if value <= 1e-6 else max(_FLOOR_INDEX, math.ceil(math.log(value) / _LOG_GAMMA))


def bucket_value(index: int) -> float:
    """The value that stands for a bucket: within 1 % of every value in it."""
    return 2.0 * math.exp(index * _LOG_GAMMA) / (1.0 + GAMMA)


def merged[Key](histograms: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    """The sum of histograms, each a count per bucket index, or of other counts by a key."""
    total: dict[Key, int] = {}
    for histogram in histograms:
        for index, count in histogram.items():
            total[index] = total.get(index, 0) + count
    return total


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """The q-quantile (0 <= q <= 1), lower interpolation, within 1 %; None for an empty histogram."""
    n = sum(histogram.values())
    if not n:
        return None
    rank = math.floor(q * (n - 1))
    seen = 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen > rank:
            return bucket_value(index)
    raise AssertionError("unreachable: the counts sum to n")
