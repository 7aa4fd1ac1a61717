"""Tells which class each column of a classifier's scores belongs to, and whether the scores are probabilities.

An ONNX graph does not name its columns. Converters sort the classes; this holds that against what the model predicted,
and gives no scores rather than those of the wrong class. Loads numpy: for the sandboxed process.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.validation.statistics.evidence import Floats

type Labels = NDArray[np.int64] | NDArray[np.str_]

_SUM_TOLERANCE = 1e-3
"""FP16 probabilities are that far from summing to 1."""
_EDGE_TOLERANCE = 1e-6
_LEAST_AGREEMENT_OF_PROBABILITIES = 0.5
"""Classifiers with a threshold of their own predict another class than the likeliest, on some rows."""
_LEAST_AGREEMENT_OF_SCORES = 0.95
"""Scores of pairs of classes, as support vector machines give, have another highest column than the prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """Scores of shape [n, k] with the class of each column."""

    scores: Floats
    classes: Labels
    are_probabilities: bool


def two_columns(column: Floats) -> Floats:
    """The scores of both classes from the later one's alone. [n] gives [n, 2]."""
    within = bool((column >= 0).all() and (column <= 1).all())
    return np.column_stack([1.0 - column if within else -column, column])


def as_probabilities(scores: Floats) -> Floats | None:
    """The scores, held within [0, 1], where they are probabilities of all classes; else None. Shape [n, k]."""
    if scores.min() < -_EDGE_TOLERANCE or scores.max() > 1 + _EDGE_TOLERANCE:
        return None
    if np.abs(scores.sum(axis=1) - 1.0).max() > _SUM_TOLERANCE:
        return None
    return np.clip(scores, 0.0, 1.0)


def matched(scores: Floats, predicted: Labels, observed: Labels) -> ClassScores | None:
    """Scores with the classes of their columns; None where these cannot be told.

    `scores` has shape [n, k] and is finite; `predicted` is what the model said, shape [n]; `observed` holds all
    classes among labels and predictions, sorted.
    """
    probabilities = as_probabilities(scores)
    least = _LEAST_AGREEMENT_OF_SCORES if probabilities is None else _LEAST_AGREEMENT_OF_PROBABILITIES
    columns = scores.shape[1]
    highest = scores.argmax(axis=1)
    guesses: list[Labels] = []
    numbered = np.arange(columns, dtype=np.int64)
    if observed.dtype.kind == "i" and np.isin(observed, numbered).all():
        guesses.append(numbered)
    if len(observed) == columns:
        guesses.append(observed)
    for guess in guesses:
        if (guess[highest] == predicted).mean() >= least:
            return _in_order(scores if probabilities is None else probabilities, guess, probabilities is not None)
    by_rows = _by_rows(highest, predicted, columns)
    if by_rows is None:
        return None
    return _in_order(scores if probabilities is None else probabilities, by_rows, probabilities is not None)


def _by_rows(highest: NDArray[np.intp], predicted: Labels, columns: int) -> Labels | None:
    """The class that most rows with their highest score in a column were predicted as, where that is one for each."""
    found = []
    for column in range(columns):
        values, counts = np.unique(predicted[highest == column], return_counts=True)
        if not len(values):
            return None
        found.append(values[counts.argmax()])
    classes = np.array(found)
    if len(np.unique(classes)) != columns or (classes[highest] == predicted).mean() < _LEAST_AGREEMENT_OF_SCORES:
        return None
    return classes


def _in_order(scores: Floats, classes: Labels, are_probabilities: bool) -> ClassScores:  # noqa: FBT001 - private
    order = np.argsort(classes)
    return ClassScores(scores=scores[:, order], classes=classes[order], are_probabilities=are_probabilities)
