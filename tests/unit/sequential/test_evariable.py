"""The e-variable: its mean under the null, by enumeration, and its value where it is known by hand."""

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shared.sequential.evariable import Block, log_factor, log_factor_against, nearest

rates = st.one_of(st.floats(1e-7, 1 - 1e-7), st.sampled_from([1e-7, 1e-5, 0.001, 0.5, 0.95, 1 - 1e-7]))
margins = st.one_of(st.just(0.0), st.floats(-0.9, 0.9), st.sampled_from([0.01, -0.01, 1e-4, -1e-4]))
sizes = st.integers(1, 12)


def of_failures(requests: int, rate: float) -> list[float]:
    """The chance of each number of failures."""
    return [math.comb(requests, k) * rate**k * (1 - rate) ** (requests - k) for k in range(requests + 1)]


def of_mixed_failures(each: list[float]) -> list[float]:
    """The chance of each number of failures where every request has a rate of its own."""
    chances = [1.0]
    for rate in each:
        chances = [a * (1 - rate) + b * rate for a, b in zip([*chances, 0.0], [0.0, *chances], strict=True)]
    return chances


def mean_factor(first: list[float], second: list[float], p1: float, p2: float, margin: float) -> float:
    """The factor's mean where `first` and `second` are the chances of the numbers of failures."""
    n1, n2 = len(first) - 1, len(second) - 1
    return math.fsum(
        chance1 * chance2 * math.exp(log_factor((n1, failed1, n2, failed2), p1, p2, margin))
        for failed1, chance1 in enumerate(first)
        for failed2, chance2 in enumerate(second)
    )


@given(sizes, sizes, rates, rates, margins, st.floats(0, 1), st.floats(0, 1))
def test_its_mean_under_the_null_is_at_most_one(
    n1: int, n2: int, p1: float, p2: float, margin: float, r1: float, r2: float
) -> None:
    assume(r1 - r2 <= margin)
    assert mean_factor(of_failures(n1, r1), of_failures(n2, r2), p1, p2, margin) <= 1 + 1e-9


@given(sizes, sizes, rates, rates, margins, st.floats(0, 1))
def test_its_mean_is_at_most_one_on_the_edge_of_the_null(
    n1: int, n2: int, p1: float, p2: float, margin: float, place: float
) -> None:
    r2 = max(0.0, -margin) + place * (1 - abs(margin))
    r1 = min(max(r2 + margin, 0.0), 1.0)
    assert mean_factor(of_failures(n1, r1), of_failures(n2, r2), p1, p2, margin) <= 1 + 1e-9


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    rates,
    rates,
    margins,
)
def test_its_mean_is_at_most_one_where_the_rates_differ_within_the_block(
    first: list[float], second: list[float], p1: float, p2: float, margin: float
) -> None:
    assume(math.fsum(first) / len(first) - math.fsum(second) / len(second) <= margin)
    assert mean_factor(of_mixed_failures(first), of_mixed_failures(second), p1, p2, margin) <= 1 + 1e-9


@given(sizes, sizes, rates, rates, margins)
def test_it_grows_in_the_mean_under_its_own_alternative(n1: int, n2: int, p1: float, p2: float, margin: float) -> None:
    assume(p1 - p2 > margin + 1e-6)
    growth = math.fsum(
        chance1 * chance2 * log_factor((n1, failed1, n2, failed2), p1, p2, margin)
        for failed1, chance1 in enumerate(of_failures(n1, p1))
        for failed2, chance2 in enumerate(of_failures(n2, p2))
    )
    assert growth > 0


@given(st.integers(1, 10**6), st.integers(1, 10**6), rates, rates, margins, st.floats(0, 1), st.floats(0, 1))
@example(n1=811_541, n2=1, p1=0.9998734962645499, p2=0.9999993767728842, margin=-0.001522499665651489, r1=0.5, r2=1.0)
@example(n1=1, n2=573_840, p1=2.9276342227026604e-06, p2=0.000380415819938998, margin=-0.391597035767048, r1=0, r2=0.5)
def test_its_mean_is_at_most_one_for_sizes_at_which_rounding_tells(
    n1: int, n2: int, p1: float, p2: float, margin: float, r1: float, r2: float
) -> None:
    def logarithm(failed1: int, failed2: int) -> float:
        return log_factor((n1, failed1, n2, failed2), p1, p2, margin)

    # The logarithm is linear in the failures, so that its three coefficients give the mean at any rates.
    good = logarithm(0, 0)
    first, second = (logarithm(n1, 0) - good) / n1, (logarithm(0, n2) - good) / n2
    edge = max(0.0, -margin)
    corners = [(0.0, edge), (max(0.0, margin), edge), (min(1.0, 1 + margin), min(1.0, 1 - margin)), (0.0, 1.0)]
    for rate1, rate2 in [*corners, *([(r1, r2)] if r1 - r2 <= margin else [])]:
        mean = math.fsum(
            [
                good,
                n1 * math.log((1 - rate1) + rate1 * math.exp(first)),
                n2 * math.log((1 - rate2) + rate2 * math.exp(second)),
            ]
        )
        assert mean <= 1e-6


@given(sizes, sizes, rates, rates, st.floats(0.01, 0.99), st.floats(-0.5, 0.5), st.floats(0, 1))
def test_its_mean_is_at_most_one_against_a_point_that_is_not_the_nearest(
    n1: int, n2: int, p1: float, p2: float, q: float, margin: float, place: float
) -> None:
    assume(0.01 < q + margin < 0.99)
    r2 = max(0.0, -margin) + place * (1 - abs(margin))
    mean = math.fsum(
        chance1 * chance2 * math.exp(log_factor_against((n1, failed1, n2, failed2), (p1, q + margin), (p2, q), margin))
        for failed1, chance1 in enumerate(of_failures(n1, min(max(r2 + margin, 0.0), 1.0)))
        for failed2, chance2 in enumerate(of_failures(n2, r2))
    )
    assert mean <= 1 + 1e-9


def test_one_failed_request_beside_nineteen_good_ones() -> None:
    found = log_factor((1, 1, 19, 0), 0.5, 0.1, 0.0)
    q = (0.5 + 19 * 0.1) / 20
    assert found == pytest.approx(math.log(0.5 / q) + 19 * math.log(0.9 / (1 - q)))


def test_an_alternative_within_the_null_stakes_nothing() -> None:
    assert log_factor((10, 10, 10, 0), 0.1, 0.2, 0.0) == 0.0
    assert log_factor((10, 10, 10, 0), 0.21, 0.2, 0.02) == 0.0


@given(st.integers(1, 10**6), st.integers(1, 10**6), rates, rates, margins)
def test_the_nearest_point_is_nearer_than_its_neighbours(n1: int, n2: int, p1: float, p2: float, margin: float) -> None:
    assume(p1 - p2 > margin + 1e-3)

    def distance(q: float) -> float:
        first = q + margin
        return n1 * divergence(p1, first) + n2 * divergence(p2, q)

    found = nearest(n1, n2, p1, p2, margin)
    low, high = max(p2, -margin), min(p1 - margin, 1.0)
    for place in (0.05, 0.3, 0.5, 0.7, 0.95):
        other = low + place * (high - low)
        if 0 < other < 1 and 0 < other + margin < 1 and 0 < found < 1 and 0 < found + margin < 1:
            assert distance(found) <= distance(other) * (1 + 1e-6) + 1e-9


def divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * (math.log1p(-p) - math.log1p(-q))


def test_merged_blocks_of_one_share_say_what_they_say_apart() -> None:
    parts = [(1, 0, 19, 1), (2, 1, 38, 0), (10, 1, 190, 3)]
    whole = (13, 2, 247, 4)
    for margin in (0.0, 0.01):
        apart = math.fsum(log_factor(part, 0.2, 0.02, margin) for part in parts)
        assert log_factor(whole, 0.2, 0.02, margin) == pytest.approx(apart, abs=1e-9)


def test_a_thousand_million_requests_are_no_trouble() -> None:
    found = log_factor((5 * 10**7, 5 * 10**4, 95 * 10**7, 95 * 10**4), 0.002, 0.001, 0.0)
    assert math.isfinite(found)
    assert found < -1_000


@pytest.mark.parametrize("wrong", [{"candidate": 1, "candidate_failed": 2}, {"stable": -1}, {"stable_failed": 1}])
def test_counts_that_contradict_each_other_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give 0 <= failed <= requests"):
        Block(**wrong)
