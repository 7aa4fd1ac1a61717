"""What watching found of a rollout's candidate: evidence for the tick.

Watching never changes an endpoint. It says what it found, and the next tick, the one writer, takes it from here; what
then follows is the drift policy's that is in force at the tick.
"""

from datetime import datetime
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.registry.drift_policy import Following


class DriftEvidence(BaseModel):
    """That the candidate drifts from the stable version in the same hours, and what is to follow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: AwareDatetime
    """When the alarm was raised. Whoever lets the rollout go on after it has seen it."""
    sentence: str
    report_id: str
    following: Following


class DriftFindings(Protocol):
    """Tells what watching found."""

    def of_candidate(self, endpoint: str, version: int, role: str, *, since: datetime) -> DriftEvidence | None:
        """The alarm that stands and that something is to follow from; None where there is none.

        One from before `since`, when the rollout began, is of an earlier rollout, and is not told.

        Raises UnavailableError.
        """
        ...
