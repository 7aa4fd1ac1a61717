"""A model's metrics on its validation data, each with its interval, and the figures that a report draws.

A pure function of the evidence and a seed: the same rows give the same numbers. Loads numpy: for the sandboxed process.
"""

from collections.abc import Callable, Mapping

import numpy as np

from shared.registry.manifest import Task
from shared.validation.details import MAX_CLASSES, Confusion, MetricEstimate
from shared.validation.refusal import excerpt
from shared.validation.statistics import metrics
from shared.validation.statistics.calibration import calibration_curve
from shared.validation.statistics.evidence import Codes, Floats, Predictions
from shared.validation.statistics.intervals import (
    Estimated,
    ResampledMeans,
    auc_interval,
    bca,
    clopper_pearson,
    resample_counts,
    resample_means,
)
from shared.validation.statistics.results import Measured

_BOOTSTRAP = "bootstrap, BCa"
_LEAST_CLASS_ROWS = 5

type _Intervals = Mapping[str, Estimated | None]


def measure(predictions: Predictions, *, claimed: Mapping[str, float] | None = None, seed: int = 0) -> Measured:
    """Every metric of the task that the rows and the outputs define; `missing` says why the others are not there."""
    if predictions.task is Task.REGRESSION:
        values, intervals = metrics.regression(predictions), _regression_intervals(predictions, seed)
    else:
        values = metrics.classification(predictions)
        intervals = _classification_intervals(predictions, values, seed)
    claims = claimed or {}
    estimates = []
    for name in metrics.NAMES[predictions.task]:
        if name in values:
            found = intervals.get(name)
            estimates.append(
                MetricEstimate(
                    name=name,
                    value=values[name],
                    interval=None if found is None else _around(found.interval, values[name]),
                    method="" if found is None else found.method,
                    n=predictions.rows,
                    higher_is_better=name not in metrics.LOWER_IS_BETTER,
                    claimed=claims.get(name),
                )
            )
    return Measured(
        rows=predictions.rows,
        estimates=tuple(estimates),
        missing={name: _why(name, predictions) for name in metrics.NAMES[predictions.task] if name not in values},
        confusion=_confusion(predictions),
        calibration=calibration_curve(predictions),
    )


def _around(interval: tuple[float, float], value: float) -> tuple[float, float]:
    """The interval, rounding set right: it holds its value."""
    return min(interval[0], value), max(interval[1], value)


def _why(name: str, predictions: Predictions) -> str:
    if predictions.task is Task.REGRESSION:
        if name == "r2":
            return "all targets of a column are equal" if predictions.rows > 1 else "it needs two rows"
        return "a target is 0"
    wants_probabilities = name in metrics.PROBABILITY_METRICS
    if predictions.scores is None or (wants_probabilities and not predictions.are_probabilities):
        needed = "probabilities" if wants_probabilities else "scores"
        return f"it needs {needed}: {'; '.join(predictions.notes) or 'there are none'}"
    present = len(np.unique(predictions.labels))
    if present < 2:
        return "all labels are of one class"
    if metrics.ranking_is_long(present, predictions.rows):
        return f"to rank {predictions.rows} rows for each of {present} classes would take too long"
    return "for two classes there is one curve only: see the name without `_macro`"


def _classification_intervals(predictions: Predictions, values: Mapping[str, float], seed: int) -> _Intervals:
    true, predicted = predictions.labels.astype(np.int64), predictions.predicted.astype(np.int64)
    right = int(predictions.correct.sum())
    exact = Estimated(interval=clopper_pearson(right, predictions.rows), method="clopper-pearson")
    intervals: dict[str, Estimated | None] = {"accuracy": exact, "recall": exact}
    if len(predictions.classes) <= metrics.MANY_CLASSES:
        intervals |= _label_intervals(true, predicted, len(predictions.classes), exact, seed)
        if predictions.scores is not None and "roc_auc" in values:
            intervals |= _ranking_intervals(true, predictions.scores, predictions, values)
    if predictions.probabilities is not None and predictions.rows > 1:
        columns = np.column_stack(
            [
                metrics.log_losses(true, predictions.probabilities),
                metrics.brier_scores(true, predictions.probabilities),
            ]
        )
        means = resample_means(columns, seed=seed)
        intervals["log_loss"] = _resampled(means, _column(0))
        intervals["brier"] = _resampled(means, _column(1))
    return intervals


def _label_intervals(true: Codes, predicted: Codes, classes: int, exact: Estimated, seed: int) -> _Intervals:
    """Intervals of averages over classes, from the confusion matrix: all that these metrics see of the rows."""
    cells, counts = np.unique(true * classes + predicted, return_counts=True)
    of_true, of_predicted = cells // classes, cells % classes
    is_true, is_predicted = (np.eye(classes)[at] for at in (of_true, of_predicted))
    is_hit = is_true * (of_true == of_predicted)[:, None]

    rows = counts.astype(np.float64)
    tables = resample_counts(rows, seed=seed)
    hits, support, claimed = rows @ is_hit, rows @ is_true, rows @ is_predicted
    values = metrics.label_metrics(hits, support, claimed)
    replicates = metrics.label_metrics(tables @ is_hit, tables @ is_true, tables @ is_predicted)
    with np.errstate(invalid="ignore", divide="ignore"):  # where the only row is left out
        left_out = metrics.label_metrics(hits - is_hit, support - is_true, claimed - is_predicted)
    intervals: dict[str, Estimated | None] = {}
    for name in set(metrics.LABEL_METRICS) - {"accuracy", "recall"}:
        if name.endswith("_macro") and not _is_settled(name, support, claimed):
            continue
        found = bca(float(values[name]), replicates[name], left_out[name], rows)
        intervals[name] = exact if found is None else Estimated(interval=found, method=_BOOTSTRAP)
    return intervals


def _is_settled(name: str, support: Floats, claimed: Floats) -> bool:
    """Whether each class has enough rows for an average that counts all classes alike to have an interval.

    The precision of a class that is predicted twice is anywhere, and no resampling of two rows shows it.
    """
    present = support + claimed > 0
    counts = support if name == "recall_macro" else np.minimum(support, claimed)
    return bool(counts[present].min() >= _LEAST_CLASS_ROWS)


def _ranking_intervals(
    true: Codes, scores: Floats, predictions: Predictions, values: Mapping[str, float]
) -> _Intervals:
    """Intervals of the areas under curves: DeLong's, and for precision-recall that of a proportion.

    The average precision's spread is near that of a share among the positive rows (Boyd, Eng and Page 2013).
    """
    present = np.unique(true)
    if len(predictions.classes) == 2:
        at = 1 if predictions.positive is None else predictions.positive
        hits = int((true == at).sum())
        return {
            "roc_auc": auc_interval(true, scores, np.array([at]), weighted=False),
            "pr_auc": _as_share(values["pr_auc"], hits),
        }
    return {
        "roc_auc": auc_interval(true, scores, present, weighted=True),
        "roc_auc_macro": auc_interval(true, scores, present, weighted=False),
        "pr_auc": _as_share(values["pr_auc"], len(true)),
    }


def _as_share(value: float, n: int) -> Estimated:
    return Estimated(interval=clopper_pearson(value * n, n), method="clopper-pearson, by positive rows")


def _regression_intervals(predictions: Predictions, seed: int) -> _Intervals:
    if predictions.rows < 2:
        return {}
    targets = predictions.labels.astype(np.float64)
    error: Floats = targets - predictions.predicted
    outputs = targets.shape[1]
    away = targets - targets.mean(axis=0)
    columns = [error**2, away, away**2, np.abs(error).mean(axis=1, keepdims=True)]
    columns += [metrics.pinball(error, quantile).mean(axis=1, keepdims=True) for quantile in metrics.PINBALL.values()]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.abs(error / targets).mean(axis=1, keepdims=True)
    has_mape = bool(np.isfinite(shares).all())
    means = resample_means(np.column_stack([*columns, *([shares] if has_mape else [])]), seed=seed)

    def root(m: Floats) -> Floats:
        roots: Floats = np.sqrt(m[:, :outputs]).mean(axis=1)
        return roots

    def coefficient(m: Floats) -> Floats:
        total = m[:, 2 * outputs : 3 * outputs] - m[:, outputs : 2 * outputs] ** 2
        return metrics.r2(m[:, :outputs], np.maximum(total, 0.0)).mean(axis=1)

    first = 3 * outputs
    intervals = {
        "rmse": _resampled(means, root),
        "r2": _resampled(means, coefficient),
        "mae": _resampled(means, _column(first)),
    }
    for place, name in enumerate(metrics.PINBALL, start=first + 1):
        intervals[name] = _resampled(means, _column(place))
    if has_mape:
        intervals["mape"] = _resampled(means, _column(-1))
    return intervals


def _column(place: int) -> Callable[[Floats], Floats]:
    return lambda means: means[:, place]


def _resampled(means: ResampledMeans, statistic: Callable[[Floats], Floats]) -> Estimated | None:
    found = means.interval(statistic)
    return None if found is None else Estimated(interval=found, method=_BOOTSTRAP)


def _confusion(predictions: Predictions) -> Confusion | None:
    classes = len(predictions.classes)
    if predictions.task is Task.REGRESSION or classes > MAX_CLASSES:
        return None
    cells = predictions.labels.astype(np.int64) * classes + predictions.predicted.astype(np.int64)
    counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return Confusion(
        classes=tuple(excerpt(name, 200) for name in predictions.classes),
        counts=tuple(tuple(row) for row in counts.tolist()),
    )
