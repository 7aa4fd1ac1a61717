"""Whether a shadow agrees with the answers that were given: the gate of a stage that mirrors.

A request on which the shadow failed counts as one to which it gave another answer. The rate's interval holds at every
look, so what it proves ends the rollout at once.
"""

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import GateName
from shared.rollout.documents import Rollout
from shared.rollout.rates import Judged
from shared.sequential.intervals import rate_interval
from shared.telemetry.agreement import mean_difference
from shared.telemetry.window import ShadowCounts


def disagreements(rollout: Rollout, least: int) -> list[Judged]:
    """The verdict on the candidate, and those on the further shadows, for people to read."""
    found = [disagreement(GateName.DISAGREEMENT, _counts(rollout, rollout.candidate.version), rollout, least)]
    for shadow in rollout.shadows:
        one = disagreement(f"disagreement_v{shadow.version}", _counts(rollout, shadow.version), rollout, least)
        found.append(Judged(verdict=one.verdict.model_copy(update={"advisory": True})))
    return found


def disagreement(check: str, counts: ShadowCounts, rollout: Rollout, least: int) -> Judged:
    """The verdict on one shadow."""
    n, differing = counts.compared + counts.errors, counts.disagreements + counts.errors
    level, limit = rollout.gates.level, rollout.gates.disagreement
    interval = rate_interval(differing, n, confidence=1 - level)
    rate = differing / n if n else None
    is_proof = False
    if n < least:
        outcome, then = Outcome.INCONCLUSIVE, f"{n} copies were compared or failed: {least} are needed"
    elif limit is None:
        outcome, then = Outcome.PASS, "no limit is set"
    elif interval[0] > limit:
        is_proof = True
        outcome, then = Outcome.FAIL, f"more than the limit of {limit:.2%} is proven at level {level:.2g}"
    elif interval[1] <= limit or (limit == 0 and not differing):
        outcome, then = Outcome.PASS, f"at most the limit of {limit:.2%}"
    else:
        outcome, then = Outcome.INCONCLUSIVE, f"that it is at most {limit:.2%} is not proven yet"
    verdict = Verdict(
        check=check,
        outcome=outcome,
        sentence=f"{_told(counts, n, differing, interval)}: {then}",
        n=n,
        value=rate,
        limit=limit,
        interval=interval,
        advisory=limit is None,
    )
    return Judged(verdict=verdict, is_proof=is_proof)


def compared(rollout: Rollout) -> int:
    """Copies to the candidate that were compared, or that it failed."""
    counts = _counts(rollout, rollout.candidate.version)
    return counts.compared + counts.errors


def _counts(rollout: Rollout, version: int) -> ShadowCounts:
    return rollout.progress.of(version).shadow or ShadowCounts()


def _told(counts: ShadowCounts, n: int, differing: int, interval: tuple[float, float]) -> str:
    share = f" ({differing / n:.2%}, between {interval[0]:.2%} and {interval[1]:.2%})" if n else ""
    said = f"another answer to {counts.disagreements} and none to {counts.errors} of {n} copies{share}"
    difference = mean_difference(counts)
    if difference is not None:
        said += (
            f"; numbers differ by {difference.value:.3g} in the mean ({difference.low:.3g} to {difference.high:.3g})"
        )
    if counts.shed:
        said += f"; {counts.shed / counts.mirrored:.0%} of the copies were shed for want of spare capacity"
    return said
