"""How well a version answers: by labels where they came, and else by its estimate, as long as labels bear that out.

Pure. The days of the last weeks that have labels are held beside what was estimated for the same days: that decides
whether the estimate may raise an alarm: labels must show that it is off by less than half of the drop it is to find.
A drop needs an effect, by policy, and evidence: three standard errors, for a version is looked at every hour; those of
an estimate hold what it missed by. Labels come late and not for every prediction: what is said of them says how many
they are and how late, and rests on those who labelled having no favourites.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from shared.budgets.labels import LabelSum
from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome, Verdict
from shared.drift.calibration import Realised, calibration_of
from shared.drift.performance import Estimated, PerformanceModel, estimated
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.features import FeatureCounts
from shared.telemetry.feedback import MILLION
from shared.telemetry.histogram import merged, quantile
from shared.telemetry.profile import Profile
from shared.watching.documents import Alarm, Measure
from shared.watching.report import Performance

LEAST_LABELS = 100
PROOF = 3.0
"""Standard errors."""
_TOLERATED = 0.5
"""Of the drop that is looked for: as much the estimate may be off, that is to find it."""
_DEFAULT_DROP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Performing:
    """What is known of a version's performance."""

    is_regression: bool
    level: float | None
    """At validation: its accuracy, or its mean absolute error."""
    model: PerformanceModel | None = None
    labels: Mapping[datetime, LabelSum] = field(default_factory=dict)
    """By the day of the predictions."""
    days: Mapping[datetime, FeatureCounts] = field(default_factory=dict)
    """What was counted on each day."""
    labels_since: datetime
    """Labels on predictions from this day on say how it answers now."""

    @property
    def measure(self) -> Measure:
        """What is measured."""
        return Measure.ABSOLUTE_ERROR if self.is_regression else Measure.ACCURACY


def perform(
    seen: Performing, profile: Profile | None, total: FeatureCounts | None, policy: DriftPolicy
) -> tuple[Verdict, Performance] | None:
    """The verdict on a version's performance, and its figures. None where nothing is known of it."""
    estimate = _estimate(seen, profile, total)
    recent = [one for day, one in seen.labels.items() if day >= seen.labels_since]
    realised = _realised(seen, recent)
    if estimate is None and realised is None:
        return None
    limit = (policy.performance_drop or _DEFAULT_DROP) * ((seen.level or 1.0) if seen.is_regression else 1.0)
    history = _history(seen, profile)
    calibration = calibration_of(history, tolerance=_TOLERATED * limit)
    delays = merged(one.delay_s for one in recent)
    figures = Performance(
        measure=seen.measure,
        level=seen.level,
        estimate=estimate.value if estimate else None,
        interval=_interval(seen, estimate),
        realised=realised.value if realised else None,
        realised_interval=_interval(seen, realised),
        labels=realised.rows if realised else 0,
        delay_s=quantile(delays, 0.5) if delays else None,
        may_gate=calibration.may_gate,
        miss=calibration.miss,
        calibration=calibration.sentence if estimate else "there is no estimate without labels",
        history=tuple(history),
    )
    if estimate is not None and calibration.miss is not None:
        # What is said of the estimate stands as it is; as evidence it has what it missed by as well.
        estimate = replace(estimate, error=math.hypot(estimate.error, calibration.miss))
    return _verdict(seen, estimate, realised, figures, policy, limit), figures


def _verdict(
    seen: Performing,
    estimate: Estimated | None,
    realised: Estimated | None,
    figures: Performance,
    policy: DriftPolicy,
    limit: float,
) -> Verdict:
    by_labels = realised is not None and realised.rows >= LEAST_LABELS
    found = realised if by_labels else estimate
    check = Alarm.PERFORMANCE_DROP.value
    if found is None or seen.level is None:
        labels = realised.rows if realised else 0
        said = f"{labels} labels have come: {LEAST_LABELS} are needed" if seen.level is not None else _NO_LEVEL
        return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, n=labels, advisory=True)
    drop = (found.value - seen.level) if seen.is_regression else (seen.level - found.value)
    of_level = seen.model.deviation / math.sqrt(seen.model.rows) if seen.model and seen.model.rows else 0.0
    error = math.hypot(found.error, of_level)
    source = f"by {found.rows} labels" if by_labels else "by an estimate without labels"
    if by_labels and figures.delay_s is not None:
        source += f", half of them within about {_span(figures.delay_s)} of their prediction"
    said = f"{seen.measure} is {found.value:.3f} {source}, and was {seen.level:.3f} at validation"
    may_tell = by_labels or figures.may_gate
    if policy.performance_drop is None:
        outcome, then = Outcome.PASS, "no limit is set"
    elif drop < limit:
        outcome, then = Outcome.PASS, f"a drop by less than {limit:.3g}"
    elif drop <= PROOF * error:
        outcome, then = Outcome.INCONCLUSIVE, f"a drop by {limit:.3g} or more, which may be chance"
    else:
        outcome, then = Outcome.FAIL, f"a drop by {limit:.3g} or more, and no chance"
    if not may_tell:
        outcome, then = Outcome.INCONCLUSIVE, f"{then}; {figures.calibration}"
    return Verdict(
        check=check,
        outcome=outcome,
        sentence=f"{said}: {then}",
        n=found.rows,
        value=found.value,
        limit=seen.level + limit if seen.is_regression else seen.level - limit,
        interval=_interval(seen, found),
        advisory=outcome is Outcome.INCONCLUSIVE,
    )


_NO_LEVEL = "how it did at validation is not known: there is nothing to hold its answers against"


def _estimate(seen: Performing, profile: Profile | None, counts: FeatureCounts | None) -> Estimated | None:
    if seen.model is None or profile is None or counts is None or not counts.rows:
        return None
    try:
        return estimated(profile, seen.model, counts)
    except InvalidInputError:
        # It was fitted by another profile.
        return None


def _realised(seen: Performing, sums: list[LabelSum]) -> Estimated | None:
    if seen.is_regression:
        count = sum(one.numbers.count for one in sums)
        if not count:
            return None
        mean = sum(one.numbers.absolute for one in sums) / count / MILLION
        square = sum(one.numbers.squared for one in sums) / count / MILLION**2
        return Estimated(value=mean, error=math.sqrt(max(0.0, square - mean * mean) / count), rows=count)
    count = sum(one.labelled for one in sums)
    if not count:
        return None
    share = sum(one.correct for one in sums) / count
    # Agresti and Coull's, which is not nought where all are right.
    near = (share * count + 2) / (count + 4)
    return Estimated(value=share, error=math.sqrt(near * (1 - near) / (count + 4)), rows=count)


def _interval(seen: Performing, found: Estimated | None) -> tuple[float, float] | None:
    """Its interval, as far as there are such accuracies, or errors."""
    if found is None:
        return None
    low, high = found.interval
    return max(0.0, low), high if seen.is_regression else min(1.0, high)


def _history(seen: Performing, profile: Profile | None) -> list[Realised]:
    found = []
    for day, labels in sorted(seen.labels.items()):
        estimate, realised = _estimate(seen, profile, seen.days.get(day)), _realised(seen, [labels])
        if estimate is not None and realised is not None:
            found.append(
                Realised(
                    estimate=estimate.value,
                    estimate_error=estimate.error,
                    realised=realised.value,
                    realised_error=realised.error,
                    labels=realised.rows,
                )
            )
    return found


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
