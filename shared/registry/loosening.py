"""What a new policy loosens of what keeps candidates back: freeze windows, error budgets and approvals.

They are read live, so that such a policy opens the way at once, for a rollout under way too. Pure.
"""

from math import inf

from shared.core.errors import InvalidInputError
from shared.core.messages import UNNAMED_CALLER
from shared.registry.documents import is_same_person
from shared.registry.rollout_policy import RolloutPolicy


def loosened(before: RolloutPolicy, after: RolloutPolicy) -> list[str]:
    """What the later policy takes away or makes weaker, in words. A changed freeze window counts as taken away."""
    found = [f"freeze window {window.name}" for window in before.freezes if window not in after.freezes]
    budget, later = before.error_budget, after.error_budget
    # With other hours it is another budget, of which nothing says whether it is the stricter one.
    if budget and (later is None or later.hours != budget.hours or later.objective < budget.objective):
        found.append("the error budget")
    if after.approvals < before.approvals:
        found.append("the approvals of a version")
    if before.switch_approval and not after.switch_approval:
        found.append("the approval of the switch")
    if _first_approved_bp(after) > _first_approved_bp(before) or _approved(after) < _approved(before):
        found.append("the approvals of stages")
    return found


def check_loosened(before: RolloutPolicy, after: RolloutPolicy, *, by: str, reason: str) -> None:
    """Raise InvalidInputError for a policy that loosens something, set by nobody or without a reason."""
    found = loosened(before, after)
    nobody = any(is_same_person(by, name) for name in ("", UNNAMED_CALLER))
    if found and (nobody or not reason.strip()):
        raise InvalidInputError(
            f"this policy takes away or loosens {', '.join(found)}, at once: say who does that and why "
            "(by and reason), which go into the audit"
        )


def _first_approved_bp(policy: RolloutPolicy) -> float:
    return min((stage.weight_bp for stage in policy.stages if stage.approval), default=inf)


def _approved(policy: RolloutPolicy) -> int:
    return sum(stage.approval for stage in policy.stages)
