"""How assignment draws: shares as asked for, ramps that only add, and tests at once that know nothing of each other.

Every salt and subject is fixed, so that a test passes always or never. Each statistic is also shown to fail a hash that
is not fit, for a test that passes anything says nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import combinations
from uuid import UUID

import numpy as np
import pytest
from scipy import stats

from shared.rollout.documents import rollout_id_of
from shared.routing.assignment import bucket, route_for
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan

MILLION = 1_000_000
TESTS_AT_ONCE = 20
SALTS = tuple(rollout_id_of(f"command-{number}", number) for number in range(1, TESTS_AT_ONCE + 1))
PAIRS = tuple(combinations(range(TESTS_AT_ONCE), 2))
LEVEL = 0.001
"""The chance that a fair draw fails a test; where a test looks many times, it divides this among its looks."""
RAMP_BP = (500, 1_000, 2_500, 5_000)

type Buckets = np.ndarray[tuple[int], np.dtype[np.int64]]
type Hash = Callable[[str, str], int]


# Made once for all salts: making a million names takes longer than drawing for them.
@lru_cache(maxsize=1)
def uuids(n: int) -> Sequence[str]:
    return [str(UUID(bytes=blake2b(b"%d" % i, digest_size=16).digest())) for i in range(n)]


@lru_cache(maxsize=1)
def emails(n: int) -> Sequence[str]:
    return [f"user.{i % 997}@team{i // 997}.example.com" for i in range(n)]


def numbers(n: int) -> Iterator[str]:
    return map(str, range(n))


def buckets_of(salt: str, subjects: Iterable[str], hashed: Hash = bucket) -> Buckets:
    return np.fromiter((hashed(salt, subject) for subject in subjects), dtype=np.int64)


def independence(one: Buckets, other: Buckets) -> float:
    """Pearson's chi-square test (1900) of independence over the deciles, 0 to 9, of two draws: its p-value."""
    table = np.bincount(one * 10 + other, minlength=100).reshape(10, 10)
    return float(stats.chi2_contingency(table).pvalue)


def ignores_its_salt(_: str, subject: str) -> int:
    return bucket("", subject)


def adds_its_salt(salt: str, subject: str) -> int:
    """Sums of two hashes: each draw is fair, and any two are a rotation of each other."""
    return (bucket("", subject) + bucket("", salt)) % FULL_WEIGHT_BP


def plan_of(weight_bp: int) -> RoutePlan:
    shares = ((1, Role.STABLE, FULL_WEIGHT_BP - weight_bp), (2, Role.CANDIDATE, weight_bp))
    routes = tuple(
        Route(version=version, role=role, weight_bp=share, artifact_digest="0" * 64, size_bytes=1)
        for version, role, share in shares
    )
    return RoutePlan(endpoint="churn", generation=1, salt="s", routes=routes)


def is_candidate(plan: RoutePlan, place: int) -> bool:
    route = route_for(plan, place)
    return route is not None and route.role is Role.CANDIDATE


def check_shares(buckets: Buckets) -> None:
    """Every stage's share is within 0.1 percentage point of what it asks for, and the buckets are evenly filled."""
    for weight_bp in (*RAMP_BP, 100, 9_000):
        assert abs(float(np.mean(buckets < weight_bp)) - weight_bp / FULL_WEIGHT_BP) < 0.001, weight_bp
    filled = np.bincount(buckets, minlength=FULL_WEIGHT_BP)
    assert filled.size == FULL_WEIGHT_BP
    # Filled too evenly is no fair draw either.
    assert LEVEL / 2 < stats.chisquare(filled).pvalue < 1 - LEVEL / 2


def test_of_a_million_subjects_each_stage_takes_its_share_within_a_tenth_of_a_point() -> None:
    check_shares(buckets_of(SALTS[0], numbers(MILLION)))


@pytest.mark.long
@pytest.mark.parametrize("salt", SALTS[1:4])
@pytest.mark.parametrize("subjects", [uuids, emails])
def test_whatever_names_subjects_have_a_million_of_them_are_shared_out(
    subjects: Callable[[int], Sequence[str]], salt: str
) -> None:
    check_shares(buckets_of(salt, subjects(MILLION)))


def test_a_ramp_moves_no_enrolled_subject() -> None:
    # Every bucket that a subject can have, not a sample of them.
    plans = [plan_of(weight_bp) for weight_bp in RAMP_BP]
    enrolled: set[int] = set()
    for plan, weight_bp in zip(plans, RAMP_BP, strict=True):
        now = {place for place in range(FULL_WEIGHT_BP) if is_candidate(plan, place)}
        assert enrolled < now
        assert len(now) == weight_bp
        enrolled = now


def test_another_rollout_of_the_same_version_draws_its_subjects_anew() -> None:
    n = 100_000
    first, again = (buckets_of(rollout_id_of(command, 7), numbers(n)) < 1_000 for command in ("first", "again"))
    both = int(np.sum(first & again))
    # Of 100,000, one per cent in both: 1,000 +- 5 standard deviations.
    assert abs(both - 1_000) < 5 * (n * 0.01 * 0.99) ** 0.5


def dependent_pairs(hashed: Hash, n: int) -> int:
    """Of all pairs of tests, those whose draws depend on each other, at a level shared among them (Bonferroni)."""
    drawn = [buckets_of(salt, emails(n), hashed) * 10 // FULL_WEIGHT_BP for salt in SALTS]
    return sum(independence(drawn[one], drawn[other]) < LEVEL / len(PAIRS) for one, other in PAIRS)


def test_twenty_tests_at_once_are_independent_pair_by_pair() -> None:
    assert len(set(SALTS)) == TESTS_AT_ONCE
    assert dependent_pairs(bucket, 10_000) == 0


@pytest.mark.long
def test_twenty_tests_at_once_are_independent_pair_by_pair_among_many_subjects() -> None:
    assert dependent_pairs(bucket, 300_000) == 0


@pytest.mark.parametrize("hashed", [ignores_its_salt, adds_its_salt])
def test_draws_that_depend_on_each_other_are_found_out(hashed: Hash) -> None:
    assert dependent_pairs(hashed, 1_000) == len(PAIRS)


def test_a_hash_that_is_not_even_is_found_out() -> None:
    clustered = np.arange(MILLION, dtype=np.int64) % FULL_WEIGHT_BP
    with pytest.raises(AssertionError):
        check_shares(clustered)
