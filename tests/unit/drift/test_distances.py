"""Distances equal scipy's and their formulas, and are finite whatever the counts."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_one_bin_says_nothing() -> None:
    same = np.array([5])
    assert distances.chi_square(same, same) == (0.0, 0, 1.0)
    assert distances.psi(same, np.array([500])) == 0.0
    assert distances.psi_noise(same, same) == 0.0


def test_near_distributions_are_told_apart_by_hellinger() -> None:
    reference, actual = np.array([10**9, 10**9]), np.array([10**9 + 1, 10**9 - 1])
    # To first order |dp| / sqrt(8 p) by bin, of which there are two.
    assert distances.hellinger(reference, actual) == pytest.approx(5e-10 / math.sqrt(2), rel=1e-6)
