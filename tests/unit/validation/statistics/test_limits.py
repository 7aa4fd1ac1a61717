"""Limits on metrics and claims about them."""

import numpy as np
import pytest

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.validation.statistics.estimates import measure
from shared.validation.statistics.limits import claims, thresholds
from tests.unit.validation.statistics.evidence import classified, estimated

LABELS = np.tile([0, 1], 50)
PROBABILITIES = np.column_stack([np.linspace(0.99, 0.01, 100), np.linspace(0.01, 0.99, 100)])
GOOD = classified(LABELS, np.where(np.arange(100) < 10, 1 - LABELS, LABELS))
OPEN = ValidationPolicy(accuracy=None, precision=None, recall=None, r2=None)


def verdicts(policy: ValidationPolicy, task: Task = Task.CLASSIFICATION) -> dict[str, Verdict]:
    predictions = GOOD if task is Task.CLASSIFICATION else estimated(np.arange(100.0) + 1, np.arange(100.0))
    return {verdict.check: verdict for verdict in thresholds(measure(predictions), task, policy)}


def test_the_default_limits_are_those_of_the_policy() -> None:
    found = verdicts(ValidationPolicy())
    assert {name: verdict.limit for name, verdict in found.items()} == {
        "accuracy": 0.85,
        "precision": 0.8,
        "recall": 0.8,
    }
    accuracy = found["accuracy"]
    assert accuracy.outcome is Outcome.PASS
    assert accuracy.value == 0.9
    assert accuracy.interval is not None
    assert accuracy.interval == pytest.approx((0.8238, 0.9510), abs=1e-4)
    assert accuracy.n == 100
    assert accuracy.evidence == "/details/metrics/0"


@pytest.mark.parametrize(
    ("limits", "outcome", "said"),
    [
        ({"minimum": {"f1_macro": 0.9}}, Outcome.PASS, "f1_macro 0.9 on 100 rows is not below the limit 0.9"),
        ({"minimum": {"f1_macro": 0.95}}, Outcome.FAIL, "f1_macro 0.9 on 100 rows is below the limit 0.95"),
        ({"maximum": {"f1_macro": 0.95}}, Outcome.PASS, "is not above the limit 0.95"),
        ({"maximum": {"f1_macro": 0.85}}, Outcome.FAIL, "f1_macro 0.9 on 100 rows is above the limit 0.85"),
        ({"minimum": {"f1_macro": 0.5}, "maximum": {"f1_macro": 0.85}}, Outcome.FAIL, "is above the limit 0.85"),
    ],
)
def test_any_metric_may_have_limits(limits: dict[str, dict[str, float]], outcome: Outcome, said: str) -> None:
    verdict = verdicts(OPEN.model_copy(update=limits))["f1_macro"]
    assert verdict.outcome is outcome
    assert said in verdict.sentence


def test_a_limit_on_what_was_not_measured_is_inconclusive_and_says_why() -> None:
    verdict = verdicts(OPEN.model_copy(update={"maximum": {"log_loss": 0.5}}))["log_loss"]
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "it needs probabilities: the model has no output of scores" in verdict.sentence
    one_class = thresholds(
        measure(classified(np.zeros(100), np.zeros(100), PROBABILITIES)),
        Task.CLASSIFICATION,
        OPEN.model_copy(update={"minimum": {"roc_auc": 0.5}}),
    )
    assert one_class[0].outcome is Outcome.INCONCLUSIVE
    assert "all labels are of one class" in one_class[0].sentence


def test_a_limit_on_a_name_that_is_no_metric_says_which_there_are() -> None:
    verdict = verdicts(OPEN.model_copy(update={"minimum": {"acuracy": 0.5, "rmse": 1.0}}))["metrics"]
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the policy limits acuracy, rmse, which is not measured for this task" in verdict.sentence
    assert "accuracy, brier" in verdict.sentence


def test_too_few_rows_conclude_nothing_good_or_bad() -> None:
    for limit in (0.5, 0.99):
        policy = OPEN.model_copy(update={"accuracy": limit, "min_rows": 101})
        verdict = verdicts(policy)["accuracy"]
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert "101 rows or more" in verdict.sentence


def test_without_limits_there_is_one_verdict_that_says_so() -> None:
    assert [v.sentence for v in verdicts(OPEN).values()] == ["measured on 100 rows; the policy sets no limits"]


def test_regression_is_limited_by_r2_and_by_name() -> None:
    policy = ValidationPolicy(maximum={"rmse": 0.5})
    found = verdicts(policy, Task.REGRESSION)
    assert found["r2"].outcome is Outcome.PASS
    assert found["rmse"].outcome is Outcome.FAIL
    assert found["rmse"].value == 1.0


def test_a_regressor_measured_on_equal_targets_is_not_accepted() -> None:
    (verdict,) = thresholds(
        measure(estimated(np.full(100, 3.0), np.full(100, 2e6))), Task.REGRESSION, ValidationPolicy(r2=0.0)
    )
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "all targets of a column are equal" in verdict.sentence


def test_claims_that_differ_beyond_the_interval_are_flagged_and_weigh_nothing() -> None:
    measured = measure(GOOD, claimed={"accuracy": 0.99})
    assert measured.estimates[0].claimed == 0.99
    (verdict,) = claims(measured, {"accuracy": 0.99, "f1": 0.91, "auc": 0.5})
    assert verdict.outcome is Outcome.FAIL
    assert verdict.advisory
    assert verdict.sentence == "accuracy is claimed as 0.99 and measured as 0.9; not measured here: auc"
    (borne_out,) = claims(measured, {"accuracy": 0.92})
    assert borne_out.outcome is Outcome.PASS
    assert claims(measured, {}) == []
