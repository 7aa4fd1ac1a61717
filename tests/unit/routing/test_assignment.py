import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.routing.assignment import bucket, route_for
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan

_FILE = json.loads(Path(__file__).with_name("assignment_vectors.json").read_text())
_VECTORS = _FILE["cases"]
_DIGEST = "0" * 64
_subjects = st.text(st.characters(codec="utf-8"), max_size=40)
_weights = st.integers(0, FULL_WEIGHT_BP)


def _plan(candidate_bp: int, *, salt: str = "salt", generation: int = 1) -> RoutePlan:
    shares = ((1, Role.STABLE, FULL_WEIGHT_BP - candidate_bp), (2, Role.CANDIDATE, candidate_bp))
    routes = tuple(
        Route(version=version, role=role, weight_bp=share, artifact_digest=_DIGEST, size_bytes=1)
        for version, role, share in shares
    )
    return RoutePlan(endpoint="churn", generation=generation, salt=salt, routes=routes)


def _version(plan: RoutePlan, subject: str) -> int:
    route = route_for(plan, bucket(plan.salt, subject))
    assert route is not None
    return route.version


@pytest.mark.parametrize("case", _VECTORS, ids=lambda case: f"{case['salt']}-{case['subject'][:12]!r}")
def test_bucket_equals_the_golden_vector(case: dict[str, str | int]) -> None:
    assert bucket(str(case["salt"]), str(case["subject"])) == case["bucket"]


@pytest.mark.parametrize("case", _FILE["assignments"], ids=lambda case: f"{case['subject']}-{case['weight_bp']}")
def test_the_role_that_answers_equals_the_golden_vector(case: dict[str, str | int]) -> None:
    plan = _plan(int(case["weight_bp"]), salt=str(case["salt"]))
    route = route_for(plan, bucket(plan.salt, str(case["subject"])))
    assert route is not None
    assert route.role == case["role"]


@given(salt=_subjects, subject=_subjects)
def test_bucket_is_within_the_ten_thousand(salt: str, subject: str) -> None:
    assert 0 <= bucket(salt, subject) < FULL_WEIGHT_BP


@given(subject=_subjects, salt=_subjects, weights=st.lists(_weights, min_size=2, max_size=6))
def test_a_ramp_up_never_moves_a_subject_off_the_candidate(subject: str, salt: str, weights: list[int]) -> None:
    versions = [
        _version(_plan(weight, salt=salt, generation=n + 1), subject) for n, weight in enumerate(sorted(weights))
    ]
    assert versions == sorted(versions)


@given(subject=_subjects, salt=_subjects, weight=_weights)
def test_the_version_depends_on_salt_and_subject_alone(subject: str, salt: str, weight: int) -> None:
    answers = {_version(_plan(weight, salt=salt, generation=generation), subject) for generation in (1, 7, 99)}
    assert len(answers) == 1


@pytest.mark.parametrize("weight", [1, 500, 1_000, 5_000, 9_999])
def test_the_candidate_gets_its_share_of_many_subjects(weight: int) -> None:
    n = 100_000
    plan = _plan(weight)
    share = sum(_version(plan, f"user-{i}") == 2 for i in range(n)) / n
    expected = weight / FULL_WEIGHT_BP
    assert abs(share - expected) < 5 * (expected * (1 - expected) / n) ** 0.5


def test_no_weight_and_full_weight_leave_nobody_over() -> None:
    assert {_version(_plan(0), f"{i}") for i in range(2_000)} == {1}
    assert {_version(_plan(FULL_WEIGHT_BP), f"{i}") for i in range(2_000)} == {2}


def test_two_salts_draw_independently() -> None:
    n = 40_000
    pairs = Counter((bucket("a", f"u{i}") < 5_000, bucket("b", f"u{i}") < 5_000) for i in range(n))
    for count in pairs.values():
        assert abs(count / n - 0.25) < 0.015
    assert len(pairs) == 4


def test_salt_and_subject_do_not_run_together() -> None:
    assert bucket("ab", "c") != bucket("a", "bc")


def test_a_plan_without_routes_assigns_nobody() -> None:
    assert route_for(RoutePlan(endpoint="churn", generation=1, salt="s", routes=()), 0) is None
