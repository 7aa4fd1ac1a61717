"""Verdicts: what a check found, measured against its limit, in a sentence.

Validation checks and rollout gates both speak in verdicts; how several join to one is decided here and nowhere else.
"""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Outcome(StrEnum):
    """What a check concluded. INCONCLUSIVE: not enough evidence. ERROR: the check itself could not run."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


_SEVERITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.FAIL)


class Verdict(BaseModel):
    """One check's conclusion.

    `n` is the number of observations behind it (rows, requests), `value` what was measured and `limit` what it was
    held against, in the unit that `sentence` names; either is None where the check has no number. `interval` is the
    confidence interval of `value`, low and high, at the level that `sentence` names. `evidence` is a JSON pointer into
    the report that the verdict stands in, or the container and name of the blob that holds what it was made from. An
    `advisory` verdict is for people to read: it joins to nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str
    outcome: Outcome
    sentence: str
    n: int | None = None
    value: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    evidence: str | None = None
    advisory: bool = False


def joined(verdicts: Iterable[Verdict]) -> Outcome:
    """The worst outcome: FAIL over ERROR over INCONCLUSIVE over PASS. None but advisory ones: INCONCLUSIVE."""
    outcomes = [verdict.outcome for verdict in verdicts if not verdict.advisory]
    return max(outcomes, key=_SEVERITY.index) if outcomes else Outcome.INCONCLUSIVE
