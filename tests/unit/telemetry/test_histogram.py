import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.histogram import bucket_index, bucket_value, merged, quantile

_values = st.floats(1e-5, 1e7)


def _observed(values: list[float]) -> dict[int, int]:
    return merged({bucket_index(value): 1} for value in values)


@given(values=st.lists(_values, min_size=1, max_size=60), q=st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_the_value_at_its_rank(values: list[float], q: float) -> None:
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    found = quantile(_observed(values), q)
    assert found is not None
    assert abs(found - exact) <= 0.01 * exact * (1 + 1e-9)


@given(parts=st.lists(st.lists(_values, max_size=20), max_size=6))
def test_merging_equals_observing_together(parts: list[list[float]]) -> None:
    assert merged(_observed(part) for part in parts) == _observed([value for part in parts for value in part])


@given(a=_values, b=_values)
def test_buckets_keep_the_order_of_values(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert bucket_index(low) <= bucket_index(high)


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-6])
def test_the_smallest_values_share_the_lowest_bucket(value: float) -> None:
    assert bucket_index(value) == bucket_index(0.0)


@given(value=_values)
def test_a_bucket_stands_for_its_values(value: float) -> None:
    assert bucket_value(bucket_index(value)) == pytest.approx(value, rel=0.0101)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
def test_values_that_are_no_duration_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite values of 0 or more"):
        bucket_index(value)


def test_nothing_observed_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
