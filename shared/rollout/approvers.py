"""Who may approve of what: somebody other than those who made the candidate or asked for its rollout, and each signed
link once. A raised weight is no way round an approval. Pure, within the endpoint's conditional change; each answer is
put on record, with the link that it was given by.
"""

from datetime import datetime

from shared.core.errors import ConflictError, InvalidInputError
from shared.core.messages import UNNAMED_CALLER, CommandKind, RolloutCommand
from shared.registry.documents import is_same_person
from shared.registry.rollout_policy import RolloutPolicy
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.routing.plan import FULL_WEIGHT_BP

_NAMED = {
    CommandKind.PROMOTE,
    CommandKind.SKIP,
    CommandKind.SET_WEIGHT,
    CommandKind.REJECT,
    CommandKind.ROLLBACK,
}


class LinkUsedError(ConflictError):
    """A signed link was used before. It serves once, whatever it was used for."""


class OtherStageError(ConflictError):
    """What is to be approved of, or rejected, is not what waits."""


class NotAnApproverError(ConflictError):
    """Whoever would approve may not."""


def names_nobody(by: str) -> bool:
    """Whether a name is none, or the one that stands for a caller who gave none."""
    return any(is_same_person(by, nobody) for nobody in ("", UNNAMED_CALLER))


def check_named(command: RolloutCommand) -> None:
    """Raise InvalidInputError for a command that people answer for, and that names nobody.

    Such is a start too that goes over its version's signature, a freeze window or an error budget.
    """
    answered_for = command.command in _NAMED or (
        command.command is CommandKind.START and (command.force or command.override)
    )
    if answered_for and names_nobody(command.requested_by):
        raise InvalidInputError(
            f"a {command.command} needs the name of who gives it, which goes into the audit: say who"
        )


def check_starter(command: RolloutCommand, policy: RolloutPolicy) -> None:
    """Raise ConflictError for a start that names nobody where its policy asks for approvals by somebody else."""
    wanted = policy.switch_approval or any(stage.approval for stage in policy.stages)
    if wanted and names_nobody(command.requested_by):
        raise ConflictError(
            f"the policy of {command.endpoint} has somebody approve who did not ask for the rollout, and this start "
            "does not say who asks: give the name (by)"
        )


def check_stage(rollout: Rollout, stage: int | None) -> None:
    """Raise OtherStageError where another stage than `stage` waits for an approval. None means the one that waits."""
    if stage is None or (stage == rollout.next_stage and rollout.state is RolloutState.AWAITING):
        return
    waiting = (
        f"{stage_named(rollout, rollout.next_stage)} does" if rollout.state is RolloutState.AWAITING else "none does"
    )
    raise OtherStageError(f"{stage_named(rollout, stage)} does not wait for an approval: {waiting}")


def check_approver(rollout: Rollout, by: str, author: str) -> None:
    """Raise NotAnApproverError for nobody, for the candidate's author, and for who asked for the rollout."""
    if names_nobody(by):
        raise NotAnApproverError("an approval needs the name of who approves: say who")
    version = rollout.candidate.version
    if is_same_person(by, author):
        raise NotAnApproverError(f"{by.strip()} is the author of version {version}: somebody else must approve")
    if is_same_person(by, rollout.requested_by):
        raise NotAnApproverError(f"{by.strip()} asked for the rollout of version {version}: somebody else must approve")


def check_share(rollout: Rollout, weight_bp: int) -> None:
    """Raise ConflictError for a raised share that is more than what was approved of, or needs no approval."""
    waiting = first_unapproved(rollout)
    if waiting is None or weight_bp <= rollout.weight_bp:
        return
    approved_bp = rollout.stages[waiting - 1].weight_bp if waiting else 0
    if weight_bp > approved_bp:
        raise ConflictError(
            f"a share of {_percent(weight_bp)} is more than the {_percent(approved_bp)} up to which no approval is "
            f"needed, or it is given: skip to {stage_named(rollout, waiting)}, and have somebody approve of it"
        )


def first_unapproved(rollout: Rollout) -> int | None:
    """The first stage to come of which somebody must approve; the count of stages means the switch. None: no such."""
    to_come = range(rollout.next_stage, len(rollout.stages) + 1)
    return next((stage for stage in to_come if not rollout.is_approved(stage)), None)


def record_answer(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand, now: datetime) -> None:
    """Put on record who approved of the stage that waits, or rejected it, and by which link."""
    endpoint.record(
        "stage_approved" if command.command is CommandKind.APPROVE else "stage_rejected",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stage=rollout.next_stage,
        by=command.requested_by.strip(),
        reason=command.reason,
        command_id=command.command_id,
        link_id=command.link_id,
    )


def check_link(rollout: Rollout, link_id: str) -> None:
    """Raise LinkUsedError for a link that has served, be it for an approval or a rejection."""
    if not link_id:
        return
    used = next((approval for approval in rollout.approvals if approval.link_id == link_id), None)
    if used:
        raise LinkUsedError(f"this link has served: {used.by} approved with it at {used.at.isoformat()}")
    if rollout.ended_by == link_command_id(link_id):
        raise LinkUsedError(f"this link has served: the rollout was rejected with it ({rollout.reason})")
    if link_command_id(link_id) in rollout.heard:
        raise LinkUsedError("this link has served: ask for another")


def link_command_id(link_id: str) -> str:
    """The id of the one command that a link leads to, whatever it asks for."""
    return f"link:{link_id}"


def stage_named(rollout: Rollout, stage: int) -> str:
    """A stage as people are told of it, counted from 1; the count of stages means the switch."""
    count = len(rollout.stages)
    return "the switch to all traffic" if stage >= count else f"stage {stage + 1} of {count}"


def _percent(weight_bp: int) -> str:
    return f"{100 * weight_bp / FULL_WEIGHT_BP:g} %"
