"""Writes metric_vectors.json: inputs with the metrics that scikit-learn gives, for any implementation to check against.

Run `.venv/bin/python -m tests.unit.validation.statistics.make_metric_vectors`. scikit-learn has no calibration error;
its formula (Guo et al. 2017, eq. 3, 15 bins) is written out here once more, row by row.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import metrics

VECTORS = Path(__file__).with_name("metric_vectors.json")
DIGITS = 6


def expected_of_classes(
    labels: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[Any] | None
) -> dict[str, float]:
    """The metrics of class codes and, where all classes occur, of probabilities."""
    wanted: dict[str, float] = {"accuracy": metrics.accuracy_score(labels, predicted)}
    for average, suffix in (("weighted", ""), ("macro", "_macro")):
        parts = metrics.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        names = [f"{name}{suffix}" for name in ("precision", "recall", "f1")]
        wanted |= dict(zip(names, parts, strict=False))
    if probabilities is None:
        return {name: float(value) for name, value in wanted.items()}
    classes = np.arange(probabilities.shape[1])
    wanted["log_loss"] = metrics.log_loss(labels, probabilities, labels=classes)
    wanted["brier"] = metrics.brier_score_loss(labels, probabilities, labels=classes)
    wanted["calibration_error"] = calibration_error(labels, predicted, probabilities)
    present = np.unique(labels)
    if len(classes) == 2 and len(present) == 2:
        wanted["roc_auc"] = metrics.roc_auc_score(labels, probabilities[:, 1])
        wanted["pr_auc"] = metrics.average_precision_score(labels, probabilities[:, 1])
    elif len(present) == len(classes) > 2:
        for average, suffix in (("weighted", ""), ("macro", "_macro")):
            wanted[f"roc_auc{suffix}"] = metrics.roc_auc_score(
                labels, probabilities, multi_class="ovr", average=average
            )
            wanted[f"pr_auc{suffix}"] = metrics.average_precision_score(labels, probabilities, average=average)
    return {name: float(value) for name, value in wanted.items()}


def calibration_error(labels: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """The expected calibration error of the predicted classes' probabilities."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for true, said, row in zip(labels.tolist(), predicted.tolist(), probabilities.tolist(), strict=True):
        at = next((b for b in range(15) if b / 15 < row[said] <= (b + 1) / 15), 0)
        bins.setdefault(at, []).append((row[said], said == true))
    total = 0.0
    for rows in bins.values():
        share_right = sum(right for _, right in rows) / len(rows)
        mean = sum(value for value, _ in rows) / len(rows)
        total += len(rows) / len(labels) * abs(share_right - mean)
    return total


def expected_of_numbers(targets: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """The metrics of numbers, averaged over the columns."""
    wanted: dict[str, float] = {
        "rmse": metrics.root_mean_squared_error(targets, predicted),
        "mae": metrics.mean_absolute_error(targets, predicted),
    }
    for name, alpha in (("pinball_10", 0.1), ("pinball_50", 0.5), ("pinball_90", 0.9)):
        wanted[name] = metrics.mean_pinball_loss(targets, predicted, alpha=alpha)
    if np.abs(targets).min() > np.finfo(float).eps:
        wanted["mape"] = metrics.mean_absolute_percentage_error(targets, predicted)
    if (targets != targets[0]).any(axis=0).all():
        wanted["r2"] = metrics.r2_score(targets, predicted)
    return {name: float(value) for name, value in wanted.items()}


def _cases() -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(20_170)
    for name, rows, classes, digits in (
        ("two classes", 60, 2, DIGITS),
        ("two classes, many ties", 80, 2, 1),
        ("three classes", 90, 3, DIGITS),
        ("seven classes, many ties", 120, 7, 1),
        ("five rows", 5, 2, 2),
        ("one row", 1, 2, 2),
    ):
        raw = generator.multinomial(10**digits, generator.dirichlet(np.ones(classes), rows)) / 10**digits
        labels = np.array([generator.choice(classes, p=row) for row in raw])
        labels[: min(classes, rows)] = np.arange(min(classes, rows))
        yield _classes(name, labels, raw.argmax(axis=1), raw)
    yield _classes("all right and certain", np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1]), np.eye(2)[[0, 1, 0, 1]])
    yield _classes("all wrong and certain", np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0]), np.eye(2)[[1, 0, 1, 0]])
    yield _classes("a class never predicted", np.array([0, 1, 2, 2, 1]), np.array([0, 1, 1, 1, 1]), None)
    yield _classes("one class alone", np.zeros(4, dtype=int), np.zeros(4, dtype=int), None)
    for name, rows, columns in (("one column", 40, 1), ("three columns", 25, 3), ("one row", 1, 1)):
        targets = generator.normal(3.0, 2.0, (rows, columns)).round(DIGITS)
        predicted = (targets + generator.normal(0.2, 1.0, (rows, columns))).round(DIGITS)
        yield _numbers(name, targets, predicted)
    same = np.full((4, 1), 2.0)
    yield _numbers("equal targets, predicted exactly", same, same)
    yield _numbers("equal targets, missed", same, same + 1)
    yield _numbers("a target of nought", np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [1.0], [1.0]]))


def _classes(name: str, labels: Any, predicted: Any, probabilities: Any) -> dict[str, Any]:
    return {
        "task": "classification",
        "name": name,
        "labels": labels.tolist(),
        "predicted": predicted.tolist(),
        "probabilities": None if probabilities is None else probabilities.tolist(),
        "metrics": expected_of_classes(labels, predicted, probabilities),
    }


def _numbers(name: str, targets: NDArray[Any], predicted: NDArray[Any]) -> dict[str, Any]:
    return {
        "task": "regression",
        "name": name,
        "labels": targets.tolist(),
        "predicted": predicted.tolist(),
        "metrics": expected_of_numbers(targets, predicted),
    }


def main() -> None:
    """Write the file beside this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = list(_cases())
    VECTORS.write_text(json.dumps({"scikit_learn": sklearn.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
