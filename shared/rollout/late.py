"""Late feedback: what comes of predictions after their rollout has promoted the candidate, and takes it back.

For as long as policy says (`late_feedback_s`) the ticks of a promoted rollout go on, slowly, and feed its test of
feedback with what comes on the predictions that its own plans assigned. It is the same test, at the same level: looked
at on and on, it proves a version worse that is not with no greater probability. Nothing else is judged, and nothing but
a proof has an effect. Another rollout that begins ends this, and so does whatever takes the version back.

Pure changes of the endpoint.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import GateName
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.feedback import feedback_verdicts
from shared.rollout.machine import RolloutState
from shared.rollout.publishing import schedule
from shared.rollout.reverts import revert
from shared.rollout.rollbacks import Trigger

LEAST_TICK_S = 60.0
"""How often such a rollout is looked at, at the most."""


def listens_until(rollout: Rollout, now: datetime) -> datetime | None:
    """Until when late feedback on a rollout that promotes its candidate now is heard; None where policy says not."""
    gates, lasts_s = rollout.policy.gates, rollout.policy.late_feedback_s
    if not lasts_s or rollout.stable is None or gates.feedback is None or GateName.FEEDBACK in gates.dry_run:
        return None
    return now + timedelta(seconds=lasts_s)


def look(endpoint: Endpoint, rollout: Rollout, now: datetime, unfit: Callable[[], frozenset[int]]) -> None:
    """Look at a rollout that is over, whose evidence was taken in, and take back what it promoted if that is due.

    `unfit` tells to which versions nothing may go back.
    """
    until = rollout.feedback_until
    if until is None:
        return
    if not _serves(endpoint, rollout):
        rollout.feedback_until = None
        return
    proof = next((one.verdict for one in feedback_verdicts(rollout, is_concurrent=False) if one.is_proof), None)
    if proof is not None and proof.outcome is Outcome.FAIL:
        rollout.feedback_until = None
        back = _way_back(endpoint, rollout, unfit())
        if back is not None:
            reason = f"late feedback: {proof.sentence}"
            revert(endpoint, back, now, by="", reason=reason, trigger=Trigger.LATE_FEEDBACK)
            return
        endpoint.record(
            "late_feedback_unheeded",
            now,
            rollout_id=rollout.rollout_id,
            version=rollout.candidate.version,
            reason=f"there is no known good version to go back to; {proof.sentence}",
        )
    elif now >= until:
        rollout.feedback_until = None
    elif not (endpoint.rollback or endpoint.unapplied):
        next_at = now + timedelta(seconds=max(LEAST_TICK_S, rollout.policy.tick_s))
        schedule(endpoint, rollout, min(next_at, until))


def _serves(endpoint: Endpoint, rollout: Rollout) -> bool:
    """Whether what it promoted is stable still."""
    version = rollout.candidate.version
    return rollout.state is RolloutState.PROMOTED and endpoint.stable is not None and endpoint.stable.version == version


def _way_back(endpoint: Endpoint, rollout: Rollout, unfit: frozenset[int]) -> Target | None:
    """The version that it was held against, or else the last known good one."""
    found = [t for t in reversed(endpoint.good) if t.version not in {rollout.candidate.version, *unfit}]
    before = rollout.stable.version if rollout.stable else None
    return next((target for target in found if target.version == before), next(iter(found), None))
