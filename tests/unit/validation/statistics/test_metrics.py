"""The metrics equal scikit-learn's, and are never NaN."""

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.registry.manifest import Task
from shared.validation.statistics import metrics
from tests.unit.validation.statistics.evidence import classified, estimated
from tests.unit.validation.statistics.make_metric_vectors import VECTORS, expected_of_classes, expected_of_numbers

CASES = json.loads(VECTORS.read_text())["cases"]
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)
REALS = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@pytest.mark.parametrize("case", CASES, ids=[f"{case['task']}: {case['name']}" for case in CASES])
def test_metrics_equal_the_golden_vectors(case: dict[str, Any]) -> None:
    if case["task"] == Task.CLASSIFICATION:
        measured = metrics.classification(classified(case["labels"], case["predicted"], case["probabilities"]))
    else:
        measured = metrics.regression(estimated(case["labels"], case["predicted"]))
    assert measured == pytest.approx(case["metrics"], rel=1e-9, abs=1e-9)


def test_the_golden_vectors_hold_every_metric() -> None:
    for task, names in metrics.NAMES.items():
        held = {name for case in CASES if case["task"] == task for name in case["metrics"]}
        assert held == set(names)


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_metrics_of_classes_equal_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    measured = metrics.classification(classified(labels, predicted))
    assert measured == pytest.approx(expected_of_classes(labels, predicted, None), rel=1e-9, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4).flatmap(lambda k: st.lists(st.tuples(st.integers(0, k - 1), *[st.integers(1, 9)] * k))))
def test_metrics_of_probabilities_equal_scikit_learns(rows: list[tuple[int, ...]]) -> None:
    if not rows:
        return
    labels = np.array([row[0] for row in rows])
    probabilities = np.array([row[1:] for row in rows], dtype=np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    measured = metrics.classification(classified(labels, predicted, probabilities))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = expected_of_classes(labels, predicted, probabilities)
    assert {name: measured[name] for name in wanted} == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert all(math.isfinite(value) for value in measured.values())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3).flatmap(lambda k: st.lists(st.lists(REALS, min_size=2 * k, max_size=2 * k), min_size=1)))
def test_metrics_of_numbers_equal_scikit_learns(rows: list[list[float]]) -> None:
    targets, predicted = np.split(np.array(rows), 2, axis=1)
    measured = metrics.regression(estimated(targets, predicted))
    assert measured == pytest.approx(expected_of_numbers(targets, predicted), rel=1e-9, abs=1e-9)


def test_equal_targets_have_no_r2_which_a_limit_of_nought_would_pass() -> None:
    nearly = np.arange(50.0) * 1e-170
    for targets in (np.full(50, 0.1), nearly, np.column_stack([np.arange(50.0), np.full(50, 0.1)])):
        assert "r2" not in metrics.regression(estimated(targets, targets))
        assert metrics.regression(estimated(targets, targets + 2e6))["rmse"] == pytest.approx(2e6)


def test_areas_are_there_only_where_labels_differ() -> None:
    measured = metrics.classification(classified([0, 0], [0, 1], [[0.9, 0.1], [0.2, 0.8]]))
    assert "roc_auc" not in measured
    assert "pr_auc" not in measured
    assert "log_loss" in measured


def test_scores_that_are_no_probabilities_rank_and_do_nothing_else() -> None:
    scores = [[-3.0, 3.0], [2.0, -2.0], [1.0, -1.0], [-1.0, 1.0]]
    measured = metrics.classification(classified([1, 0, 1, 1], [1, 0, 0, 1], scores, are_probabilities=False))
    assert measured["roc_auc"] == 1.0
    assert not set(measured) & set(metrics.PROBABILITY_METRICS)


def test_the_positive_class_may_be_the_earlier_one() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    labels = [0, 0, 1, 1]
    earlier = metrics.classification(classified(labels, scores.argmax(axis=1), scores, positive=0))
    later = metrics.classification(classified(labels, scores.argmax(axis=1), scores, positive=1))
    assert earlier["roc_auc"] == later["roc_auc"] == 0.75
    assert earlier["pr_auc"] == pytest.approx(5 / 6)
    assert later["pr_auc"] == pytest.approx(5 / 6)


def test_a_class_that_no_row_has_changes_no_average() -> None:
    few = classified([0, 1, 1], [0, 1, 0])
    more = classified([0, 1, 1], [0, 1, 0], classes=(0, 1, 2, 3))
    assert metrics.classification(few) == metrics.classification(more)
