"""How verdicts join."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.core.verdict import Outcome, Verdict, joined

BY_SEVERITY = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.FAIL]
outcomes = st.lists(st.sampled_from(Outcome))


def verdicts(given_outcomes: list[Outcome]) -> list[Verdict]:
    return [Verdict(check="c", outcome=outcome, sentence="s") for outcome in given_outcomes]


def test_no_verdicts_are_inconclusive() -> None:
    assert joined([]) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("one", "other"), list(product(range(4), repeat=2)))
def test_the_worse_of_two_stands(one: int, other: int) -> None:
    assert joined(verdicts([BY_SEVERITY[one], BY_SEVERITY[other]])) is BY_SEVERITY[max(one, other)]


@given(outcomes, outcomes)
def test_joining_in_parts_is_joining_at_once(one: list[Outcome], other: list[Outcome]) -> None:
    if one and other:
        assert joined(verdicts([joined(verdicts(one)), joined(verdicts(other))])) is joined(verdicts(one + other))


@given(outcomes)
def test_it_passes_only_where_something_passed_and_nothing_else_came(given_outcomes: list[Outcome]) -> None:
    passes = bool(given_outcomes) and set(given_outcomes) == {Outcome.PASS}
    assert (joined(verdicts(given_outcomes)) is Outcome.PASS) is passes


def test_a_verdict_round_trips_and_takes_no_unknown_field() -> None:
    verdict = Verdict(check="p99", outcome=Outcome.FAIL, sentence="260 ms over 200 ms", n=40, value=260.5, limit=200.0)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert '"outcome":"fail"' in verdict.model_dump_json()
    with pytest.raises(ValidationError):
        Verdict.model_validate({"check": "c", "outcome": "pass", "sentence": "s", "unknown": 1})
    with pytest.raises(ValidationError):
        Verdict.model_validate({"check": "c", "outcome": "good", "sentence": "s"})
