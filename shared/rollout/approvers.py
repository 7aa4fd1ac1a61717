"""Who may approve of what: somebody other than those who made the candidate or asked for its rollout, and each signed
link once. Pure checks, made within the endpoint's conditional change.
"""

from shared.core.errors import ConflictError
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState


class LinkUsedError(ConflictError):
    """A signed link was used before. It serves once, whatever it was used for."""


class OtherStageError(ConflictError):
    """What is to be approved of, or rejected, is not what waits."""


class NotAnApproverError(ConflictError):
    """Whoever would approve may not."""


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
    name = _plain(by)
    if not name:
        raise NotAnApproverError("an approval needs the name of who approves: say who")
    version = rollout.candidate.version
    if name == _plain(author):
        raise NotAnApproverError(f"{by.strip()} is the author of version {version}: somebody else must approve")
    if name == _plain(rollout.requested_by):
        raise NotAnApproverError(f"{by.strip()} asked for the rollout of version {version}: somebody else must approve")


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
    """A stage as people are told of it; the count of stages means the switch."""
    return "the switch to all traffic" if stage >= len(rollout.stages) else f"stage {stage}"


def _plain(name: str) -> str:
    return name.strip().casefold()
