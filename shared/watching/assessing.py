"""Assesses one version in one role, from what was counted: verdicts, and the figures behind them. Pure; loads numpy.

Four things are asked. Is its traffic as its reference data were? For a candidate or a shadow: is it as the stable
version's in the same hours? Has it drifted slowly? Does it still answer as well as it did at validation? What cannot
be told is INCONCLUSIVE, and says why: no profile, no rows, too few of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome, Verdict, joined
from shared.drift import distances
from shared.drift.inflation import LEAST_WINDOWS, Inflations, inflations
from shared.drift.ranking import ranked
from shared.drift.scoring import FeatureScore, scored, verdict_of
from shared.drift.season import Season
from shared.drift.slow import SlowDrift
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import Profile
from shared.watching.beside import Beside, compare
from shared.watching.documents import Alarm
from shared.watching.performing import Performing, perform
from shared.watching.report import DriftDetails, FeatureFigures, Quality, SlowFigures, TrendPoint
from shared.watching.rollups import sum_of

TREND_FEATURES = 6
SLOW_LEARNS_H = 24
"""Hours with rows that teach what is usual before slow drift is looked for."""
_DAY_H = 24

type Hours = Mapping[datetime, FeatureCounts]
type Hour = tuple[datetime, FeatureCounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a version in a role."""

    model: str
    endpoint: str
    version: int
    role: str
    since: datetime
    until: datetime
    profile: Profile | None
    why_none: str = ""
    """Why there is no profile, in words."""
    hours: Hours = field(default_factory=dict)
    """Its counts in each hour of the span that has any."""
    first: datetime | None = None
    """The first hour known that has any; None: the first of `hours`."""
    healthy: Sequence[FeatureCounts] = ()
    """Of earlier windows without an alarm, as long as the span, or else of an hour; in their order."""
    beside: Beside | None = None
    performing: Performing | None = None
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What was found. `alarms` has the verdict that each alarm stands on or falls by."""

    details: DriftDetails
    alarms: Mapping[Alarm, Verdict]
    scores: Sequence[FeatureScore]
    ranked: Sequence[FeatureScore]
    concurrent: Sequence[FeatureScore]
    may_follow: bool = False
    """Whether a drift beside stable is of inputs, and of as many rows and hours as `following` asks for."""
    unsure: frozenset[Alarm] = frozenset()
    """Those that pass for want of evidence alone, the effect being at its limit: an alarm that stands goes on."""


def assess(seen: Seen, policy: DriftPolicy, *, slow: SlowDrift | None = None) -> Assessment:
    """Assess a version. `slow` is its detector as it is after the last hour that it was fed."""
    total = sum_of(counts for _, counts in sorted(seen.hours.items()))
    data, scores = _against_reference(seen, policy, total)
    found = {Alarm.DATA_DRIFT: data}
    beside = None if seen.beside is None else compare(seen.version, seen.profile, seen.beside, policy)
    if beside is not None:
        found[Alarm.CONCURRENT_DRIFT] = beside.verdict
    concurrent = beside.scores if beside is not None else ()
    if slow is not None:
        found[Alarm.SLOW_DRIFT] = _slow_verdict(slow, policy)
    performed = perform(seen.performing, seen.profile, total, policy) if seen.performing else None
    if performed:
        found[Alarm.PERFORMANCE_DROP] = performed[0]
    by_blame = ranked(scores)
    details = DriftDetails(
        model=seen.model,
        endpoint=seen.endpoint,
        version=seen.version,
        role=seen.role,
        profile=seen.profile.id if seen.profile else None,
        since=seen.since,
        until=seen.until,
        rows=total.rows if total else 0,
        reference_rows=seen.profile.rows if seen.profile else 0,
        outcome=joined(found.values()),
        verdicts=tuple(found.values()),
        ranked=tuple(score.feature.name for score in by_blame),
        features=tuple(FeatureFigures.of(score) for score in scores),
        beside=seen.beside.version if seen.beside else None,
        concurrent=tuple(FeatureFigures.of(score) for score in concurrent),
        trend=_trend(seen, _shown(scores, by_blame)),
        quality=seen.quality,
        performance=performed[1] if performed else None,
        slow=_slow_figures(slow, policy) if slow else None,
    )
    return Assessment(
        details=details,
        alarms=found,
        scores=scores,
        ranked=by_blame,
        concurrent=concurrent,
        may_follow=beside is not None and beside.may_follow,
        unsure=frozenset({Alarm.CONCURRENT_DRIFT} if beside is not None and beside.is_at_limit else ()),
    )


def feed(slow: SlowDrift, hours: Sequence[Hour], learned: Sequence[Hour]) -> int | None:
    """Feed hours to the detector, in their order, until it alarms: how many it then has taken. None: it has not.

    An hour of the day that was never seen teaches what is usual at it, and no more.
    """
    for at, (hour, counts) in enumerate(hours):
        known = [*learned, *hours[:at]]
        usual_then = Season(known).at(hour)
        if usual_then is not None:
            slow.add(counts, learned=known, usual=usual_then)
            if slow.has_alarmed:
                return at + 1
    return None


def slow_detector(profile: Profile, policy: DriftPolicy) -> SlowDrift:
    """A detector that has seen nothing."""
    return SlowDrift(profile, mean_windows=policy.mean_days_between_false_alarms * 24)


def usual(profile: Profile, windows: Sequence[FeatureCounts], rows: int) -> Mapping[str, Inflations]:
    """How healthy windows differ. Of windows much shorter than what is scored, their own growth is told by rows."""
    held = [window for window in windows if window.profile == profile.id and window.rows]
    return inflations(profile, held) if len(held) >= LEAST_WINDOWS and rows else {}


def _against_reference(
    seen: Seen, policy: DriftPolicy, total: FeatureCounts | None
) -> tuple[Verdict, list[FeatureScore]]:
    check = Alarm.DATA_DRIFT.value
    limits = policy.limits
    if seen.profile is None:
        said = f"version {seen.version} has no reference profile, so that nothing is counted: {seen.why_none}"
        return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, n=0), []
    if total is None or not total.rows:
        said = f"no rows of version {seen.version} were counted from {seen.since:%Y-%m-%d %H:%M} on"
        return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, n=0, limit=limits.psi), []
    try:
        scores = scored(seen.profile, total, limits, inflation=usual(seen.profile, seen.healthy, total.rows))
    except InvalidInputError as error:
        return Verdict(check=check, outcome=Outcome.ERROR, sentence=str(error), n=total.rows), []
    verdict = verdict_of(scores, rows=total.rows, limits=limits).model_copy(update={"check": check})
    return _of_enough_hours(verdict, seen, policy), scores


def _of_enough_hours(verdict: Verdict, seen: Seen, policy: DriftPolicy) -> Verdict:
    """A failure counts once the span has gone by since the first rows: a night is no drift from whole days. Of a span
    of less than a day, which is never whole days, half is waited for.
    """
    span_h = math.ceil(policy.span_h)
    wait_h = span_h if span_h >= _DAY_H else math.ceil(span_h / 2)
    past_h = math.ceil((seen.until - (seen.first or min(seen.hours))) / timedelta(hours=1))
    if verdict.outcome is not Outcome.FAIL or past_h >= wait_h:
        return verdict
    said = (
        f"{verdict.sentence}; but its first rows came {past_h} of the span's {span_h} hours ago, and an alarm waits "
        f"for {wait_h} of them: the hours of a day differ"
    )
    return verdict.model_copy(update={"outcome": Outcome.INCONCLUSIVE, "sentence": said})


def _slow_verdict(slow: SlowDrift, policy: DriftPolicy) -> Verdict:
    figures = _slow_figures(slow, policy)
    if slow.has_alarmed:
        moved = ", ".join(figures.blamed)
        said = f"small drifts have lasted: {moved or 'of several features'}, found after {figures.windows} hours"
        outcome = Outcome.FAIL
    else:
        said = f"no slow drift was found in {figures.windows} hours"
        outcome = Outcome.PASS
    said += f"; false alarms are {policy.mean_days_between_false_alarms:g} days apart or more in the mean"
    return Verdict(
        check=Alarm.SLOW_DRIFT.value,
        outcome=outcome,
        sentence=said,
        n=figures.windows,
        value=figures.log_evidence,
        limit=figures.limit,
    )


def _slow_figures(slow: SlowDrift, policy: DriftPolicy) -> SlowFigures:
    evidence = slow.log_evidence
    return SlowFigures(
        windows=slow.state.windows,
        log_evidence=evidence if math.isfinite(evidence) else None,
        limit=math.log(policy.mean_days_between_false_alarms * 24),
        blamed=tuple(f"{name} ({moved})" for name, moved in slow.blamed) if slow.has_alarmed else (),
        features=tuple(dict.fromkeys(name for name, _ in slow.blamed)) if slow.has_alarmed else (),
    )


def _shown(scores: Sequence[FeatureScore], by_blame: Sequence[FeatureScore]) -> list[FeatureScore]:
    """The features of the trend: those to blame first, and what was answered."""
    answers = [score for score in scores if score.feature.source.kind == "answer"]
    return [*by_blame[: TREND_FEATURES - min(len(answers), 2)], *answers[:2]]


def _trend(seen: Seen, shown: Sequence[FeatureScore]) -> tuple[TrendPoint, ...]:
    if seen.profile is None:
        return ()
    cells = seen.profile.cells()
    points = []
    for hour, counts in sorted(seen.hours.items()):
        psi = {}
        for score in shown:
            start = cells[score.feature.name].start
            actual = np.array(counts.cells[start : start + score.feature.bins], dtype=np.int64)
            reference = np.array(score.feature.counts, dtype=np.int64)
            if actual.any() and reference.any():
                psi[score.feature.name] = distances.psi(reference, actual)
        points.append(TrendPoint(hour=hour, rows=counts.rows, psi=psi))
    return tuple(points)
