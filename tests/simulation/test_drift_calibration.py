"""Windows without drift raise alarms no more often than stated (benchmarks/drift_calibration.py has the long form)."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from shared.drift.inflation import inflations
from shared.drift.limits import MEASURES, Limits
from shared.drift.scoring import scored
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import ColumnSource, NumberFeature, Profile

FEATURES, BINS = 12, 10
EDGES = stats.norm.ppf(np.arange(1, BINS) / BINS)


def only(measure: str, limit: float) -> Limits:
    """One measure as the alarm's effect."""
    changed: dict[str, Any] = {**dict.fromkeys(MEASURES), measure: limit}
    return Limits(**changed)


EVIDENCE = only("psi", 1e-12)


def cells(generator: np.random.Generator, rows: int, levels: np.ndarray | None = None) -> list[list[int]]:
    """Rows of standard normal features with so many levels, in the deciles' bins."""
    moved = np.zeros(FEATURES) if levels is None else levels
    cut = stats.norm.cdf(np.concatenate([[-np.inf], EDGES, [np.inf]])[:, None] - moved)
    return [[*generator.multinomial(rows, share / share.sum()).tolist(), 0] for share in np.diff(cut, axis=0).T]


def profile_of(bins: list[list[int]]) -> Profile:
    features = [
        NumberFeature(name=str(at), source=ColumnSource(input="x", place=at), edges=tuple(EDGES.tolist()), counts=row)
        for at, row in enumerate(map(tuple, bins))
    ]
    return Profile(rows=sum(bins[0]), features=tuple(features))


def counts_of(profile: Profile, bins: list[list[int]]) -> FeatureCounts:
    return FeatureCounts(
        profile=profile.id, rows=sum(bins[0]), cells=[cell for row in bins for cell in (*row, 0, 0, 0)]
    )


def most(trials: int) -> int:
    """Alarms that chance explains where the rate is 5 %."""
    return int(stats.binom.ppf(0.999, trials, 0.05))


@pytest.mark.parametrize("rows", [100, 1_000, 10_000, 100_000, 1_000_000])
def test_evidence_alone_is_as_rare_as_stated_at_any_size(rows: int) -> None:
    generator = np.random.default_rng(rows)
    alarms, trials = 0, 40
    for _ in range(trials):
        profile = profile_of(cells(generator, 10_000))
        alarms += any(score.drifted for score in scored(profile, counts_of(profile, cells(generator, rows)), EVIDENCE))
    assert alarms <= most(trials)


def test_each_measure_as_the_effect_needs_the_same_evidence() -> None:
    generator = np.random.default_rng(3)
    profile = profile_of(cells(generator, 10_000))
    same, moved = (counts_of(profile, cells(generator, 2_000, np.full(FEATURES, level))) for level in (0.0, 0.6))
    for measure in MEASURES[:-1]:
        limits = only(measure, 0.05)
        assert not any(score.drifted for score in scored(profile, same, limits))
        assert all(score.over == (measure,) and score.drifted for score in scored(profile, moved, limits))


def test_levels_that_come_and_go_are_learned_from_healthy_windows() -> None:
    generator = np.random.default_rng(4)
    learned = unlearned = trials = 0
    for _ in range(6):
        level = np.zeros(FEATURES)
        windows = []
        profile = profile_of(cells(generator, 100_000, None))
        for _ in range(36):
            level = 0.6 * level + 0.8 * generator.normal(0, 0.3, FEATURES)
            windows.append(counts_of(profile, cells(generator, 2_000, level)))
        known = inflations(profile, windows[:30])
        for window in windows[30:]:
            trials += 1
            learned += any(score.drifted for score in scored(profile, window, EVIDENCE, inflation=known))
            unlearned += any(score.drifted for score in scored(profile, window, EVIDENCE))
    assert learned <= most(trials)
    assert unlearned > 0.9 * trials
