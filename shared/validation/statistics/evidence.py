"""The evidence that every statistic of validation starts from: labels beside predictions, in one form.

Pure data. Guarantees that arrays agree in their number of rows and hold no NaN; who made them (shared.validation.
predictions) has seen to it. Loads numpy: for the sandboxed process.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.registry.manifest import Task

type Floats = NDArray[np.float64]
type Codes = NDArray[np.int64]
type Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a model said of `rows` rows, and what was right.

    For classification, `classes` is every class known (among labels, predictions or probability columns), sorted;
    `labels` and `predicted` have shape [n] and index it; `scores` has shape [n, k], one column a class in their order.
    For regression `labels` and `predicted` are FP64 of shape [n, k], and the rest is empty.
    """

    task: Task
    labels: Codes | Floats
    predicted: Codes | Floats
    classes: tuple[str | int, ...] = ()
    scores: Floats | None = None
    """A score of each class for each row; None where the model gives none that can be matched to the classes."""
    are_probabilities: bool = False
    """Whether each row of `scores` lies in [0, 1] and sums to 1."""
    positive: int | None = None
    """The index of the positive class: the manifest's, or the later one of two."""
    notes: tuple[str, ...] = ()
    """Why there are no scores or no probabilities, in sentences without a full stop."""

    @property
    def rows(self) -> int:
        """How many rows there are, at least one."""
        return len(self.labels)

    @property
    def probabilities(self) -> Floats | None:
        """`scores` where they are probabilities. Shape [n, k]."""
        return self.scores if self.are_probabilities else None

    @property
    def correct(self) -> Flags:
        """For classification, whether each row was predicted right. Shape [n]."""
        right: Flags = self.labels == self.predicted
        return right

    @property
    def absolute_errors(self) -> Floats:
        """For regression, each row's absolute error, averaged over the columns. Shape [n]."""
        errors: Floats = np.abs(self.predicted - self.labels).mean(axis=1)
        return errors
