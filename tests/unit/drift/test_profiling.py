"""The profile of reference data: its features, their bins, and counts that are a sample of their own."""

import numpy as np
import pytest

from shared.drift.profiling import CONFIDENCE, PREDICTION, RECONSTRUCTION, profile_of
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import MAX_FEATURES, CategoryFeature, Feature, NumberFeature, Profile, SummarySource

GENERATOR = np.random.default_rng(5)


def made(inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray] | None = None) -> Profile:
    found = profile_of(inputs, outputs or {})
    assert found is not None
    assert Profile.model_validate_json(found.model_dump_json()) == found
    return found


def by_name(profile: Profile) -> dict[str, Feature]:
    return {feature.name: feature for feature in profile.features}


def test_counts_are_those_of_the_half_that_did_not_choose_the_bins() -> None:
    rows = GENERATOR.normal(size=(1_001, 3))
    profile = made({"x": rows})
    assert profile.rows == 501
    assert all(sum(feature.counts) == 501 for feature in profile.features)
    # Deciles of the other half hold about a tenth, and not a tenth exactly.
    counts = np.array(profile.features[0].counts[:-1])
    assert 20 < counts.min() < counts.max() < 80
    assert len(set(counts.tolist())) > 1


def test_rows_in_pairs_are_not_torn_apart_by_their_order() -> None:
    rows = np.tile([0.0, 1.0], 500)[:, None]
    feature = made({"x": rows}).features[0]
    assert 200 < max(feature.counts) < 300


def test_columns_have_their_names_and_none_twice() -> None:
    rows = GENERATOR.normal(size=(50, 2))
    found = profile_of(
        {"a": rows, "b": rows, "prediction": rows[:, 0]},
        {"y": rows[:, 0]},
        names={"a": ("age", "pay"), "b": ("age", "prediction")},
    )
    assert found is not None
    names = [feature.name for feature in found.features]
    assert names == ["age", "pay", "age (2)", "prediction (2)", "prediction (3)", PREDICTION, RECONSTRUCTION]


def test_a_classifier_has_a_label_and_a_confidence() -> None:
    scores = GENERATOR.dirichlet((1, 1, 1), size=200).astype(np.float32)
    found = by_name(made({"x": scores[:, 0]}, {"label": scores.argmax(axis=1), "scores": scores}))
    label = found[PREDICTION]
    assert isinstance(label, CategoryFeature)
    assert set(label.categories) == {"0", "1", "2"}
    assert isinstance(found[CONFIDENCE], NumberFeature)


def test_scores_alone_give_the_label_too() -> None:
    scores = GENERATOR.dirichlet((1, 1), size=200).astype(np.float32)
    found = by_name(made({"x": scores[:, 0]}, {"scores": scores}))
    assert isinstance(found[PREDICTION], CategoryFeature)
    assert CONFIDENCE in found


def test_a_regression_has_a_number_and_no_confidence() -> None:
    found = by_name(made({"x": GENERATOR.normal(size=50)}, {"y": GENERATOR.normal(size=(50, 1))}))
    assert isinstance(found[PREDICTION], NumberFeature)
    assert CONFIDENCE not in found


def test_wide_inputs_and_free_text_are_summarised() -> None:
    text = np.array([f"words {at}" * at for at in range(60)], dtype=object)
    found = by_name(made({"image": GENERATOR.random((60, 3, 8, 8)), "wide": GENERATOR.random((60, 300)), "text": text}))
    assert len(found) == 11 + 11 + 9
    assert {"text length", "text projection 7"} <= set(found)
    assert "wide projection 7" in found


def test_projections_of_text_are_no_summary_that_a_server_without_them_knows() -> None:
    text = np.array([f"words {at}" * at for at in range(60)], dtype=object)
    found = made({"wide": GENERATOR.random((60, 300)), "text": text})
    sources = [one.source for one in found.features if isinstance(one.source, SummarySource)]
    of_text = {source.summary.value for source in sources if source.input == "text"}
    assert of_text == {"length", "text_projection"}
    # All that the first servers with profiles know. Of a text they would count a projection of numbers as missing.
    assert {source.summary.value for source in sources if source.input == "wide"} == {
        "mean",
        "spread",
        "norm",
        "projection",
    }


def test_too_many_columns_leave_the_answers_in() -> None:
    inputs = {f"i{at}": GENERATOR.normal(size=(20, 250)) for at in range(3)}
    profile = made(inputs, {"y": GENERATOR.normal(size=20)})
    assert len(profile.features) == MAX_FEATURES
    assert PREDICTION in by_name(profile)


@pytest.mark.parametrize("rows", [0, 1, 19])
def test_few_rows_make_no_profile(rows: int) -> None:
    assert profile_of({"x": np.zeros((rows, 2))}, {}) is None


def test_no_inputs_make_no_profile() -> None:
    assert profile_of({}, {}) is None


@pytest.mark.parametrize(
    "column",
    [
        np.full(40, np.nan),
        np.full(40, np.inf),
        np.full(40, 7.25),
        np.full(40, 0.1),
        np.array([1e308, -1e308] * 20),
        np.array([0.0, 5e-324] * 20),
        np.array([True, False] * 20),
        np.array([np.nan, 1.0] * 20, dtype=np.float16),
    ],
)
def test_awkward_columns_have_bins_and_finite_moments(column: np.ndarray) -> None:
    profile = made({"x": column})
    (feature,) = profile.features
    assert isinstance(feature, NumberFeature)
    assert sum(feature.counts) == 20
    assert feature.spread > 0
    if column.dtype == np.float64 and len(set(column.tolist())) == 1:
        assert feature.spread == 1.0


def test_all_null_text_is_a_category_of_its_own() -> None:
    (feature,) = made({"x": np.array([None] * 40, dtype=object)}).features
    assert isinstance(feature, CategoryFeature)
    assert feature.categories == ("None",)


def test_rarer_categories_are_known_and_new_ones_are_not() -> None:
    rows = np.array([f"c{at % 30:02}" if at < 900 else "c00" for at in range(1_000)], dtype=object)
    profile = made({"x": rows})
    (feature,) = profile.features
    assert isinstance(feature, CategoryFeature)
    assert len(feature.categories) == 20
    assert len(feature.rare) == 10
    tally = FeatureTally(profile)
    tally.saw({"x": np.array(["c00", feature.rare[0], "never"], dtype=object)}, 3)
    assert tally.take().cells[-2:] == [1, 1]


def test_a_row_off_the_plane_has_a_large_error_and_one_on_it_none() -> None:
    plane = GENERATOR.normal(size=(2_000, 2)) @ GENERATOR.normal(size=(2, 6))
    profile = made({"x": plane})
    error = by_name(profile)[RECONSTRUCTION]
    assert isinstance(error, NumberFeature)
    shuffled = GENERATOR.permuted(plane, axis=0)
    tally = FeatureTally(profile)
    tally.saw({"x": shuffled}, len(shuffled))
    cells = tally.take().cells[profile.cells()[RECONSTRUCTION]]
    # Each column by itself is as before; only together they are not.
    assert cells[len(error.edges)] > 0.5 * len(shuffled)


@pytest.mark.parametrize("array", [np.empty((50, 0), dtype=object), np.empty((50, 0)), np.empty((50, 0), dtype="U1")])
def test_an_input_of_no_columns_has_no_features(array: np.ndarray) -> None:
    rows = GENERATOR.normal(size=(50, 2))
    assert by_name(made({"none": array, "x": rows}, {"y": rows[:, 0]})).keys() == {"x[0]", "x[1]", "prediction"}
