"""Every value falls in one bin, and what many rows share has its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.drift.binning import MAX_CATEGORIES, CategoryBins, NumberBins

ANY_FLOAT = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=50)


@settings(max_examples=150, deadline=None)
@given(reference=ANY_FLOAT, actual=ANY_FLOAT)
def test_every_number_falls_in_one_bin(reference: list[float], actual: list[float]) -> None:
    bins = NumberBins.of(np.array(reference))
    assert len(bins.labels) == len(bins.edges) + 2
    assert list(bins.edges) == sorted(set(bins.edges))
    for values in (np.array(reference), np.array(actual)):
        counts = bins.counts(values)
        assert counts.shape == (len(bins.labels),)
        assert counts.sum() == len(values)
        assert counts[-1] == np.isnan(values).sum()


def test_continuous_numbers_are_cut_in_tenths() -> None:
    values = np.random.default_rng(3).normal(size=1_000)
    bins = NumberBins.of(values)
    assert bins.counts(values).tolist() == [100] * 10 + [0]


def test_a_constant_has_a_bin_of_its_own() -> None:
    bins = NumberBins.of(np.full(100, 7.0))
    assert bins.labels == ("up to 7", "7", "above 7", "missing")
    assert bins.counts(np.array([7.0, 7.0, 6.999, 7.001, -np.inf, np.inf, np.nan])).tolist() == [2, 2, 2, 1]


def test_a_value_that_most_rows_share_has_a_bin_of_its_own() -> None:
    values = np.concatenate([np.zeros(600), np.linspace(1, 2, 400)])
    bins = NumberBins.of(values)
    counts = dict(zip(bins.labels, bins.counts(values).tolist(), strict=True))
    assert counts["0"] == 600
    assert bins.counts(np.array([-5.0]))[0] == 1


def test_numbers_without_a_finite_one_have_two_bins() -> None:
    bins = NumberBins.of(np.array([np.nan, np.inf]))
    assert bins.labels == ("any number", "missing")
    assert bins.counts(np.array([np.nan, np.inf, -np.inf, 0.0])).tolist() == [3, 1]


def test_the_largest_floats_are_cut() -> None:
    greatest = np.finfo(np.float64).max
    bins = NumberBins.of(np.array([-greatest] * 50 + [greatest] * 50))
    assert bins.counts(np.array([-greatest, 0.0, greatest, np.inf])).sum() == 4
    assert np.isfinite(bins.edges).all()


def test_text_has_its_most_frequent_values_and_all_else() -> None:
    reference = np.array([f"v{i:02}" for i in range(30) for _ in range(30 - i)])
    bins = CategoryBins.of(reference)
    assert bins.categories == tuple(f"v{i:02}" for i in range(MAX_CATEGORIES))
    counts = bins.counts(np.array(["v00", "v29", "never seen", ""]))
    assert counts[0] == 1
    assert counts[-1] == 3
    assert bins.codes(np.array(["v01", "new"])).tolist() == [1, MAX_CATEGORIES]


@pytest.mark.parametrize("values", [["b", "a"], ["a", "b"]])
def test_equally_frequent_values_stand_in_order(values: list[str]) -> None:
    assert CategoryBins.of(np.array(values)).categories == ("a", "b")
