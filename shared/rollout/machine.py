"""The rollout state machine: one table. What it does not hold is refused, and changes nothing.

docs/rollout-states.md is drawn from this table; a test fails when it is stale.
"""

from enum import StrEnum

from shared.core.errors import ConflictError


class RolloutState(StrEnum):
    """Where a rollout stands."""

    LOADING = "loading"
    """Servers load and prove the candidate; it has no traffic."""
    PROGRESSING = "progressing"
    """The candidate has a stage's share of the traffic, and the gates watch it."""
    PROMOTED = "promoted"
    """The candidate has become stable."""
    ROLLED_BACK = "rolled_back"
    """The candidate was taken back by Slipway itself."""
    ABORTED = "aborted"
    """The candidate was taken back by command."""

    @property
    def is_over(self) -> bool:
        """Whether the rollout has ended."""
        return self in {RolloutState.PROMOTED, RolloutState.ROLLED_BACK, RolloutState.ABORTED}


class RolloutEvent(StrEnum):
    """What moves a rollout."""

    LOADED = "loaded"
    """The servers that report have the candidate ready, and the strategy has stages."""
    ADVANCE = "advance"
    """The gates passed for as long as the stage lasts, and another stage follows."""
    COMPLETE = "complete"
    """No stage is left."""
    FAIL = "fail"
    """The gates failed, or nothing could be concluded in time, or the candidate cannot be loaded."""
    PROMOTE = "promote"
    """Somebody promoted it by command, whatever the gates say."""
    ABORT = "abort"
    """Somebody took it back by command."""


TRANSITIONS: dict[tuple[RolloutState, RolloutEvent], RolloutState] = {
    (RolloutState.LOADING, RolloutEvent.LOADED): RolloutState.PROGRESSING,
    (RolloutState.LOADING, RolloutEvent.COMPLETE): RolloutState.PROMOTED,
    (RolloutState.LOADING, RolloutEvent.FAIL): RolloutState.ROLLED_BACK,
    (RolloutState.LOADING, RolloutEvent.ABORT): RolloutState.ABORTED,
    (RolloutState.PROGRESSING, RolloutEvent.ADVANCE): RolloutState.PROGRESSING,
    (RolloutState.PROGRESSING, RolloutEvent.COMPLETE): RolloutState.PROMOTED,
    (RolloutState.PROGRESSING, RolloutEvent.FAIL): RolloutState.ROLLED_BACK,
    (RolloutState.PROGRESSING, RolloutEvent.PROMOTE): RolloutState.PROMOTED,
    (RolloutState.PROGRESSING, RolloutEvent.ABORT): RolloutState.ABORTED,
}


def next_state(state: RolloutState, event: RolloutEvent) -> RolloutState:
    """The state that an event leads to. Raises ConflictError, naming both, where the table does not hold the pair."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        possible = ", ".join(allowed for held, allowed in TRANSITIONS if held is state) or "nothing, it is over"
        raise ConflictError(f"a rollout that is {state} cannot {event}; possible now: {possible}") from None


def state_diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {RolloutState.LOADING}"]
    lines += [f"    {state} --> {target}: {event}" for (state, event), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in RolloutState if state.is_over]
    return "\n".join(lines)
