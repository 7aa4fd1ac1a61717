"""Commands to a rollout that is there: pure changes of the endpoint, each heard once under its command id.

Each is heard in the states that the machine's table names; elsewhere it is refused, and changes nothing. Whoever brings
a candidate further than the gates did is named in the audit.
"""

from collections.abc import Callable
from datetime import datetime

from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.messages import CommandKind, RolloutCommand
from shared.rollout import steps
from shared.rollout.approvers import (
    LinkUsedError,
    check_approver,
    check_link,
    check_named,
    check_share,
    check_stage,
    record_answer,
    stage_named,
)
from shared.rollout.blocks import check_override, pass_block
from shared.rollout.decide import onward, to_all_traffic
from shared.rollout.documents import Rollout, StageApproval, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutEvent, RolloutState, check_command, next_state
from shared.rollout.reverts import better_than_stable, revert
from shared.rollout.schedule import QuietStage
from shared.routing.plan import FULL_WEIGHT_BP

_HEARD_KEPT = 200
_EVENTS = {
    CommandKind.PAUSE: RolloutEvent.PAUSE,
    CommandKind.RESUME: RolloutEvent.RESUME,
    CommandKind.SET_WEIGHT: RolloutEvent.SET_WEIGHT,
    CommandKind.REJECT: RolloutEvent.ABORT,
    CommandKind.ABORT: RolloutEvent.ABORT,
    CommandKind.ROLLBACK: RolloutEvent.ROLLBACK,
}


def apply(
    endpoint: Endpoint,
    command: RolloutCommand,
    now: datetime,
    *,
    altered: str = "",
    blocked: Callable[[], str] = str,
    author: str = "",
    unfit: frozenset[int] = frozenset(),
) -> bool:
    """Carry a command out. Whether anything changed: a command that was heard before changes nothing.

    `altered` says what of the candidate's stored parts is not what was registered, `blocked` why no candidate may get
    more traffic now (asked only by what gives it more), `author` who made the candidate, `unfit` which versions nothing
    may go back to. Raises NotFoundError, ConflictError where the state does not allow it or a signed link has served,
    InvalidInputError.
    """
    rollout = endpoint.rollout
    if rollout is not None:
        check_link(rollout, command.link_id)
    if endpoint.has_heard(command):
        if command.link_id:
            raise LinkUsedError("this link has served: ask for another")
        return False
    if rollout is None or (command.rollout_id and rollout.rollout_id != command.rollout_id):
        named = f"rollout {command.rollout_id}" if command.rollout_id else "a rollout"
        raise NotFoundError(f"{named} of endpoint {endpoint.endpoint}", hint="only the latest one hears")
    check_command(rollout.state, command.command)
    check_named(command)
    check_override(command)
    said = command.reason or f"{command.command} by {command.requested_by}"
    if rollout.state.is_over:
        back = _way_back(endpoint, rollout, command, unfit)
        _hear(endpoint, rollout, command)
        revert(endpoint, back, now, by=command.requested_by, reason=said)
        return True
    to = _back_to(endpoint, rollout, command, unfit) if command.command is CommandKind.ROLLBACK else None
    event = _event(endpoint, rollout, command, now, altered=altered, blocked=blocked, author=author)
    # Noted before the step: a rollout that it ends is archived as it then stands.
    _hear(endpoint, rollout, command)
    if _passes_gates_over(rollout, command, event):
        rollout.promoted_by = command.requested_by
    if next_state(rollout.state, event).is_over:
        rollout.ended_by = command.command_id
    if event is RolloutEvent.ABORT and rollout.state is RolloutState.AWAITING:
        # Who skipped to the approval of the switch gave it all traffic only once somebody approves.
        rollout.promoted_by = ""
    weight_bp = command.weight_bp if event is RolloutEvent.SET_WEIGHT else None
    steps.move(endpoint, rollout, event, now, reason=said, by=command.requested_by, weight_bp=weight_bp, to=to)
    return True


def _passes_gates_over(rollout: Rollout, command: RolloutCommand, event: RolloutEvent) -> bool:
    """Whether a command brings the candidate to all traffic, or to be approved for it, whatever the gates say."""
    if command.command is CommandKind.APPROVE:
        return False
    return event in {RolloutEvent.SWITCH, RolloutEvent.COMPLETE} or (
        event is RolloutEvent.WAIT and rollout.next_stage >= len(rollout.stages)
    )


def _hear(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand) -> None:
    endpoint.hear(command)
    rollout.heard = [*rollout.heard, command.command_id][-_HEARD_KEPT:]


def _event(
    endpoint: Endpoint,
    rollout: Rollout,
    command: RolloutCommand,
    now: datetime,
    *,
    altered: str,
    blocked: Callable[[], str],
    author: str,
) -> RolloutEvent:
    if event := _EVENTS.get(command.command):
        if command.command is CommandKind.REJECT:
            check_stage(rollout, command.stage)
            record_answer(endpoint, rollout, command, now)
        _check_weight(endpoint, rollout, command, now, altered=altered, blocked=blocked)
        return event
    _check_unaltered(endpoint, rollout, altered, "be promoted")
    if rollout.state is not RolloutState.WATCHING and (why := blocked()):
        pass_block(endpoint, rollout, command, now, why)
    if command.command is CommandKind.APPROVE:
        _approve(endpoint, rollout, command, now, author)
        return onward(rollout)
    if command.command is CommandKind.SKIP:
        return onward(rollout)
    _check_approved_to_the_end(rollout)
    return to_all_traffic(rollout)


def _check_unaltered(endpoint: Endpoint, rollout: Rollout, altered: str, deed: str) -> None:
    if altered:
        raise ConflictError(
            f"version {rollout.candidate.version} of {endpoint.endpoint} cannot {deed}: {altered}; abort the "
            "rollout, or put the right bytes back"
        )


def _check_weight(
    endpoint: Endpoint,
    rollout: Rollout,
    command: RolloutCommand,
    now: datetime,
    *,
    altered: str,
    blocked: Callable[[], str],
) -> None:
    if command.command is not CommandKind.SET_WEIGHT:
        return
    if command.weight_bp is None:
        raise InvalidInputError("set-weight needs a weight_bp: the candidate's share in basis points, 0 to 9999")
    if rollout.stable is None or isinstance(rollout.current, QuietStage):
        raise ConflictError(f"a {rollout.policy.strategy} has no weight to set in this stage")
    if command.weight_bp >= FULL_WEIGHT_BP:
        raise InvalidInputError("set-weight gives less than all traffic, beside which nothing is compared: promote it")
    check_share(rollout, command.weight_bp)
    if command.weight_bp > rollout.weight_bp:
        _check_unaltered(endpoint, rollout, altered, "be given more traffic")
        if why := blocked():
            pass_block(endpoint, rollout, command, now, why)


def _approve(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand, now: datetime, author: str) -> None:
    check_stage(rollout, command.stage)
    check_approver(rollout, command.requested_by, author)
    approval = StageApproval(stage=rollout.next_stage, by=command.requested_by.strip(), at=now, link_id=command.link_id)
    record_answer(endpoint, rollout, command, now)
    rollout.approvals = [*rollout.approvals, approval]


def _check_approved_to_the_end(rollout: Rollout) -> None:
    waiting = [n for n in range(rollout.next_stage, len(rollout.stages) + 1) if not rollout.is_approved(n)]
    if waiting and rollout.state is not RolloutState.WATCHING:
        names = " and ".join(stage_named(rollout, n) for n in waiting)
        raise ConflictError(
            f"a promotion would pass over {names}, of which somebody must approve first: skip to the next stage, "
            "and it waits for that"
        )


def _way_back(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand, unfit: frozenset[int]) -> Target:
    """What is to serve in place of stable, no rollout being under way. Raises ConflictError.

    Where stable did not come with the latest rollout, the version must be named: a rollback that comes a moment after
    Slipway's own, or after what somebody else did, must not take a good version back too.
    """
    stable = endpoint.stable
    if stable is None:
        raise ConflictError(f"endpoint {endpoint.endpoint} has no stable version: nothing can be rolled back")
    if command.version is not None:
        found = _known_good(endpoint, command.version, unfit)
        if found is None or found.version == stable.version:
            raise ConflictError(f"version {stable.version} serves on {endpoint.endpoint} already")
        return found
    if not _is_meant(rollout, stable):
        raise ConflictError(
            f"the latest rollout of {endpoint.endpoint}, of version {rollout.candidate.version}, is {rollout.state}, "
            f"and version {stable.version} serves, which may be good: to take that back, name the version to go back "
            f"to ({_names(endpoint, unfit)})"
        )
    back = next((t for t in reversed(endpoint.good) if t.version not in {stable.version, *unfit}), None)
    if back is None:
        raise ConflictError(
            f"endpoint {endpoint.endpoint} has no known good version besides {stable.version}: roll a version out"
        )
    return back


def _is_meant(rollout: Rollout, stable: Target) -> bool:
    """Whether a rollback that names no version means stable: it came with the latest rollout, and serves since."""
    return rollout.state is RolloutState.PROMOTED and rollout.candidate.version == stable.version


def _back_to(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand, unfit: frozenset[int]) -> Target | None:
    """What is to serve in place of the candidate and of stable: the version named, or a better one than stable."""
    candidate = rollout.candidate.version
    if command.version == candidate:
        raise ConflictError(f"version {candidate} is what is taken back: name another version, or none")
    found = _known_good(endpoint, command.version, unfit)
    return better_than_stable(endpoint, candidate, unfit) if found is None else found


def _known_good(endpoint: Endpoint, version: int | None, unfit: frozenset[int]) -> Target | None:
    """The version that a rollback names, None where it names none. Raises ConflictError where it is not known good."""
    if version is None:
        return None
    found = next((target for target in endpoint.good if target.version == version), None)
    if found is None or version in unfit:
        raise ConflictError(
            f"version {version} is no known good version of {endpoint.endpoint}; these are: {_names(endpoint, unfit)}"
        )
    return found


def _names(endpoint: Endpoint, unfit: frozenset[int]) -> str:
    serving = endpoint.stable.version if endpoint.stable else 0
    others = [target.version for target in endpoint.good if target.version not in {serving, *unfit}]
    return ", ".join(str(version) for version in others) or "none"
