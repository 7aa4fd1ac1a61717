"""Makes evidence to test the statistics with."""

import numpy as np
from numpy.typing import ArrayLike

from shared.registry.manifest import Task
from shared.validation.statistics.evidence import Predictions


def classified(
    labels: ArrayLike,
    predicted: ArrayLike,
    scores: ArrayLike | None = None,
    *,
    classes: tuple[str | int, ...] | None = None,
    are_probabilities: bool = True,
    positive: int | None = None,
) -> Predictions:
    """A classifier's predictions, as codes from 0."""
    true, said = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    given = None if scores is None else np.asarray(scores, dtype=np.float64)
    known = classes or tuple(range(max(true.max(), said.max(), 0 if given is None else given.shape[1] - 1) + 1))
    return Predictions(
        task=Task.CLASSIFICATION,
        labels=true,
        predicted=said,
        classes=known,
        scores=given,
        are_probabilities=given is not None and are_probabilities,
        positive=1 if positive is None and len(known) == 2 else positive,
        notes=() if given is not None else ("the model has no output of scores or probabilities",),
    )


def right_or_wrong(correct: ArrayLike) -> Predictions:
    """A classifier that is right in these rows, all of class 0, and says class 1 in the others."""
    flags = np.asarray(correct, dtype=bool)
    return classified(np.zeros(len(flags)), ~flags, classes=(0, 1))


def estimated(targets: ArrayLike, predicted: ArrayLike) -> Predictions:
    """A regressor's predictions, one column or several."""
    columns = [np.asarray(side, dtype=np.float64) for side in (targets, predicted)]
    true, said = (column.reshape(len(column), -1) for column in columns)
    return Predictions(task=Task.REGRESSION, labels=true, predicted=said)
