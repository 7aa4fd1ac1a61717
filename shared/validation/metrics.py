"""Quality metrics from labels and predictions, by scikit-learn's definitions (`zero_division=0`), with numpy alone.

A test holds them equal to scikit-learn's. Arrays have one row a case. Loads numpy: for the sandboxed process.
"""

import numpy as np
from numpy.typing import NDArray

type Labels = NDArray[np.int64] | NDArray[np.str_]


def classification(labels: Labels, predictions: Labels) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes with their support as weights.

    Both arrays have shape [n], n >= 1, and one dtype. A class that is never predicted has a precision of 0.
    """
    n = len(labels)
    classes, index = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    true, predicted = index[:n], index[n:]
    hits = np.bincount(true[true == predicted], minlength=len(classes))
    support = np.bincount(true, minlength=len(classes))
    claimed = np.bincount(predicted, minlength=len(classes))
    weights = support / n
    return {
        "accuracy": float(hits.sum() / n),
        "precision": float(weights @ _ratio(hits, claimed)),
        "recall": float(weights @ _ratio(hits, support)),
        "f1": float(weights @ _ratio(2 * hits, support + claimed)),
    }


def regression(targets: NDArray[np.float64], predictions: NDArray[np.float64]) -> dict[str, float]:
    """R2, RMSE and MAE, each averaged over the columns. Both arrays have shape [n, k], n >= 1; R2 needs n >= 2.

    A column of equal targets has an R2 of 1 where it is predicted exactly, else 0. What overflows FP64 is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _regression(targets, predictions)


def _regression(targets: NDArray[np.float64], predictions: NDArray[np.float64]) -> dict[str, float]:
    error = targets - predictions
    measured = {
        "rmse": float(np.mean(np.sqrt(np.mean(error**2, axis=0)))),
        "mae": float(np.mean(np.abs(error))),
    }
    if len(targets) >= 2:
        residual = np.sum(error**2, axis=0)
        total = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
        varies = total > 0
        r2 = np.where(residual == 0, 1.0, 0.0)
        r2[varies] = 1.0 - residual[varies] / total[varies]
        measured["r2"] = float(np.mean(r2))
    return measured


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
