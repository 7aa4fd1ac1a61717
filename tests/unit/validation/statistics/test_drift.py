"""Reference drift: found where it is, rarely where it is not, and every figure finite."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.details import MAX_FINDINGS, ReferenceDriftFinding
from shared.validation.statistics.drift import MAX_WITH_BINS, reference_drift

POLICY = ValidationPolicy()
type Columns = dict[str, NDArray[np.generic]]


def sample(generator: np.random.Generator, rows: int, *, shift: float = 0.0) -> Columns:
    """Features of many kinds."""
    mostly_nought = generator.exponential(size=rows) * (generator.random(rows) < 0.2)
    return {
        "normal": generator.normal(shift, 1.0, rows),
        "heavy": generator.standard_cauchy(rows),
        "zeros": mostly_nought,
        "count": generator.poisson(0.7, rows),
        "constant": np.full(rows, 3.0),
        "missing": np.where(generator.random(rows) < 0.05, np.nan, generator.normal(size=rows)),
        "flag": generator.random(rows) < 0.01,
        "city": (generator.pareto(0.8, rows) * 2).clip(0, 500).astype(int).astype(str),
    }


@pytest.mark.parametrize(("reference", "validation"), [(50, 50), (1_000, 50), (50, 1_000), (2_000, 2_000)])
def test_samples_of_one_distribution_seldom_drift(reference: int, validation: int) -> None:
    """Eight features in 25 trials. At 5 % a trial, chance would break the bound once in 100,000 times."""
    generator = np.random.default_rng([reference, validation])
    policy = ValidationPolicy(drift_psi=0.0001)  # so that the evidence alone decides
    alarms = 0
    for _ in range(25):
        result = reference_drift(sample(generator, reference), sample(generator, validation), policy=policy)
        alarms += result.verdict.outcome is Outcome.FAIL
    assert alarms <= stats.binom.ppf(1 - 1e-5, 25, 0.05)


def test_a_shifted_feature_is_found_and_named() -> None:
    generator = np.random.default_rng(1)
    result = reference_drift(sample(generator, 2_000), sample(generator, 1_000, shift=0.5), policy=POLICY)
    assert result.verdict.outcome is Outcome.FAIL
    assert "1 of 8 features drifted, by a PSI of 0.1 or more" in result.verdict.sentence
    worst = result.findings[0]
    assert (worst.feature, worst.kind, worst.found) == ("normal", "numeric", True)
    assert worst.psi > 0.1 > worst.psi_noise
    assert result.verdict.value == worst.psi
    assert worst.n_reference == 2_000
    assert worst.n_validation == 1_000
    assert [one.found for one in result.findings] == [True] + [False] * 7


def test_a_high_psi_of_few_rows_is_no_drift_and_said_to_be_chance() -> None:
    generator = np.random.default_rng(2)
    result = reference_drift(
        {"x": generator.normal(size=60)}, {"x": generator.normal(size=60)}, policy=ValidationPolicy(drift_psi=0.05)
    )
    assert result.findings[0].psi > 0.05
    assert result.verdict.outcome is Outcome.PASS
    assert "come to by chance" in result.verdict.sentence


def test_a_psi_above_chance_that_is_not_shown_to_hold_is_told_with_the_rows_that_would_tell() -> None:
    """One feature of 60 is beyond what it comes to by itself, and not beyond what one of 60 comes to."""
    generator = np.random.default_rng(7)
    reference = {f"x{i}": generator.permutation(np.arange(100.0)) for i in range(60)}
    validation = {name: generator.permutation(values) for name, values in reference.items()}
    validation["x7"] = np.where(generator.permutation(100) < 30, 95.0, validation["x7"])
    result = reference_drift(reference, validation, policy=POLICY)
    worst = result.findings[0]
    assert worst.feature == "x7"
    assert worst.psi > worst.psi_noise > 0.1
    assert not worst.found
    verdict = result.verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.advisory
    assert verdict.value == worst.psi
    assert "1 of 60 features may have drifted" in verdict.sentence
    assert "by chance" not in verdict.sentence
    assert "about 338 rows on either side would tell" in verdict.sentence


def test_a_psi_that_is_found_outweighs_one_that_is_unclear() -> None:
    generator = np.random.default_rng(7)
    reference = {f"x{i}": generator.permutation(np.arange(100.0)) for i in range(60)}
    validation = {**reference, "x1": reference["x1"] + 500, "x7": np.where(reference["x7"] < 25, 95.0, reference["x7"])}
    result = reference_drift(reference, validation, policy=POLICY)
    assert result.verdict.outcome is Outcome.FAIL
    assert not result.verdict.advisory


def test_a_model_of_images_has_no_columns_and_may_pass() -> None:
    verdict = reference_drift({}, {}, policy=POLICY).verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.advisory
    assert "no columns to compare" in verdict.sentence


def test_a_difference_that_is_sure_and_small_is_no_drift() -> None:
    generator = np.random.default_rng(3)
    reference, validation = ({"x": generator.normal(shift, 1, 50_000)} for shift in (0.0, 0.05))
    result = reference_drift(reference, validation, policy=POLICY)
    assert result.findings[0].q_value < 1e-6
    assert result.verdict.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("reference", "validation"),
    [
        (np.full(200, 1.0), np.full(200, 2.0)),
        (np.arange(200.0), np.full(200, np.nan)),
        (np.arange(200.0), np.full(200, np.inf)),
        (np.repeat(["a", "b"], 100), np.repeat(["a", "never seen"], 100)),
        (np.repeat([0, 1], 100), np.repeat(["0", "1"], [180, 20])),
        (np.repeat([True, False], 100), np.repeat([True, False], [10, 190])),
    ],
)
def test_constants_missing_values_infinities_and_unseen_categories_drift(
    reference: NDArray[np.generic], validation: NDArray[np.generic]
) -> None:
    result = reference_drift({"x": reference}, {"x": validation}, policy=POLICY)
    assert result.verdict.outcome is Outcome.FAIL


@settings(max_examples=60, deadline=None)
@given(
    reference=st.lists(st.floats(), min_size=1, max_size=40), validation=st.lists(st.floats(), min_size=1, max_size=40)
)
def test_every_figure_is_finite_whatever_the_numbers(reference: list[float], validation: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = reference_drift({"x": np.array(reference)}, {"x": np.array(validation)}, policy=POLICY)
    finding: ReferenceDriftFinding = result.findings[0]
    figures = [value for value in finding.model_dump().values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in figures)
    assert sum(finding.reference_shares) == pytest.approx(1, abs=1e-4)
    assert len(finding.bins) == len(finding.reference_shares) == len(finding.validation_shares)


def test_distances_of_samples_are_scipys() -> None:
    generator = np.random.default_rng(4)
    one, other = generator.normal(size=300).round(1), generator.normal(0.2, 1.5, 200).round(1)
    finding = reference_drift({"x": one}, {"x": other}, policy=POLICY).findings[0]
    assert finding.kolmogorov_smirnov == pytest.approx(stats.ks_2samp(one, other).statistic, abs=1e-9)
    assert finding.wasserstein == pytest.approx(stats.wasserstein_distance(one, other), abs=1e-9)


def test_missing_values_are_counted() -> None:
    reference = np.array([np.nan] * 10 + list(range(90)))
    finding = reference_drift({"x": reference}, {"x": np.arange(50.0)}, policy=POLICY).findings[0]
    assert (finding.missing_reference, finding.missing_validation) == (0.1, 0.0)
    text = np.array(["", "a", "b", "b"] * 10, dtype=object)
    assert reference_drift({"x": text}, {"x": text}, policy=POLICY).findings[0].missing_reference == 0.25


def test_many_features_are_all_counted_and_the_worst_reported() -> None:
    generator = np.random.default_rng(5)
    reference = {f"x{i}": generator.normal(size=100) for i in range(230)}
    validation = {**reference, "x229": reference["x229"] + 5}
    result = reference_drift(reference, validation, policy=POLICY)
    assert result.tested == 230
    assert len(result.findings) == MAX_FINDINGS
    assert result.findings[0].feature == "x229"
    assert [bool(one.bins) for one in result.findings] == [True] * MAX_WITH_BINS + [False] * (
        MAX_FINDINGS - MAX_WITH_BINS
    )
    assert "1 of 230 features" in result.verdict.sentence


def test_few_rows_or_no_shared_feature_conclude_nothing() -> None:
    few = reference_drift({"x": np.arange(100.0)}, {"x": np.arange(19.0) + 1e6}, policy=POLICY).verdict
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "20 rows or more" in few.sentence
    assert not few.advisory
    other = reference_drift({"x": np.arange(100.0)}, {"y": np.arange(100.0)}, policy=POLICY).verdict
    assert other.outcome is Outcome.INCONCLUSIVE


def test_without_a_limit_the_verdict_is_a_remark() -> None:
    result = reference_drift(
        {"x": np.arange(100.0)}, {"x": np.arange(100.0) + 500}, policy=ValidationPolicy(drift_psi=None)
    )
    assert result.verdict.advisory
    assert result.verdict.outcome is Outcome.PASS
    assert "the policy limits no PSI" in result.verdict.sentence
