"""What versions predict: counted without loss, under a bounded number of keys, compared in bins of both together."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.telemetry.histogram import GAMMA, merged
from shared.telemetry.predictions import (
    BINS,
    MAX_KEYS,
    MAX_MERGED_KEYS,
    NAN,
    OTHER,
    PredictionTally,
    added,
    bounded,
    pooled,
)

type Array = NDArray[Any]

ROWS = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40)

KEYS = ("a", "z", "##", "#0:5", "#0:-7", "#2:3", "#1:-2", OTHER, NAN)


def counted(*outputs: Array) -> dict[str, int]:
    tally = PredictionTally()
    for output in outputs:
        tally.gave(output)
    return tally.counts


def numbers(*values: float) -> dict[str, int]:
    return counted(np.array(values, dtype=np.float64))


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        (np.array(["cat", "dog", "cat"], dtype=object), {"cat": 2, "dog": 1}),
        (np.array([["cat"], ["dog"]]), {"cat": 1, "dog": 1}),
        (np.array([b"cat"], dtype=object), {"cat": 1}),
        (np.array([3, 3, -7], dtype=np.int64), {"3": 2, "-7": 1}),
        (np.array([True, False, True]), {"true": 2, "false": 1}),
        (np.array([[0.1, 0.7, 0.2], [0.9, 0.1, 0.0]], dtype=np.float32), {"1": 1, "0": 1}),
        (np.array(["#0:5", "#other"], dtype=object), {"##0:5": 1, "##other": 1}),
        (np.array([np.nan, np.nan]), {NAN: 2}),
        (np.array([0.0, -0.0, 1e-12]), {"#0:0": 3}),
    ],
)
def test_a_row_counts_as_its_label_or_its_bucket(output: Array, wanted: dict[str, int]) -> None:
    assert counted(output) == wanted


@pytest.mark.parametrize(
    "output", [np.float64(3.0), np.zeros((2, 3, 4)), np.zeros((2, 5_000)), np.zeros((0,)), np.array([["a", "b"]])]
)
def test_what_is_no_value_a_row_is_not_counted(output: Array) -> None:
    assert counted(np.asarray(output)) == {}


def test_buckets_rise_with_the_number_and_keep_its_sign() -> None:
    values = [-1e20, -5.0, -4.0, -1e-5, 0.0, 1e-5, 0.5, 0.51, 4.0, 5.0, 1e14, np.inf]
    found = [int(next(iter(numbers(value))).removeprefix("#0:")) for value in values]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert numbers(100.0) != numbers(100.0 * GAMMA * 1.001)


def test_integers_too_large_for_labels_count_as_numbers() -> None:
    assert counted(np.array([999, 2_000_000])) == {"999": 1} | numbers(2_000_000.0)


def test_a_long_label_is_told_from_others_that_begin_alike() -> None:
    found = counted(np.array(["x" * 500 + "a", "x" * 500 + "b", "\ud800"], dtype=object))
    assert len(found) == 3
    assert max(map(len, found)) == 64
    assert all(key.encode() for key in found)


@given(ROWS, ROWS)
def test_counts_of_two_add_up_to_those_of_both_together(one: list[float], other: list[float]) -> None:
    together = numbers(*one, *other)
    assert merged([numbers(*one), numbers(*other)]) == together
    assert sum(together.values()) == len(one) + len(other)


def test_outputs_are_counted_alike_however_they_come() -> None:
    draw = np.random.default_rng(3)
    values = draw.normal(size=20_000)
    assert counted(*np.array_split(values, 1_500)) == counted(values)


def test_the_keys_are_bounded_and_no_row_is_lost() -> None:
    draw = np.random.default_rng(5)
    wide = 10.0 ** draw.uniform(-9, 14, size=50_000) * draw.choice([-1, 1], size=50_000)
    found = counted(wide)
    assert 50 < len(found) <= MAX_KEYS
    assert sum(found.values()) == 50_000
    labels = counted(np.array([f"label {n}" for n in range(1_000) for _ in range(1 + (n < 50))], dtype=object))
    assert len(labels) == MAX_KEYS + 1
    assert labels[OTHER] == 1_050 - 250
    assert all(labels[f"label {n}"] == 2 for n in range(50))
    both = bounded(found | labels | {NAN: 3})
    assert sum(both.values()) == 50_000 + 1_050 + 3


def test_counts_at_different_levels_are_compared_at_the_coarser_one() -> None:
    draw = np.random.default_rng(7)
    values = draw.lognormal(0.0, 0.5, size=4_000)
    fine = numbers(*values)
    coarse = bounded(merged([fine, numbers(*(10.0 ** draw.uniform(-9, 14, size=5_000)))]))
    assert {key.partition(":")[0] for key in fine} == {"#0"}
    assert "#0" not in {key.partition(":")[0] for key in coarse}
    bins = pooled(fine, coarse)
    assert (sum(a for a, _ in bins), sum(b for _, b in bins)) == (4_000, 9_000)
    # The same values at both levels fall in the same bins.
    levels = pooled(fine, bounded_at(fine, level=2))
    assert all(one == other for one, other in levels)


def bounded_at(counts: dict[str, int], level: int) -> dict[str, int]:
    """The counts at a coarser level, bucket by bucket."""
    found: Counter[str] = Counter()
    for key, count in counts.items():
        bucket = int(key.removeprefix("#0:"))
        size = -(-abs(bucket) // (1 << level))
        found[f"#{level}:{size if bucket >= 0 else -size}"] += count
    return found


def test_bins_of_numbers_have_about_equal_shares_of_both_together() -> None:
    draw = np.random.default_rng(9)
    bins = pooled(numbers(*draw.normal(size=5_000)), numbers(*draw.normal(size=5_000)))
    assert BINS - 1 <= len(bins) <= BINS
    totals = [one + other for one, other in bins]
    assert sum(totals) == 10_000
    assert max(totals) < 2 * 10_000 / BINS


def test_a_value_that_many_rows_share_has_a_bin_of_its_own() -> None:
    mostly_zero = {"#0:0": 900, "#0:100": 50, "#0:200": 50}
    bins = pooled(mostly_zero, mostly_zero)
    assert (900, 900) in bins


def test_labels_too_rare_to_compare_share_a_bin() -> None:
    one = {"often": 960, "rare": 2, "rarer": 1, OTHER: 7}
    other = {"often": 990, "new": 3, OTHER: 7}
    assert pooled(one, other) == [(960, 990), (10, 10)]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 500)),
    st.dictionaries(st.sampled_from(KEYS), st.integers(0, 99)),
)
def test_no_row_is_lost_in_the_bins(one: dict[str, int], other: dict[str, int]) -> None:
    bins = pooled(one, other)
    if sum(one.values()) and sum(other.values()):
        assert [sum(side) for side in zip(*bins, strict=True)] == [sum(one.values()), sum(other.values())]
    else:
        assert bins == []


def test_a_pod_that_names_a_label_which_another_counts_with_the_rest_adds_no_drift() -> None:
    # Free text: every row another label. What a busy pod cannot name, a quiet one can.
    draw = random.Random(11)
    busy = counted(np.array([f"{draw.random()}" for _ in range(5_000)], dtype=object))
    quiet = counted(np.array([f"{draw.random()}" for _ in range(150)], dtype=object))
    assert OTHER in busy
    assert OTHER not in quiet
    assert pooled(busy, quiet) == [(5_000, 150)]


def test_the_sum_of_many_pods_counts_is_bounded_too() -> None:
    pods = [{f"label {pod} {n}": 1 for n in range(MAX_KEYS)} | {"common": 100, "#0:7": 1} for pod in range(20)]
    total = added(pods)
    assert len(total) <= MAX_MERGED_KEYS + 2
    assert (total["common"], total["#0:7"]) == (2_000, 20)
    assert sum(total.values()) == 20 * (MAX_KEYS + 101)
    assert added(pods[:3]) == merged(pods[:3])
