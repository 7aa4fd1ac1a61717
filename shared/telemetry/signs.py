"""The signs by which wide inputs and texts are projected: the same in every process, and for ever. Loads numpy."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shared.telemetry.profile import PROJECTIONS

type Floats = NDArray[np.float64]


@lru_cache(maxsize=4)
def signs(number: int) -> Floats:
    """The sign of each of so many values in each projection, [PROJECTIONS, number]: a bit of a mix of both places
    (SplitMix64; Steele, Lea and Flood 2014).
    """
    state = np.arange(PROJECTIONS * number, dtype=np.uint64) + np.uint64(1)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (state ^ (state >> np.uint64(31))) >> np.uint64(63)
    # A value has its sign at every width: its place comes first.
    result: Floats = (1.0 - 2.0 * bits.astype(np.float64)).reshape(number, PROJECTIONS).T.copy()
    return result
