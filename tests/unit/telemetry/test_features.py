"""Counts add whatever the order and the grouping, and are of one profile."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import ValidationError

from shared.core.errors import InvalidInputError
from shared.telemetry.features import MAX_CELL, FeatureCounts

PARTS = st.lists(st.lists(st.integers(-(10**12), 10**12), min_size=3, max_size=3), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(PARTS, st.randoms(use_true_random=False))
def test_any_grouping_and_order_adds_to_the_same(cells: list[list[int]], random: "object") -> None:
    parts = [FeatureCounts(profile="p", rows=1, cells=row) for row in cells]
    whole = FeatureCounts.sum_of(parts)
    assert whole.cells == [sum(column) for column in zip(*cells, strict=True)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    cut = len(parts) // 2
    halves = [FeatureCounts.sum_of(half) for half in (parts[:cut], parts[cut:]) if half]
    assert FeatureCounts.sum_of(halves) == whole
    assert whole.rows == len(parts)


def test_counts_of_two_profiles_are_not_added() -> None:
    parts = [FeatureCounts(profile=profile, rows=1, cells=[1]) for profile in ("one", "other")]
    with pytest.raises(InvalidInputError, match=r"one \(1 cells\), other \(1 cells\)"):
        FeatureCounts.sum_of([*parts, parts[0]])


def test_counts_of_other_widths_are_not_added() -> None:
    with pytest.raises(InvalidInputError):
        FeatureCounts.sum_of([FeatureCounts(profile="p", cells=[1]), FeatureCounts(profile="p", cells=[1, 2])])


def test_nothing_cannot_be_added() -> None:
    with pytest.raises(InvalidInputError, match="none"):
        FeatureCounts.sum_of([])


def test_more_than_a_cell_holds_is_refused_and_not_wrapped_around() -> None:
    with pytest.raises(ValidationError):
        FeatureCounts(profile="p", cells=[MAX_CELL + 1])
    with pytest.raises(InvalidInputError, match="add fewer"):
        FeatureCounts.sum_of([FeatureCounts(profile="p", rows=MAX_CELL, cells=[MAX_CELL])] * 3)


def test_sums_of_squares_that_are_more_than_a_cell_holds_are_held_at_that_in_any_grouping() -> None:
    part = FeatureCounts(profile="p", rows=10**9, cells=[10**9, MAX_CELL // 3])
    held = [MAX_CELL // 3 * 3, MAX_CELL, MAX_CELL, MAX_CELL]
    for parts, squares in zip(range(3, 7), held, strict=True):
        whole = FeatureCounts.sum_of([part] * parts)
        assert whole.cells == [parts * 10**9, squares]
        assert FeatureCounts.sum_of([FeatureCounts.sum_of([part] * 2), *[part] * (parts - 2)]) == whole
    # Three times 2^62 is negative in 64 bits.
    most = FeatureCounts(profile="p", rows=1, cells=[MAX_CELL])
    assert FeatureCounts.sum_of([most] * 3).cells == [MAX_CELL]
