"""What the control plane tells of how right serving versions are: by the labels that came on their predictions, and as
estimated without labels.

Pure. Labels are summed by the day of their prediction (shared.budgets.labels), those that are whole numbers as classes
and as numbers: of these the version's task says which they are. Told is of the last DAYS days, today's included.
Estimates are those of the latest drift report. Before any label, and without an estimate, there is nothing, for 0 would
say that all is wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

from shared.budgets.labels import LabelSum, label_key
from shared.budgets.sums import RequestSums
from shared.observing.metrics import latest_of
from shared.registry.manifest import Task
from shared.rollout.metrics import Family, Labels
from shared.telemetry.feedback import Errors
from shared.watching.documents import DriftReport, EstimateSummary, Measure

DAYS = 7

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What the labels on a version's predictions of these days come to."""

    model: str
    version: int
    labelled: int
    """Those that are classes."""
    correct: int
    """Of these."""
    numbers: Errors
    """The errors of those that are numbers."""

    @property
    def is_both(self) -> bool:
        """Whether labels are whole numbers, which are classes of a classifier and numbers of a regression."""
        return self.labelled > 0 and self.numbers.count > 0

    @property
    def labels(self) -> Labels:
        """Those of its metrics."""
        return ("model", self.model), ("version", str(self.version))


def labelled(sums: Sequence[RequestSums], serving: AbstractSet[tuple[str, int]], now: datetime) -> list[Labelled]:
    """Of each version that serves, by endpoint and number, where its endpoint's requests are counted."""
    return [_of(one, version, now) for one in sums for endpoint, version in sorted(serving) if endpoint == one.endpoint]


def performance(told: Sequence[Labelled], tasks: Mapping[tuple[str, int], Task]) -> list[Family]:
    """`tasks` are those of versions whose labels are both, by endpoint and number; of an unknown one both are told."""
    return [
        Family(
            name="model_labels",
            kind="gauge",
            help=f"Labels that came on predictions of the last {DAYS} days; 0 where none did.",
            samples=tuple((one.labels, float(max(one.labelled, one.numbers.count))) for one in told),
        ),
        Family(
            name="model_realised_accuracy_ratio",
            kind="gauge",
            help=f"The share of these labels, where they are classes, that is what was predicted, of {DAYS} days.",
            samples=tuple(
                (one.labels, one.correct / one.labelled)
                for one in told
                if one.labelled and not _is(Task.REGRESSION, one, tasks)
            ),
        ),
        Family(
            name="model_realised_absolute_error",
            kind="gauge",
            help=f"The mean distance of predictions from these labels, where they are numbers, of {DAYS} days.",
            samples=tuple(
                (one.labels, one.numbers.absolute / one.numbers.count / _MILLION)
                for one in told
                if one.numbers.count and not _is(Task.CLASSIFICATION, one, tasks)
            ),
        ),
    ]


def estimates(reports: Sequence[DriftReport]) -> list[Family]:
    """Of each serving version's latest report, where it has one."""
    told = [
        ((("model", one.endpoint), ("version", str(one.version)), ("variant", one.role)), latest.estimate)
        for one, latest in latest_of(reports)
        if latest.estimate
    ]
    return [
        Family(
            name="model_estimated_accuracy_ratio",
            kind="gauge",
            help="The share of predictions that is estimated to be right, without labels.",
            samples=tuple(_values(told, Measure.ACCURACY)),
        ),
        Family(
            name="model_estimated_absolute_error",
            kind="gauge",
            help="The mean distance of predictions from what is right, where they are numbers, as it is estimated.",
            samples=tuple(_values(told, Measure.ABSOLUTE_ERROR)),
        ),
        Family(
            name="model_estimate_may_gate",
            kind="gauge",
            help="1 where labels bear the estimate out, so that it may raise an alarm, 0 where they do not or are few.",
            samples=tuple((labels, float(found.may_gate)) for labels, found in told),
        ),
        Family(
            name="model_estimate_miss",
            kind="gauge",
            help="What estimates of days with labels missed by, beyond chance, in their unit; absent without labels.",
            samples=tuple((labels, found.miss) for labels, found in told if found.miss is not None),
        ),
    ]


def _values(told: Sequence[tuple[Labels, EstimateSummary]], measure: Measure) -> Iterator[tuple[Labels, float]]:
    for labels, found in told:
        if found.measure is measure:
            yield labels, found.value


def _is(task: Task, one: Labelled, tasks: Mapping[tuple[str, int], Task]) -> bool:
    """Whether labels that could be of either task are known to be of this one."""
    return one.is_both and tasks.get((one.model, one.version)) is task


def _of(sums: RequestSums, version: int, now: datetime) -> Labelled:
    days = (sums.labels.get(label_key(version, now - timedelta(days=day)), LabelSum()) for day in range(DAYS))
    found = list(days)
    return Labelled(
        model=sums.endpoint,
        version=version,
        labelled=sum(one.labelled for one in found),
        correct=sum(one.correct for one in found),
        numbers=reduce(Errors.__add__, (one.numbers for one in found), Errors()),
    )
