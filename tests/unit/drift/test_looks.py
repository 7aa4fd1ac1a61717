"""Evidence that is looked at again and again: what it asks for, and what like and unlike versions come to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from shared.core.verdict import Outcome
from shared.drift.inflation import NONE
from shared.drift.limits import Limits
from shared.drift.looks import BEST_AT, LEAST_WORTH, Looks
from shared.drift.profiling import profile_of
from shared.drift.scoring import scored, verdict_of
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import Profile
from shared.telemetry.subjects import GROUPS, Worth, worth_of

EVIDENCE = Limits(psi=1e-12, unusable=None)
FEATURES = 8


def looks(rows: float, other: float | None = None, **changed: int) -> Looks:
    return Looks(reference=Worth(other or rows), actual=Worth(rows), **changed)


@given(st.floats(1e-12, 1.0), st.integers(1, 20), st.floats(1.0, 1e7))
def test_all_looks_ask_for_more_than_one_does(single: float, degrees: int, rows: float) -> None:
    assert looks(rows).p_value(single, degrees) >= single


def test_p_values_follow_the_formula_and_their_extremes_are_no_error() -> None:
    statistic = 40.0
    single = float(stats.chi2.sf(statistic, 9))
    n = 500.0
    wanted = 2 * (1 + n / BEST_AT) ** 4.5 * np.exp(-n / (n + BEST_AT) * statistic / 2)
    assert looks(2 * n).p_value(single, 9) == pytest.approx(wanted, rel=1e-6)
    assert looks(n).p_value(0.0, 3) == 0.0
    assert looks(n).p_value(1.0, 3) == looks(n).p_value(1e-9, 0) == 1.0


def test_the_level_is_spent_on_all_stretches_together() -> None:
    single = float(stats.chi2.sf(60, 9))
    spent = [looks(1_000, part=part).p_value(single, 9) for part in range(3)]
    assert spent == pytest.approx([spent[0], 3 * spent[0], 6 * spent[0]])
    assert sum(1 / ((part + 1) * (part + 2)) for part in range(10_000)) < 1


def test_a_walk_without_drift_is_said_to_drift_at_any_of_many_looks_in_five_of_a_hundred_at_most() -> None:
    rng, walks, steps, degrees = np.random.default_rng(5), 150, 200, 5
    sums, found = np.zeros((walks, degrees)), np.zeros(walks, dtype=bool)
    at_one = np.zeros(walks, dtype=bool)
    for step in range(1, steps + 1):
        sums += rng.normal(size=sums.shape) * np.sqrt(20)
        singles = stats.chi2.sf(np.square(sums).sum(axis=1) / (20 * step), degrees)
        at_one |= singles <= 0.05
        found |= [look <= 0.05 for look in map(looks(40 * step).p_value, singles.tolist(), [degrees] * walks)]
    assert at_one.mean() > 0.2
    assert found.mean() <= 0.05


def test_what_stands_behind_an_estimate_is_weighed_by_the_side_that_has_it() -> None:
    known = Worth(100, freedom=63)
    assert looks(100).freedom is None
    assert Looks(reference=known, actual=known).freedom == pytest.approx(126)
    # Of a side that adds next to nothing to the variance the estimate hardly matters.
    assert (Looks(reference=Worth(1e6, freedom=63), actual=Worth(100)).freedom or 0) > 1e6
    assert NONE.also(63).freedom == 63
    assert NONE.also(63).also(63).freedom == pytest.approx(31.5)


def profile() -> Profile:
    found = profile_of({"x": np.random.default_rng(1).normal(size=(4_000, FEATURES))}, {})
    assert found is not None
    return found


PROFILE = profile()


def of_subjects(rng: np.random.Generator, subjects: int, each: int, *, moved: float = 0.0) -> FeatureCounts:
    """So many rows of each subject, all like one another."""
    levels = rng.normal(size=(subjects, FEATURES))
    levels[:, 0] += moved
    cells: list[NDArray[np.int64]] = []
    for place, feature in enumerate(PROFILE.features[:FEATURES]):
        edges = np.array(feature.edges)  # type: ignore[union-attr]
        bins = np.bincount(np.searchsorted(edges, levels[:, place]), minlength=feature.bins)
        cells += [bins * each, np.zeros(3, dtype=np.int64)]
    rest = PROFILE.width - sum(map(len, cells))
    more = np.zeros(rest, dtype=np.int64)
    more[0] = subjects * each
    groups = np.bincount(rng.integers(0, GROUPS, subjects), minlength=GROUPS) * each
    return FeatureCounts(
        profile=PROFILE.id,
        rows=subjects * each,
        cells=np.concatenate([*cells, more]).tolist(),
        subjects=groups.tolist(),
    )


def drifted(one: FeatureCounts, other: FeatureCounts, limits: Limits, *, named: bool = True) -> bool:
    reference, actual = (worth_of(side.rows, side.subjects if named else []) for side in (other, one))
    found = scored(PROFILE, one, limits, beside=other, looks=Looks(reference=reference, actual=actual))
    return any(score.drifted for score in found)


@pytest.mark.parametrize(("subjects", "each"), [(20, 1_000), (50, 100), (200, 30), (1_000, 10)])
def test_like_versions_of_few_sticky_subjects_are_not_said_to_differ(subjects: int, each: int) -> None:
    rng = np.random.default_rng(subjects)
    pairs = [(of_subjects(rng, subjects, each), of_subjects(rng, subjects, each)) for _ in range(40)]
    assert sum(drifted(*pair, EVIDENCE) for pair in pairs) <= 2
    # Taken for independent, their rows are proof of what is chance.
    assert sum(drifted(*pair, EVIDENCE, named=False) for pair in pairs) == 40


@pytest.mark.parametrize(("subjects", "each"), [(300, 30), (2_000, 5)])
def test_a_drift_of_inputs_is_found_where_there_are_many_subjects(subjects: int, each: int) -> None:
    rng = np.random.default_rng(subjects)
    found = [
        drifted(of_subjects(rng, subjects, each, moved=1.0), of_subjects(rng, subjects, each), Limits())
        for _ in range(10)
    ]
    assert sum(found) >= 9


def test_a_handful_of_subjects_concludes_nothing_and_the_verdict_says_so() -> None:
    rng = np.random.default_rng(1)
    one, other = (of_subjects(rng, 4, 500) for _ in range(2))
    few = Looks(reference=worth_of(other.rows, other.subjects), actual=worth_of(one.rows, one.subjects))
    scores = scored(PROFILE, one, Limits(), beside=other, looks=few)
    assert not any(score.drifted for score in scores)
    verdict = verdict_of(scores, rows=one.rows, limits=Limits(), looks=few)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "2000 rows of few subjects are worth" in verdict.sentence
    assert f"{LEAST_WORTH:g} are needed" in verdict.sentence
