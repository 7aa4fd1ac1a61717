"""Scores equal scipy's on the same bins, an alarm needs effect and evidence, and nothing is ever NaN."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import distance

from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome
from shared.drift.inflation import UNKNOWN, Inflation, inflation_of, inflations
from shared.drift.limits import Limits
from shared.drift.profiling import profile_of
from shared.drift.scoring import FeatureScore, positions, scored, verdict_of
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import ColumnSource, NumberFeature, Profile

LIMITS = Limits()


def profile_with(counts: Sequence[int], edges: Sequence[float], **changed: Any) -> Profile:
    source = ColumnSource(input="x")
    feature = NumberFeature(name="x", source=source, edges=tuple(edges), counts=tuple(counts), **changed)
    return Profile(rows=sum(counts), features=(feature,))


def counts_of(profile: Profile, cells: Sequence[int]) -> FeatureCounts:
    return FeatureCounts(profile=profile.id, rows=sum(cells), cells=[*cells, 0, 0, 0])


def tallied(profile: Profile, **arrays: NDArray[Any]) -> FeatureCounts:
    tally = FeatureTally(profile)
    tally.saw(arrays, len(next(iter(arrays.values()))))
    return tally.take()


def made(**arrays: NDArray[Any]) -> Profile:
    found = profile_of(arrays, {})
    assert found is not None
    return found


COUNTS = st.lists(st.integers(1, 5_000), min_size=5, max_size=5)


@settings(max_examples=50, deadline=None)
@given(COUNTS, COUNTS)
def test_measures_equal_scipys_on_the_same_bins(reference: list[int], actual: list[int]) -> None:
    profile = profile_with(reference, (-1.0, 0.5, 2.0), mean=0.5, spread=2.0)
    (score,) = scored(profile, counts_of(profile, actual), LIMITS)
    p, q = (np.array(side) / sum(side) for side in (reference, actual))
    smooth_p, smooth_q = ((np.array(side) + 0.5) / (sum(side) + 2.5) for side in (reference, actual))
    places = [-1.125, -0.375, 0.375, 1.125]
    assert positions(score.feature).tolist() == places  # type: ignore[arg-type]
    assert score.psi == pytest.approx(
        float(((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)).sum()), rel=1e-9, abs=1e-9
    )
    assert score.jensen_shannon == pytest.approx(float(distance.jensenshannon(p, q, base=2)), rel=1e-9, abs=1e-9)
    assert score.hellinger == pytest.approx(
        float(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / math.sqrt(2)), rel=1e-9, abs=1e-9
    )
    moved = stats.wasserstein_distance(places, places, np.array(reference[:-1], float), np.array(actual[:-1], float))
    assert score.wasserstein == pytest.approx(moved, rel=1e-9, abs=1e-9)
    samples = [np.repeat(places, side[:-1]) for side in (reference, actual)]
    assert score.kolmogorov_smirnov == pytest.approx(
        stats.ks_2samp(*samples, method="asymp").statistic, rel=1e-9, abs=1e-9
    )
    pooled = np.array(reference) + np.array(actual)
    if (pooled * min(sum(reference), sum(actual)) / pooled.sum() >= 5).all():
        tested = stats.chi2_contingency([reference, actual], correction=False)
        assert score.chi_square == pytest.approx(tested.statistic, rel=1e-9, abs=1e-9)
        unusable = stats.chi2_contingency(
            [[sum(side[:-1]), side[-1]] for side in (reference, actual)], correction=False
        )
        assert score.p_value == pytest.approx(min(1.0, 2 * min(tested.pvalue, unusable.pvalue)), rel=1e-9, abs=1e-9)


def test_what_lies_beyond_a_bin_of_one_value_has_moved() -> None:
    constant = made(x=np.full(400, 7.0))
    mostly_nought = made(x=np.where(np.arange(400) % 10 == 0, 3.0, 0.0))
    for profile, values in ((constant, np.full(400, 9.0)), (constant, np.full(400, 5.0))):
        score = scored(profile, tallied(profile, x=values), LIMITS)[0]
        assert score.wasserstein == pytest.approx(0.5)
    negative = scored(mostly_nought, tallied(mostly_nought, x=np.full(400, -1.0)), LIMITS)[0]
    nought = scored(mostly_nought, tallied(mostly_nought, x=np.zeros(400)), LIMITS)[0]
    assert negative.wasserstein is not None
    assert nought.wasserstein is not None
    assert negative.wasserstein == pytest.approx(nought.wasserstein + 0.5)


def test_windows_of_independent_rows_have_no_inflation_and_scipys_homogeneity() -> None:
    table = np.random.default_rng(1).multinomial(1_000, [0.1, 0.2, 0.3, 0.4], size=40).astype(np.float64)
    found = inflation_of(table)
    tested = stats.chi2_contingency(table, correction=False)
    assert found.freedom is not None
    assert 30 < found.freedom <= 39
    assert found.mean == pytest.approx(max(1.0, tested.statistic / tested.dof), rel=0.1)
    assert found.mean < 1.3
    assert found.mean_square < 1.5 * found.mean**2


def test_windows_with_a_level_of_their_own_are_inflated_the_more_the_larger_they_are() -> None:
    generator = np.random.default_rng(2)
    shares = generator.dirichlet(np.array([0.1, 0.2, 0.3, 0.4]) * 200, size=60)
    table = np.array([generator.multinomial(1_000, row) for row in shares]).astype(np.float64)
    found = inflation_of(table)
    assert found.mean == pytest.approx(1 + 999 / 201, rel=0.3)
    assert found.of(1_000, 10**9).mean == pytest.approx(found.mean, rel=1e-3)
    assert found.of(10_000, 10**9).mean == pytest.approx(1 + 10 * (found.mean - 1), rel=1e-3)
    assert found.of(1_000, 1_000).mean == pytest.approx(1 + (found.mean - 1) / 2)
    assert found.of(1_000, 1_000, of_both=True).mean == pytest.approx(found.mean)


def test_a_window_that_is_as_uneven_as_healthy_ones_raises_no_alarm() -> None:
    generator = np.random.default_rng(3)
    profile = made(x=generator.normal(size=4_000))
    healthy = [tallied(profile, x=generator.normal(level, 1.0, 1_000)) for level in generator.normal(0, 0.4, 30)]
    odd = tallied(profile, x=generator.normal(0.6, 1.0, 1_000))
    assert scored(profile, odd, LIMITS)[0].drifted
    known = inflations(profile, healthy)
    assert known["x"].bins.mean > 5
    calm = scored(profile, odd, LIMITS, inflation=known)[0]
    assert calm.psi > 0.2
    assert not calm.drifted
    far = tallied(profile, x=generator.normal(3.0, 1.0, 1_000))
    assert scored(profile, far, LIMITS, inflation=known)[0].drifted


def test_windows_that_follow_one_another_are_worth_fewer() -> None:
    generator = np.random.default_rng(2)
    drawn = np.array([generator.multinomial(10_000, row) for row in generator.dirichlet([200] * 4, 12)]).astype(
        np.float64
    )
    apart, together = inflation_of(np.tile(drawn, (4, 1))), inflation_of(np.repeat(drawn, 4, axis=0))
    assert apart.freedom is not None
    assert together.freedom is not None
    assert together.freedom < 0.6 * apart.freedom
    assert together.mean > apart.mean


def test_windows_that_differ_in_one_direction_leave_few_degrees_of_freedom() -> None:
    generator = np.random.default_rng(2)
    level = np.outer(generator.normal(0, 0.03, 200), [1, 1, 1, -1, -1, -1])
    table = np.array([generator.multinomial(10_000, row) for row in level + 1 / 6]).astype(np.float64)
    found = inflation_of(table)
    assert 5 * found.mean**2 / found.mean_square < 1.2
    # A statistic that 5 in 100 windows exceed: one square of a normal, times five means.
    assert found.p_value(3.84 * 5 * found.mean, 5) == pytest.approx(0.05, abs=0.03)


def test_the_tail_is_that_of_the_largest_eigenvalue_and_of_its_estimate() -> None:
    alike = Inflation(mean=3.0, mean_square=9.0, freedom=20.0)
    one = Inflation(mean=3.0, mean_square=5 * 9.0, freedom=20.0)
    for times in (0.1, 1.0, 3.0, 10.0, 100.0):
        assert alike.p_value(5 * 3.0 * times, 5) == pytest.approx(stats.f.sf(times, 5, 20.0), rel=0.05)
        assert one.p_value(5 * 3.0 * times, 5) == pytest.approx(stats.f.sf(times, 1, 20.0), rel=0.15)
    between = Inflation(mean=3.0, mean_square=9.0 + 16.0, freedom=20.0)
    generator = np.random.default_rng(8)
    draws = 2_000_000
    most, others = 3.0 + 2 * 4.0, 3.0 - 4.0 / 2
    squares = most * generator.chisquare(1, draws) + others * generator.chisquare(4, draws)
    estimated = squares / (generator.chisquare(20.0, draws) / 20.0)
    for chance in (0.3, 0.05, 0.01, 1e-3):
        assert between.p_value(float(np.quantile(estimated, 1 - chance)), 5) == pytest.approx(chance, rel=0.1)
    assert between.p_value(0.0, 5) == 1.0
    assert between.p_value(1e300, 5) < 1e-100


def test_near_its_mean_the_tail_falls_without_a_step() -> None:
    times = 1 + np.linspace(-0.01, 0.01, 1_001)
    for degrees, freedom in ((1, 5.0), (5, 1_000.0), (60, 100.0)):
        found = Inflation(mean=3.0, mean_square=3.0**2 * degrees**0.5, freedom=freedom)
        tails = np.array([found.p_value(3.0 * degrees * one, degrees) for one in times])
        falls = -np.diff(tails)
        assert falls.min() > 0
        assert falls.max() < 4 * falls.min()
        assert found.p_value(1e-300, degrees) == pytest.approx(1.0)


def test_of_small_windows_the_level_follows_and_not_what_chance_adds() -> None:
    generator = np.random.default_rng(5)
    level, levels = 0.0, []
    for _ in range(400):
        level = 0.6 * level + 0.8 * generator.normal(0, 0.03)
        levels.append(level)
    shares = np.outer(levels, [1, 1, 1, -1, -1, -1]) + 1 / 6
    small, large = (
        inflation_of(np.array([generator.multinomial(rows, row) for row in shares]).astype(np.float64))
        for rows in (150, 100_000)
    )
    assert small.mean < 2.5
    # Along the level a window varies by 1 + 4.86 of what chance adds, and of that 4.86 goes on by 0.6.
    follows = 0.6 * 4.86 / 5.86
    assert small.freedom == pytest.approx(399 * (1 - follows**2) / (1 + follows**2), rel=0.15)
    assert large.freedom == pytest.approx(399 * (1 - 0.6**2) / (1 + 0.6**2), rel=0.15)


def test_a_rare_share_that_comes_and_goes_is_learned_however_few_rows_are_of_it() -> None:
    generator = np.random.default_rng(6)
    profile = profile_with([19_800, 200, 0], [0.0])
    windows = [
        counts_of(profile, [300 - few, few, 0]) for few in generator.poisson(generator.gamma(1.0, 3.0, 30)).tolist()
    ]
    many = counts_of(profile, [288, 12, 0])
    evidence = Limits(psi=1e-12)
    assert scored(profile, many, evidence)[0].drifted
    known = inflations(profile, windows)
    assert known["x"].bins.mean > 2
    assert not scored(profile, many, evidence, inflation=known)[0].drifted
    assert inflations(profile, [counts_of(profile, [300, 0, 0])] * 30)["x"] == UNKNOWN


def test_seven_healthy_windows_tell_nothing() -> None:
    profile = profile_with([50, 50, 0], [0.0])
    window = counts_of(profile, [40, 60, 0])
    assert inflations(profile, [window] * 7 + [counts_of(profile, [0, 0, 0])])["x"] == UNKNOWN


def test_a_share_of_missing_that_comes_and_goes_is_learned_by_itself() -> None:
    generator = np.random.default_rng(13)
    profile = profile_with([900] * 10 + [1_000], range(9))

    def drawn(share: float) -> FeatureCounts:
        cells = generator.multinomial(1_000, [*[(1 - share) / 10] * 10, share])
        return counts_of(profile, cells.tolist())

    windows = [drawn(share) for share in generator.uniform(0.0, 0.2, 30)]
    much = drawn(0.18)
    assert scored(profile, much, LIMITS)[0].drifted
    known = inflations(profile, windows)
    assert known["x"].unusable.mean > 2 * known["x"].bins.mean
    assert not scored(profile, much, LIMITS, inflation=known)[0].drifted
    # One window of a row would leave no bin with rows enough.
    assert inflations(profile, [*windows, counts_of(profile, [1, *[0] * 10])]) == known


def test_effect_without_evidence_and_evidence_without_effect_are_no_alarm() -> None:
    profile = profile_with([5_000] * 10 + [0], range(9))
    by_chance = scored(profile, counts_of(profile, [25, 5, 5, 14, 8, 10, 10, 6, 9, 8, 0]), Limits(psi=0.05))[0]
    assert by_chance.over == ("psi",)
    few = scored(profile, counts_of(profile, [9, 1, 3, 4, 2, 2, 2, 2, 2, 3, 0]), Limits(psi=0.05))[0]
    assert not few.drifted
    assert "too few rows" in few.sentence
    small = scored(profile, counts_of(profile, [11_000_000] + [10_000_000] * 9 + [0]), LIMITS)[0]
    assert small.q_value < 1e-4
    assert not small.drifted
    assert "below the limit of 0.2" in small.sentence
    both = scored(profile, counts_of(profile, [3_000] + [500] * 9 + [0]), LIMITS)[0]
    assert both.drifted
    assert "PSI of 'x'" in both.sentence


def test_a_spike_of_nulls_and_one_of_infinities_are_found() -> None:
    generator = np.random.default_rng(4)
    table = generator.normal(size=(4_000, 3))
    profile = made(x=table)
    later = generator.normal(size=(2_000, 3))
    later[:160, 1] = np.nan
    later[:160, 2] = np.inf
    found = {score.feature.name: score for score in scored(profile, tallied(profile, x=later), LIMITS)}
    assert not found["x[0]"].drifted
    assert found["x[1]"].drifted
    assert found["x[1]"].missing_share == 0.08
    assert found["x[2]"].over == ("unusable",)
    assert found["x[2]"].drifted
    assert found["x[2]"].infinite_share == 0.08


def test_a_new_category_is_found_and_its_share_told() -> None:
    generator = np.random.default_rng(5)
    profile = made(x=generator.choice(np.array(["a", "b"], dtype=object), 2_000))
    score = scored(profile, tallied(profile, x=generator.choice(np.array(["a", "b", "c"], dtype=object), 900)), LIMITS)[
        0
    ]
    assert score.drifted
    assert score.unseen_share == pytest.approx(1 / 3, abs=0.06)
    assert sorted(score.labels) == ["a", "b", "rarer ones", "unseen"]
    assert score.labels[2:] == ("rarer ones", "unseen")
    assert score.mean is None
    assert score.wasserstein is None


def test_mean_and_spread_are_those_of_the_finite_values() -> None:
    generator = np.random.default_rng(6)
    profile = made(x=generator.normal(100.0, 5.0, 4_000))
    values = generator.normal(103.0, 7.0, 3_000)
    rows = np.concatenate([values, [np.nan, np.inf, -np.inf]])
    score = scored(profile, tallied(profile, x=rows), LIMITS)[0]
    assert score.mean == pytest.approx(values.mean(), abs=5 / 1024)
    assert score.spread == pytest.approx(values.std(), abs=5 / 1024)


def finite(score: FeatureScore) -> bool:
    values = [getattr(score, field.name) for field in dataclasses.fields(score)]
    return all(math.isfinite(value) for value in values if isinstance(value, (int, float)))


AWKWARD = [
    np.full(400, np.nan),
    np.full(400, np.inf),
    np.full(400, 7.0),
    np.full(400, -np.inf),
    np.array([1e308, -1e308] * 200),
    np.array([5e-324, 0.0] * 200),
    np.random.default_rng(1).normal(size=400),
    np.arange(400) % 3 == 0,
]


@pytest.mark.parametrize("reference", AWKWARD)
@pytest.mark.parametrize("rows", [1, 400])
def test_no_score_is_nan_whatever_was_before_and_came_since(reference: NDArray[Any], rows: int) -> None:
    profile = made(x=reference)
    for actual in AWKWARD:
        counts = tallied(profile, x=actual[:rows])
        scores = scored(profile, counts, LIMITS)
        assert all(finite(score) for score in scores)
        assert "nan" not in scores[0].sentence
        assert verdict_of(scores, rows=rows, limits=LIMITS).outcome in set(Outcome)


def test_all_null_where_nothing_was_and_a_constant_that_changes_are_found() -> None:
    for before, after in ((AWKWARD[6], AWKWARD[0]), (AWKWARD[2], AWKWARD[2] + 1e-9), (AWKWARD[0], AWKWARD[6])):
        profile = made(x=before)
        assert scored(profile, tallied(profile, x=after), LIMITS)[0].drifted
        assert not scored(profile, tallied(profile, x=before), LIMITS)[0].drifted


def test_a_drift_is_found_however_many_more_rows_the_window_has_than_the_reference() -> None:
    generator = np.random.default_rng(11)
    table = generator.normal(size=(500, 3))
    profile = made(x=table)
    rows = generator.normal(size=(50_000, 3))
    for far in (1.0, 3.0, 10.0):
        moved = rows.copy()
        moved[:, 1] += far
        moved[:, 2] = np.nan if far == 10.0 else moved[:, 2]
        found = {score.feature.name: score for score in scored(profile, tallied(profile, x=moved), LIMITS)}
        assert found["x[1]"].drifted, far
        assert found["x[1]"].effect > 1
        assert found["x[2]"].drifted == (far == 10.0)
        assert not found["x[0]"].drifted


def test_a_constant_that_vanishes_or_changes_is_found_in_a_small_window() -> None:
    profile = made(x=np.full((40_000, 2), 7.0))
    window = np.full((100, 2), 7.0)
    window[:10, 0] = np.nan
    vanished, same = scored(profile, tallied(profile, x=window), LIMITS)
    assert vanished.drifted
    assert not same.drifted
    window[:, 0] = 8.0
    assert scored(profile, tallied(profile, x=window), LIMITS)[0].drifted


def test_a_reference_of_few_rows_concludes_nothing_and_no_window_needs_as_large_a_one() -> None:
    generator = np.random.default_rng(12)
    far = generator.normal(5.0, 1.0, 2_000)
    for rows, outcome in ((150, Outcome.INCONCLUSIVE), (300, Outcome.FAIL)):
        profile = made(x=generator.normal(size=rows))
        scores = scored(profile, tallied(profile, x=far), LIMITS)
        verdict = verdict_of(scores, rows=2_000, limits=LIMITS)
        assert verdict.outcome is outcome, verdict.sentence
        assert ("the reference has 75 rows: 100 are needed" in verdict.sentence) == (rows == 150)
        assert ("too few rows" in scores[0].sentence) == (rows == 150)
    many = Limits(min_rows=2_000)
    assert verdict_of(scored(profile, tallied(profile, x=far), many), rows=2_000, limits=many).outcome is Outcome.FAIL
    few = Limits(min_rows=20)
    profile = made(x=generator.normal(size=60))
    assert verdict_of(scored(profile, tallied(profile, x=far), few), rows=2_000, limits=few).outcome is Outcome.FAIL


def test_another_variant_is_a_reference_too() -> None:
    generator = np.random.default_rng(8)
    profile = made(x=generator.normal(size=1_000))
    season = [tallied(profile, x=generator.normal(2.0, 1.0, 3_000)) for _ in range(2)]
    assert scored(profile, season[0], LIMITS)[0].drifted
    assert not scored(profile, season[0], LIMITS, beside=season[1])[0].drifted


def test_counts_that_cannot_be_are_refused() -> None:
    profile = profile_with([5, 5, 0], [0.0])
    other = profile_with([5, 6, 0], [0.0])
    with pytest.raises(InvalidInputError, match="same profile"):
        scored(profile, counts_of(other, [1, 1, 0]), LIMITS)
    with pytest.raises(InvalidInputError, match="needs a row"):
        scored(profile, counts_of(profile, [0, 0, 0]), LIMITS)
    most = 64 * 1024
    for cells in (
        [3, -1, 0, 0, 0, 0],
        [2, 2, 0, 0, 0, 0],
        [1, 0, 1, 2, 0, 0],
        [2, 0, 0, -1, 0, 0],
        [2, 0, 0, 0, -2 * most - 1, 0],
        [2, 0, 0, 0, 0, 2 * most**2 + 1],
        [2, 0, 0, 0, 0, -1],
    ):
        with pytest.raises(InvalidInputError, match="damaged"):
            scored(profile, FeatureCounts(profile=profile.id, rows=2, cells=cells), LIMITS)
    for cells in ([0, 2, 0, 2, 0, 0], [2, 0, 0, 0, -2 * most, 2 * most**2]):
        assert len(scored(profile, FeatureCounts(profile=profile.id, rows=2, cells=cells), LIMITS)) == 1


def test_the_verdict_names_the_worst_features_first() -> None:
    generator = np.random.default_rng(9)
    profile = made(x=generator.normal(size=(4_000, 6)))
    shifts = np.array([0, 0.8, 0, 1.2, 0.9, 2.0])
    scores = scored(profile, tallied(profile, x=generator.normal(size=(2_000, 6)) + shifts), LIMITS)
    verdict = verdict_of(scores, rows=2_000, limits=LIMITS)
    assert verdict.outcome is Outcome.FAIL
    by_effect = sorted((score for score in scores if score.drifted), key=lambda score: -score.effect)
    places = [verdict.sentence.index(repr(score.feature.name)) for score in by_effect[:3]]
    assert places == sorted(places)
    assert "'x[5]'" in verdict.sentence
    assert verdict.sentence.startswith("5 of 7 features drifted in 2000 rows")
    assert verdict.sentence.endswith("and 2 more")
    calm = verdict_of(scores[:1], rows=2_000, limits=LIMITS)
    assert calm.outcome is Outcome.PASS
    assert verdict_of(scores, rows=99, limits=LIMITS).outcome is Outcome.INCONCLUSIVE
