"""Roll-ups: the feature windows of an endpoint's pods, added by hour and by day.

An hour's roll-up is the exact sum of the windows that lie under its minutes, and says of which pod it holds which: a
window counts once, however often it is looked at, however late it came and in whatever order. Each roll-up is replaced
by one conditional write, so that of two writers at once the second begins anew, and one that dies leaves what was.
Windows stay as they are. A day's roll-up is the sum of its hours', and says of which states of them.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from shared.core.threads import side_by_side
from shared.store.ports import Blob, BlobContainer, BlobStore
from shared.telemetry.features import FeatureCounts

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ROLLUPS = BlobContainer.REPORTS
"""Where roll-ups are stored: not beside the windows, which storage deletes by their age."""
MAX_ROLLUP_BYTES = 64_000_000
_log = logging.getLogger(__name__)

type Runs = tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
"""Whole numbers, as rising runs of them: first and last."""


class FeatureRollup(BaseModel):
    """The sum of the feature windows of some time, by their keys, as in `3:stable`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = Field(default=1, ge=1, le=1)
    endpoint: str
    since: AwareDatetime
    until: AwareDatetime
    windows: NonNegativeInt = 0
    left_out: NonNegativeInt = 0
    """Windows, or counts of a version, that could not be read or contradict themselves."""
    taken: dict[str, Runs] = Field(default_factory=dict)
    """Of an hour: by pod, the sequences of the windows that are in it, those left out too."""
    hours: dict[str, str] = Field(default_factory=dict)
    """Of a day: the ETags of the roll-ups that are in it."""
    versions: dict[str, FeatureCounts] = Field(default_factory=dict)
    dropped: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Rows that pods could not keep up with and did not count, by the same keys."""
    asked: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Rows that those counted and dropped were drawn from, by the same keys: in each window they are the share of them
    that it states, to the nearest whole row."""

    def asked_of(self, key: str) -> int:
        """How many rows there were of a version in a role. A roll-up that does not say was made of all of them."""
        rows = self.versions[key].rows if key in self.versions else 0
        return self.asked.get(key, rows + self.dropped.get(key, 0))


def hour_of(at: datetime) -> datetime:
    """The beginning of its hour, in UTC."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_of(at: datetime) -> datetime:
    """The beginning of its day, in UTC."""
    return hour_of(at).replace(hour=0)


def hours_between(since: datetime, until: datetime) -> Iterator[datetime]:
    """The hours that begin at `since` or after it, and before `until`."""
    hour = hour_of(since)
    if hour < since:
        hour += HOUR
    while hour < until:
        yield hour
        hour += HOUR


def hourly_name(endpoint: str, hour: datetime) -> str:
    """Where an hour's roll-up is stored, within ROLLUPS."""
    return f"{endpoint}/features-hourly/{hour.astimezone(UTC):%Y-%m-%dT%H}.json"


def daily_name(endpoint: str, day: datetime) -> str:
    """Where a day's roll-up is stored, within ROLLUPS."""
    return f"{endpoint}/features-daily/{day.astimezone(UTC):%Y-%m-%d}.json"


def read_rollups(blobs: BlobStore, names: Sequence[str]) -> list[FeatureRollup]:
    """The roll-ups of these names that exist, in their order, read side by side."""
    found = side_by_side(lambda name: read_rollup(blobs, name)[0], names)
    return [rollup for rollup in found if rollup is not None]


def sum_of(parts: Iterable[FeatureCounts]) -> FeatureCounts | None:
    """The sum of counts of one profile; None of no counts."""
    held = list(parts)
    return FeatureCounts.sum_of(held) if held else None


def read_rollup(blobs: BlobStore, name: str) -> tuple[FeatureRollup | None, str | None]:
    """A roll-up and its ETag. One that is damaged is begun anew: its windows are still there."""
    blob: Blob | None = blobs.read(ROLLUPS, name, max_bytes=MAX_ROLLUP_BYTES)
    if blob is None:
        return None, None
    try:
        return FeatureRollup.model_validate_json(blob.data), blob.info.etag
    except ValidationError as error:
        _log.error("roll-up %s is damaged, and is made anew: %s", name, error)
        return None, blob.info.etag
