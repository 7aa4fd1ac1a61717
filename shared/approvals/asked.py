"""What an approval link asks its approver."""

from dataclasses import dataclass

from shared.approvals.links import ApprovalLink
from shared.rollout.documents import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A link, the rollout that waits for its answer, and who made the candidate."""

    link: ApprovalLink
    rollout: Rollout
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLink:
    """A link that was made, and its token."""

    link: ApprovalLink
    token: str
