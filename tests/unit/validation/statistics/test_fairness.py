"""Gaps between groups: what they are, what is left out, and what the policy makes of them."""

import numpy as np
import pytest

from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.statistics.evidence import Predictions
from shared.validation.statistics.fairness import fairness_gaps
from tests.unit.validation.statistics.evidence import classified, estimated


def two_groups(n: int, *, rates: tuple[float, float]) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Two groups of `n` rows, half of each truly positive; the shares predicted positive, alike for both halves."""
    labels = np.tile(np.repeat([0, 1], n // 2), 2)
    within = np.tile(np.arange(n // 2), 4)
    group = np.repeat(["a", "b"], n)
    predicted = within < np.where(group == "a", rates[0], rates[1]) * (n // 2)
    return classified(labels, predicted), {"group": group}


def test_both_gaps_are_the_highest_rate_minus_the_lowest() -> None:
    predictions, columns = two_groups(400, rates=(0.75, 0.5))
    result = fairness_gaps(predictions, columns, policy=ValidationPolicy())
    assert {one.definition for one in result.findings} == {"demographic_parity", "equal_opportunity"}
    for one in result.findings:
        assert one.gap == pytest.approx(0.25)
        assert (one.highest, one.lowest) == ("a", "b")
        assert one.rates == {"a": 0.75, "b": 0.5}
        assert one.interval is not None
        assert one.interval[0] < 0.25 < one.interval[1]
    assert {one.definition: one.counts["a"] for one in result.findings} == {
        "demographic_parity": 400,
        "equal_opportunity": 200,
    }
    assert result.verdict.advisory


@pytest.mark.parametrize(
    ("rows", "rates", "outcome"),
    [
        (2_000, (0.75, 0.5), Outcome.FAIL),
        (100, (0.66, 0.5), Outcome.INCONCLUSIVE),
        (400, (0.55, 0.5), Outcome.PASS),
    ],
)
def test_a_limit_fails_on_proof_and_is_inconclusive_between(
    rows: int, rates: tuple[float, float], outcome: Outcome
) -> None:
    predictions, columns = two_groups(rows, rates=rates)
    verdict = fairness_gaps(predictions, columns, policy=ValidationPolicy(fairness_gap=0.1)).verdict
    assert verdict.outcome is outcome
    assert not verdict.advisory
    assert verdict.limit == 0.1
    assert verdict.interval is not None
    if outcome is Outcome.FAIL:
        assert verdict.interval[0] > 0.1


def test_groups_that_are_too_small_are_left_out_and_named() -> None:
    predictions, columns = two_groups(400, rates=(0.75, 0.5))
    columns["group"] = columns["group"].astype("U10")
    columns["group"][:10] = "tiny"
    result = fairness_gaps(predictions, columns, policy=ValidationPolicy())
    assert set(result.findings[0].rates) == {"a", "b"}
    assert "left out: group tiny (demographic_parity), group tiny (equal_opportunity)" in result.verdict.sentence


def test_equal_groups_seldom_exceed_a_limit_of_nought() -> None:
    """Twelve groups of equal rates: the widest gap is picked after looking, and its interval allows for it."""
    generator = np.random.default_rng(8)
    policy = ValidationPolicy(fairness_gap=0.0)
    alarms = 0
    for _ in range(100):
        group = generator.integers(0, 12, 2_400).astype(str)
        predictions = classified(generator.integers(0, 2, 2_400), generator.random(2_400) < 0.3, classes=(0, 1))
        alarms += fairness_gaps(predictions, {"group": group}, policy=policy).verdict.outcome is Outcome.FAIL
    assert alarms <= 16  # of 100 at 5 %: more has a probability below 1 in 100,000


@pytest.mark.parametrize(
    ("predictions", "reason"),
    [
        (estimated(np.ones(100), np.ones(100)), "the task is regression"),
        (classified(np.arange(100) % 3, np.arange(100) % 3), "positive_class"),
        (classified(np.arange(100) % 2, np.arange(100) % 2), "no two groups have 30 rows each"),
    ],
)
def test_gaps_that_cannot_be_measured_are_inconclusive_where_the_policy_limits_them(
    predictions: Predictions, reason: str
) -> None:
    columns = {"group": np.repeat(["a", "b"], [90, 10])}
    limited = fairness_gaps(predictions, columns, policy=ValidationPolicy(fairness_gap=0.1)).verdict
    assert limited.outcome is Outcome.INCONCLUSIVE
    assert not limited.advisory
    assert reason in limited.sentence
    assert fairness_gaps(predictions, columns, policy=ValidationPolicy()).verdict.advisory


def test_several_classes_have_gaps_of_the_positive_one() -> None:
    labels = np.arange(300) % 3
    group = np.where(np.arange(300) < 150, "a", "b")
    predicted = np.where((group == "b") & (labels == 2), 0, labels)
    result = fairness_gaps(classified(labels, predicted, positive=2), {"group": group}, policy=ValidationPolicy())
    assert {one.definition: round(one.gap, 3) for one in result.findings} == {
        "equal_opportunity": 1.0,
        "demographic_parity": 0.333,
    }
