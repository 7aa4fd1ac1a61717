"""What the demo of drift found, and whether it is as it should be.

The result's fields, in this order, are the keys of its JSON:

- `windows`: one for each stretch of traffic, with the report that was made after it (`Window`).
- `asked_to_alert_s`: from the first request about July to the alert's arrival at its receiver.
- `alerts`: how often the receiver was told that the drift fires; `refused`: posts whose signature was not right.
- `retraining_requests`: how many there are at the end.
- `audit_verified`: whether the hash chains of the whole audit trail are unbroken.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CULPRITS = frozenset({"temp", "dewp"})
"""Temperature and dew point: what parts July from winter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """A feature that a report names."""

    name: str
    psi: float
    q_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of traffic, and the report made after it.

    `rows` were asked about in it, `late_share` of them were late, and `accuracy` of them were rightly told; the report
    is of `report_rows`, for it is of whole hours. `to_blame` are the inputs that lie farthest from the reference,
    whether they drifted or not.
    """

    name: str
    is_drift: bool
    rows: int
    late_share: float
    accuracy: float
    report_rows: int
    outcome: str
    sentence: str
    drifted: tuple[Drifted, ...]
    to_blame: tuple[str, ...]
    alarms: int
    alerts: int
    retraining_requests: int

    def problems(self) -> list[str]:
        """What is not as it should be, a sentence each."""
        outcome, standing = ("fail", 1) if self.is_drift else ("pass", 0)
        counts = {"alarms": self.alarms, "alerts": self.alerts, "requests for retraining": self.retraining_requests}
        found = [f"{self.name}: {count} {name}, and should be {standing}" for name, count in counts.items()]
        found = [said for said, count in zip(found, counts.values(), strict=True) if count != standing]
        if self.outcome != outcome:
            found.append(f"{self.name}: the report says {self.outcome} and should say {outcome}: {self.sentence}")
        if self.is_drift and CULPRITS - {one.name for one in self.drifted}:
            found.append(f"{self.name}: {', '.join(sorted(CULPRITS))} are not among what drifted")
        if self.is_drift and set(self.to_blame[: len(CULPRITS)]) != CULPRITS:
            found.append(f"{self.name}: most to blame is said to be {', '.join(self.to_blame[: len(CULPRITS)])}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the demo found; the module's docstring tells of each field."""

    windows: Sequence[Window]
    asked_to_alert_s: float
    alerts: int
    refused: int
    retraining_requests: int
    audit_verified: bool

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return asdict(self) | {"asked_to_alert_s": round(self.asked_to_alert_s, 2)}

    def problems(self) -> list[str]:
        """What is not as it should be, a sentence each."""
        wanted = {"alerts": 1, "refused": 0, "retraining_requests": 1, "audit_verified": True}
        values = {name: getattr(self, name) for name in wanted}
        found = [
            f"{name} is {value} and should be {wanted[name]}" for name, value in values.items() if value != wanted[name]
        ]
        return [problem for window in self.windows for problem in window.problems()] + found
