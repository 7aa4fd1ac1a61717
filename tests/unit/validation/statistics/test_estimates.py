"""Every metric comes with its interval, and what cannot be measured with its reason."""

import numpy as np
import pytest

from shared.registry.manifest import Task
from shared.validation.details import MAX_CLASSES
from shared.validation.statistics.estimates import measure
from shared.validation.statistics.metrics import NAMES, RANKING_METRICS, ranking_is_long
from tests.unit.validation.statistics.evidence import classified, estimated


def probable(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn by the probabilities given."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), rows)
    labels = (probabilities.cumsum(axis=1) > generator.random(rows)[:, None]).argmax(axis=1)
    return labels, probabilities


@pytest.mark.parametrize(("rows", "classes"), [(300, 2), (300, 4)])
def test_every_metric_of_a_classifier_has_an_interval_around_it(rows: int, classes: int) -> None:
    labels, probabilities = probable(rows, classes)
    measured = measure(classified(labels, probabilities.argmax(axis=1), probabilities))
    assert set(measured.values) | set(measured.missing) == set(NAMES[Task.CLASSIFICATION])
    without = {one.name for one in measured.estimates if one.interval is None}
    assert without == {"calibration_error", *(["pr_auc_macro"] if classes > 2 else [])}
    for one in measured.estimates:
        assert one.n == rows
        if one.interval is not None:
            assert one.method
            assert one.interval[0] < one.value < one.interval[1]
            assert one.interval[1] - one.interval[0] < 0.5
    assert {one.name for one in measured.estimates if not one.higher_is_better} == {
        "log_loss",
        "brier",
        "calibration_error",
    }


def test_every_metric_of_a_regressor_has_an_interval_around_it() -> None:
    generator = np.random.default_rng(1)
    targets = generator.uniform(1, 9, (200, 2))
    measured = measure(estimated(targets, targets + generator.normal(size=(200, 2))))
    assert set(measured.values) == set(NAMES[Task.REGRESSION])
    for one in measured.estimates:
        assert one.interval is not None
        assert one.interval[0] < one.value < one.interval[1]
    assert {one.name for one in measured.estimates if one.higher_is_better} == {"r2"}


def test_areas_of_very_many_rows_and_classes_are_left_out_with_the_reason() -> None:
    labels = np.arange(10_050) % 201
    measured = measure(classified(labels, labels, np.eye(201)[labels]))
    for name in RANKING_METRICS:
        assert "10050 rows for each of 201 classes" in measured.missing[name]
    assert measured.values["log_loss"] < 1e-9
    assert not ranking_is_long(100, 200_000)
    assert not ranking_is_long(200, 10_000)


def test_a_model_without_an_error_is_not_certain() -> None:
    labels = np.arange(40) % 3
    measured = {one.name: one for one in measure(classified(labels, labels)).estimates}
    for name in ("accuracy", "precision", "recall", "f1", "f1_macro"):
        interval = measured[name].interval
        assert interval is not None
        assert interval == pytest.approx((0.9119, 1.0), abs=1e-4)


def test_an_average_over_classes_has_no_interval_where_one_class_is_all_but_absent() -> None:
    labels = np.repeat([0, 1, 2], [50, 50, 8])
    predicted = np.where(np.arange(108) < 106, np.minimum(labels, 1), 2)
    measured = {one.name: one for one in measure(classified(labels, predicted)).estimates}
    assert measured["precision_macro"].interval is None
    assert measured["f1_macro"].interval is None
    assert measured["recall_macro"].interval is not None
    assert measured["precision"].interval is not None


def test_one_row_is_measured_as_far_as_it_goes() -> None:
    measured = measure(classified([1], [1], [[0.2, 0.8]]))
    assert measured.values["accuracy"] == 1.0
    assert measured.missing["roc_auc"] == "all labels are of one class"
    one_number = measure(estimated([1.0], [2.0]))
    assert one_number.missing == {"r2": "it needs two rows"}
    assert all(one.interval is None for one in one_number.estimates)


def test_a_target_of_nought_leaves_out_mape_alone() -> None:
    measured = measure(estimated([0.0, 1.0, 2.0], [0.1, 1.0, 2.0]))
    assert measured.missing == {"mape": "a target is 0"}


def test_why_there_are_no_probabilities_is_said() -> None:
    measured = measure(classified([0, 1], [0, 1]))
    assert measured.missing["log_loss"] == "it needs probabilities: the model has no output of scores or probabilities"
    assert "it needs scores" in measured.missing["roc_auc"]


def test_the_same_seed_gives_the_same_estimates() -> None:
    labels, probabilities = probable(100, 3)
    predictions = classified(labels, probabilities.argmax(axis=1), probabilities)
    assert measure(predictions, seed=1) == measure(predictions, seed=1)
    assert measure(predictions, seed=1) != measure(predictions, seed=2)


def test_the_confusion_matrix_counts_every_row() -> None:
    measured = measure(classified([0, 0, 1, 2], [0, 1, 1, 0], classes=("a", "b", "c")))
    assert measured.confusion is not None
    assert measured.confusion.classes == ("a", "b", "c")
    assert measured.confusion.counts == ((1, 1, 0), (0, 1, 0), (1, 0, 0))
    many = np.arange(MAX_CLASSES + 1)
    assert measure(classified(many, many)).confusion is None


def test_calibration_bins_hold_the_rows_by_confidence() -> None:
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.98, 0.02], [0.45, 0.55]])
    measured = measure(classified([0, 1, 0, 1], [0, 0, 0, 1], probabilities))
    low, high, highest = measured.calibration
    assert (low.n, low.predicted, low.observed) == (1, 0.55, 1.0)
    assert (high.n, high.predicted, high.observed) == (1, 0.9, 1.0)
    assert (highest.n, highest.observed) == (2, 0.5)
    assert highest.predicted == pytest.approx(0.965)
    gap = sum(abs(one.predicted - one.observed) * one.n for one in measured.calibration) / 4
    assert measured.values["calibration_error"] == pytest.approx(gap)


def test_hundreds_of_classes_are_measured() -> None:
    labels, probabilities = probable(2_000, 300)
    measured = measure(classified(labels, probabilities.argmax(axis=1), probabilities))
    assert "roc_auc_macro" in measured.values
    assert {one.name for one in measured.estimates if one.interval is not None} >= {"accuracy", "log_loss"}
