"""Pods that were lost with the candidate in memory: a model that ends its process takes with it what that counted.

Lost is a process that another of its pod tells of, since it ended unbidden, or one that fell silent and did not say
that it was told to stop. Where they are more than the pods that still report with the candidate, a tick fails; but not
where pods that hold stable alone are lost as readily. What nobody can tell is which version a process died of, nor a
pod that was cut off or removed by force from one that died: so one such tick takes nothing back.
"""

from dataclasses import dataclass
from datetime import datetime

from shared.rollout.convergence import fresh
from shared.rollout.documents import Rollout

_LEAST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """How many pods were lost in the last hour of a rollout, and how many report."""

    lost: int
    told: int
    """Of those, the ones that a successor tells of."""
    reporting: int
    """Pods that report and hold the candidate."""
    others_lost: int
    others: int
    """Pods that do not hold it, lost or not."""

    @property
    def are_too_many(self) -> bool:
        """Whether they speak against the candidate."""
        if self.lost < _LEAST or self.lost <= self.reporting:
            return False
        # As large a share of those without it would be lost by whatever takes the others.
        return not self.others or self.others_lost * (self.lost + self.reporting) < self.lost * self.others

    @property
    def sentence(self) -> str:
        """How many, in words."""
        return (
            f"{self.lost} pods with the candidate in memory were lost, {self.told} of them by a process that ended "
            f"unbidden, and {self.reporting} report; of {self.others} without it {self.others_lost} were lost"
        )


def losses(rollout: Rollout, now: datetime) -> Losses:
    """What was lost in a rollout, as far as pods that were seen within an hour tell."""
    version, first = rollout.candidate.version, rollout.progress.first_generation
    pods = {name: seen for name, seen in rollout.progress.pods.items() if seen.generation >= first}
    told = {name: held for seen in pods.values() for name, held in seen.died.items()}
    reporting = set(fresh(pods, now)) - told.keys()
    held = {name for name, seen in pods.items() if version in seen.loaded} | {n for n in told if version in told[n]}
    others = (pods.keys() | told.keys()) - held
    gone = {name for name, seen in pods.items() if not seen.leaves} - reporting | told.keys() if reporting else set()
    return Losses(
        lost=len(gone & held),
        told=len(told.keys() & held),
        reporting=len(reporting & held),
        others_lost=len(gone & others),
        others=len(others),
    )
