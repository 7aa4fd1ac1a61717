"""Thousands of rollouts of equal versions, a look every tick: the short form of benchmarks/gates_level.py."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.gates import CHANCE, LEVEL
from benchmarks.gates_level import ManyTests, Setting, proven
from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessTest


def test_many_tests_at_once_bet_as_one_does() -> None:
    draw, many = np.random.default_rng(5), ManyTests(6)
    each = [ExcessTest(claim=Claim.WORSE, margin=0.0) for _ in range(6)]
    sizes = np.array([2, 20, 300, 5_000, 200_000, 700_000])
    for look in range(12):
        candidate, stable = draw.poisson(sizes * 0.1), draw.poisson(sizes * 0.9)
        failed = draw.binomial(candidate, 0.02 + 0.01 * (look > 8)), draw.binomial(stable, 0.02)
        counts = np.column_stack([candidate, failed[0], stable, failed[1]])
        many.add(counts)
        for test, row in zip(each, counts.tolist(), strict=True):
            test.add(Block(candidate=row[0], candidate_failed=row[1], stable=row[2], stable_failed=row[3]))
    peaks = [test.state.log_peak for test in each]
    assert max(peaks) > 10
    assert min(peaks) < 1
    assert many.log_peak.tolist() == pytest.approx(peaks, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.05])
@pytest.mark.parametrize(("share", "is_seasonal"), [("10 %", False), ("10, 50 %", True)])
def test_equal_versions_are_called_worse_no_more_often_than_the_level_says(
    rate: float, share: str, *, is_seasonal: bool
) -> None:
    rollouts = 300
    by_errors, by_either = proven(Setting(rate=rate, share=share, is_seasonal=is_seasonal), rollouts)
    assert by_either <= stats.binom.ppf(1 - CHANCE, rollouts, LEVEL)
    assert by_errors <= stats.binom.ppf(1 - CHANCE, rollouts, LEVEL / 2)
