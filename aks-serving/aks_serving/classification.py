"""The classification extension of the inference protocol: an output's largest values, and where they stand."""

import numpy as np

from aks_serving.model import TensorSpec
from aks_serving.tensors import Array, is_real
from shared.core.errors import InvalidInputError


def check_classes(spec: TensorSpec) -> None:
    """Raises InvalidInputError for an output of which there are no classes."""
    if spec.datatype in {"BOOL", "BYTES"}:
        raise InvalidInputError(
            f"output {spec.name!r} is {spec.datatype}: classes are the places of its largest numbers"
        )


def best_classes(array: Array, classes: int) -> Array:
    """The best values of each row and where they stand, as "value:index": an array of shape (rows, classes).

    All values are one row where the output has no more than one dimension. Of equal values the first is better; what is
    not a number is worst. `check_classes` has found the output to be numbers.
    """
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1) if array.size else array.reshape(0, 0)
    count = min(classes, rows.shape[1])
    ranked = rows.astype(np.float32) if array.dtype.kind == "V" else rows
    if is_real(array):
        ranked = np.where(np.isnan(ranked), -np.inf, ranked)
    # A stable ascending order of the reversed row, reversed, is descending with the first of equals first.
    order = rows.shape[1] - 1 - np.argsort(ranked[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    best = [f"{row[place]}:{place}" for row, places in zip(rows, order, strict=True) for place in places]
    shape = (rows.shape[0], count) if array.ndim > 1 else (count,)
    return np.array(best, np.object_).reshape(shape)
