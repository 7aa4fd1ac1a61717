"""What no sequence of events and commands can do; tests/simulation/test_lives.py adds ticks and faults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import ConflictError
from shared.core.messages import CommandKind
from shared.rollout.machine import COMMANDS, TRANSITIONS, RolloutEvent, RolloutState, check_command, next_state

BACK = {RolloutEvent.FAIL, RolloutEvent.ROLLBACK, RolloutEvent.ABORT}


@given(st.lists(st.sampled_from(RolloutEvent), max_size=12))
def test_no_sequence_of_events_leaves_the_table_or_reopens_what_is_over(events: list[RolloutEvent]) -> None:
    state = RolloutState.LOADING
    for event in events:
        if (state, event) in TRANSITIONS:
            assert not state.is_over
            state = next_state(state, event)
        else:
            with pytest.raises(ConflictError, match=f"{state} cannot {event}"):
                next_state(state, event)


def test_every_state_is_reached_and_every_active_one_can_be_taken_back() -> None:
    reached, before = {RolloutState.LOADING}, set[RolloutState]()
    while reached != before:
        before = set(reached)
        reached |= {target for (state, _), target in TRANSITIONS.items() if state in reached}
    assert reached == set(RolloutState)
    for state in RolloutState:
        if not state.is_over:
            assert {event for held, event in TRANSITIONS if held is state} >= BACK


def test_only_completing_makes_a_candidate_stable_and_only_the_switch_has_it_watched() -> None:
    assert {event for (_, event), target in TRANSITIONS.items() if target is RolloutState.PROMOTED} == {
        RolloutEvent.COMPLETE
    }
    assert {event for (_, event), target in TRANSITIONS.items() if target is RolloutState.WATCHING} == {
        RolloutEvent.SWITCH
    }


@pytest.mark.parametrize("command", [kind for kind in CommandKind if kind is not CommandKind.START])
def test_a_command_that_a_state_does_not_hear_is_refused_by_both_names(command: CommandKind) -> None:
    for state in RolloutState:
        if state in COMMANDS[command]:
            check_command(state, command)
        else:
            with pytest.raises(ConflictError, match=f"{state} does not hear {command}; it hears: "):
                check_command(state, command)


def test_a_rollback_is_heard_in_every_state_and_a_promotion_never_while_loading() -> None:
    assert COMMANDS[CommandKind.ROLLBACK] == set(RolloutState)
    with pytest.raises(ConflictError, match="loading does not hear promote; it hears: abort, rollback"):
        check_command(RolloutState.LOADING, CommandKind.PROMOTE)
