"""Intervals equal the literature's where it has them, cover the truth, and are never of no width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared.validation.statistics.intervals import (
    auc_influence,
    auc_interval,
    bca,
    clopper_pearson,
    newcombe,
    resample_counts,
    resample_means,
    wilson,
)
from shared.validation.statistics.metrics import roc_auc


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_intervals_of_a_proportion_equal_scipys(share: tuple[int, int], level: float) -> None:
    wanted = stats.binomtest(*share)
    exact = wanted.proportion_ci(level, "exact")
    score = wanted.proportion_ci(level, "wilson")
    assert clopper_pearson(*share, level) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert wilson(*share, level) == pytest.approx((score.low, score.high), abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        # Newcombe 1998, table II, method 10.
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ],
)
def test_the_interval_of_a_difference_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], wanted: tuple[float, float]
) -> None:
    assert newcombe(first, second) == pytest.approx(wanted, abs=6e-5)


def test_the_areas_variance_is_delongs() -> None:
    """Against the definition: the variance of the shares of the other side that each row is above or below."""
    generator = np.random.default_rng(1)
    positive = generator.random(60) < 0.4
    scores = (generator.normal(size=60) + positive).round(1)
    wins = (scores[positive][:, None] > scores[~positive]) + 0.5 * (scores[positive][:, None] == scores[~positive])
    area, influence = auc_influence(positive, scores)
    assert area == pytest.approx(wins.mean(), abs=1e-12)
    assert area == pytest.approx(roc_auc(positive, scores), abs=1e-12)
    wanted = wins.mean(axis=1).var(ddof=1) / positive.sum() + wins.mean(axis=0).var(ddof=1) / (~positive).sum()
    assert (influence**2).sum() / 60**2 == pytest.approx(wanted, rel=1e-9)


def test_a_perfect_area_still_has_an_interval() -> None:
    scores = np.column_stack([np.arange(20.0)[::-1], np.arange(20.0)])
    found = auc_interval(np.repeat([0, 1], 10), scores, np.array([1]), weighted=False)
    assert found.interval == pytest.approx((0.6915, 1.0), abs=1e-4)


def test_the_area_is_covered_as_often_as_stated() -> None:
    """400 samples of 80 rows whose area is known. At 94 %, chance would break the bound once in 10,000 times."""
    truth = float(stats.norm.cdf(1 / np.sqrt(2)))
    generator = np.random.default_rng(2)
    labels = np.repeat([0, 1], 40)
    covered = 0
    for _ in range(400):
        later = generator.normal(size=80) + labels
        low, high = auc_interval(labels, np.column_stack([-later, later]), np.array([1]), weighted=False).interval
        covered += low <= truth <= high
    assert covered >= stats.binom.ppf(1e-4, 400, 0.94)


def test_the_bootstrap_covers_a_mean_about_as_often_as_stated() -> None:
    """Of skewed values, 100 times. At 93 %, chance would break the bound once in 10,000 times."""
    generator = np.random.default_rng(7)
    covered = 0
    for seed in range(100):
        columns = generator.exponential(1.0, size=(100, 1))
        interval = resample_means(columns, seed=seed).interval(lambda means: means[:, 0])
        assert interval is not None
        covered += interval[0] <= 1.0 <= interval[1]
    assert covered >= stats.binom.ppf(1e-4, 100, 0.93)


def test_rows_in_groups_have_the_interval_of_all_rows() -> None:
    columns = np.random.default_rng(3).exponential(size=(40_000, 1))
    low, high = resample_means(columns, seed=0).interval(lambda means: means[:, 0]) or (0, 0)
    error = columns.std() / np.sqrt(len(columns))
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)
    assert (low + high) / 2 == pytest.approx(columns.mean(), abs=error)


def test_the_same_seed_gives_the_same_interval() -> None:
    columns = np.random.default_rng(4).normal(size=(50, 2))
    first, again, other = (
        resample_means(columns, seed=seed).interval(lambda means: means.sum(axis=1)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_what_does_not_vary_has_no_bootstrap_interval() -> None:
    assert resample_means(np.ones((20, 1)), seed=0).interval(lambda means: means[:, 0]) is None
    assert bca(1.0, np.full(100, 1.0), np.full(5, 1.0), np.ones(5)) is None


def test_resampled_tables_keep_their_rows() -> None:
    tables = resample_counts(np.array([90.0, 9.0, 1.0]), seed=0)
    assert (tables.sum(axis=1) == 100).all()
    assert tables.mean(axis=0) == pytest.approx([90, 9, 1], abs=0.5)
