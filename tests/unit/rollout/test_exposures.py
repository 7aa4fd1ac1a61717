"""Requests counted by side, and by who signed what named a version."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rollout.machine import RolloutState
from shared.rollout.progress import Exposures
from shared.rollout.ticks import took_in
from shared.telemetry.window import MAX_NAMES, OTHERS, added_names
from tests.unit.rollout.evidence import CANDIDATE, STABLE, counted, rollout, window

BOTH = {CANDIDATE: counted(100, 40), STABLE: counted(900)}


def test_exposures_are_what_was_assigned_whether_or_not_it_was_answered_and_each_window_counts_once() -> None:
    first = took_in(rollout(), [window(1, 3, BOTH)], 3)
    assert first.exposures == Exposures(candidate=100, stable=900, expected=100.0)
    again = took_in(rollout().model_copy(update={"progress": first}), [window(1, 3, BOTH), window(2, 3, BOTH)], 3)
    assert again.exposures == Exposures(candidate=200, stable=1_800, expected=200.0)


@pytest.mark.parametrize(
    "changes",
    [{"set_weight_bp": 0}, {"set_weight_bp": 10_000}, {"state": RolloutState.WATCHING}, {"stage": None}],
)
def test_where_one_side_has_no_share_nothing_is_exposed(changes: dict[str, Any]) -> None:
    assert took_in(rollout(**changes), [window(1, 3, BOTH)], 3).exposures == Exposures()


def test_what_the_shares_call_for_follows_each_share() -> None:
    found = Exposures().and_more(10, 90, 1_000).and_more(60, 40, 5_000)
    assert found == Exposures(candidate=70, stable=130, expected=60.0)


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 100)), max_size=40))
def test_names_add_up_and_stay_few_and_nothing_is_lost(parts: list[dict[str, int]]) -> None:
    total = added_names(parts)
    assert sum(total.values()) == sum(sum(part.values()) for part in parts)
    assert len(total) <= MAX_NAMES


def test_of_too_many_names_some_are_kept_with_all_that_they_count() -> None:
    many = {f"signer {n}": n for n in range(1, 100)}
    found = added_names([many, {OTHERS: 5}])
    assert len(found) == MAX_NAMES
    assert all(found[name] == many[name] for name in found if name != OTHERS)
    assert found[OTHERS] == 5 + sum(many.values()) - sum(v for name, v in found.items() if name != OTHERS)


def test_overrides_of_the_latest_tick_are_kept_by_version_and_signer_whatever_plan_they_came_under() -> None:
    named = {CANDIDATE: counted(0, overrides={"ann": 2}), STABLE: counted(0, overrides={"bob": 1})}
    late = window(1, 2, {CANDIDATE: counted(0, overrides={"ann": 1})})
    found = took_in(rollout(), [late, window(2, 3, named)], 3)
    assert found.overrides == {CANDIDATE: {"ann": 3}, STABLE: {"bob": 1}}
    assert found.of(CANDIDATE).overrides == {"ann": 2}
    assert took_in(rollout().model_copy(update={"progress": found}), [], 3).overrides == {}
