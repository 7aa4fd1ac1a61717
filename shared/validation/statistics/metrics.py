"""Quality metrics from labels and predictions, with numpy alone. Values only: intervals are another module's.

They equal scikit-learn 1.9's to 1e-9 (`zero_division=0`), which golden vectors and a live comparison hold. `accuracy`,
`precision`, `recall`, `f1`, `roc_auc` and `pr_auc` are averaged over the classes with their support as weights; the
`_macro` ones count each class once. A metric that the rows do not define is absent, never NaN.
Loads numpy: for the sandboxed process.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shared.registry.manifest import Task
from shared.validation.statistics.evidence import Codes, Flags, Floats, Predictions

LOWER_IS_BETTER = frozenset(
    {"log_loss", "brier", "calibration_error", "rmse", "mae", "mape", "pinball_10", "pinball_50", "pinball_90"}
)
LABEL_METRICS = ("accuracy", "precision", "recall", "f1", "precision_macro", "recall_macro", "f1_macro")
RANKING_METRICS = ("roc_auc", "pr_auc", "roc_auc_macro", "pr_auc_macro")
PROBABILITY_METRICS = ("log_loss", "brier", "calibration_error")
NAMES: Mapping[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: LABEL_METRICS + RANKING_METRICS + PROBABILITY_METRICS,
    Task.REGRESSION: ("r2", "rmse", "mae", "mape", "pinball_10", "pinball_50", "pinball_90"),
}
"""What is measured of each task, where the rows and the outputs allow."""

PINBALL = {"pinball_10": 0.1, "pinball_50": 0.5, "pinball_90": 0.9}
CALIBRATION_BINS = 15
MANY_CLASSES = 100
"""Above, what sorts or resamples all rows for each class is left out where it would take long."""
_MAX_RANKED = 2_000_000
_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


def label_metrics(hits: Floats, support: Floats, claimed: Floats) -> dict[str, Floats]:
    """Metrics of the predicted classes from counts by class: right, true, and predicted.

    The last axis is the classes'; others are carried through. A class that no row has counts for nothing; one that is
    never predicted has a precision of 0.
    """
    rows = support.sum(axis=-1)
    parts = {
        "precision": _ratio(hits, claimed),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + claimed),
    }
    present = (support + claimed > 0).sum(axis=-1)
    weights = support / rows[..., None]
    return {
        "accuracy": hits.sum(axis=-1) / rows,
        **{name: (weights * by_class).sum(axis=-1) for name, by_class in parts.items()},
        **{f"{name}_macro": by_class.sum(axis=-1) / present for name, by_class in parts.items()},
    }


def class_counts(true: Codes, predicted: Codes, classes: int) -> tuple[Floats, Floats, Floats]:
    """For each class the rows predicted right, truly of it, and predicted as it. Shapes [classes]."""
    hits = np.bincount(true[true == predicted], minlength=classes)
    support = np.bincount(true, minlength=classes)
    claimed = np.bincount(predicted, minlength=classes)
    return hits.astype(np.float64), support.astype(np.float64), claimed.astype(np.float64)


def classification(predictions: Predictions) -> dict[str, float]:
    """Every metric that labels, predictions and scores define."""
    true: Codes = predictions.labels.astype(np.int64)
    predicted: Codes = predictions.predicted.astype(np.int64)
    counts = class_counts(true, predicted, len(predictions.classes))
    measured = {name: float(value) for name, value in label_metrics(*counts).items()}
    if predictions.scores is not None:
        measured |= ranking(true, predictions.scores, predictions.positive)
    if predictions.probabilities is not None:
        measured["log_loss"] = float(log_losses(true, predictions.probabilities).mean())
        measured["brier"] = float(brier_scores(true, predictions.probabilities).mean())
        measured["calibration_error"] = calibration_error(*confidence(predictions))
    return measured


def ranking(true: Codes, scores: Floats, positive: int | None) -> dict[str, float]:
    """Areas under the ROC curve and the precision-recall curve (average precision).

    For two classes they are the positive one's; else one class against the rest, over the classes that some rows
    have. There are none where all rows have one class, nor where `ranking_is_long`. `true` has shape [n], `scores`
    [n, k].
    """
    present = np.unique(true)
    if len(present) < 2 or ranking_is_long(len(present), len(true)):
        return {}
    if scores.shape[1] == 2:
        at = 1 if positive is None else positive
        return {
            "roc_auc": roc_auc(true == at, scores[:, at]),
            "pr_auc": average_precision(true == at, scores[:, at]),
        }
    columns = np.ascontiguousarray(scores.T[present])
    rocs = np.array([roc_auc(true == at, column) for at, column in zip(present, columns, strict=True)])
    precisions = np.array([average_precision(true == at, column) for at, column in zip(present, columns, strict=True)])
    weights = np.bincount(true)[present] / len(true)
    return {
        "roc_auc": float(weights @ rocs),
        "pr_auc": float(weights @ precisions),
        "roc_auc_macro": float(rocs.mean()),
        "pr_auc_macro": float(precisions.mean()),
    }


def ranking_is_long(classes: int, rows: int) -> bool:
    """Whether to sort all rows for each of many classes would take seconds."""
    return classes > MANY_CLASSES and classes * rows > _MAX_RANKED


def midranks(values: Floats) -> Floats:
    """The rank of each value, from 1; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2.0)[place]
    return ranks


def roc_auc(positive: Flags, scores: Floats) -> float:
    """The probability that a positive row scores above a negative one, ties counting half. Needs rows of both."""
    hits = int(positive.sum())
    others = len(positive) - hits
    return float((midranks(scores)[positive].sum() - hits * (hits + 1) / 2) / (hits * others))


def average_precision(positive: Flags, scores: Floats) -> float:
    """The sum of the precisions at each threshold, weighted by the recall that it adds. Needs a positive row."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    hits = np.cumsum(positive[order])[ends]
    precision = hits / (ends + 1)
    return float(np.diff(hits, prepend=0) @ precision / hits[-1])


def log_losses(true: Codes, probabilities: Floats) -> Floats:
    """Each row's negative log of the probability that its class was given, held above FP64's epsilon. Shape [n]."""
    given = probabilities[np.arange(len(true)), true]
    losses: Floats = -np.log(np.clip(given, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY))
    return losses


def brier_scores(true: Codes, probabilities: Floats) -> Floats:
    """Each row's squared distance from the certain truth; halved for two classes, so that it ends at 1. Shape [n]."""
    given = probabilities[np.arange(len(true)), true]
    others = np.maximum(np.einsum("nk,nk->n", probabilities, probabilities) - given**2, 0.0)
    scores: Floats = (others + (1.0 - given) ** 2) * (0.5 if probabilities.shape[1] < 3 else 1.0)
    return scores


def confidence(predictions: Predictions) -> tuple[Floats, Flags]:
    """The probability that each row's predicted class was given, and whether it was right. Shapes [n]."""
    if predictions.probabilities is None:
        raise ValueError("there are no probabilities: ask for confidence only where there are")
    rows = np.arange(predictions.rows)
    return predictions.probabilities[rows, predictions.predicted.astype(np.int64)], predictions.correct


def calibration_bin(confidences: Floats) -> Codes:
    """The bin of each confidence among `CALIBRATION_BINS` of equal width, each without its lower end."""
    bins: Codes = np.clip(np.ceil(confidences * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(np.int64)
    return bins


def calibration_error(confidences: Floats, correct: Flags) -> float:
    """The expected calibration error (Guo et al. 2017, eq. 3): mean |share right - mean confidence| over the bins."""
    gaps = np.bincount(calibration_bin(confidences), weights=confidences - correct, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def regression(predictions: Predictions) -> dict[str, float]:
    """R2, RMSE, MAE, MAPE and pinball losses, each averaged over the columns.

    R2 needs two rows and targets that differ in each column (of equal ones scikit-learn says 0 however far they are
    missed, which a limit of 0 would pass), MAPE targets other than 0 (scikit-learn divides by its epsilon there).
    """
    targets: Floats = predictions.labels.astype(np.float64)
    error: Floats = targets - predictions.predicted
    measured = {
        "rmse": float(np.mean(np.sqrt(np.mean(error**2, axis=0)))),
        "mae": float(np.mean(np.abs(error))),
        **{name: float(np.mean(pinball(error, quantile))) for name, quantile in PINBALL.items()},
    }
    if np.abs(targets).min() > _LEAST_PROBABILITY:
        measured["mape"] = float(np.mean(np.abs(error / targets)))
    total = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
    if (targets != targets[0]).any(axis=0).all() and (total > 0).all():
        measured["r2"] = float(np.mean(r2(np.sum(error**2, axis=0), total)))
    return measured


def pinball(error: Floats, quantile: float) -> Floats:
    """The pinball loss of errors, target minus prediction, at a quantile."""
    losses: Floats = np.where(error >= 0, quantile * error, (quantile - 1) * error)
    return losses


def r2(residual: Floats, total: Floats) -> Floats:
    """R2 of each column from its sums of squares; of a resample of equal targets 1 where all are exact, else 0."""
    exact: Floats = np.where(residual == 0, 1.0, 0.0)
    return 1.0 - np.divide(residual, total, out=1.0 - exact, where=total > 0)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Floats:
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole > 0)
