"""Two versions in the same hours: what can be compared, and as many rows of each hour of either side."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.drift.inflation import inflations_beside
from shared.drift.limits import Limits
from shared.drift.profiling import profile_of
from shared.drift.scoring import scored
from shared.drift.sides import check_counts
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import CategoryFeature, ColumnSource, NumberFeature, Profile
from shared.watching.concurrent import Common

BEGUN = datetime(2026, 11, 21, tzinfo=UTC)


def profile(seed: int, answer: float) -> Profile:
    """Of two columns of the seed's reference data, and of an answer of its own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1_000, 2))
    found = profile_of({"x": x}, {"y": x[:, :1] * answer + rng.random((1_000, 1))}, names={"x": ("a", "b")})
    assert found is not None
    return found


ONE, OTHER = profile(1, 1.0), profile(1, 3.0)


def counts(of: Profile, rows: int, level: float = 0.0, seed: int = 0) -> FeatureCounts:
    rng = np.random.default_rng(seed)
    tally = FeatureTally(of)
    tally.saw({"x": rng.normal(level, 1.0, (rows, 2)), "y": rng.random((rows, 1))}, rows)
    return tally.take()


def test_columns_of_the_same_reference_data_are_compared_and_answers_in_other_bins_are_not() -> None:
    common = Common(ONE, OTHER)
    assert [feature.name for feature in common.profile.features] == ["a", "b"]
    assert "prediction" in common.missing
    assert Common(ONE, profile(2, 1.0)).profile.features == ()


def test_by_the_first_profile_all_that_came_in_is_compared_and_answers_only_where_both_hold_them_alike() -> None:
    other = profile(2, 1.0)
    assert Common(ONE, other, by_first=True).missing == ("prediction",)
    without = ONE.model_copy(update={"features": ONE.features[:2]})
    assert Common(ONE, None, by_first=True).profile == without
    # With an answer of other's that is as ONE's.
    alike = other.model_copy(update={"features": (*other.features[:2], ONE.features[2])})
    assert Common(ONE, alike, by_first=True).profile == ONE
    hours, others = {BEGUN: counts(ONE, 300, seed=1)}, {BEGUN: counts(ONE, 200, seed=2)}
    both = Common(ONE, other, by_first=True).beside(hours, others)
    assert (both.first.rows, both.second.rows) == (200, 200)
    assert both.second.cells == others[BEGUN].cells[: without.width]


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(min_value=0, max_value=300), st.integers(min_value=0, max_value=300)),
        min_size=1,
        max_size=4,
    )
)
def test_each_hour_gives_as_many_rows_of_either_side_and_the_counts_hold_together(shape: list[tuple[int, int]]) -> None:
    hours = {BEGUN + timedelta(hours=at): counts(ONE, one, seed=at) for at, (one, _) in enumerate(shape)}
    others = {BEGUN + timedelta(hours=at): counts(OTHER, other, seed=9 + at) for at, (_, other) in enumerate(shape)}
    common = Common(ONE, OTHER)
    both = common.beside(hours, others)
    first, second, by_hour = both.first, both.second, both.by_hour
    wanted = [min(pair) for pair in shape if min(pair)]
    assert (first.rows, second.rows, [one.rows for one in by_hour]) == (sum(wanted), sum(wanted), wanted)
    for found in (first, second, *by_hour):
        check_counts(common.profile, found)


def test_a_share_that_grows_through_a_season_is_no_drift() -> None:
    levels, shares = np.linspace(-2.0, 2.0, 10), np.linspace(0.05, 0.95, 10)
    hours, others = {}, {}
    for at, (level, share) in enumerate(zip(levels, shares, strict=True)):
        hour = BEGUN + timedelta(hours=at)
        hours[hour] = counts(ONE, round(2_000 * share), level, seed=at)
        others[hour] = counts(OTHER, round(2_000 * (1 - share)), level, seed=100 + at)
    common = Common(ONE, OTHER)
    both = common.beside(hours, others)
    known = inflations_beside(common.profile, both.by_hour, both.worth_by_hour)
    found = scored(common.profile, both.first, Limits(), beside=both.second, inflation=known, looks=both.looks)
    assert [score.drifted for score in found] == [False, False]
    # Added without regard to their hours, the same rows are far apart.
    whole, apart = common.beside(hours, hours).first, Common(OTHER, ONE).beside(others, others).first
    apart = apart.model_copy(update={"profile": whole.profile})
    assert max(score.psi for score in scored(common.profile, whole, Limits(), beside=apart)) > 0.5


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_few_rows_an_hour_beside_many_are_as_the_many(rows: int) -> None:
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    source = ColumnSource(input="x")
    kinds = CategoryFeature(name="kind", source=source, categories=("a", "b", "c", "d"), counts=(50, 30, 15, 5, 0, 0))
    number = NumberFeature(name="number", source=source, edges=(0.0, 1.0), counts=(50, 30, 15, 5))
    of = Profile(rows=100, features=(kinds, number))
    rng = np.random.default_rng(1)
    few: dict[datetime, FeatureCounts] = {}
    many: dict[datetime, FeatureCounts] = {}
    for at in range(200):
        for found, drawn in ((few, rng.multinomial(rows, shares)), (many, 2_000 * shares)):
            # Of the number half of the lowest bin is infinite.
            cells = [*drawn, 0, 0, *drawn, drawn[0] // 2, 0, 0]
            found[BEGUN + timedelta(hours=at)] = FeatureCounts(
                profile=of.id, rows=int(sum(drawn)), cells=[int(cell) for cell in cells]
            )
    both = Common(of, of).beside(few, many)
    for counted in (both.second.cells[:4], both.second.cells[6:10]):
        assert np.abs(np.array(counted) - 200 * rows * shares).max() < 1
    assert both.second.cells[10] == 50 * rows
    scores = scored(of, both.first, Limits(), beside=both.second, looks=both.looks)
    assert not any(score.drifted for score in scores)


@settings(max_examples=200)
@given(st.tuples(*[st.integers(0, 6)] * 3).filter(any), st.integers(1, 18))
def test_no_more_rows_are_infinite_than_are_not_missing(bins: tuple[int, int, int], rows: int) -> None:
    feature = NumberFeature(name="x", source=ColumnSource(input="x"), edges=(0.0,), counts=(1, 1, 1))
    of = Profile(rows=3, features=(feature,))
    every = FeatureCounts(profile=of.id, rows=sum(bins), cells=[*bins, bins[0] + bins[1], 0, 0])
    fewer = FeatureCounts(profile=of.id, rows=rows, cells=[rows, 0, 0, 0, 0, 0])
    low, high, missing, infinite, *_ = Common(of, of).beside({BEGUN: every}, {BEGUN: fewer}).first.cells
    assert low + high + missing == min(rows, sum(bins))
    assert infinite <= low + high


def test_rows_that_go_together_inflate_and_a_level_that_moves_slowly_does_not() -> None:
    calm = [counts(ONE, 400, level=at / 40, seed=at) for at in range(24)]
    doubled = [
        FeatureCounts.sum_of([part] * 10) for part in (counts(ONE, 40, level=at / 40, seed=at) for at in range(24))
    ]
    slow, together = (inflations_beside(ONE, windows)["a"].bins.mean for windows in (calm, doubled))
    assert slow < 1.5
    assert 6 < together < 15
    assert inflations_beside(ONE, calm[:5])["a"].bins.mean == 1.0
