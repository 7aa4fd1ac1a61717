"""What labels said of an endpoint's versions, by the day of the predictions that they are of.

Kept with the request sums, whose marks see to it that each window counts once. Requests whose caller named the version
are left out: nobody knows what they were for. Bounded: ids of predictions are not signed, and may tell of any number of
versions.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from shared.telemetry.feedback import Errors, FeedbackCounts
from shared.telemetry.histogram import merged
from shared.telemetry.window import Window

KEPT = timedelta(days=45)
MAX_SUMS = 500
"""Sums of an endpoint, of a version and a day each: those of eleven versions on every day that is kept."""

_WIDER = 16
"""Buckets of delays that are joined into one: MAX_SUMS of them must fit into a document, beside the marks of
thousands of pods.
"""

_log = logging.getLogger(__name__)


class LabelSum(BaseModel):
    """The labels on one version's predictions of one day.

    `labelled` of them were classes, `correct` of these what was predicted; `numbers` is of labels that are numbers.
    `delay_s` counts how long after its prediction each came, in some buckets of shared.telemetry.histogram: a second at
    least, and within 18 % of what it was.
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
            delay_s=merged([self.delay_s, *({_wider(bucket): count} for bucket, count in row.delay_s.items())]),
        )


def label_key(version: int, day: datetime) -> str:
    """Where a version's labels on predictions of a day (UTC) are summed."""
    return f"{version}:{day.astimezone(UTC):%Y-%m-%d}"


def with_labels(sums: Mapping[str, LabelSum], windows: Iterable[Window], now: datetime) -> dict[str, LabelSum]:
    """The sums with windows counted; those of days that are long past are dropped.

    Of more than MAX_SUMS those are kept whose versions the windows' pods have loaded, then those of the versions with
    the most labels, of each the latest days.
    """
    found, loaded = dict(sums), set[int]()
    for window in windows:
        loaded.update(window.loaded)
        for row in window.feedback:
            if row.reason != "pinned" and (row.labelled or row.numbers.count):
                key = label_key(row.version, row.hour)
                found[key] = found.get(key, LabelSum()).plus(row)
    oldest = f"{(now - KEPT).astimezone(UTC):%Y-%m-%d}"
    kept = {key: found[key] for key in sorted(found) if _parts(key)[1] >= oldest}
    return _bounded(kept, loaded) if len(kept) > MAX_SUMS else kept


def _wider(bucket: int) -> int:
    return max(0, round(bucket / _WIDER)) * _WIDER


def _bounded(sums: Mapping[str, LabelSum], loaded: set[int]) -> dict[str, LabelSum]:
    """The MAX_SUMS of them that matter most."""
    labels = Counter[int]()
    for key, one in sums.items():
        labels[_parts(key)[0]] += max(one.labelled, one.numbers.count)

    def weight(key: str) -> tuple[bool, int, int, str]:
        version, day = _parts(key)
        return version in loaded, labels[version], version, day

    kept = set(sorted(sums, key=weight)[-MAX_SUMS:])
    _log.warning("labels on %d versions and days are dropped: there may be %d", len(sums) - len(kept), MAX_SUMS)
    return {key: one for key, one in sums.items() if key in kept}


def _parts(key: str) -> tuple[int, str]:
    version, _, day = key.partition(":")
    return int(version), day
