"""Intervals that hold at every look at once."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sequential.evariable import Block
from shared.sequential.intervals import difference_interval, exceeds, quantile_interval, rate_interval


def test_without_requests_everything_is_possible() -> None:
    assert rate_interval(0, 0, confidence=0.95) == (0.0, 1.0)
    assert difference_interval(Block(), confidence=0.95) == (-1.0, 1.0)


@given(st.integers(0, 10**7), st.floats(0, 1), st.sampled_from([0.5, 0.95, 0.999]))
def test_it_holds_what_was_seen_and_is_as_wide_for_successes_as_for_failures(
    requests: int, share: float, confidence: float
) -> None:
    failed = round(requests * share)
    low, high = rate_interval(failed, requests, confidence=confidence)
    assert 0 <= low <= high <= 1
    if requests:
        assert low <= failed / requests <= high
    mirrored = rate_interval(requests - failed, requests, confidence=confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_it_narrows_with_requests_to_near_what_one_look_would_give() -> None:
    wide, narrow = rate_interval(10, 1_000, confidence=0.95), rate_interval(10_000, 1_000_000, confidence=0.95)
    assert narrow[0] > wide[0]
    assert narrow[1] < wide[1]
    one_look = 2 * 1.96 * math.sqrt(0.01 * 0.99 / 1_000_000)
    assert one_look < narrow[1] - narrow[0] < 2.5 * one_look


@pytest.mark.parametrize("rates", [(0.01, 0.01), (0.3, 0.3), (0.0, 1.0)])
def test_it_holds_the_mean_rate_at_every_look_also_where_the_rate_drifts(rates: tuple[float, float]) -> None:
    generator, trials, missed = random.Random(7), 50, 0
    for _ in range(trials):
        failed, total, is_missed = 0, 0.0, False
        for request in range(1, 301):
            rate = rates[request > 150]
            total += rate
            failed += generator.random() < rate
            if request % 30 == 0:
                low, high = rate_interval(failed, request, confidence=0.8)
                is_missed |= not low - 1e-9 <= total / request <= high + 1e-9
        missed += is_missed
    assert missed <= 0.2 * trials


def test_the_difference_is_the_candidates_rate_less_stables() -> None:
    low, high = difference_interval(
        Block(candidate=2_000, candidate_failed=400, stable=38_000, stable_failed=380), confidence=0.95
    )
    assert 0.15 < low < 0.19 < high < 0.24


def test_counts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="give 0 <= failed <= requests"):
        rate_interval(2, 1, confidence=0.95)


def test_a_rate_is_proven_above_another_as_soon_as_the_interval_leaves_it() -> None:
    for failed in range(0, 300, 7):
        low, _ = rate_interval(failed, 1_000, confidence=0.98)
        assert exceeds(failed, 1_000, 0.05, level=0.01) == (low > 0.05)
    assert not exceeds(0, 0, 0.0, level=0.5)
    assert exceeds(1, 1_000, 0.0, level=0.01)


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_a_rate_that_is_no_higher_is_rarely_proven_to_be_however_often_one_looks(rate: float) -> None:
    generator, trials, wrong = random.Random(12), 120, 0
    for _ in range(trials):
        failed, is_proven = 0, False
        for look in range(1, 41):
            failed += sum(generator.random() < rate for _ in range(25))
            is_proven |= exceeds(failed, 25 * look, rate, level=0.2)
        wrong += is_proven
    assert wrong <= 0.2 * trials


def test_a_quantiles_interval_holds_it_at_every_look() -> None:
    generator, trials, missed = random.Random(13), 60, 0
    truth = 90  # of whole numbers below 100, the first of which 91 % are at most.
    for _ in range(trials):
        histogram: dict[int, int] = {}
        is_missed = False
        for _ in range(15):
            for _ in range(40):
                value = generator.randrange(100)
                histogram[value] = histogram.get(value, 0) + 1
            low, high = quantile_interval(histogram, 0.905, confidence=0.8)
            is_missed |= (low is not None and low > truth) or (high is not None and high < truth)
        missed += is_missed
    assert missed <= 0.2 * trials


def test_a_quantiles_interval_narrows_and_has_no_end_where_there_is_no_proof() -> None:
    few, many = (dict.fromkeys(range(100), n) for n in (1, 1_000))
    assert quantile_interval({}, 0.5, confidence=0.95) == (None, None)
    assert quantile_interval({5: 3}, 0.5, confidence=0.95) == (None, None)
    assert quantile_interval(few, 0.99, confidence=0.95)[1] is None
    low, high = quantile_interval(many, 0.5, confidence=0.95)
    assert low is not None
    assert high is not None
    assert 48 <= low <= 49 <= high <= 51
