"""Performance without labels is what labels would say, from counts alone, with an honest error; or it does not gate."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.core.errors import InvalidInputError
from shared.drift.calibration import LEAST_WINDOWS, Realised, calibration_of
from shared.drift.coding import codes_of
from shared.drift.performance import LEAST_ROWS, MAX_BINS, PerformanceModel, _telling, estimated, fitted
from shared.drift.profiling import profile_of
from shared.telemetry.featurecolumns import Columns
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile

type Floats = NDArray[np.float64]
type Drawn = tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]], Floats]


def classified(generator: np.random.Generator, rows: int, shift: float = 0.0) -> Drawn:
    """Inputs, outputs, and whether each answer is right; the confidence is too high where x1 is above 1."""
    x = generator.normal(size=(rows, 3))
    x[:, 0] += shift
    x[:, 1] += shift
    chance = 1 / (1 + np.exp(-2 * x[:, 0]))
    truth = generator.random(rows) < np.where(x[:, 1] > 1, 0.5, chance)
    scores = np.column_stack([1 - chance, chance])
    return {"x": x}, {"scores": scores}, (truth == scores.argmax(axis=1)).astype(np.float64)


def numbers(generator: np.random.Generator, rows: int, shift: float = 0.0) -> Drawn:
    """Inputs, outputs, and the absolute error, which grows with x0."""
    x = generator.normal(size=(rows, 3))
    x[:, 0] += shift
    error = np.abs(generator.normal(size=rows)) * np.exp(0.5 * x[:, 0])
    return {"x": x}, {"y": x[:, 0] * 2}, error


def made(drawn: Drawn) -> tuple[Profile, PerformanceModel]:
    inputs, outputs, observed = drawn
    profile = profile_of(inputs, outputs)
    assert profile is not None
    model = fitted(profile, codes_of(profile, Columns([({**inputs, **outputs}, len(observed))])), observed)
    assert model is not None
    assert PerformanceModel.model_validate_json(model.model_dump_json()) == model
    return profile, model


def counted(profile: Profile, drawn: Drawn) -> FeatureCounts:
    tally = FeatureTally(profile)
    tally.saw({**drawn[0], **drawn[1]}, len(drawn[2]))
    return tally.take()


@pytest.mark.parametrize("draw", [classified, numbers])
def test_an_estimate_is_what_labels_would_say_also_where_inputs_have_moved(draw: object) -> None:
    assert callable(draw)
    generator = np.random.default_rng(1)
    profile, model = made(draw(generator, 8_000))
    misses, naive, covered = [], [], 0
    shifts = np.linspace(-0.8, 0.8, 9)
    for shift in shifts:
        drawn = draw(generator, 4_000, float(shift))
        found = estimated(profile, model, counted(profile, drawn))
        realised = float(drawn[2].mean())
        misses.append(abs(found.value - realised))
        naive.append(abs(model.level - realised))
        covered += abs(found.value - realised) < 3 * found.error
    assert np.mean(misses) < 0.35 * np.mean(naive)
    assert covered >= len(shifts) - 3


def test_confidence_alone_would_miss_what_the_other_features_tell() -> None:
    generator = np.random.default_rng(2)
    profile, model = made(classified(generator, 8_000))
    drawn = classified(generator, 8_000, 0.7)
    by_confidence = float(np.asarray(drawn[1]["scores"]).max(axis=1).astype(np.float64).mean())
    realised = float(drawn[2].mean())
    found = estimated(profile, model, counted(profile, drawn))
    assert abs(found.value - realised) < 0.2 * abs(by_confidence - realised)


def test_the_error_is_honest_without_drift() -> None:
    generator = np.random.default_rng(3)
    profile, model = made(classified(generator, 4_000))
    scores = []
    for _ in range(40):
        drawn = classified(generator, 1_000)
        found = estimated(profile, model, counted(profile, drawn))
        scores.append((found.value - drawn[2].mean()) / found.error)
    assert 0.6 < np.std(scores) < 1.4


def test_an_estimate_never_leaves_what_was_observed_and_a_merge_equals_the_whole() -> None:
    generator = np.random.default_rng(4)
    profile, model = made(classified(generator, 2_000))
    drawn = classified(generator, 500, 40.0)
    found = estimated(profile, model, counted(profile, drawn))
    assert 0.0 <= found.value <= 1.0
    parts = [
        counted(profile, ({"x": drawn[0]["x"][half]}, {"scores": drawn[1]["scores"][half]}, drawn[2][half]))
        for half in (slice(0, 123), slice(123, None))
    ]
    assert estimated(profile, model, FeatureCounts.sum_of(parts)) == found
    low, high = found.interval
    assert low <= found.value <= high


def test_codes_are_where_the_tally_counts() -> None:
    generator = np.random.default_rng(5)
    city = generator.choice(np.array([f"c{at}" for at in range(30)], dtype=object), 600)
    x = generator.normal(size=(600, 4))
    x[::9, 1] = np.nan
    x[::11, 2] = np.inf
    profile = profile_of({"x": x, "city": city}, {"y": x[:, 0]})
    assert profile is not None
    later = {"x": x * 2, "city": np.append(city[1:], ["new"]), "y": x[:, 0]}
    codes = codes_of(profile, Columns([(later, 600)]))
    tally = FeatureTally(profile)
    tally.saw(later, 600)
    cells = tally.take().cells
    for at, (feature, place) in enumerate(zip(profile.features, profile.cells().values(), strict=True)):
        counts = np.bincount(codes[:, at], minlength=feature.bins).tolist()
        assert counts == cells[place.start : place.start + feature.bins], feature.name


def test_few_labels_fit_nothing_and_missing_ones_are_left_out() -> None:
    generator = np.random.default_rng(6)
    inputs, outputs, observed = classified(generator, 2 * LEAST_ROWS)
    profile = profile_of(inputs, outputs)
    assert profile is not None
    codes = codes_of(profile, Columns([({**inputs, **outputs}, len(observed))]))
    observed[::2] = np.nan
    model = fitted(profile, codes, observed)
    assert model is not None
    assert model.rows == LEAST_ROWS
    observed[1] = np.nan
    assert fitted(profile, codes, observed) is None


def test_answers_that_are_all_right_are_estimated_right() -> None:
    generator = np.random.default_rng(7)
    inputs, outputs, _ = classified(generator, 1_000)
    profile, model = made((inputs, outputs, np.ones(1_000)))
    found = estimated(profile, model, counted(profile, classified(generator, 300, 1.0)))
    assert found.value == pytest.approx(1.0)


def test_of_many_features_those_that_tell_most_are_fitted() -> None:
    generator = np.random.default_rng(10)
    inputs, outputs, observed = numbers(generator, 600)
    inputs["x"] = np.column_stack([generator.normal(size=(600, 70)), inputs["x"]])
    profile = profile_of(inputs, outputs)
    assert profile is not None
    codes = codes_of(profile, Columns([({**inputs, **outputs}, 600)]))
    used = [profile.features[at] for at in _telling(profile, codes, observed)]
    assert {"prediction", "x[70]"} <= {feature.name for feature in used}
    assert len(used) < len(profile.features)
    assert sum(feature.bins for feature in used) <= MAX_BINS


def test_another_profile_and_no_rows_are_refused() -> None:
    generator = np.random.default_rng(8)
    profile, model = made(classified(generator, 600))
    other, _ = made(classified(generator, 600))
    with pytest.raises(InvalidInputError):
        estimated(other, model, counted(other, classified(generator, 5)))
    with pytest.raises(InvalidInputError):
        estimated(profile, model, FeatureCounts(profile=profile.id, cells=[0] * profile.width))


def realised(miss: float, count: int = 12, labels: int = 500) -> list[Realised]:
    generator = np.random.default_rng(9)
    return [
        Realised(
            estimate=0.9 + miss + float(generator.normal(0, 0.01)),
            estimate_error=0.01,
            realised=0.9 + float(generator.normal(0, 0.01)),
            realised_error=0.01,
            labels=labels,
        )
        for _ in range(count)
    ]


def test_an_estimate_gates_only_while_it_is_calibrated() -> None:
    well = calibration_of(realised(0.0), tolerance=0.04)
    assert well.may_gate
    assert well.covered is not None
    assert well.covered > 0.7
    badly = calibration_of(realised(0.08), tolerance=0.04)
    assert not badly.may_gate
    assert badly.bias == pytest.approx(0.08, abs=0.02)
    assert badly.miss == pytest.approx(0.08, abs=0.02)
    assert "above the tolerance" in badly.sentence
    # What was long ago is forgotten, both ways.
    assert not calibration_of(realised(0.0, 60) + realised(0.08, 30), tolerance=0.02).may_gate
    assert calibration_of(realised(0.08, 60) + realised(0.0, 30), tolerance=0.02).may_gate


def test_few_windows_or_few_labels_do_not_gate() -> None:
    assert not calibration_of([], tolerance=0.02).may_gate
    assert not calibration_of(realised(0.0, LEAST_WINDOWS - 1), tolerance=0.02).may_gate
    assert calibration_of(realised(0.0, 50, labels=3), tolerance=0.02).windows == 0


def labelled(rng: np.random.Generator, miss: float, *, days: int, labels: int) -> list[Realised]:
    """Days of an estimate that is off by `miss`, and of labels of which 85 % are right."""
    found = []
    for correct in rng.binomial(labels, 0.85, days):
        share = int(correct) / labels
        error = float(np.sqrt(0.85 * 0.15 / labels))
        found.append(
            Realised(estimate=0.85 + miss, estimate_error=0.01, realised=share, realised_error=error, labels=labels)
        )
    return found


def gates(miss: float, *, days: int, labels: int) -> float:
    """How often such an estimate may gate, of 150 draws, where it may be off by 0.025."""
    rng = np.random.default_rng(11)
    draws = [labelled(rng, miss, days=days, labels=labels) for _ in range(150)]
    return sum(calibration_of(draw, tolerance=0.025).may_gate for draw in draws) / 150


@pytest.mark.parametrize("labels", [30, 200, 2_000])
@pytest.mark.parametrize("days", [8, 30])
def test_an_estimate_that_is_off_by_its_tolerance_or_more_hardly_ever_gates(days: int, labels: int) -> None:
    assert gates(0.025, days=days, labels=labels) <= 0.1
    assert gates(-0.05, days=days, labels=labels) <= 0.05
    assert gates(0.08, days=days, labels=labels) <= 0.02


def test_a_good_estimate_gates_once_there_are_labels_enough_to_tell() -> None:
    assert gates(0.0, days=8, labels=30) < 0.1
    assert gates(0.0, days=12, labels=1_000) > 0.9
    assert gates(0.0, days=30, labels=200) > 0.7


def test_few_labels_that_contradict_nothing_are_told_apart_from_a_bad_estimate() -> None:
    rng = np.random.default_rng(12)
    found = calibration_of(labelled(rng, 0.0, days=10, labels=40), tolerance=0.025)
    assert not found.may_gate
    assert found.miss is not None
    assert found.most is not None
    assert found.miss < 0.025 < found.most
    assert "too few labels to tell" in found.sentence


def test_the_error_of_a_fit_is_a_miss_however_well_it_is_known() -> None:
    off = [
        Realised(estimate=0.9, estimate_error=0.06, realised=0.85, realised_error=0.002, labels=5_000)
        for _ in range(20)
    ]
    assert not calibration_of(off, tolerance=0.025).may_gate


def test_estimates_and_labels_without_any_error_of_their_own_are_held_together_all_the_same() -> None:
    def same(apart: float) -> Realised:
        return Realised(estimate=1.0 + apart, estimate_error=0.0, realised=1.0, realised_error=0.0, labels=50)

    assert calibration_of([same(0.0)] * 8, tolerance=0.025).most == 0.0
    assert calibration_of([same(0.0)] * 8, tolerance=0.025).may_gate
    assert not calibration_of([same(0.1)] * 8, tolerance=0.025).may_gate
