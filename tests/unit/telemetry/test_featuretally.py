"""What is counted equals what all rows at once give, whatever the batches, the dtypes and the values."""

import json
import math
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import ValidationError
from numpy.typing import NDArray

from shared.drift.profiling import profile_of
from shared.telemetry.features import MOST_SPREADS, STEPS, FeatureCounts
from shared.telemetry.featuretally import MAX_FRESH_BYTES, MAX_FRESH_ROWS, FeatureTally, reconstruction_error
from shared.telemetry.profile import (
    MAX_COLUMNS,
    CategoryFeature,
    ColumnSource,
    NumberFeature,
    Profile,
    Summary,
    SummarySource,
)

type Arrays = dict[str, NDArray[Any]]

FLOATS = st.one_of(
    st.floats(-5, 5, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e30, -1e30, 1e-40])
)


def reference(rows: int = 400) -> Arrays:
    generator = np.random.default_rng(1)
    scores = generator.random((rows, 1))
    table = generator.normal(size=(rows, 4)).astype(np.float32)
    table[:, 2] = np.round(table[:, 2])
    return {
        "table": table,
        "city": generator.choice(np.array(["ulm", "bonn", "köln"], dtype=object), rows),
        "image": generator.random((rows, 2, 8, 8)).astype(np.float32),
        "scores": np.hstack([scores, 1 - scores]).astype(np.float32),
    }


def profile() -> Profile:
    arrays = reference()
    outputs = {"scores": arrays.pop("scores")}
    found = profile_of(arrays, outputs)
    assert found is not None
    return found


PROFILE = profile()


def counts_of(profile: Profile, *batches: tuple[Arrays, int]) -> FeatureCounts:
    tally = FeatureTally(profile)
    for arrays, rows in batches:
        tally.saw(arrays, rows)
    return tally.take()


def batch(values: list[list[float]], seed: int) -> Arrays:
    rows = len(values)
    generator = np.random.default_rng(seed)
    city = generator.choice(np.array(["ulm", "köln", "new", "\udc80", "x" * 200, ""], dtype=object), rows)
    image = generator.normal(size=(rows, 2, 8, 8)).astype(np.float32)
    image[::5] *= 1e30
    image[::7, 0, 0, 0] = np.nan
    table = np.array(values, dtype=np.float32).reshape(rows, 4)
    return {"table": table, "city": city, "image": image, "scores": generator.random((rows, 2)).astype(np.float32)}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(FLOATS, min_size=4, max_size=4), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
    st.integers(0, 99),
    st.data(),
)
def test_any_batches_and_any_pods_count_as_all_rows_at_once(
    values: list[list[float]], cuts: list[int], seed: int, data: st.DataObject
) -> None:
    arrays, rows = batch(values, seed), len(values)
    whole = counts_of(PROFILE, (arrays, rows))
    ends = sorted({0, rows, *(min(cut, rows) for cut in cuts)})
    pieces = [({name: array[low:high] for name, array in arrays.items()}, high - low) for low, high in pairwise(ends)]
    assert counts_of(PROFILE, *data.draw(st.permutations(pieces))) == whole
    pods = [counts_of(PROFILE, piece) for piece in pieces]
    assert FeatureCounts.sum_of(pods[::-1]) == whole
    assert FeatureCounts.model_validate_json(whole.model_dump_json()) == whole


def test_folding_when_much_is_held_changes_nothing_and_memory_is_bounded() -> None:
    rows = MAX_FRESH_ROWS + 100
    arrays = batch(np.random.default_rng(4).normal(size=(rows, 4)).tolist(), 3)
    tally, held = FeatureTally(PROFILE), 0
    for start in range(0, rows, 50):
        part = {name: array[start : start + 50] for name, array in arrays.items()}
        tally.saw(part, min(50, rows - start))
        held = max(held, tally._fresh_bytes)
    assert tally.take() == counts_of(PROFILE, (arrays, rows))
    assert held < MAX_FRESH_BYTES


def test_what_was_taken_is_not_counted_again() -> None:
    tally = FeatureTally(PROFILE)
    tally.saw(batch([[0.0] * 4] * 5, 1), 5)
    assert tally.take().rows == 5
    empty = tally.take()
    assert empty.rows == 0
    assert not any(empty.cells)


def one_number(edges: tuple[float, ...] = (0.0, 1.0), **changed: Any) -> Profile:
    source = ColumnSource(input="x")
    feature = NumberFeature(name="x", source=source, edges=edges, counts=(0,) * (len(edges) + 2), **changed)
    return Profile(rows=0, features=(feature,))


def test_every_value_has_its_bin_and_infinities_are_counted_besides() -> None:
    values = np.array([-1.0, 0.0, 0.5, 1.0, 1.5, math.nan, math.inf, -math.inf])
    cells = counts_of(one_number(), ({"x": values}, 8)).cells
    assert cells[:4] == [3, 2, 2, 1]
    assert cells[4] == 2
    assert cells[5] == STEPS * 2
    assert cells[6] == STEPS**2 * (1 + 0.25 + 1 + 2.25)


def test_a_value_far_away_is_summed_at_the_most_spreads() -> None:
    cells = counts_of(one_number(spread=1e-300), ({"x": np.array([1e300, 0.0, -1.7e308])}, 3)).cells
    assert cells[5:] == [0, 2 * (MOST_SPREADS * STEPS) ** 2]


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False, True]),
        np.array([1, 0, 1], dtype=np.int8),
        np.array([1, 0, 1], dtype=np.uint64),
        np.array([1, 0, 1], dtype=np.float16),
        np.array([b"1", b"0", b"1"], dtype=object),
        np.array(["1", " 0 ", "1.0"]),
        np.array([["1"], ["0"], ["1"]], dtype=object),
        np.array([[[1.0]], [[0.0]], [[1.0]]]),
    ],
)
def test_numbers_of_any_type_are_counted_alike(values: NDArray[Any]) -> None:
    assert counts_of(one_number((0.5,)), ({"x": values}, 3)).cells[:3] == [1, 2, 0]


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", "", None], dtype=object),
        np.array([[], [], []]),
        np.array([1.0, 2.0]),
        np.array(3.0),
        np.array([10**400, "nan", {}], dtype=object),
    ],
)
def test_what_is_no_number_is_missing(values: NDArray[Any]) -> None:
    assert counts_of(one_number(), ({"x": values}, 3)).cells[:4] == [0, 0, 0, 3] or values[0] == 10**400


def test_what_is_not_sent_is_missing_in_every_row() -> None:
    cells = counts_of(one_number(), ({}, 3), ({"x": np.zeros(2)}, 2)).cells
    assert cells[:4] == [2, 0, 0, 3]


def test_an_input_that_changes_its_width_is_counted_as_far_as_it_goes() -> None:
    columns = [
        NumberFeature(name=str(at), source=ColumnSource(input="x", place=at), edges=(0.0,), counts=(0, 0, 0))
        for at in (0, 1)
    ]
    found = counts_of(
        Profile(rows=0, features=tuple(columns)), ({"x": np.ones((2, 2))}, 2), ({"x": np.ones((3, 1))}, 3)
    )
    assert found.cells[:3] == [0, 5, 0]
    assert found.cells[6:9] == [0, 2, 3]


def one_category(*categories: str, rare: tuple[str, ...] = ()) -> Profile:
    counts = (0,) * (len(categories) + 2)
    feature = CategoryFeature(name="x", source=ColumnSource(input="x"), categories=categories, rare=rare, counts=counts)
    return Profile(rows=0, features=(feature,))


@pytest.mark.parametrize(
    "values",
    [
        np.array(["1", "0", "1", "2"]),
        np.array([b"1", b"0", b"1", b"2"]),
        np.array([b"1", "0", "1", b"2"], dtype=object),
        np.array([1, 0, 1, 2]),
        np.array([1.0, -0.0, 1.0, 2.0], dtype=np.float16),
        np.array([1, 0.0, "1", 2], dtype=object),
    ],
)
def test_categories_are_told_by_their_text(values: NDArray[Any]) -> None:
    assert counts_of(one_category("0", "1", rare=("7",)), ({"x": values}, 4)).cells == [1, 2, 0, 1]


def test_the_order_of_batches_does_not_tell_what_an_object_is() -> None:
    values = [np.array([value], dtype=object) for value in (True, 1, 1.0)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        found = counts_of(one_category("True", "1"), *(({"x": values[at]}, 1) for at in order))
        assert found.cells == [1, 2, 0, 0]


def test_labels_stay_labels_where_a_batch_lacks_them() -> None:
    labels = np.array([1, 2, 1])
    assert counts_of(one_category("1", "2"), ({"x": labels}, 3), ({}, 2)).cells == [2, 1, 0, 2]


def test_summaries_of_a_wide_input_are_those_of_the_formula() -> None:
    rows = np.random.default_rng(3).normal(3.0, 2.0, size=(50, 5_000))
    whole, rows[7, 3] = rows[np.arange(50) != 7], np.inf
    wanted = {
        Summary.MEAN: whole.mean(axis=1),
        Summary.SPREAD: whole.std(axis=1),
        Summary.NORM: np.sqrt((whole**2).mean(axis=1)),
    }
    for summary, values in wanted.items():
        edges = tuple(sorted(float(value) + 1e-3 for value in values)[::5])
        feature = NumberFeature(
            name="x", source=SummarySource(input="x", summary=summary), edges=edges, counts=(0,) * (len(edges) + 2)
        )
        cells = counts_of(Profile(rows=0, features=(feature,)), ({"x": rows}, 50)).cells
        bins = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        assert cells[: len(edges) + 2] == [*bins.tolist(), 1]


def test_projections_differ_and_have_the_norm_in_the_mean() -> None:
    arrays = {"image": np.random.default_rng(3).normal(size=(2_000, 300))}
    found = profile_of(arrays, {})
    assert found is not None
    spreads = [one.spread for one in found.features if isinstance(one, NumberFeature) and "projection" in one.name]
    assert len(set(spreads)) == 8
    assert all(spread == pytest.approx(1.0, abs=0.1) for spread in spreads)


def test_the_error_of_a_row_does_not_hang_on_the_rows_beside_it() -> None:
    generator = np.random.default_rng(7)
    steps = np.rint(generator.normal(size=(501, 61)) * STEPS)
    components = np.linalg.qr(generator.normal(size=(61, 7)))[0].T
    together = reconstruction_error(steps, components)
    alone = np.concatenate([reconstruction_error(steps[at : at + 1], components) for at in range(501)])
    assert alone.tolist() == together.tolist()
    exact = steps / STEPS - steps / STEPS @ components.T @ components
    assert together == pytest.approx(np.sqrt(np.square(exact).mean(axis=1)), abs=1e-3)


def test_nothing_that_is_written_is_no_number() -> None:
    awful = np.array([[math.nan, math.inf, 1e308, -1e308], [-math.inf, 0, 5e-324, 1e308]] * 20)
    found = profile_of({"x": awful}, {"y": awful[:, :2]})
    assert found is not None
    text = found.model_dump_json() + counts_of(found, ({"x": awful, "y": awful[:, :2]}, 40)).model_dump_json()
    json.loads(text.replace("}{", "},{").join("[]"), parse_constant=pytest.fail)


def peak_bytes_of(profile: Profile, *batches: tuple[Arrays, int]) -> int:
    """The most memory that counting takes, beside the rows."""
    tracemalloc.start()
    try:
        counts_of(profile, *batches)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_row_as_wide_as_a_request_makes_no_other_wide() -> None:
    table = np.random.default_rng(1).normal(size=(400, 3))
    profile = profile_of({"x": table}, {})
    assert profile is not None
    narrow = [({"x": row[None, :]}, 1) for row in table]
    wide = ({"x": np.hstack([table[:1], np.zeros((1, 100_000))])}, 1)
    assert counts_of(profile, *narrow, wide) == counts_of(profile, *narrow, ({"x": table[:1]}, 1))
    assert peak_bytes_of(profile, *narrow, wide) < 8_000_000


def test_many_narrow_rows_of_one_request_take_no_memory_of_all_columns() -> None:
    table = np.random.default_rng(1).normal(size=(60, MAX_COLUMNS))
    profile = profile_of({"x": table}, {})
    assert profile is not None
    narrow = np.arange(8_000.0)[:, None]
    assert peak_bytes_of(profile, ({"x": narrow}, len(narrow))) < 16_000_000
    parts = [({"x": narrow[at : at + 100]}, 100) for at in range(0, 2_000, 100)]
    # An array of another length than said is missing in every row, however many there are.
    whole = {"x": narrow[:2_000], "label": np.zeros(3)}
    assert counts_of(profile, (whole, 2_000)) == counts_of(profile, *parts)


def test_a_profile_asks_for_no_column_beyond_those_that_are_put_together() -> None:
    with pytest.raises(ValidationError, match="<= 255"):
        ColumnSource(input="x", place=MAX_COLUMNS)
