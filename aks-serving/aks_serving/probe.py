"""May a model's requests be run together? Asked of the model itself, once, when it is loaded.

Rows may be batched only where each row's outputs depend on that row alone. A varying first dimension says that the
model takes many rows, not that it keeps them apart (a softmax over the first axis does not): so rows are run apart and
together, and the outputs must be the same. What cannot be shown is not batched. The runs also warm the model.

Rows that are alike do not tell all. So two of greater numbers stand beside them where the model takes such; and what
quantises while it runs, by the range of all rows at once, is not asked: where the rows have the same range, or only a
label comes out, nothing would show.
"""

import math
from collections.abc import Sequence
from random import Random

import numpy as np

from aks_serving.batches import bytes_of
from aks_serving.errors import ModelRunError
from aks_serving.golden import matches
from aks_serving.model import Model, Signature
from aks_serving.tensors import DTYPES, Array, Feeds

_MAX_ROWS = 16
_MAX_DRAWN = 4096
_RTOL, _ATOL = 1e-4, 1e-5
_LOUDER = 30.0
_LOUD_BYTES = 1024 * 1024
"""Larger rows have no louder ones beside them: they would take memory and time."""


def rows_are_independent(model: Model, golden: Sequence[Feeds]) -> bool:
    """Whether rows run together give what they give apart. Uses golden inputs where there are any, else made-up rows.

    Runs the model; never raises.
    """
    signature = model.signature
    if not signature.first_dimension_varies:
        _try(model, _made_up(signature, Random(0)))  # noqa: S311 - no secret
        return False
    rows = sample_rows(signature, golden)
    apart = [_try(model, row) for row in rows]
    if model.quantises_by_range or len(rows) < 2:
        return False
    for batch in ([*rows, *_louder(rows)], rows):
        together = _try(model, {name: np.concatenate([row[name] for row in batch]) for name in batch[0]})
        if together is not None:
            return all(_agrees(one, together, index, len(batch)) for index, one in enumerate(apart))
    return False


def sample_rows(signature: Signature, golden: Sequence[Feeds]) -> list[Feeds]:
    """A few requests of one row each: of the golden inputs where there are such, else made up."""
    return _rows(golden) or [_made_up(signature, Random(seed)) for seed in range(4)]  # noqa: S311 - no secret


def row_count(feeds: Feeds) -> int | None:
    """The rows of a request, or None where its inputs differ in it or have none."""
    counts = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    return counts.pop() or None if len(counts) == 1 else None


def _rows(golden: Sequence[Feeds]) -> list[Feeds]:
    """Single rows of the golden inputs that can stand in one batch."""
    rows: list[Feeds] = []
    for feeds in golden:
        for index in range(row_count(feeds) or 0):
            row = {name: array[index : index + 1] for name, array in feeds.items()}
            if len(rows) < _MAX_ROWS and (not rows or all(row[n].shape == rows[0][n].shape for n in row)):
                rows.append(row)
    return rows if len(rows) >= 2 else []


def _try(model: Model, feeds: Feeds) -> Sequence[Array] | None:
    try:
        return model.run(feeds)
    except ModelRunError:
        return None


def _louder(rows: Sequence[Feeds]) -> list[Feeds]:
    """Two rows of greater numbers than the others, of either sign. What holds no fractions is as in another row."""
    if bytes_of(rows[0]) > _LOUD_BYTES:
        return []
    found: list[Feeds] = [{}, {}]
    for name, array in rows[0].items():
        if array.dtype.kind not in "fV":
            found[0][name] = found[1][name] = array
            continue
        wide = (np.nan_to_num(row[name].astype(np.float64), posinf=0.0, neginf=0.0) for row in rows)
        size = _LOUDER * max(1.0, *(float(np.abs(numbers).max(initial=0.0)) for numbers in wide))
        with np.errstate(over="ignore"):
            for row, number in zip(found, (size, -size), strict=True):
                row[name] = np.full(array.shape, number).astype(array.dtype)
    return found


def _agrees(one: Sequence[Array] | None, together: Sequence[Array], index: int, rows: int) -> bool:
    if one is None:
        return False
    for alone, joined in zip(one, together, strict=True):
        if alone.ndim == 0 or joined.ndim == 0 or alone.shape[0] != 1 or joined.shape[0] != rows:
            return False
        part = joined[index : index + 1]
        if part.shape != alone.shape or not matches(part, alone, rtol=_RTOL, atol=_ATOL).all():
            return False
    return True


def _made_up(signature: Signature, random: Random) -> Feeds:
    """Values for every input; of large ones a part is drawn and repeated."""
    # Not numpy's own generators: they would be two MB in every worker, for these few values.
    feeds: Feeds = {}
    for spec in signature.inputs:
        shape = [max(1, size) if size else 0 for size in spec.shape]
        drawn = range(min(max(1, math.prod(shape)), _MAX_DRAWN))
        dtype = DTYPES[spec.datatype]
        if dtype.kind in "fV":
            values = np.array([random.gauss() for _ in drawn]).astype(dtype)
        elif dtype.kind == "O":
            values = np.array([random.choice("ab") for _ in drawn], dtype)
        else:
            values = np.array([random.randrange(2) for _ in drawn], dtype)
        feeds[spec.name] = np.resize(values, shape)
    return feeds
