"""What the control plane tells of how right serving versions were: from the labels that came on their predictions.

Pure. Labels are summed by the day of their prediction (shared.budgets.labels); told is of the last DAYS days, today's
included. Before any label there is nothing, for 0 would say that all is wrong.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import reduce

from shared.budgets.labels import LabelSum, label_key
from shared.budgets.sums import RequestSums
from shared.rollout.metrics import Family, Labels
from shared.telemetry.feedback import Errors

DAYS = 7

_MILLION = 1_000_000


def performance(sums: Sequence[RequestSums], serving: AbstractSet[tuple[str, int]], now: datetime) -> list[Family]:
    """Of each version that serves, by endpoint and number."""
    told = [
        ((("model", one.endpoint), ("version", str(version))), *_of(one, version, now))
        for one in sums
        for endpoint, version in sorted(serving)
        if endpoint == one.endpoint
    ]
    return [
        Family(
            name="model_labels",
            kind="gauge",
            help=f"Labels that came on predictions of the last {DAYS} days; 0 where none did.",
            samples=tuple((labels, float(labelled + numbers.count)) for labels, labelled, _, numbers in told),
        ),
        Family(
            name="model_realised_accuracy_ratio",
            kind="gauge",
            help=f"The share of these labels, where they are classes, that is what was predicted, of {DAYS} days.",
            samples=tuple((labels, correct / labelled) for labels, labelled, correct, _ in told if labelled),
        ),
        Family(
            name="model_realised_absolute_error",
            kind="gauge",
            help=f"The mean distance of predictions from these labels, where they are numbers, of {DAYS} days.",
            samples=tuple(_mean_errors(told)),
        ),
    ]


def _of(sums: RequestSums, version: int, now: datetime) -> tuple[int, int, Errors]:
    """A version's labels that are classes, those of them that were right, and the errors of those that are numbers."""
    days = (sums.labels.get(label_key(version, now - timedelta(days=day)), LabelSum()) for day in range(DAYS))
    found = list(days)
    numbers = reduce(Errors.__add__, (one.numbers for one in found), Errors())
    return sum(one.labelled for one in found), sum(one.correct for one in found), numbers


def _mean_errors(told: Sequence[tuple[Labels, int, int, Errors]]) -> Iterator[tuple[Labels, float]]:
    for labels, _, _, numbers in told:
        if numbers.count:
            yield labels, numbers.absolute / numbers.count / _MILLION
