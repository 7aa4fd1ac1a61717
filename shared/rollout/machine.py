"""The rollout state machine: one table. What it does not hold is refused, and changes nothing.

Events are what happens to a rollout, whoever brings it about; commands are what people ask for, each in the states that
`COMMANDS` names. docs/rollout-states.md is drawn from these tables; a test fails when it is stale.
"""

from collections.abc import Mapping
from enum import StrEnum

from shared.core.errors import ConflictError
from shared.core.messages import CommandKind


class RolloutState(StrEnum):
    """Where a rollout stands."""

    LOADING = "loading"
    """Servers load and prove the candidate; it has no traffic."""
    AWAITING = "awaiting"
    """What was reached stays as it is until somebody approves of the next stage, or rejects it."""
    PROGRESSING = "progressing"
    """The candidate has a stage's share of the traffic, and the gates watch it."""
    PAUSED = "paused"
    """Somebody halted it: its weight stays, and the gates may still take it back."""
    HELD = "held"
    """Slipway halted it, since it could conclude nothing: its weight stays, and the gates may still take it back."""
    WATCHING = "watching"
    """The candidate has all traffic, the version before it is kept warm, and the triggers watch."""
    PROMOTED = "promoted"
    """The candidate has become stable."""
    CONCLUDED = "concluded"
    """It has run as planned, and was never to take traffic."""
    ROLLED_BACK = "rolled_back"
    """The candidate was taken back because it failed, by Slipway or by command: it is quarantined."""
    ABORTED = "aborted"
    """The candidate was taken back by command, without a fault of its own."""

    @property
    def is_over(self) -> bool:
        """Whether the rollout has ended."""
        return self in OVER

    @property
    def is_halted(self) -> bool:
        """Whether its stage goes on only when somebody says so."""
        return self in {RolloutState.PAUSED, RolloutState.HELD, RolloutState.AWAITING}


OVER = frozenset(
    {RolloutState.PROMOTED, RolloutState.CONCLUDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED},
)


class RolloutEvent(StrEnum):
    """What happens to a rollout."""

    LOADED = "loaded"
    """The servers that report have the candidate ready: the first stage begins."""
    ADVANCE = "advance"
    """The next stage begins."""
    WAIT = "wait"
    """The next stage is one that somebody must approve of."""
    SWITCH = "switch"
    """The candidate gets all traffic, and is watched."""
    COMPLETE = "complete"
    """The candidate becomes stable."""
    CONCLUDE = "conclude"
    """No stage is left, and the strategy ends without a promotion."""
    HOLD = "hold"
    """Nothing could be concluded in time, or be asked."""
    PAUSE = "pause"
    RESUME = "resume"
    SET_WEIGHT = "set_weight"
    """Somebody gave the candidate another share."""
    FAIL = "fail"
    """The gates failed, or nothing could be concluded in time, or the candidate cannot be loaded."""
    ROLLBACK = "rollback"
    """Somebody took it back because it fails."""
    ABORT = "abort"
    """Somebody took it back without a fault of its own, or rejected its next stage."""


_S, _E = RolloutState, RolloutEvent

_ONWARD: dict[RolloutEvent, RolloutState] = {
    _E.ADVANCE: _S.PROGRESSING,
    _E.WAIT: _S.AWAITING,
    _E.SWITCH: _S.WATCHING,
    _E.COMPLETE: _S.PROMOTED,
    _E.CONCLUDE: _S.CONCLUDED,
}
_BACK: dict[RolloutEvent, RolloutState] = {
    _E.FAIL: _S.ROLLED_BACK,
    _E.ROLLBACK: _S.ROLLED_BACK,
    _E.ABORT: _S.ABORTED,
}
_EVENTS: dict[RolloutState, dict[RolloutEvent, RolloutState]] = {
    _S.LOADING: {
        _E.LOADED: _S.PROGRESSING,
        _E.WAIT: _S.AWAITING,
        _E.SWITCH: _S.WATCHING,
        _E.COMPLETE: _S.PROMOTED,
        **_BACK,
    },
    _S.AWAITING: {_E.ADVANCE: _S.PROGRESSING, _E.SWITCH: _S.WATCHING, _E.COMPLETE: _S.PROMOTED, **_BACK},
    _S.PROGRESSING: {
        **_ONWARD,
        _E.HOLD: _S.HELD,
        _E.PAUSE: _S.PAUSED,
        _E.SET_WEIGHT: _S.PROGRESSING,
        **_BACK,
    },
    _S.PAUSED: {_E.RESUME: _S.PROGRESSING, **_ONWARD, _E.SET_WEIGHT: _S.PAUSED, **_BACK},
    _S.HELD: {_E.RESUME: _S.PROGRESSING, **_ONWARD, _E.PAUSE: _S.PAUSED, _E.SET_WEIGHT: _S.HELD, **_BACK},
    _S.WATCHING: {_E.COMPLETE: _S.PROMOTED, **_BACK},
}

TRANSITIONS: Mapping[tuple[RolloutState, RolloutEvent], RolloutState] = {
    (state, event): target for state, events in _EVENTS.items() for event, target in events.items()
}

_HALTED_OR_ON = frozenset({_S.PROGRESSING, _S.PAUSED, _S.HELD})
COMMANDS: Mapping[CommandKind, frozenset[RolloutState]] = {
    CommandKind.PROMOTE: _HALTED_OR_ON | {_S.WATCHING},
    CommandKind.PAUSE: frozenset({_S.PROGRESSING, _S.HELD}),
    CommandKind.RESUME: frozenset({_S.PAUSED, _S.HELD}),
    CommandKind.SKIP: _HALTED_OR_ON,
    CommandKind.SET_WEIGHT: _HALTED_OR_ON,
    CommandKind.APPROVE: frozenset({_S.AWAITING}),
    CommandKind.REJECT: frozenset({_S.AWAITING}),
    CommandKind.ABORT: frozenset(_EVENTS),
    CommandKind.ROLLBACK: frozenset(_S),
}
"""The states in which each command to a rollout is heard. ROLLBACK of one that is over takes its endpoint back to the
last known good version."""


def next_state(state: RolloutState, event: RolloutEvent) -> RolloutState:
    """The state that an event leads to. Raises ConflictError, naming both, where the table does not hold the pair."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        possible = ", ".join(allowed for held, allowed in TRANSITIONS if held is state) or "nothing, it is over"
        raise ConflictError(f"a rollout that is {state} cannot {event}; possible now: {possible}") from None


def check_command(state: RolloutState, command: CommandKind) -> None:
    """Raise ConflictError, naming both, where a rollout in this state does not hear the command."""
    if state not in COMMANDS[command]:
        possible = ", ".join(heard for heard, states in COMMANDS.items() if state in states)
        raise ConflictError(f"a rollout that is {state} does not hear {command}; it hears: {possible}")


def state_diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {RolloutState.LOADING}"]
    lines += [f"    {state} --> {target}: {event}" for (state, event), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in RolloutState if state.is_over]
    return "\n".join(lines)


def command_table() -> str:
    """Which commands are heard in which states, as a table in Markdown."""
    lines = ["| command | is heard while the rollout is |", "| --- | --- |"]
    for command, states in COMMANDS.items():
        heard = ", ".join(f"`{state}`" for state in RolloutState if state in states)
        lines.append(f"| `{command}` | {heard} |")
    return "\n".join(lines)
