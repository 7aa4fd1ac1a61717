from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from local.demo.answers import Answer
from local.demo.stickiness import PlanFacts, assigned, plans_of, unsticky

FIRST = "rollout-1"
CANARY = "rollout-2"
FAULTY = "rollout-3"

EVENTS: list[dict[str, Any]] = [
    {"kind": "rollout_started", "data": {"rollout_id": FIRST, "version": 1, "stable": None}},
    {"kind": "rollout_promoted", "data": {"rollout_id": FIRST, "version": 1, "weight_bp": 0, "generation": 2}},
    {"kind": "rollout_queued", "data": {"version": 2}},
    {"kind": "rollout_started", "data": {"rollout_id": CANARY, "version": 2, "stable": 1}},
    {"kind": "stage_started", "data": {"rollout_id": CANARY, "version": 2, "weight_bp": 1_000, "generation": 4}},
    {"kind": "check_failed", "data": {"rollout_id": CANARY, "failed_checks": 1}},
    {"kind": "stage_started", "data": {"rollout_id": CANARY, "version": 2, "weight_bp": 5_000, "generation": 5}},
    {"kind": "rollout_promoted", "data": {"rollout_id": CANARY, "version": 2, "weight_bp": 0, "generation": 6}},
    {"kind": "rollout_started", "data": {"rollout_id": FAULTY, "version": 3, "stable": 2}},
    {"kind": "stage_started", "data": {"rollout_id": FAULTY, "version": 3, "weight_bp": 1_000, "generation": 8}},
    {"kind": "rollout_rolled_back", "data": {"rollout_id": FAULTY, "version": 3, "weight_bp": 0, "generation": 9}},
]
PLANS = plans_of(EVENTS)


def history(
    user: str, met: Iterable[tuple[int, int]], *, fallbacks: Iterable[tuple[int, int]] = (), start_s: float = 0.0
) -> list[Answer]:
    """A user's answers, one after the other: (generation, version that answered); some of them fallbacks."""
    stood_in = set(fallbacks)
    return [
        Answer(
            user=user,
            sent_s=start_s + index,
            answered_s=start_s + index + 0.5,
            generation=generation,
            version=version,
            role="stable",
            fallback=(generation, version) in stood_in,
            rows=1,
            right=1,
        )
        for index, (generation, version) in enumerate(met)
    ]


def test_the_audit_trail_tells_what_each_generation_of_the_plan_said() -> None:
    assert list(PLANS) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert PLANS[1] == PlanFacts(generation=1, stable=None, candidate=1, rollout_id=FIRST)
    assert PLANS[2] == PlanFacts(generation=2, stable=1)
    assert PLANS[3] == PlanFacts(generation=3, stable=1, candidate=2, rollout_id=CANARY)
    assert PLANS[5] == PlanFacts(generation=5, stable=1, candidate=2, weight_bp=5_000, rollout_id=CANARY)
    assert PLANS[6] == PlanFacts(generation=6, stable=2)
    assert PLANS[9] == PlanFacts(generation=9, stable=2)


def test_an_aborted_rollout_leaves_stable_alone() -> None:
    events = [*EVENTS[:5], {"kind": "rollout_aborted", "data": {"rollout_id": CANARY, "version": 2, "generation": 5}}]
    assert plans_of(events)[5] == PlanFacts(generation=5, stable=1)


def test_a_gap_in_the_audit_trail_is_an_error() -> None:
    with pytest.raises(ValueError, match="stage_started is of generation 4, and the events before it lead to 3"):
        plans_of([*EVENTS[:2], EVENTS[4]])


@pytest.mark.parametrize(
    "met",
    [
        pytest.param([(2, 1), (3, 1), (4, 1), (5, 1), (6, 2)], id="the promotion takes everybody"),
        pytest.param([(2, 1), (4, 1), (4, 1), (5, 2), (5, 2), (6, 2)], id="the ramp takes some earlier"),
        pytest.param([(2, 1), (4, 2), (5, 2), (6, 2)], id="and some at once"),
        pytest.param([(6, 2), (8, 3), (8, 3), (9, 2)], id="the rollback brings everybody back"),
        pytest.param([(2, 1), (9, 2)], id="who was away missed it all"),
    ],
)
def test_who_moves_with_the_ramp_is_sticky(met: list[tuple[int, int]]) -> None:
    assert unsticky(history("user", met), PLANS) == {}


@pytest.mark.parametrize(
    ("met", "wrong"),
    [
        pytest.param([(4, 1), (4, 2)], "versions 1 and 2 under generation 4", id="to and fro under one plan"),
        pytest.param([(4, 2), (5, 2), (5, 1)], "versions 2 and 1 under generation 5", id="back under one plan"),
        pytest.param([(4, 2), (5, 1)], "from version 2 to 1 while", id="back though the weight rose"),
        pytest.param([(3, 2)], "version 2 under generation 3, which did not allow it", id="the candidate is loading"),
        pytest.param([(6, 1)], "version 1 under generation 6, which did not allow it", id="stable no more"),
        pytest.param([(9, 3)], "version 3 under generation 9, which did not allow it", id="taken back"),
        pytest.param([(4, 7)], "version 7 under generation 4, which did not allow it", id="in no plan"),
        pytest.param([(12, 2)], "generation 12, which the audit trail does not know", id="from no plan"),
    ],
)
def test_who_moves_otherwise_is_found_and_told(met: list[tuple[int, int]], wrong: str) -> None:
    found = unsticky([*history("mover", met), *history("other", [(4, 1), (5, 2), (6, 2)])], PLANS)
    assert list(found) == ["mover"]
    assert wrong in found["mover"]


def test_a_fallback_belongs_to_the_candidate_that_failed() -> None:
    answers = history("user", [(8, 3), (8, 2), (9, 2)], fallbacks=[(8, 2)])
    assert [assigned(answer, PLANS) for answer in answers] == [3, 3, 2]
    assert unsticky(answers, PLANS) == {}


def test_a_guard_may_take_a_candidates_users_to_stable_before_the_rollback_does_and_never_back() -> None:
    assert unsticky(history("user", [(8, 3), (8, 2), (8, 2), (9, 2)]), PLANS) == {}
    found = unsticky(history("user", [(8, 3), (8, 2), (8, 3), (9, 2)]), PLANS)
    assert "versions 3 and 2 under generation 8" in found["user"]
    assert "versions 2 and 1 under generation 5" in unsticky(history("user", [(5, 2), (5, 1)]), PLANS)["user"]


def test_requests_that_were_under_way_together_may_meet_what_the_guard_takes_back_in_either_order() -> None:
    stable, candidate = history("user", [(8, 2), (8, 3)])
    assert "versions 2 and 3 under generation 8" in unsticky([stable, candidate], PLANS)["user"]
    assert unsticky([replace(stable, answered_s=candidate.answered_s), candidate], PLANS) == {}
    stable, candidate = history("user", [(5, 1), (5, 2)])
    assert "user" in unsticky([replace(stable, answered_s=candidate.answered_s), candidate], PLANS)


def test_who_had_the_candidate_may_meet_stable_first_under_the_plan_in_which_it_was_taken_back() -> None:
    plans = {
        number: PlanFacts(
            generation=number, stable=1, candidate=2, weight_bp=number, rollout_id=CANARY, taken_back=number == 2
        )
        for number in (1, 2)
    }
    assert unsticky(history("user", [(1, 2), (2, 1)]), plans) == {}
    plans[2] = replace(plans[2], taken_back=False)
    assert "from version 2 to 1" in unsticky(history("user", [(1, 2), (2, 1)]), plans)["user"]


def test_a_move_to_stable_while_others_are_still_given_the_candidate_is_no_guards() -> None:
    others = history("other", [(8, 3), (8, 3)], start_s=10.0)
    assert (
        "versions 3 and 2 under generation 8" in unsticky([*history("user", [(8, 3), (8, 2)]), *others], PLANS)["user"]
    )
    after = history("user", [(8, 3), (8, 2)], start_s=10.6)
    assert unsticky([*after, *others], PLANS) == {}
    plans = {
        number: PlanFacts(
            generation=number, stable=1, candidate=2, weight_bp=number, rollout_id=CANARY, taken_back=number == 2
        )
        for number in (1, 2)
    }
    moved = history("user", [(1, 2), (2, 1)])
    assert unsticky(moved, plans) == {}
    assert "from version 2 to 1" in unsticky([*moved, *history("other", [(2, 2)], start_s=9.0)], plans)["user"]


def test_a_fallback_under_a_plan_without_a_candidate_is_found() -> None:
    assert "version None" in unsticky(history("user", [(6, 2)], fallbacks=[(6, 2)]), PLANS)["user"]


def test_a_weight_that_does_not_rise_explains_no_move() -> None:
    plans = {
        number: PlanFacts(generation=number, stable=1, candidate=2, weight_bp=1_000, rollout_id=CANARY)
        for number in (1, 2)
    }
    assert "from 1000 to 1000" in unsticky(history("user", [(1, 1), (2, 2)]), plans)["user"]


def test_an_older_plan_that_answers_after_a_newer_one_with_another_version_is_found() -> None:
    found = unsticky(history("user", [(5, 2), (4, 1)]), PLANS)
    assert found == {"user": "version 1 of generation 4 after version 2 of generation 5"}


def test_answers_that_overtake_each_other_are_no_return() -> None:
    first, second = history("user", [(5, 2), (4, 1)])
    sent_before_the_newer_plan_answered = Answer(
        user="user",
        sent_s=first.sent_s,
        answered_s=second.answered_s,
        generation=4,
        version=1,
        role="stable",
        fallback=False,
        rows=1,
        right=1,
    )
    assert unsticky([first, sent_before_the_newer_plan_answered], PLANS) == {}


def test_every_user_is_judged_apart() -> None:
    answers = [
        *history("a", [(4, 1), (4, 2)]),
        *history("b", [(5, 2), (6, 1)]),
        *history("c", [(4, 2), (5, 2), (6, 2), (8, 2), (9, 2)]),
    ]
    assert sorted(unsticky(answers, PLANS)) == ["a", "b"]
