"""Slow drift: false alarms as rarely as stated, drift found soon, and the reference's own chance forgiven."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.core.errors import InvalidInputError
from shared.drift.slow import Moved, SlowDrift, SlowState
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import CategoryFeature, ColumnSource, NumberFeature, Profile
from shared.watching.assessing import feed

X = ColumnSource(input="x")
BINS = 10
BEGUN = datetime(2026, 11, 21, tzinfo=UTC)


def profile_of(counts: list[int], *, category: list[int] | None = None) -> Profile:
    number = NumberFeature(name="n", source=X, edges=tuple(map(float, range(BINS - 1))), counts=(*counts, 0))
    if category is None:
        return Profile(rows=sum(counts), features=(number,))
    other = CategoryFeature(name="c", source=X, categories=("a", "b"), counts=(*category, 0, 0))
    return Profile(rows=sum(counts), features=(number, other))


VAST = profile_of([10**9] * BINS, category=[8 * 10**9, 2 * 10**9])


def window(
    generator: np.random.Generator, profile: Profile, rows: int, shift: float = 0.0, share: float = 0.8
) -> FeatureCounts:
    """Rows with mean rank (1 + shift) / 2 or so."""
    tilt = 1 + 6 * shift * (np.arange(BINS) + 0.5 - BINS / 2) / BINS
    cells: list[int] = [*generator.multinomial(rows, tilt / tilt.sum()).tolist(), 0, 0, 0, 0]
    if len(profile.features) > 1:
        cells += [*generator.multinomial(rows, [share, 1 - share]).tolist(), 0, 0]
    return FeatureCounts(profile=profile.id, rows=rows, cells=cells)


def windows_to_alarm(detector: SlowDrift, parts: list[FeatureCounts]) -> int | None:
    for at, part in enumerate(parts, start=1):
        detector.add(part)
        if detector.has_alarmed:
            return at
    return None


def test_false_alarms_are_as_rare_as_stated_at_the_edge_of_what_is_tolerated() -> None:
    generator = np.random.default_rng(1)
    # Without a tolerance, every healthy window lies on the edge.
    stated, looked, trials = 20, 20, 40
    alarms = 0
    for _ in range(trials):
        detector = SlowDrift(VAST, mean_windows=stated, tolerance=0.0)
        parts = [window(generator, VAST, 500) for _ in range(looked)]
        alarms += windows_to_alarm(detector, parts) is not None
    # Were false alarms `stated` windows apart, some 63 % of runs as long would have one.
    assert alarms / trials < 0.3


def test_evidence_grows_in_the_mean_by_no_more_than_a_window_a_window() -> None:
    generator = np.random.default_rng(2)
    evidence = []
    for _ in range(150):
        detector = SlowDrift(VAST, mean_windows=1e9, tolerance=0.0)
        for _ in range(5):
            detector.add(window(generator, VAST, 50))
        evidence.append(math.exp(detector.log_evidence))
    assert 1.0 < np.mean(evidence) < 5.5


@pytest.mark.parametrize(("shift", "share", "name", "moved"), [
    (0.2, 0.8, "n", Moved.MEAN), (-0.2, 0.8, "n", Moved.MEAN), (0.0, 0.7, "c", Moved.SHARE),
])  # fmt: skip
def test_a_small_lasting_drift_is_found_and_named(shift: float, share: float, name: str, moved: Moved) -> None:
    generator = np.random.default_rng(3)
    detector = SlowDrift(VAST, mean_windows=24 * 90)
    assert windows_to_alarm(detector, [window(generator, VAST, 1_000) for _ in range(100)]) is None
    assert detector.blamed is not None
    delay = windows_to_alarm(detector, [window(generator, VAST, 1_000, shift, share) for _ in range(50)])
    assert delay is not None
    assert delay <= 20
    assert detector.blamed[0] == (name, moved)


def test_a_drift_within_the_tolerance_is_no_alarm_however_long() -> None:
    generator = np.random.default_rng(4)
    detector = SlowDrift(VAST, mean_windows=1_000)
    parts = [window(generator, VAST, 5_000, 0.06, 0.77) for _ in range(300)]
    assert windows_to_alarm(detector, parts) is None


def reference(generator: np.random.Generator, rows: int) -> Profile:
    return profile_of(generator.multinomial(rows, [1 / BINS] * BINS).tolist())


def test_what_a_small_reference_happens_to_hold_is_no_drift() -> None:
    generator = np.random.default_rng(5)
    for _ in range(20):
        profile = reference(generator, 100)
        detector = SlowDrift(profile, mean_windows=1_000, tolerance=0.0)
        assert windows_to_alarm(detector, [window(generator, profile, 2_000) for _ in range(30)]) is None


def test_a_wider_spread_and_missing_rows_are_found() -> None:
    profile = profile_of([10**9] * BINS)
    wide = [200, 120, 80, 60, 40, 40, 60, 80, 120, 200, 0]
    missing = [90] * BINS + [100]
    for cells, moved in ((wide, Moved.SPREAD), (missing, Moved.MISSING)):
        detector = SlowDrift(profile, mean_windows=2_000)
        part = FeatureCounts(profile=profile.id, rows=1_000, cells=[*cells, 0, 0, 0])
        assert windows_to_alarm(detector, [part] * 40) is not None
        assert detector.blamed[0] == ("n", moved)


def test_rows_that_go_together_count_for_fewer() -> None:
    generator = np.random.default_rng(6)
    part = window(generator, VAST, 1_000, 0.3)
    alone, independent, levelled = (SlowDrift(VAST, mean_windows=1_000) for _ in range(3))
    alone.add(part)
    independent.add(part, learned=levels(generator, VAST, 24, 0.0))
    levelled.add(part, learned=levels(generator, VAST, 24, 0.3))
    assert levelled.log_evidence < independent.log_evidence / 2 < alone.log_evidence


def levels(
    generator: np.random.Generator, profile: Profile, count: int, spread: float
) -> list[tuple[datetime, FeatureCounts]]:
    """Hours of 400 rows, each with a level of its own, which comes to nothing in the mean."""
    shifts = generator.normal(0.0, spread, count).clip(-0.3, 0.3)
    return [
        (BEGUN + timedelta(hours=at), window(generator, profile, 400, shift))
        for at, shift in enumerate(shifts.tolist())
    ]


@pytest.mark.parametrize("seed", range(3))
def test_healthy_hours_with_levels_of_their_own_are_no_drift_beside_a_reference_that_knows_better(seed: int) -> None:
    generator = np.random.default_rng(seed)
    hours = levels(generator, VAST, 24 * 6, 0.15)
    detector = SlowDrift(VAST, mean_windows=24 * 90)
    assert feed(detector, hours[24:], hours[:24]) is None
    moved = [(hour + timedelta(days=6), window(generator, VAST, 400, 0.3)) for hour, _ in hours]
    taken = feed(detector, moved, hours)
    assert taken is not None
    assert taken <= 48


def test_a_stored_detector_goes_on_as_if_it_had_not_been() -> None:
    generator = np.random.default_rng(7)
    parts = [window(generator, VAST, 700, 0.15) for _ in range(12)]
    whole, first = SlowDrift(VAST, mean_windows=500), SlowDrift(VAST, mean_windows=500)
    assert SlowDrift.of(VAST, SlowState.model_validate_json(first.state.model_dump_json())).state == first.state
    for part in parts:
        whole.add(part)
    for part in parts[:6]:
        first.add(part)
    second = SlowDrift.of(VAST, SlowState.model_validate_json(first.state.model_dump_json()))
    for part in parts[6:]:
        second.add(part)
    assert second.state == whole.state
    assert second.state.windows == 12


def test_empty_windows_are_none_and_other_profiles_are_refused() -> None:
    detector = SlowDrift(VAST, mean_windows=10)
    detector.add(FeatureCounts(profile=VAST.id, cells=[0] * VAST.width))
    assert detector.state.windows == 0
    assert detector.blamed == []
    other = profile_of([1] * BINS)
    with pytest.raises(InvalidInputError):
        detector.add(FeatureCounts(profile=other.id, cells=[0] * other.width))
    with pytest.raises(InvalidInputError, match="begin anew"):
        SlowDrift.of(other, detector.state)
    with pytest.raises(InvalidInputError):
        SlowDrift(VAST, mean_windows=0.5)


def test_a_profile_without_features_never_alarms() -> None:
    empty = Profile(rows=10, features=())
    detector = SlowDrift(empty, mean_windows=1)
    detector.add(FeatureCounts(profile=empty.id, rows=5, cells=[]))
    assert not detector.has_alarmed
