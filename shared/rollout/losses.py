"""Places whose processes end again and again with the candidate in memory: a model that ends its process takes with it
what that had counted.

Each process tells how many before it, in the same place, ended unbidden within the hour. Three are more than a restart;
where more than half of the places that have the candidate have had so many, it is likely the candidate's doing, unless
as large a share of those without it fare no better. Nobody can tell which version a process died of, so that one such
tick takes nothing back. A pod that was removed, cut off or merely silent is none of these.
"""

from dataclasses import dataclass

from shared.rollout.documents import Rollout
from shared.telemetry.window import host_of

_RESTLESS = 3
_LEAST_OTHERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """How many places were restless in the last hour of a rollout, of how many."""

    restless: int
    places: int
    """Where the candidate is, or was."""
    others_restless: int
    others: int
    """Where it is not."""

    @property
    def are_too_many(self) -> bool:
        """Whether they speak against the candidate."""
        if 2 * self.restless <= self.places:
            return False
        is_excused = self.others >= _LEAST_OTHERS and self.others_restless * self.places >= self.restless * self.others
        return not is_excused

    @property
    def sentence(self) -> str:
        """How many, in words."""
        return (
            f"on {self.restless} of {self.places} pods {_RESTLESS} processes or more ended unbidden within an hour "
            f"with the candidate in memory; of {self.others} pods without it that goes for {self.others_restless}"
        )


def losses(rollout: Rollout) -> Losses:
    """What was lost in a rollout, as far as those tell who were heard of within an hour."""
    version = rollout.candidate.version
    stable = rollout.stable.version if rollout.stable else version
    ended: dict[str, int] = {}
    without: dict[str, int] = {}
    for name, seen in rollout.pods.items():
        is_of_now = seen.deaths is not None and seen.deaths.rollout_id == rollout.rollout_id
        dead = seen.deaths.processes if seen.deaths is not None and is_of_now else {}
        found, host = (ended if version in seen.loaded or version in dead else without), host_of(name)
        found[host] = max(found.get(host, 0), dead.get(version if found is ended else stable, 0))
    for host in ended:
        without.pop(host, None)
    return Losses(
        restless=sum(count >= _RESTLESS for count in ended.values()),
        places=len(ended),
        others_restless=sum(count >= _RESTLESS for count in without.values()),
        others=len(without),
    )
