"""Reads what an assessment needs: profiles, and the roll-ups of the span and of the time before it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.core.errors import InvalidInputError
from shared.drift.inflation import LEAST_WINDOWS
from shared.drift.performance import PerformanceModel
from shared.drift.sides import check_counts
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import Profile
from shared.watching.alarms import is_alarmed
from shared.watching.documents import Span
from shared.watching.report import Quality
from shared.watching.rollups import (
    DAY,
    HOUR,
    FeatureRollup,
    daily_name,
    day_of,
    hour_of,
    hourly_name,
    hours_between,
    read_rollups,
    sum_of,
)

MAX_PROFILE_BYTES = 64_000_000
LEARNED_DAYS = 30
MOST_HOURS = 24 * 14
"""However long the span, no more roll-ups of an hour are read to learn what is usual."""
LONGEST_STRETCH = MOST_HOURS // 2 * HOUR
"""However long the span, versions are compared side by side in stretches of no more."""
LEAST_HISTORY_H = 72
_MOST_PROFILES = 64

type Hours = Mapping[datetime, FeatureCounts]


class Profiles:
    """Reference profiles, and estimates of performance, by their digests. A profile never changes: it is kept."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._held: dict[str, Profile] = {}

    def find(self, digest: str) -> Profile | None:
        """A profile; None where there is none, or what is stored is not the one of that digest."""
        if digest in self._held:
            return self._held[digest]
        try:
            name = artifact_blob_name(digest)
            blob = self._blobs.read(BlobContainer.ARTIFACTS, name, max_bytes=MAX_PROFILE_BYTES)
            profile = Profile.model_validate_json(blob.data) if blob else None
        except (InvalidInputError, ValueError):
            return None
        if profile is None or profile.id != digest:
            return None
        if len(self._held) >= _MOST_PROFILES:
            self._held.pop(next(iter(self._held)))
        self._held[digest] = profile
        return profile

    def performance(self, digest: str | None) -> PerformanceModel | None:
        """What estimates a version's performance; None where there is nothing that does."""
        if digest is None:
            return None
        try:
            name = artifact_blob_name(digest)
            blob = self._blobs.read(BlobContainer.ARTIFACTS, name, max_bytes=MAX_PROFILE_BYTES)
            return PerformanceModel.model_validate_json(blob.data) if blob else None
        except (InvalidInputError, ValueError):
            return None

    def check(self, counts: FeatureCounts) -> None:
        """Raises InvalidInputError where counts contradict themselves, or nobody has the profile they name."""
        profile = self.find(counts.profile)
        if profile is None:
            raise InvalidInputError(f"they are by profile {counts.profile[:12]}, which does not exist")
        check_counts(profile, counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The roll-ups of an endpoint, of its span and before."""

    since: datetime
    """Where the span begins."""
    until: datetime
    span: timedelta
    hourly: Sequence[FeatureRollup]
    daily: Sequence[FeatureRollup]

    def hours(self, key: str) -> Hours:
        """The counts of a version in a role in each hour of the span that has any."""
        return self._between(key, self.since, self.until)

    def within(self, key: str, since: datetime) -> Hours:
        """Its counts in each hour from then on that has any."""
        return self._between(key, since, self.until)

    def days(self, key: str) -> dict[datetime, FeatureCounts]:
        """Its counts in each whole day of the last weeks that has any."""
        return {one.since: one.versions[key] for one in self.daily if key in one.versions and one.versions[key].rows}

    def before(self, key: str, alarmed: Sequence[Span]) -> list[tuple[datetime, FeatureCounts]]:
        """Its counts by hour, whenever no alarm stood, in their order, the span's among them."""
        every = self._between(key, datetime.min.replace(tzinfo=self.since.tzinfo), self.until)
        return [(hour, counts) for hour, counts in every.items() if not is_alarmed(alarmed, hour, hour + HOUR)]

    def first(self, key: str) -> datetime | None:
        """The first hour, of those that were read, in which it had any."""
        return next((hour for hour, _ in self.before(key, ())), None)

    def healthy(self, key: str, alarmed: Sequence[Span]) -> list[FeatureCounts]:
        """Its counts in earlier windows without an alarm, as long as the span where there are enough of them."""
        days, hours = self._days(key, alarmed), self._groups(key, alarmed, self.span)
        for found in (days, hours, self._groups(key, alarmed, HOUR)):
            if len(found) >= LEAST_WINDOWS:
                return found
        return []

    def quality(self, key: str, healthy: int) -> Quality:
        """How much stands behind the span."""
        within = [one for one in self.hourly if self.since <= one.since < self.until]
        return Quality(
            hours=math.ceil((self.until - self.since) / HOUR),
            hours_with_rows=sum(key in one.versions and one.versions[key].rows > 0 for one in within),
            windows=sum(one.windows for one in within),
            left_out=sum(one.left_out for one in within),
            dropped=sum(one.dropped.get(key, 0) for one in within),
            asked=sum(one.asked_of(key) for one in within),
            healthy_windows=healthy,
        )

    def _between(self, key: str, since: datetime, until: datetime) -> dict[datetime, FeatureCounts]:
        return {
            one.since: one.versions[key]
            for one in sorted(self.hourly, key=lambda one: one.since)
            if since <= one.since < until and key in one.versions and one.versions[key].rows
        }

    def _days(self, key: str, alarmed: Sequence[Span]) -> list[FeatureCounts]:
        """Whole days, joined until they are as long as the span; nothing where that is no whole number of days."""
        number = self.span // DAY
        if not number or self.span % DAY:
            return []
        last = day_of(self.since)
        by_day = {day: counts for day, counts in self.days(key).items() if day < last}
        held = {day: counts for day, counts in by_day.items() if not is_alarmed(alarmed, day, day + DAY)}
        return _joined(held, last, number, DAY)

    def _groups(self, key: str, alarmed: Sequence[Span], length: timedelta) -> list[FeatureCounts]:
        held = {hour: counts for hour, counts in self.before(key, alarmed) if hour < self.since}
        return _joined(held, self.since, length // HOUR, HOUR)


def span_of(hours: float) -> timedelta:
    """A span in whole hours, one at least."""
    return timedelta(hours=max(1, math.ceil(hours)))


def stretch(begun: datetime | None, span: timedelta, until: datetime) -> tuple[datetime, int]:
    """From when on a version is compared with the stable one, and the how manieth stretch of its rollout that begins.

    A stretch begins with the rollout, and another after each span. Each is looked at for the second span of its time,
    and the first from the beginning on: so what is compared is never less than a span that has been, and grows from
    look to look. Without a beginning it is the span. A span of more than LONGEST_STRETCH counts as that: two of them
    are looked at, and read_history reads no more.
    """
    span = min(span, LONGEST_STRETCH)
    if begun is None:
        return hour_of(until) - span, 0
    part = max(0, (hour_of(until) - hour_of(begun)) // span - 1)
    return hour_of(begun) + part * span, part


def read_history(blobs: BlobStore, endpoint: str, span: timedelta, until: datetime) -> History:
    """Read the roll-ups that a report up to `until` stands on. The span begins on the hour."""
    since = hour_of(until) - span
    # Of a span of whole days, whole days teach what is usual. Beside stable, up to two spans are compared.
    windows = LEAST_WINDOWS + 2 if span % DAY else 2
    learned = min(max(span * windows, timedelta(hours=LEAST_HISTORY_H)), MOST_HOURS * HOUR)
    names = [hourly_name(endpoint, hour) for hour in hours_between(min(since, hour_of(until) - learned), until)]
    reach = max(LEARNED_DAYS, span // DAY * LEAST_WINDOWS)
    days = (day_of(until) - DAY * number for number in range(reach, 0, -1))
    hourly = read_rollups(blobs, names)
    daily = read_rollups(blobs, [daily_name(endpoint, day) for day in days])
    return History(since=since, until=until, span=span, hourly=hourly, daily=daily)


def _joined(
    parts: Mapping[datetime, FeatureCounts], end: datetime, number: int, step: timedelta
) -> list[FeatureCounts]:
    """Windows of so many parts that follow one another, back from `end`, in the order of time. One that lacks half or
    more is left out.
    """
    if not parts:
        return []
    found: list[FeatureCounts] = []
    earliest = min(parts)
    while end > earliest:
        start = end - step * number
        held = [parts[start + step * at] for at in range(number) if start + step * at in parts]
        profile = held[-1].profile if held else ""
        total = sum_of(counts for counts in held if counts.profile == profile)
        if total is not None and len(held) * 2 > number:
            found.append(total)
        end = start
    return found[::-1]
