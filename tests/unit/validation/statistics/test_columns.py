"""Columns of data by their names."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.validation.statistics.columns import MAX_ROWS, MAX_TEXT, as_text, parts, sample_of


def test_text_is_read_from_bytes_and_objects() -> None:
    assert as_text(np.array([b"a", b"\xff"])).tolist() == ["a", "�"]
    assert as_text(np.array(["a", None, float("nan"), 3], dtype=object)).tolist() == ["a", "", "", "3"]


@pytest.mark.parametrize("kind", [object, np.str_])
def test_a_long_text_costs_its_column_little_and_stays_itself(kind: type) -> None:
    long = "x" * 50_000
    column: NDArray[np.generic] = np.array(
        [*["a"] * 20, "b" * MAX_TEXT, long + "1", long + "2", long + "1"], dtype=kind
    )
    found = as_text(column)
    assert found.nbytes <= len(column) * MAX_TEXT * 4
    assert found[20] == "b" * MAX_TEXT
    assert found[21] == found[23] != found[22]
    assert found[21].startswith("x" * 60)


def test_a_sample_is_the_same_each_time_and_in_order() -> None:
    assert sample_of(MAX_ROWS) == slice(None)
    taken, again = sample_of(MAX_ROWS + 1_000), sample_of(MAX_ROWS + 1_000)
    assert isinstance(taken, np.ndarray)
    assert isinstance(again, np.ndarray)
    assert len(np.unique(taken)) == MAX_ROWS
    assert (np.diff(taken) > 0).all()
    assert (taken == again).all()


def test_parts_cover_every_row() -> None:
    for column in (np.arange(100), np.array(["a", "b"] * 50), np.array([np.nan, 1.0] * 50)):
        names, codes = parts(column, 4)
        assert codes.min() >= 0
        assert codes.max() < len(names)
        assert len(codes) == 100


def test_each_of_few_numbers_is_a_part() -> None:
    column = np.array([3, 1, 2, 1, np.nan])
    names, codes = parts(column, 2)
    assert names == ("1", "2", "3", "missing")
    assert codes.tolist() == [2, 0, 1, 0, 3]


def test_many_numbers_are_cut_in_quantiles() -> None:
    names, codes = parts(np.arange(100.0), 4)
    assert names == ("up to 24", "(24, 49]", "(49, 74]", "above 74", "missing")
    assert np.bincount(codes).tolist() == [25, 25, 25, 25]
