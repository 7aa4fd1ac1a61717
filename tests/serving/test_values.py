"""The numbers that versions predict, in buckets."""

import math

import ml_dtypes
import numpy as np
import pytest
from aks_serving.model import Signature, TensorSpec
from aks_serving.values import BOUNDS, MAX_NUMBERS, Values, are_counted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

_ROWS = arrays.arrays(
    np.float32, arrays.array_shapes(max_dims=2, min_side=0, max_side=40), elements=st.floats(width=32)
)


def _counted(*given: np.ndarray) -> tuple[dict[int, int], float]:
    values = Values()
    for array in given:
        values.gave(array)
    return values.counts, values.sum


@given(st.lists(_ROWS, max_size=8))
def test_every_finite_number_is_counted_once_at_the_first_bound_that_is_not_below_it(given: list[np.ndarray]) -> None:
    counts, total = _counted(*given)
    numbers = [float(number) for array in given for number in array.ravel() if math.isfinite(number)]
    wanted: dict[int, int] = {}
    for number in numbers:
        place = next((place for place, bound in enumerate(BOUNDS) if number <= bound), len(BOUNDS))
        wanted[place] = wanted.get(place, 0) + 1
    assert counts == wanted
    assert total == pytest.approx(math.fsum(numbers), rel=1e-9, abs=1e-9 * sum(map(abs, numbers)))


@given(st.lists(_ROWS, max_size=6), st.integers(0, 6))
def test_adding_parts_equals_counting_all(given: list[np.ndarray], cut: int) -> None:
    parts = [Values(), Values()]
    for place, array in enumerate(given):
        parts[place >= cut].gave(array)
    parts[0].add(parts[1])
    counts, total = _counted(*given)
    assert parts[0].counts == counts
    assert parts[0].sum == pytest.approx(total, rel=1e-6, abs=1e32)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float64, ml_dtypes.bfloat16])
def test_numbers_of_every_type_are_counted(dtype: type) -> None:
    counts, total = _counted(np.array([[1], [0]], dtype))
    assert (counts, total) == ({BOUNDS.index(0.0): 1, BOUNDS.index(1.0): 1}, 1.0)


def test_what_is_kept_uncounted_is_bounded() -> None:
    values = Values()
    for _ in range(10_000):
        values.gave(np.zeros(1, np.float32))
        assert len(values._fresh) < 256
    values.gave(np.zeros(100_000, np.float32))
    assert not values._fresh
    assert values.counts == {BOUNDS.index(0.0): 110_000}


@pytest.mark.parametrize(
    ("datatype", "shape", "counted"),
    [
        ("FP32", (-1,), True),
        ("INT64", (-1, 1), True),
        ("FP32", (-1, MAX_NUMBERS), True),
        ("FP32", (-1, 4, 4), True),
        ("FP32", (-1, MAX_NUMBERS + 1), False),
        ("FP32", (-1, 8, 8), False),
        ("FP32", (-1, -1), False),
        ("FP32", (), False),
        ("BYTES", (-1,), False),
    ],
)
def test_few_numbers_a_row_are_counted_and_no_texts(datatype: str, shape: tuple[int, ...], *, counted: bool) -> None:
    output = TensorSpec(name="y", datatype=datatype, shape=shape)
    assert are_counted(Signature(inputs=(), outputs=(output,))) is counted
