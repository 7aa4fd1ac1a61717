"""Intervals for what shadows count, held to scipy's."""

import random

import pytest
from scipy import stats

from shared.telemetry.agreement import disagreement, mean_difference, root_mean_square
from shared.telemetry.feedback import MILLION
from shared.telemetry.window import ShadowCounts


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (3, 50), (50, 50), (17, 100_000), (99_999, 100_000)])
def test_the_rate_has_wilsons_interval(k: int, n: int) -> None:
    found = disagreement(ShadowCounts(compared=n, disagreements=k))
    wanted = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert (found.value, found.n) == (k / n, n)
    assert found.low == pytest.approx(wanted.low, abs=1e-12)
    assert found.high == pytest.approx(wanted.high, abs=1e-12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


@pytest.mark.parametrize("n", [10, 11, 30, 1000])
def test_the_mean_has_students_interval(n: int) -> None:
    draw = random.Random(n)
    values = [draw.gauss(0.3, 2.0) for _ in range(n)]
    found = mean_difference(_sums(values, compared=n))
    wanted = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found is not None
    assert found.low == pytest.approx(wanted.low, rel=2e-4)
    assert found.high == pytest.approx(wanted.high, rel=2e-4)


def test_numbers_of_one_request_do_not_narrow_the_interval() -> None:
    draw = random.Random(5)
    values = [draw.gauss(0.0, 1.0) for _ in range(40)]
    single, tenfold = _sums(values, compared=40), _sums(values * 10, compared=40)
    one, ten = mean_difference(single), mean_difference(tenfold)
    assert one is not None
    assert ten is not None
    assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))
    assert ten.n == 40


def test_without_data_there_is_no_estimate() -> None:
    nothing = ShadowCounts(mirrored=5, shed=5)
    assert (disagreement(nothing), mean_difference(nothing), root_mean_square(nothing)) == (None, None, None)
    assert mean_difference(_sums([1.0] * 9, compared=9)) is None


def test_differences_that_are_all_alike_have_an_interval_of_one_point() -> None:
    found = mean_difference(_sums([0.1] * 20, compared=20))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert root_mean_square(_sums([-3.0, 3.0], compared=2)) == 3.0


def _sums(values: list[float], *, compared: int) -> ShadowCounts:
    return ShadowCounts(
        compared=compared,
        numbers=len(values),
        difference_millionths=sum(round(value * MILLION) for value in values),
        squared_millionths=sum(round(value * MILLION) ** 2 for value in values),
    )
