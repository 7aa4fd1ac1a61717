"""Keeps the roll-ups of an endpoint up to date, a bounded piece of work a call.

Every call looks for the windows of the newest minutes, from the last call on. Shortly after an hour is over its
windows are listed whole, before its report is made. And once an hour the hours before are gone over, back to LATE, a
few a call. How far all that has come stands in a blob beside the roll-ups, which is written last: who dies before
leaves it to the next call to look at the same windows again, and a window counts once. Of two calls at once one keeps
its place.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from shared.core.errors import ChangedMeanwhileError
from shared.store.ports import BlobStore
from shared.telemetry.names import CLOCK_SKEW, HOUR
from shared.watching.merging import Check, roll_up_day, roll_up_hour, roll_up_minutes
from shared.watching.moving import bring_rollups
from shared.watching.rollups import DAY, ROLLUPS, day_of, hour_of

SETTLE = timedelta(minutes=3)
"""How long after an hour its report is made: windows of its end come a little later."""
LATE = timedelta(hours=48)
"""Windows that come so late are still rolled up, over the calls of the next hour."""
FARTHEST = timedelta(days=30)
"""Whatever was missed, no hour before is looked at again."""
MOST_WINDOWS = 10_000
"""Windows of an endpoint that a call rolls up; the next one carries on. A quarter is kept for late ones."""
MOST_LISTED = 50_000
"""Names of late windows that a call lists of an endpoint, but for the rest of an hour; the next one carries on."""

_log = logging.getLogger(__name__)


class Looked(BaseModel):
    """How far the windows of an endpoint were looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    until: AwareDatetime
    """Windows that were written by then were looked for among the newest."""
    hour: AwareDatetime
    """The last hour that was listed whole after it was over."""
    begun: AwareDatetime
    """When late hours began to be gone over last."""
    place: AwareDatetime | None = None
    """Which of them is next; None: they were all gone over."""


@dataclass(slots=True, kw_only=True)
class Rolling:
    """Rolls up."""

    blobs: BlobStore
    most_windows: int = MOST_WINDOWS
    most_listed: int = MOST_LISTED

    def roll_up(self, endpoint: str, now: datetime, check: Check) -> int:
        """Add the windows that came; how many they were."""
        before, etag = self._looked(endpoint, now)
        if etag is None:
            bring_rollups(self.blobs, endpoint)
        looked, added = self._newest(endpoint, before, now, check)
        looked, more = self._over(endpoint, looked, now, check, self.most_windows - added)
        added += more
        looked, more = self._late(endpoint, looked, now, check, max(1, self.most_windows - added))
        if looked != before or etag is None:
            self._mark(endpoint, looked, etag)
        return added + more

    def _newest(self, endpoint: str, looked: Looked, now: datetime, check: Check) -> tuple[Looked, int]:
        # What is late is not waited for.
        most = max(1, self.most_windows - self.most_windows // 4)
        since = max(looked.until, hour_of(now) - HOUR) - CLOCK_SKEW
        found = roll_up_minutes(self.blobs, endpoint, since, now + CLOCK_SKEW, check=check, most=most)
        return looked if found.is_left else looked.model_copy(update={"until": now}), found.added

    def _over(self, endpoint: str, looked: Looked, now: datetime, check: Check, most: int) -> tuple[Looked, int]:
        """The hour that is just over, whole."""
        over = hour_of(now - SETTLE) - HOUR
        if looked.hour >= over:
            return looked, 0
        found = roll_up_hour(self.blobs, endpoint, over, check=check, most=max(1, most))
        return looked if found.is_left else looked.model_copy(update={"hour": over}), found.added

    def _late(self, endpoint: str, looked: Looked, now: datetime, check: Check, most: int) -> tuple[Looked, int]:
        """Carry on with the pass over the late hours, the oldest first, and keep the place; how many were added."""
        if looked.place is None and hour_of(looked.begun - SETTLE) >= hour_of(now - SETTLE):
            return looked, 0
        begun, place = (now, day_of(looked.begun - LATE)) if looked.place is None else (looked.begun, looked.place)
        place = max(hour_of(place), day_of(now - FARTHEST))
        end = hour_of(now - SETTLE) - HOUR
        added = listed = 0
        while place < end and added < most and listed < self.most_listed:
            rolled = roll_up_hour(self.blobs, endpoint, place, check=check, most=most - added)
            added, listed = added + rolled.added, listed + rolled.listed
            if rolled.is_left:
                break
            place += HOUR
            if place == day_of(place):
                roll_up_day(self.blobs, endpoint, place - DAY)
        if place < end:
            return looked.model_copy(update={"begun": begun, "place": place}), added
        if day_of(end) + DAY <= now:
            roll_up_day(self.blobs, endpoint, day_of(end))
        return looked.model_copy(update={"begun": begun, "place": None}), added

    def _looked(self, endpoint: str, now: datetime) -> tuple[Looked, str | None]:
        """How far the last call came. Of an endpoint that was never looked at, or cannot be told, as if long ago."""
        blob = self.blobs.read(ROLLUPS, _name(endpoint), max_bytes=10_000)
        long_ago = now - DAY
        never = Looked(until=long_ago, hour=long_ago, begun=now - HOUR, place=day_of(now - LATE))
        if blob is None:
            return never, None
        try:
            found = Looked.model_validate_json(blob.data)
        except ValidationError as error:
            _log.warning("how far %s was looked at cannot be read, and is looked at anew: %s", endpoint, error)
            return never, blob.info.etag
        # A clock that was ahead must not keep later windows from being looked for.
        return (found if found.until <= now and found.begun <= now else never), blob.info.etag

    def _mark(self, endpoint: str, looked: Looked, etag: str | None) -> None:
        data = looked.model_dump_json().encode()
        try:
            if etag is None:
                self.blobs.create(ROLLUPS, _name(endpoint), data)
            else:
                self.blobs.replace(ROLLUPS, _name(endpoint), data, etag=etag)
        except ChangedMeanwhileError:
            _log.info("another call looked at endpoint %s at the same time", endpoint)


def _name(endpoint: str) -> str:
    return f"{endpoint}/features-looked.json"
