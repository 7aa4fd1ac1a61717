"""Bad slices are found, chance is not, and a verdict names the worst."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.details import MAX_FINDINGS
from shared.validation.statistics.slices import find_slices, fisher_tail
from tests.unit.validation.statistics.evidence import estimated, right_or_wrong

POLICY = ValidationPolicy()


def features(generator: np.random.Generator, rows: int) -> dict[str, NDArray[np.generic]]:
    """Numbers, whole numbers, and text with many values."""
    columns: dict[str, NDArray[np.generic]] = {f"x{i}": generator.normal(size=rows) for i in range(6)}
    columns["count"] = generator.poisson(1.0, rows)
    columns["city"] = np.char.add("city ", (generator.pareto(1.0, rows) * 3).clip(0, 60).astype(int).astype(str))
    columns["region"] = generator.choice(["north", "south", "east", "west"], rows)
    return columns


def test_fishers_tail_is_scipys() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        rows = int(generator.integers(2, 3_000))
        wrong, part = int(generator.integers(0, rows + 1)), int(generator.integers(1, rows))
        seen = int(generator.integers(0, min(wrong, part) + 1))
        wanted = stats.hypergeom.sf(seen - 1, rows, wrong, part)
        assert fisher_tail(seen, part, wrong, rows) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_a_planted_bad_slice_is_found_95_times_of_100() -> None:
    """A twentieth of 3,000 rows is right in 70 %, the rest in 92 %.

    Were it found in 95 % of cases, chance would break the bound once in 100,000 times.
    """
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(25):
        columns = features(generator, 3_000)
        bad = generator.random(3_000) < 0.05
        columns["segment"] = np.where(bad, "new", "old")
        correct = generator.random(3_000) < np.where(bad, 0.70, 0.92)
        result = find_slices(right_or_wrong(correct), columns, policy=POLICY)
        found += any(one.found and one.column == "segment" and one.part == "new" for one in result.findings)
    assert found >= stats.binom.ppf(1e-5, 25, 0.95)


def test_without_a_bad_slice_one_is_seldom_found() -> None:
    """Even with hardly any gap allowed. Were the rate 5 %, chance would break the bound once in 100,000 times."""
    generator = np.random.default_rng(2)
    policy = ValidationPolicy(slice_gap=0.001)
    alarms = 0
    for _ in range(25):
        correct = generator.random(1_500) < 0.85
        result = find_slices(right_or_wrong(correct), features(generator, 1_500), policy=policy)
        alarms += result.verdict.outcome is Outcome.FAIL
    assert alarms <= stats.binom.ppf(1 - 1e-5, 25, 0.05)


def test_the_verdict_names_the_worst_slices_with_their_figures() -> None:
    region = np.repeat(["north", "south", "east"], 400)
    correct = np.concatenate([np.arange(400) % 10 != 0, np.arange(400) % 10 != 0, np.arange(400) % 2 != 0])
    result = find_slices(right_or_wrong(correct), {"region": region}, policy=POLICY)
    assert result.tested == 3
    assert result.verdict.outcome is Outcome.FAIL
    assert "region east: accuracy 0.5 on 400 rows beside 0.9" in result.verdict.sentence
    assert result.verdict.value == pytest.approx(0.4)
    assert result.verdict.evidence == "/details/slices/0"
    worst = result.findings[0]
    assert worst.interval is not None
    assert worst.interval[0] < 0.4 < worst.interval[1]
    assert [one.found for one in result.findings] == [True, False, False]


def test_a_gap_within_the_policys_is_no_finding() -> None:
    part = np.repeat(["a", "b"], 5_000)
    correct = np.concatenate([np.arange(5_000) % 10 != 0, np.arange(5_000) % 20 != 0])
    result = find_slices(right_or_wrong(correct), {"part": part}, policy=POLICY)
    assert result.findings[0].q_value < 1e-6
    assert result.verdict.outcome is Outcome.PASS


def test_errors_of_numbers_are_tested_too() -> None:
    generator = np.random.default_rng(3)
    part = np.repeat(["calm", "rough"], [1_800, 200])
    errors = generator.normal(size=2_000) * np.where(part == "rough", 2.0, 1.0)
    columns = {"part": part, "x": generator.normal(size=2_000)}
    result = find_slices(estimated(np.zeros(2_000), errors), columns, policy=POLICY)
    assert result.verdict.outcome is Outcome.FAIL
    worst = result.findings[0]
    assert (worst.column, worst.part, worst.metric) == ("part", "rough", "mae")
    assert worst.gap == pytest.approx(1.0, abs=0.3)
    assert sum(one.found for one in result.findings) == 1


def test_a_model_without_error_has_no_bad_slice() -> None:
    part = np.repeat(["a", "b"], 100)
    for exact in (right_or_wrong(np.ones(200)), estimated(np.ones(200), np.ones(200))):
        result = find_slices(exact, {"part": part}, policy=POLICY)
        assert result.verdict.outcome is Outcome.PASS
        assert result.findings[0].gap == 0


def test_a_rest_without_error_is_measured_by_all_rows() -> None:
    part = np.repeat(["a", "b"], 100)
    result = find_slices(estimated(np.zeros(200), (part == "b") * np.linspace(1, 2, 200)), {"x": part}, policy=POLICY)
    assert result.verdict.outcome is Outcome.FAIL
    assert result.findings[0].gap == pytest.approx(2.0)


def test_small_parts_are_not_tested_and_rare_values_stand_together() -> None:
    city = np.array([f"city {i}" for i in range(100) for _ in range(5)])
    result = find_slices(right_or_wrong(np.arange(500) % 3 != 0), {"city": city}, policy=POLICY)
    assert [(one.part, one.n) for one in result.findings] == [("all else", 400)]


@pytest.mark.parametrize(("named", "advisory"), [(True, False), (False, True)])
def test_columns_that_cannot_be_tested_matter_where_they_were_named(*, named: bool, advisory: bool) -> None:
    result = find_slices(right_or_wrong(np.ones(40)), {"x": np.arange(40.0)}, policy=POLICY, named=named)
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert result.verdict.advisory is advisory
    assert result.tested == 0


def test_without_a_gap_in_the_policy_the_verdict_is_a_remark() -> None:
    part = np.repeat(["a", "b"], 100)
    result = find_slices(right_or_wrong(part == "a"), {"x": part}, policy=ValidationPolicy(slice_gap=None))
    assert result.verdict.advisory
    assert result.verdict.outcome is Outcome.PASS
    assert not any(one.found for one in result.findings)


def test_missing_values_are_a_part() -> None:
    generator = np.random.default_rng(4)
    column = np.where(np.arange(1_000) < 200, np.nan, generator.normal(size=1_000))
    correct = ~np.isnan(column) | (np.arange(1_000) % 2 == 0)
    result = find_slices(right_or_wrong(correct), {"x": column}, policy=POLICY)
    assert result.findings[0].part == "missing"
    assert result.findings[0].found


def test_the_report_is_bounded_and_counts_all() -> None:
    generator = np.random.default_rng(5)
    columns = {f"x{i}": generator.normal(size=600) for i in range(210)}
    result = find_slices(right_or_wrong(generator.random(600) < 0.9), columns, policy=POLICY)
    assert len(result.findings) == MAX_FINDINGS
    assert result.tested == 2_000
    assert "of 210 columns the first 200 were cut" in result.verdict.sentence
