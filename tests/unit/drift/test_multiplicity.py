"""Benjamini-Hochberg equals scipy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.drift.multiplicity import benjamini_hochberg


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_equal_scipys(p_values: list[float]) -> None:
    adjusted = benjamini_hochberg(np.array(p_values))
    assert adjusted == pytest.approx(stats.false_discovery_control(p_values), abs=1e-12)
