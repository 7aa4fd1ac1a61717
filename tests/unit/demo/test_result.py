from dataclasses import replace
from typing import Any

import pytest

from local.demo.answers import Answer
from local.demo.result import Result, VersionTally, counts_of, fault_to_zero_traffic_s, first_answer_s, tallies
from local.demo.stickiness import PlanFacts

GOOD = Result(
    drop_to_registered_s=1.0,
    drop_to_first_answer_s=4.256,
    fault_to_zero_traffic_s=3.0,
    requests=3_000,
    failed=0,
    unsticky=0,
    promoted=1,
    rejected=1,
    rolled_back=1,
    audit_verified=True,
)
PLANS = {
    1: PlanFacts(generation=1, stable=2, candidate=3, weight_bp=1_000, rollout_id="r"),
    2: PlanFacts(generation=2, stable=2),
}


def answer(at_s: float, version: int, *, generation: int = 1, fallback: bool = False, right: int = 1) -> Answer:
    return Answer(
        user="user",
        sent_s=at_s - 0.1,
        answered_s=at_s,
        generation=generation,
        version=version,
        role="stable",
        fallback=fallback,
        rows=2,
        right=right,
    )


def test_the_json_has_the_promised_keys_in_order() -> None:
    assert list(GOOD.as_json()) == [
        "drop_to_registered_s",
        "drop_to_first_answer_s",
        "fault_to_zero_traffic_s",
        "requests",
        "failed",
        "unsticky",
        "promoted",
        "rejected",
        "rolled_back",
        "audit_verified",
    ]
    assert GOOD.as_json()["drop_to_first_answer_s"] == 4.26
    assert GOOD.as_json()["audit_verified"] is True


def test_a_good_result_has_no_problems() -> None:
    assert GOOD.problems() == []


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (replace(GOOD, failed=2), "failed is 2 and should be 0"),
        (replace(GOOD, unsticky=1), "unsticky is 1 and should be 0"),
        (replace(GOOD, promoted=0), "promoted is 0 and should be 1"),
        (replace(GOOD, promoted=2), "promoted is 2 and should be 1"),
        (replace(GOOD, rejected=0), "rejected is 0 and should be 1"),
        (replace(GOOD, rolled_back=2), "rolled_back is 2 and should be 1"),
        (replace(GOOD, audit_verified=False), "audit_verified is false and should be true"),
        (replace(GOOD, fault_to_zero_traffic_s=None), "fault_to_zero_traffic_s was not measured"),
        (replace(GOOD, requests=0), "no request was sent"),
    ],
)
def test_each_number_that_is_not_as_it_should_be_is_a_sentence(bad: Result, sentence: str) -> None:
    assert bad.problems() == [sentence]


def test_the_fault_lasts_from_the_first_fallback_to_the_last_request_of_the_candidate() -> None:
    answers = [
        answer(1.0, 2),
        answer(2.0, 3),
        answer(3.0, 2, fallback=True),
        answer(4.5, 3),
        answer(5.5, 2, fallback=True),
        answer(5.75, 3),
        answer(6.0, 2, generation=2),
    ]
    assert fault_to_zero_traffic_s(answers, PLANS, 3) == 2.75
    assert fault_to_zero_traffic_s(answers[:2], PLANS, 3) is None


def test_the_first_answer_is_the_earliest_whatever_order_they_came_to_be_noted_in() -> None:
    answers = [answer(3.0, 2), answer(2.5, 3), answer(2.0, 3)]
    assert first_answer_s(answers, 3) == 2.0
    assert first_answer_s(answers, 4) is None


def test_answers_are_tallied_by_the_version_that_gave_them() -> None:
    seen = tallies([answer(1, 2), answer(2, 2, fallback=True, right=2), answer(3, 3, right=0)])
    assert seen == {
        2: VersionTally(requests=2, images=4, right=3, stood_in=1),
        3: VersionTally(requests=1, images=2, right=0, stood_in=0),
    }
    assert seen[2].accuracy == 0.75
    assert VersionTally().accuracy is None


def test_the_first_rollout_is_no_promotion_over_a_stable_version() -> None:
    rollouts: list[dict[str, Any]] = [
        {"state": "promoted", "stable": None},
        {"state": "promoted", "stable": 1},
        {"state": "promoted", "stable": 2},
        {"state": "rolled_back", "stable": 2},
        {"state": "aborted", "stable": 2},
    ]
    versions = [{"state": "validated"}, {"state": "rejected"}, {"state": "validated"}]
    assert counts_of(versions, rollouts) == {"promoted": 2, "rejected": 1, "rolled_back": 1}
