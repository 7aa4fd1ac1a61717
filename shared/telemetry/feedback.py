"""Feedback on predictions, counted: what came of them, by the hour in which they were made.

A row of counts is of one version under one generation of the plan, in one role, asked for one reason. Every count is a
whole number, so that rows merge exactly, in any order and grouping; a merge pools nothing, only a tally does, which is
bounded. Nothing here names a user or a prediction.

A value lies between 0 and 1, 1 being best. Each is also counted as good or not, by a coin that falls good with the
value's probability: the mean stays what it was, and an exact test of yes-or-no outcomes may be made of any values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from shared.core.contracts import Aware, Contract, Count
from shared.telemetry.exact import Exact, NonNegativeExact, keep_exact
from shared.telemetry.histogram import bucket_index, merged

MILLION = 1_000_000
MAX_NUMBER = 1e9
"""Labels and predictions that are numbers lie within this on either side of 0."""
MAX_LABEL_CHARS = 64
MAX_ROWS = 200
MAX_PAIRS = 1_000
"""Pairs of labels in a window, over all its rows: half a megabyte where they are as long as they may be."""
MAX_DELAYS = 8_000
"""Buckets of delays in a window, over all its rows."""
SEPARATOR = "\x1f"
OTHERS = "(others)"
OTHER_PAIR = f"{OTHERS}{SEPARATOR}{OTHERS}"
"""Where pairs are counted that are too many to be told apart: in agreement or not, which `correct` still tells."""

BY_USER: Final = "by_user"
"""The reason of feedback that names no prediction: its version is that which the plan gives its user when it comes."""

type Role = Literal["stable", "candidate", "shadow"]
type Reason = Literal["assigned", "fallback", "pinned", "by_user"]


class Errors(Contract, frozen=True, kw_only=True):
    """Sums over labels that are numbers: of the error (the prediction less the label) and of the label.

    In whole millionths, the squares in millionths of millionths: each number is rounded to a millionth first.
    """

    count: Count = 0
    error: Exact = 0
    absolute: NonNegativeExact = 0
    squared: NonNegativeExact = 0
    label: Exact = 0
    label_squared: NonNegativeExact = 0

    def __post_init__(self) -> None:
        """Read sums from text, too. Raises ValidationError."""
        super().__post_init__()
        keep_exact(self, "error", "absolute", "squared", "label", "label_squared")

    def __add__(self, other: "Errors") -> "Errors":
        sums = {name: getattr(self, name) + getattr(other, name) for name in Errors.__struct_fields__}
        return Errors(**sums)


class FeedbackCounts(Contract, frozen=True, kw_only=True):
    r"""Feedback on the predictions of one version, hour (UTC), generation, role and reason.

    `count` pieces of feedback came; `valued` of them with a value, of which `good` came out good; `value_millionths`
    sums the values. `labelled` had a class as label and were told what was predicted, `correct` of them the same class;
    `labels` counts them by `<predicted>\x1f<actual>`. `numbers` is of labels that are numbers. `delay_s` counts how
    long after its prediction feedback came (shared.telemetry.histogram), where that is known.
    """

    version: Annotated[int, Meta(ge=1)]
    generation: Annotated[int, Meta(ge=1)]
    role: Role
    reason: Reason
    hour: Aware
    count: Count = 0
    valued: Count = 0
    good: Count = 0
    value_millionths: Count = 0
    labelled: Count = 0
    correct: Count = 0
    labels: dict[str, Count] = field(default_factory=dict)
    numbers: Errors = Errors()
    delay_s: dict[int, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Which row a piece of feedback is counted in."""

    version: int
    generation: int
    role: Role
    reason: Reason
    hour: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A piece of feedback. A part that is None was not given, or was counted before."""

    key: Key
    delay_s: float | None = None
    value: float | None = None
    coin: float = 0.0
    """Where in [0, 1) its coin fell: below the value is good."""
    classes: tuple[str, str] | None = None
    """What was predicted, and what was so."""
    numbers: tuple[float, float] | None = None
    """Likewise."""


def hour_of(at: datetime) -> datetime:
    """The hour of a time, in UTC."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def merge_feedback(parts: Iterable[FeedbackCounts]) -> list[FeedbackCounts]:
    """The sum of rows, one for each key, in the order of their keys."""
    by_key: dict[tuple[object, ...], list[FeedbackCounts]] = {}
    for part in parts:
        by_key.setdefault((part.hour, part.version, part.generation, part.role, part.reason), []).append(part)
    return [_sum(rows) for _, rows in sorted(by_key.items(), key=lambda entry: entry[0])]


class FeedbackTally:
    """Counts feedback until it is taken. Bounded: one that is full takes no new rows, and pools further labels."""

    __slots__ = ("_delays", "_pairs", "_rows")

    def __init__(self) -> None:
        self._rows: dict[Key, _Row] = {}
        self._pairs = 0
        self._delays = 0

    def has_room(self, keys: Iterable[Key]) -> bool:
        """Whether feedback under these keys may be added."""
        return self._delays < MAX_DELAYS and len(self._rows.keys() | set(keys)) <= MAX_ROWS

    def add(self, feedback: Feedback) -> None:
        """Count a piece of feedback."""
        row = self._rows.get(feedback.key)
        if row is None:
            row = self._rows[feedback.key] = _Row()
        row.count += 1
        if feedback.value is not None:
            row.valued += 1
            row.good += feedback.coin < feedback.value
            row.value_millionths += round(feedback.value * MILLION)
        if feedback.classes is not None:
            self._label(row, *feedback.classes)
        if feedback.numbers is not None:
            row.add_numbers(*feedback.numbers)
        if feedback.delay_s is not None:
            bucket = bucket_index(max(0.0, feedback.delay_s))
            self._delays += bucket not in row.delay_s
            row.delay_s[bucket] = row.delay_s.get(bucket, 0) + 1

    def take(self) -> list[FeedbackCounts]:
        """The rows so far; counting begins anew."""
        rows, self._rows, self._pairs, self._delays = self._rows, {}, 0, 0
        return merge_feedback(row.counts(key) for key, row in rows.items())

    def _label(self, row: "_Row", predicted: str, actual: str) -> None:
        row.labelled += 1
        row.correct += predicted == actual
        pair = f"{predicted}{SEPARATOR}{actual}"
        if pair not in row.labels:
            pair = pair if self._pairs < MAX_PAIRS else OTHER_PAIR
            self._pairs += pair not in row.labels
        row.labels[pair] = row.labels.get(pair, 0) + 1


class _Row:
    """What a tally has under one key."""

    __slots__ = ("correct", "count", "delay_s", "good", "labelled", "labels", "sums", "value_millionths", "valued")

    def __init__(self) -> None:
        self.count = self.valued = self.good = self.value_millionths = self.labelled = self.correct = 0
        self.labels: dict[str, int] = {}
        self.delay_s: dict[int, int] = {}
        self.sums = [0] * len(Errors.__struct_fields__)

    def add_numbers(self, predicted: float, actual: float) -> None:
        label = round(actual * MILLION)
        error = round(predicted * MILLION) - label
        found = (1, error, abs(error), error * error, label, label * label)
        self.sums = [total + one for total, one in zip(self.sums, found, strict=True)]

    def counts(self, key: Key) -> FeedbackCounts:
        return FeedbackCounts(
            version=key.version,
            generation=key.generation,
            role=key.role,
            reason=key.reason,
            hour=key.hour,
            count=self.count,
            valued=self.valued,
            good=self.good,
            value_millionths=self.value_millionths,
            labelled=self.labelled,
            correct=self.correct,
            labels=self.labels,
            numbers=Errors(**dict(zip(Errors.__struct_fields__, self.sums, strict=True))),
            delay_s=self.delay_s,
        )


def _sum(rows: list[FeedbackCounts]) -> FeedbackCounts:
    if len(rows) == 1:
        return rows[0]
    numbers = Errors()
    for row in rows:
        numbers += row.numbers
    totals = {name: sum(getattr(row, name) for row in rows) for name in _SUMMED}
    labels, delay_s = merged(row.labels for row in rows), merged(row.delay_s for row in rows)
    return rows[0].model_copy(update={**totals, "labels": labels, "delay_s": delay_s, "numbers": numbers})


_SUMMED = ("count", "valued", "good", "value_millionths", "labelled", "correct")
