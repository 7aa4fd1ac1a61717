"""A version beside stable: which hours are compared, what rows are worth, and when something may follow."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.core.verdict import Outcome
from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.store.ports import Blob, BlobContainer
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile
from shared.telemetry.subjects import grouped
from shared.watching.beside import Beside, compare
from shared.watching.gathering import read_history, stretch
from shared.watching.rollups import HOUR, hourly_name
from tests.world.fakes import FakeBlobs, FakeClock, Fuse

BEGUN = datetime(2026, 11, 21, 5, tzinfo=UTC)
SPAN = timedelta(hours=24)


def profile(rows: int = 2_000, columns: int = 2) -> Profile:
    found = profile_of({"x": np.random.default_rng(1).normal(size=(rows, columns))}, {})
    assert found is not None
    return found


PROFILE = profile()


def hours(seed: int, subjects: int, each: int, *, count: int = 10, moved: float = 0.0) -> dict[datetime, FeatureCounts]:
    """Of so many subjects, each with a level of its own, that ask `each` times an hour."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.normal(moved, 1.0, (subjects, 2)), each, axis=0)
    groups = grouped([f"{seed}/{subject}" for subject in range(subjects)], [each] * subjects)
    found = {}
    for hour in range(count):
        tally = FeatureTally(PROFILE)
        tally.saw({"x": levels + rng.normal(0.0, 0.1, levels.shape)}, len(levels))
        tally.asked_by(groups)
        found[BEGUN + timedelta(hours=hour)] = tally.take()
    return found


@pytest.mark.parametrize(
    ("passed_h", "since_h", "part"), [(0, 0, 0), (1, 0, 0), (47, 0, 0), (48, 24, 1), (71, 24, 1), (72, 48, 2)]
)
def test_a_rollout_is_compared_in_stretches_of_up_to_two_spans(passed_h: int, since_h: int, part: int) -> None:
    until = BEGUN + timedelta(hours=passed_h, minutes=30)
    begun = BEGUN + timedelta(minutes=20)
    assert stretch(begun, SPAN, until) == (BEGUN + timedelta(hours=since_h), part)
    assert stretch(None, SPAN, until) == (BEGUN + timedelta(hours=passed_h) - SPAN, 0)


class Asked(FakeBlobs):
    """Empty storage that holds what it was asked for."""

    def __init__(self) -> None:
        super().__init__(Fuse(), FakeClock())
        self.asked: list[str] = []

    def read(self, container: BlobContainer, name: str, *, max_bytes: int) -> Blob | None:
        self.asked.append(name)
        return super().read(container, name, max_bytes=max_bytes)


@pytest.mark.parametrize("span_h", [1, 24, 96, 100, 168, 169, 200, 336, 744])
def test_all_that_is_compared_is_read_however_long_the_span(span_h: int) -> None:
    blobs = Asked()
    span, length = timedelta(hours=span_h), timedelta(hours=min(span_h, 168))
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    starts = []
    for passed in (length * 2 - HOUR, length * 3 - HOUR, length * 3):
        blobs.asked.clear()
        since, _ = stretch(begun, span, begun + passed)
        read_history(blobs, "e", span, begun + passed)
        assert hourly_name("e", since) in blobs.asked
        starts.append(since - begun)
    assert starts == [timedelta(), length, length * 2]


def test_few_subjects_that_come_hour_by_hour_are_no_drift_however_many_rows_they_send() -> None:
    found = [
        compare(
            2,
            PROFILE,
            Beside(version=1, profile=PROFILE, compared=hours(seed, 40, 20), hours=hours(seed + 100, 40, 20)),
            DriftPolicy(psi=1e-9, unusable=None),
        )
        for seed in range(6)
    ]
    assert [one.verdict.outcome for one in found].count(Outcome.FAIL) == 0
    assert "by their subjects they are worth" in found[0].verdict.sentence
    assert found[0].verdict.n == 8_000


@pytest.mark.parametrize(("least", "hours_least", "follows"), [(250, 10, True), (600, 10, False), (250, 11, False)])
def test_something_follows_where_rows_are_worth_enough_in_enough_hours(
    least: int, hours_least: int, *, follows: bool
) -> None:
    own, stables = hours(1, 400, 3, moved=1.5), hours(2, 400, 3)
    policy = DriftPolicy(following_min_rows=least, following_min_hours=hours_least)
    found = compare(2, PROFILE, Beside(version=1, profile=PROFILE, compared=own, hours=stables), policy)
    assert found.verdict.outcome is Outcome.FAIL
    assert found.may_follow is follows


def test_stables_many_rows_are_worth_no_more_than_those_they_are_scaled_to() -> None:
    own, stables = hours(1, 300, 1), hours(2, 3_000, 2)
    found = compare(2, PROFILE, Beside(version=1, profile=PROFILE, compared=own, hours=stables), DriftPolicy())
    assert found.verdict.n == 3_000
    assert found.verdict.outcome is Outcome.PASS


WIDE = profile(10_000, 12)


def independent(rng: np.random.Generator, rows: int, count: int, moved: float = 0.0) -> dict[datetime, FeatureCounts]:
    """Rows of requests that name nobody, one of twelve columns being moved."""
    found = {}
    for hour in range(count):
        tally = FeatureTally(WIDE)
        tally.saw({"x": rng.normal(size=(rows, 12)) + np.eye(12)[0] * moved}, rows)
        found[BEGUN + timedelta(hours=hour)] = tally.take()
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_drift_that_stays_is_found_at_each_look_also_once_hours_tell_how_rows_go_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, stables = independent(rng, 500, 14, moved=1.0), independent(rng, 500, 14)
    found = [
        compare(2, WIDE, Beside(version=1, profile=WIDE, compared=part(own, n), hours=part(stables, n)), DriftPolicy())
        for n in range(2, 15)
    ]
    assert [one.verdict.outcome for one in found] == [Outcome.FAIL] * 13
    # From the eighth hour on something may follow: rows are enough.
    assert [one.may_follow for one in found] == [False] * 6 + [True] * 7


def part(hours: dict[datetime, FeatureCounts], count: int) -> dict[datetime, FeatureCounts]:
    return dict(list(hours.items())[:count])


def test_it_is_told_where_an_effect_is_at_its_limit_for_want_of_evidence_alone() -> None:
    rng = np.random.default_rng(1)
    for rows, moved, is_at_limit in ((40, 1.0, True), (4_000, 0.0, False)):
        own, stables = independent(rng, rows, 1, moved=moved), independent(rng, rows, 1)
        found = compare(2, WIDE, Beside(version=1, profile=WIDE, compared=own, hours=stables), DriftPolicy(min_rows=20))
        assert (found.verdict.outcome, found.is_at_limit) == (Outcome.PASS, is_at_limit)
