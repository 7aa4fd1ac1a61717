"""What labels said of an endpoint's versions, by the day of the predictions that they are of.

Kept with the request sums, whose marks see to it that each window counts once. Requests whose caller named the version
are left out: nobody knows what they were for.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from shared.telemetry.feedback import Errors, FeedbackCounts
from shared.telemetry.histogram import merged
from shared.telemetry.window import Window

KEPT = timedelta(days=45)


class LabelSum(BaseModel):
    """The labels on one version's predictions of one day.

    `labelled` of them were classes, `correct` of these what was predicted; `numbers` is of labels that are numbers.
    `delay_s` counts how long after its prediction each came (shared.telemetry.histogram).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labelled: NonNegativeInt = 0
    correct: NonNegativeInt = 0
    numbers: Errors = Errors()
    delay_s: dict[int, NonNegativeInt] = Field(default_factory=dict)

    def plus(self, row: FeedbackCounts) -> "LabelSum":
        """With a row of feedback."""
        return LabelSum(
            labelled=self.labelled + row.labelled,
            correct=self.correct + row.correct,
            numbers=self.numbers + row.numbers,
            delay_s=merged([self.delay_s, row.delay_s]),
        )


def label_key(version: int, day: datetime) -> str:
    """Where a version's labels on predictions of a day (UTC) are summed."""
    return f"{version}:{day.astimezone(UTC):%Y-%m-%d}"


def with_labels(sums: Mapping[str, LabelSum], windows: Iterable[Window], now: datetime) -> dict[str, LabelSum]:
    """The sums with windows counted; those of days that are long past are dropped."""
    found = dict(sums)
    for window in windows:
        for row in window.feedback:
            if row.reason != "pinned" and (row.labelled or row.numbers.count):
                key = label_key(row.version, row.hour)
                found[key] = found.get(key, LabelSum()).plus(row)
    oldest = f"{(now - KEPT).astimezone(UTC):%Y-%m-%d}"
    return {key: found[key] for key in sorted(found) if key.partition(":")[2] >= oldest}
