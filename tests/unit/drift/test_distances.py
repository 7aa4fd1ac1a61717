"""Distances equal scipy's and their formulas, and are finite whatever the counts."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.drift import distances

CASES = json.loads(Path(__file__).with_name("distance_vectors.json").read_text())["cases"]
COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12).filter(
    lambda rows: any(a for a, _ in rows) and any(b for _, b in rows)
)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_distances_equal_the_golden_vectors(case: dict[str, Any]) -> None:
    reference, actual = np.array(case["reference"]), np.array(case["actual"])
    wanted = case["distances"]
    measured = {
        "psi": distances.psi(reference, actual),
        "jensen_shannon": distances.jensen_shannon(reference, actual),
        "hellinger": distances.hellinger(reference, actual),
        "kolmogorov_smirnov": distances.kolmogorov_smirnov(reference, actual),
        "wasserstein": distances.wasserstein(reference, actual, np.array(case["positions"])),
    }
    if "psi_without_pseudocount" in wanted:
        measured["psi_without_pseudocount"] = distances.psi(reference, actual, pseudocount=0.0)
    if "chi_square" in wanted:
        statistic, _, p_value = distances.chi_square(reference, actual)
        measured |= {"chi_square": statistic, "p_value": p_value, "psi_noise": distances.psi_noise(reference, actual)}
    assert measured == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_every_distance_is_finite_and_the_same_from_both_sides(rows: list[tuple[int, int]]) -> None:
    reference, actual = (np.array(side) for side in zip(*rows, strict=True))
    positions = np.arange(len(rows), dtype=np.float64)
    for distance in (
        distances.psi,
        distances.jensen_shannon,
        distances.hellinger,
        distances.kolmogorov_smirnov,
        distances.psi_noise,
        lambda p, q: distances.wasserstein(p, q, positions),
        lambda p, q: distances.chi_square(p, q)[2],
    ):
        one, other = distance(reference, actual), distance(actual, reference)
        assert math.isfinite(one)
        assert one == pytest.approx(other, abs=1e-9)
        assert one >= 0


def test_rare_bins_are_joined_before_chi_square() -> None:
    # A category seen once among 50 rows, and never among 50,000, would alone have a statistic of 1,000.
    reference = np.array([25_000, 25_000] + [0] * 3)
    actual = np.array([24, 23, 1, 1, 1])
    _, degrees, p_value = distances.chi_square(reference, actual)
    assert degrees == 1
    assert p_value > 0.2


@pytest.mark.parametrize("rows", [100, 5_000, 1_000_000])
@pytest.mark.parametrize("size", [60, 2_500])
def test_rows_that_all_came_to_lie_in_one_bin_are_no_chance(size: int, rows: int) -> None:
    # By so many rows of the one sample the other expects next to none in the other bins.
    reference = np.array([size // 10] * 10)
    for place in (0, 9):
        actual = np.zeros(10, dtype=np.int64)
        actual[place] = rows
        statistic, degrees, p_value = distances.chi_square(reference, actual)
        assert degrees >= 1
        assert p_value < 1e-10
        assert math.isfinite(statistic)


def test_what_was_always_so_and_is_not_so_in_a_small_sample_is_no_chance() -> None:
    assert distances.chi_square(np.array([20_000, 0]), np.array([80, 20]))[2] < 1e-10
    assert distances.chi_square(np.array([20_000, 0]), np.array([0, 100]))[2] < 1e-10
    assert distances.chi_square(np.array([20_000, 0]), np.array([99, 1]))[2] > 0.02


@pytest.mark.parametrize(("size", "rows"), [(10, 1_000), (60, 400), (40, 50_000)])
def test_few_rows_outside_one_bin_are_no_evidence_more_often_than_stated(size: int, rows: int) -> None:
    # By the exact law of how many of them fall to one side, whatever their number.
    for outside in range(1, 30):
        smaller = np.arange(max(0, outside - rows), min(outside, size) + 1)
        chances = stats.hypergeom.pmf(smaller, size + rows, outside, size)
        tested = [
            distances.chi_square(np.array([size - k, k]), np.array([rows - outside + k, outside - k])) for k in smaller
        ]
        p_values = np.array([p_value for _, _, p_value in tested])
        assert {degrees for _, degrees, _ in tested} == {1}
        for statistic, degrees, p_value in tested:
            assert p_value == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-9)
        for level in (0.5, 0.1, 0.05, 0.01, 1e-4):
            assert chances[p_values <= level].sum() <= level


def test_one_bin_says_nothing() -> None:
    same = np.array([5])
    assert distances.chi_square(same, same) == (0.0, 0, 1.0)
    assert distances.psi(same, np.array([500])) == 0.0
    assert distances.psi_noise(same, same) == 0.0


def test_near_distributions_are_told_apart_by_hellinger() -> None:
    reference, actual = np.array([10**9, 10**9]), np.array([10**9 + 1, 10**9 - 1])
    # To first order |dp| / sqrt(8 p) by bin, of which there are two.
    assert distances.hellinger(reference, actual) == pytest.approx(5e-10 / math.sqrt(2), rel=1e-6)
