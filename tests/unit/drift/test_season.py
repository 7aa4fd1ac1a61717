"""A daily cycle is no drift, and one that lasts is found in spite of it."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.drift.season import Season
from shared.drift.slow import SlowDrift
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import ColumnSource, NumberFeature, Profile
from shared.watching.assessing import feed

BEGUN = datetime(2026, 11, 21, tzinfo=UTC)
EDGES = np.linspace(-1.5, 1.5, 9)
ROWS = 400


def day_of(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Values of whole days: one standard deviation up in the morning, and down at night."""
    return rng.normal(size=rows) + np.sin(2 * np.pi * rng.integers(0, 24, rows) / 24)


def binned(values: np.ndarray) -> list[int]:
    return [*np.bincount(np.searchsorted(EDGES, values), minlength=len(EDGES) + 1).tolist(), 0]


def profile() -> Profile:
    counts = tuple(binned(day_of(np.random.default_rng(1), 20_000)))
    feature = NumberFeature(name="x", source=ColumnSource(input="x"), edges=tuple(EDGES.tolist()), counts=counts)
    return Profile(rows=20_000, features=(feature,))


PROFILE = profile()


def hours(seed: int, count: int, *, first: int = 0, moved: float = 0.0) -> list[tuple[datetime, FeatureCounts]]:
    rng, found = np.random.default_rng(seed), []
    for hour in range(first, first + count):
        values = rng.normal(size=ROWS) + math.sin(2 * math.pi * hour / 24) + moved
        counts = FeatureCounts(profile=PROFILE.id, rows=ROWS, cells=[*binned(values), 0, 0, 0])
        found.append((BEGUN + timedelta(hours=hour), counts))
    return found


def detector(of: Profile = PROFILE) -> SlowDrift:
    return SlowDrift(of, mean_windows=24 * 90.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_daily_cycle_is_no_slow_drift(seed: int) -> None:
    assert feed(detector(), hours(seed, 24 * 8, first=24), hours(seed + 10, 24)) is None


def uneven(seed: int, count: int, *, profile: Profile, first: int = 0) -> list[tuple[datetime, FeatureCounts]]:
    """Hours of a cycle whose nights have a tenth of the rows."""
    rng, found = np.random.default_rng(seed), []
    for hour in range(first, first + count):
        rows = ROWS if 8 <= hour % 24 < 20 else ROWS // 10
        values = rng.normal(size=rows) + math.sin(2 * math.pi * (hour - 8) / 24)
        counts = FeatureCounts(profile=profile.id, rows=rows, cells=[*binned(values), 0, 0, 0])
        found.append((BEGUN + timedelta(hours=hour), counts))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_daily_cycle_with_few_rows_at_night_is_no_slow_drift(seed: int) -> None:
    # The reference is of rows, as they come.
    days = FeatureCounts.sum_of([counts for _, counts in uneven(9, 24 * 4, profile=PROFILE)])
    feature = PROFILE.features[0].model_copy(update={"counts": tuple(days.cells[: PROFILE.features[0].bins])})
    of = Profile(rows=days.rows, features=(feature,))
    learned = uneven(seed + 10, 24, profile=of)
    assert feed(detector(of), uneven(seed, 24 * 6, first=24, profile=of), learned) is None


def test_what_is_usual_of_uneven_hours_comes_to_nothing_over_the_rows_of_a_day() -> None:
    known = uneven(1, 24, profile=PROFILE)
    # Of a second day that is seen in part, no hour counts twice.
    season, rows = Season([*known, *((hour + timedelta(days=1), counts) for hour, counts in known[:6])]), 0
    total = np.zeros(PROFILE.width)
    for hour, counts in known:
        usual = season.at(hour)
        assert usual is not None
        total, rows = total + usual.away * counts.rows, rows + counts.rows
    assert total / rows == pytest.approx(np.zeros(PROFILE.width), abs=1e-12)


def test_taken_for_no_season_the_same_hours_are_a_drift() -> None:
    slow = detector()
    for _, counts in hours(0, 48, first=24):
        slow.add(counts)
    assert slow.has_alarmed


@pytest.mark.parametrize("seed", range(3))
def test_a_drift_that_lasts_is_found_in_spite_of_the_cycle(seed: int) -> None:
    taken = feed(detector(), hours(seed, 24 * 8, first=24, moved=0.8), hours(seed + 10, 24))
    assert taken is not None


def test_an_hour_of_the_day_that_was_never_seen_teaches_and_is_not_held_against_anything() -> None:
    slow = detector()
    assert feed(slow, hours(1, 24, first=12), hours(2, 12)) is None
    assert slow.state.windows == 12


def test_what_is_usual_comes_to_nothing_over_a_day_and_is_as_sure_as_its_rows() -> None:
    season = Season([*hours(1, 24), *hours(2, 6, first=24)])
    found = [season.at(BEGUN + timedelta(hours=hour)) for hour in range(24)]
    away = np.sum([one.away for one in found if one is not None], axis=0)
    assert away == pytest.approx(np.zeros(PROFILE.width), abs=1e-12)
    assert [one.rows for one in found if one is not None] == [2 * ROWS] * 6 + [ROWS] * 18
    assert Season([]).at(BEGUN) is None
    assert Season(hours(1, 1)).at(BEGUN + timedelta(hours=1)) is None
