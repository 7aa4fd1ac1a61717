"""The metrics equal scikit-learn's."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from shared.validation.metrics import classification, regression

PAIRS = st.lists(st.tuples(st.integers(-2, 4), st.integers(-2, 4)), min_size=1, max_size=60)
REALS = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@settings(max_examples=200, deadline=None)
@given(pairs=PAIRS, as_text=st.booleans())
def test_classification_metrics_equal_scikit_learns(*, pairs: list[tuple[int, int]], as_text: bool) -> None:
    kind = str if as_text else np.int64
    labels, predictions = (np.array(column, dtype=np.int64).astype(kind) for column in zip(*pairs, strict=True))
    precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
        labels, predictions, average="weighted", zero_division=0
    )
    wanted = {
        "accuracy": sklearn.accuracy_score(labels, predictions),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
    assert classification(labels, predictions) == pytest.approx(wanted, rel=0, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3).flatmap(lambda k: st.lists(st.lists(REALS, min_size=2 * k, max_size=2 * k), min_size=1)))
def test_regression_metrics_equal_scikit_learns(rows: list[list[float]]) -> None:
    values = np.array(rows)
    targets, predictions = np.split(values, 2, axis=1)
    measured = regression(targets, predictions)
    wanted = {
        "rmse": sklearn.root_mean_squared_error(targets, predictions),
        "mae": sklearn.mean_absolute_error(targets, predictions),
    }
    if len(rows) >= 2:
        wanted["r2"] = sklearn.r2_score(targets, predictions)
    assert measured == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_targets_that_do_not_vary_have_an_r2_of_one_or_nought() -> None:
    same = np.full((4, 1), 2.0)
    assert regression(same, same)["r2"] == 1.0
    assert regression(same, same + 1)["r2"] == 0.0


def test_r2_needs_two_rows_as_scikit_learns_does() -> None:
    one = np.ones((1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isnan(sklearn.r2_score(one, one))
    assert "r2" not in regression(one, one)
