"""Non-inferiority passes on proof, fails on proof, and else says what it would take."""

import numpy as np
import pytest

from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.statistics.comparison import compare, rows_for_agreement
from shared.validation.statistics.evidence import Predictions
from shared.validation.statistics.results import Compared
from tests.unit.validation.statistics.evidence import estimated, right_or_wrong

POLICY = ValidationPolicy()


def compared(candidate: Predictions, champion: Predictions, policy: ValidationPolicy = POLICY) -> Compared:
    result = compare(candidate, champion, champion_version=3, policy=policy)
    finding, verdict = result.findings[0], result.verdict
    assert verdict.n == finding.n == candidate.rows
    assert verdict.evidence == "/details/comparison/0"
    assert finding.champion_version == 3
    assert finding.interval[0] <= finding.difference <= finding.interval[1]
    return result


def pair(n: int, *, gained: int, lost: int, right: int = 0) -> tuple[Predictions, Predictions]:
    """Candidate and champion over `n` rows: rows that one alone has right, then rows that both have."""
    rows = np.arange(n)
    both = rows >= n - right
    return right_or_wrong(both | (rows < gained)), right_or_wrong(both | ((rows >= gained) & (rows < gained + lost)))


def test_the_same_predictions_pass_where_there_are_enough_rows() -> None:
    enough = compared(*pair(149, gained=0, lost=0, right=130))
    assert enough.verdict.outcome is Outcome.PASS
    assert enough.verdict.limit == -0.02
    few = compared(*pair(148, gained=0, lost=0, right=130)).verdict
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "about 149 rows" in few.sentence


@pytest.mark.parametrize(("margin", "rows"), [(0.02, 149), (0.05, 59), (0.2, 14), (0.0, None)])
def test_how_many_rows_agreement_takes(margin: float, rows: int | None) -> None:
    assert rows_for_agreement(margin) == rows


def test_a_candidate_that_is_proven_worse_fails() -> None:
    result = compared(*pair(1_000, gained=10, lost=90, right=850))
    assert result.verdict.outcome is Outcome.FAIL
    assert result.verdict.interval is not None
    assert result.verdict.interval[1] <= -0.02
    assert result.findings[0].candidate == pytest.approx(0.86)
    assert result.findings[0].champion == pytest.approx(0.94)
    assert (result.findings[0].candidate_only, result.findings[0].champion_only) == (10, 90)
    assert "worse by more than the margin 0.02" in result.verdict.sentence


def test_what_is_neither_proven_is_inconclusive_and_says_how_many_rows_would_do() -> None:
    verdict = compared(*pair(300, gained=6, lost=9, right=270)).verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "about 3086 rows like these would" in verdict.sentence
    worse = compared(*pair(300, gained=6, lost=13, right=270)).verdict
    assert worse.outcome is Outcome.INCONCLUSIVE
    assert "more of the like would not show it" in worse.sentence


def test_the_rows_asked_for_would_mostly_do() -> None:
    """They are to do in 80 % of cases: fewer than 13 of 25 is then improbable, at 1 in 2,500."""
    generator = np.random.default_rng(1)
    passed = 0
    for gained, lost, _ in generator.multinomial(3_086, [0.02, 0.03, 0.95], 25).tolist():
        passed += compared(*pair(3_086, gained=gained, lost=lost, right=2_000)).verdict.outcome is Outcome.PASS
    assert passed >= 13


def test_fewer_rows_than_the_policy_wants_conclude_nothing() -> None:
    policy = ValidationPolicy(min_rows=500, noninferiority_margin=0.1)
    verdict = compared(*pair(400, gained=100, lost=0, right=200), policy).verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "500 rows or more" in verdict.sentence


def test_without_a_margin_the_verdict_is_a_remark() -> None:
    verdict = compared(*pair(100, gained=0, lost=90), ValidationPolicy(noninferiority_margin=None)).verdict
    assert verdict.advisory
    assert verdict.outcome is Outcome.PASS
    assert verdict.limit is None


@pytest.mark.parametrize(
    ("scale", "outcome"), [(1.0, Outcome.PASS), (0.9, Outcome.PASS), (1.05, Outcome.FAIL), (1.02, Outcome.INCONCLUSIVE)]
)
def test_errors_are_compared_as_a_share_of_the_champions(scale: float, outcome: Outcome) -> None:
    generator = np.random.default_rng(2)
    targets, errors = generator.normal(size=2_000), generator.normal(size=2_000)
    own = generator.normal(scale=0.05, size=2_000)
    result = compared(estimated(targets, targets + errors * scale + own), estimated(targets, targets + errors))
    assert result.verdict.outcome is outcome
    assert result.verdict.value == pytest.approx(scale - 1, abs=0.02)
    assert result.findings[0].margin == pytest.approx(0.02 * np.abs(errors).mean())


def test_a_champion_without_error_is_met_by_a_candidate_without() -> None:
    targets = np.arange(50.0)
    exact, off = estimated(targets, targets), estimated(targets, targets + 0.1)
    assert compared(exact, exact).verdict.outcome is Outcome.PASS
    assert compared(off, exact).verdict.outcome is Outcome.FAIL


def test_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="on the same rows"):
        compare(right_or_wrong([True]), right_or_wrong([True, True]), champion_version=1, policy=POLICY)
