"""Whether a version drifts from the stable one in the same hours, and whether anything may follow from it. Pure.

It is looked at in every call while its rollout goes on: its evidence holds at all looks together, and is of what rows
are worth by their subjects (shared.drift.looks). Loads numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome, Verdict
from shared.drift.inflation import inflations_beside
from shared.drift.scoring import FeatureScore, scored, verdict_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import Profile
from shared.watching.concurrent import Common, Compared
from shared.watching.documents import Alarm

type Hours = Mapping[datetime, FeatureCounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The stable version in the same hours, and the hours of the version that it is compared with.

    They are of a stretch of time of their own (shared.watching.gathering.stretch), the `part`th of the rollout.
    """

    version: int
    profile: Profile | None
    compared: Hours
    hours: Hours
    by_other: Hours = field(default_factory=dict)
    """Its rows by the profile of the version that it is compared with, where the pods counted them so."""
    part: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What the comparison with the stable version came to."""

    verdict: Verdict
    scores: Sequence[FeatureScore] = ()
    may_follow: bool = False
    is_at_limit: bool = False
    """Whether some feature lies at a limit, be it chance or not."""


def compare(version: int, profile: Profile | None, beside: Beside, policy: DriftPolicy) -> Found:
    """Compare a version, by its profile, with the stable one."""
    check = Alarm.CONCURRENT_DRIFT.value

    def inconclusive(said: str) -> Found:
        return Found(Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, limit=policy.psi))

    if profile is None:
        return inconclusive(f"version {version} has no reference profile: the two cannot be compared")
    common, others = _compared_by(profile, beside)
    if not common.profile.features:
        return inconclusive(
            f"versions {version} and {beside.version} count no feature in the same bins, and no pod has counted "
            f"version {beside.version} in those of version {version} yet"
        )
    both = common.beside(beside.compared, others, part=beside.part)
    rows, looks = both.first.rows, both.looks
    if not rows:
        return inconclusive(f"versions {version} and {beside.version} had no rows in the same hours")
    try:
        known = inflations_beside(common.profile, both.by_hour, both.worth_by_hour)
        scores = scored(common.profile, both.first, policy.limits, beside=both.second, inflation=known, looks=looks)
    except InvalidInputError as error:
        return Found(Verdict(check=check, outcome=Outcome.ERROR, sentence=str(error), n=rows))
    verdict = verdict_of(scores, rows=rows, limits=policy.limits, looks=looks)
    said = f"beside version {beside.version} in the same hours {verdict.sentence}"
    if looks.worth < rows and looks.is_enough:
        said += f"; by their subjects they are worth {looks.worth:.3g} independent ones"
    if common.missing:
        of = len(common.missing) + len(common.profile.features)
        said += f"; not compared, since not counted in the same bins, are {len(common.missing)} of {of}"
    verdict = verdict.model_copy(update={"check": check, "sentence": said})
    is_at_limit = any(score.over for score in scores)
    return Found(verdict, scores, _may_follow(verdict, scores, both, policy), is_at_limit)


def _may_follow(verdict: Verdict, scores: Sequence[FeatureScore], both: Compared, policy: DriftPolicy) -> bool:
    """What two versions answer differs by nature: only inputs tell of a router, and only enough of them."""
    of_inputs = any(s.drifted and s.feature.source.kind not in {"answer", "reconstruction"} for s in scores)
    enough = both.looks.worth >= policy.following_min_rows and len(both.by_hour) >= policy.following_min_hours
    return verdict.outcome is Outcome.FAIL and of_inputs and enough


def _compared_by(profile: Profile, beside: Beside) -> tuple[Common, Hours]:
    """What a version and stable can be compared by, and stable's hours for it: by this version's profile, where both
    have hours by it, and else by what their own have in common.
    """
    if beside.compared.keys() & beside.by_other.keys():
        return Common(profile, beside.profile, by_first=True), beside.by_other
    return Common(profile, beside.profile), beside.hours
