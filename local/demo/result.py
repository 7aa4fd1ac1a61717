"""What the demo measured, and whether it is as it should be.

The result's fields, in this order, are the keys of the demo's JSON:

- `drop_to_registered_s`: from the end of a drop's upload to its version being seen in the admin API; the median over
  the demo's drops.
- `drop_to_first_answer_s`: from the end of the better model's upload to the first answer by that version that a user
  got.
- `fault_to_zero_traffic_s`: from the first answer that stable gave because the faulty candidate had failed the request,
  to the last answer to a request that was assigned to that candidate.
- `requests`: those sent. `failed`: those not answered with 200 and a prediction for each image within 10 s.
- `unsticky`: users who changed version other than by the ramp (local.demo.stickiness).
- `promoted`, `rejected`, `rolled_back`: rollouts promoted, versions rejected by validation and rollouts taken back by
  Slipway itself, as the admin API reports them. The very first rollout does not count as promoted: with no stable
  version to be measured against, it passed no gate.
- `audit_verified`: whether the hash chains of the whole audit trail are unbroken.

A time is None (null) where what it ends with was never seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local.demo.answers import Answer
from local.demo.stickiness import PlanFacts, assigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the demo measured; the module's docstring tells of each field."""

    drop_to_registered_s: float | None
    drop_to_first_answer_s: float | None
    fault_to_zero_traffic_s: float | None
    requests: int
    failed: int
    unsticky: int
    promoted: int
    rejected: int
    rolled_back: int
    audit_verified: bool

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object, its times in hundredths."""
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in asdict(self).items()}

    def problems(self) -> list[str]:
        """What is not as it should be, a sentence each."""
        wanted = {"failed": 0, "unsticky": 0, "promoted": 1, "rejected": 1, "rolled_back": 1, "audit_verified": True}
        values = asdict(self)
        found = [
            f"{key} is {_said(values[key])} and should be {_said(value)}"
            for key, value in wanted.items()
            if values[key] != value
        ]
        unseen = [f"{key} was not measured" for key, value in values.items() if value is None]
        return found + unseen + ([] if self.requests else ["no request was sent"])


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTally:
    """What users saw of one version: images that it answered, how many rightly, and how often it stood in."""

    requests: int = 0
    images: int = 0
    right: int = 0
    stood_in: int = 0

    @property
    def accuracy(self) -> float | None:
        """The share of images read rightly; None without any."""
        return self.right / self.images if self.images else None


def tallies(answers: Iterable[Answer]) -> dict[int, VersionTally]:
    """What users saw of each version."""
    found: dict[int, VersionTally] = {}
    for answer in answers:
        before = found.get(answer.version, VersionTally())
        found[answer.version] = VersionTally(
            requests=before.requests + 1,
            images=before.images + answer.rows,
            right=before.right + answer.right,
            stood_in=before.stood_in + answer.fallback,
        )
    return found


def first_answer_s(answers: Iterable[Answer], version: int) -> float | None:
    """When a user first got an answer by a version, in monotonic seconds; None where nobody did."""
    return min((answer.answered_s for answer in answers if answer.version == version), default=None)


def fault_to_zero_traffic_s(answers: Sequence[Answer], plans: Mapping[int, PlanFacts], candidate: int) -> float | None:
    """Seconds from a candidate's first failed request to its last request of all; None where it failed none."""
    own = [answer for answer in answers if assigned(answer, plans) == candidate]
    faults = [answer.answered_s for answer in own if answer.fallback]
    return max(answer.answered_s for answer in own) - min(faults) if faults else None


def counts_of(versions: Iterable[Mapping[str, Any]], rollouts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """`promoted`, `rejected` and `rolled_back`, from the admin API's versions and rollouts."""
    over = [(rollout["state"], rollout["stable"] is not None) for rollout in rollouts]
    return {
        "promoted": over.count(("promoted", True)),
        "rejected": [version["state"] for version in versions].count("rejected"),
        "rolled_back": sum(state == "rolled_back" for state, _ in over),
    }


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
