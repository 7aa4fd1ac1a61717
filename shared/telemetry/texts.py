"""Random projections of texts: numbers that move when texts are of other letters or words, whatever their length.

Each byte of a text (UTF-8) and each run of three has a sign, in each of a few projections; a projection of a text is
the mean of these signs. So it is one of the counts of all bytes, or of all runs, hashed (Weinberger, Dasgupta,
Langford, Smola and Attenberg 2009, "Feature hashing for large scale multitask learning"), over the text's length. A
text's numbers depend on that text alone, and are bounded: of a long one the first MAX_BYTES are looked at. Loads numpy.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shared.telemetry.profile import PROJECTIONS
from shared.telemetry.signs import signs

type Floats = NDArray[np.float64]

MAX_BYTES = 1_024
OF_BYTES = PROJECTIONS // 2
"""The first projections are of single bytes, the others of runs of three."""
_ROWS = 256
"""Looked at together: a megabyte at most."""
_BITS = 12
_ENDS = b"\0\0"


def projected(values: Sequence[object]) -> Floats:
    """The projections of texts, shape [n, PROJECTIONS], each in [-1, 1]; those of an empty one are 0."""
    parts = [_projected(values[start : start + _ROWS]) for start in range(0, len(values), _ROWS)]
    return np.concatenate(parts) if parts else np.zeros((0, PROJECTIONS))


def _projected(values: Sequence[object]) -> Floats:
    texts = [_bytes(value) for value in values]
    lengths = np.array([len(text) for text in texts])
    starts = np.cumsum([0, *(lengths[:-1] + len(_ENDS))])
    # With its ends, no run of three of a text reaches into the next one.
    data = np.frombuffer(_ENDS.join(texts) + _ENDS * 2, dtype=np.uint8)
    held = len(data) - len(_ENDS)
    of_bytes, of_runs = _signs()
    found = np.concatenate([of_bytes[:, data[:held]], of_runs[:, _runs(data)[:held]]])
    for at in range(len(_ENDS)):
        found[:, starts + lengths + at] = 0
    sums = np.add.reduceat(found, starts, axis=1, dtype=np.int64)
    result: Floats = sums.T / np.maximum(lengths, 1)[:, None]
    return result


def _runs(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The hash of each run of three bytes (multiplicative: Knuth 1973, section 6.4)."""
    wide = data.astype(np.uint32)
    run = (wide[:-2] << np.uint32(16)) | (wide[1:-1] << np.uint32(8)) | wide[2:]
    hashed: NDArray[np.uint32] = (run * np.uint32(2_654_435_769)) >> np.uint32(32 - _BITS)
    return hashed


@cache
def _signs() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The signs of bytes and of hashes, in each of their projections."""
    of_bytes, of_runs = signs(256)[:OF_BYTES], signs(1 << _BITS)[OF_BYTES:]
    return of_bytes.astype(np.int8), of_runs.astype(np.int8)


def _bytes(value: object) -> bytes:
    data = value if isinstance(value, bytes) else str(value)[:MAX_BYTES].encode("utf-8", "surrogatepass")
    return data[:MAX_BYTES]
