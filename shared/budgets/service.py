"""Keeps the request sums of the endpoints: what error budgets and alerts are judged by.

An endpoint is counted from when it was first seen: what was before is not counted back, lest a budget could not be told
for want of history. Called by timer. Several calls at once do no harm: the sums are saved by one
conditional write, and who is late leaves it to the next call. A call takes a bounded time and saves after every
portion; what is left is for the calls after it, and the sums say that they are not whole.

What was written since the last call lies in the latest minutes, and these alone are listed while the counting keeps
up; and one hour at a time, every TURN. So a window that comes late is counted within the hour. Where it is the first
that is found of what its pod wrote since, what lies before it is counted first.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from shared.budgets.sums import SUMS_ID, RequestSums, counted
from shared.core.clock import Clock
from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError
from shared.rollout.endpoint import Endpoint
from shared.store.ports import BlobStore, Container, DocumentStore
from shared.store.repository import Repository
from shared.telemetry.evidence import hours_of, windows_after
from shared.telemetry.names import HOUR

PORTION = 2_000
"""How many windows of an endpoint are in memory at once, and counted by one write."""
CALL_S = 240.0
"""How long a call lists and reads at most, but for the portion that it is in: shared evenly by the endpoints."""
RECENT = timedelta(hours=1)
"""How long ago all was counted at most, for the latest minutes alone to be listed."""
TURN = timedelta(minutes=10)
"""How often one whole hour is listed as well."""
_HOURS = 4
"""Of so many at most windows are looked for, and each has its turn."""
_ONCE_MORE = timedelta(minutes=45)
"""For so much longer than the sums look back hours have their turn: each has it after what is LATE has come. Less than
the time for which they know what was counted."""


_log = logging.getLogger(__name__)


class BudgetService:
    """Counts requests."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        documents: DocumentStore,
        blobs: BlobStore,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        portion: int = PORTION,
    ) -> None:
        self._endpoints = endpoints
        self._documents = documents
        self._blobs = blobs
        self._clock = clock
        self._monotonic = monotonic
        self._portion = portion

    def count(self) -> None:
        """Count what the pods of every endpoint reported since the last call.

        One that cannot be counted is logged, and keeps no other from being so.
        """
        now = self._clock.now()
        ends_at = self._monotonic() + CALL_S
        endpoints = [one.endpoint for one in self._endpoints.readable()]
        for left, endpoint in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
            started_at = self._monotonic()
            try:
                self._count(endpoint, now, until=started_at + (ends_at - started_at) / left)
            except Exception:  # noqa: BLE001 - whatever is wrong with one endpoint, the others are counted
                _log.exception("the requests of endpoint %s are not counted", endpoint)

    def _count(self, endpoint: str, now: datetime, *, until: float) -> None:
        """Count an endpoint's windows, a portion at a time, up to a time of the monotonic clock."""
        stored = self._documents.get(Container.ENDPOINTS, endpoint, SUMS_ID)
        sums = RequestSums.model_validate(stored.body) if stored else RequestSums(endpoint=endpoint, since=now)
        if sums.begun_at is None and sums.whole_at is None:
            sums = sums.model_copy(update={"since": now, "begun_at": now})
        marks = {pod: mark.sequence for pod, mark in sums.marks.items()}
        clock = _Deadline(self._monotonic, until)
        listed = _to_list(sums, now)
        windows = windows_after(
            self._blobs,
            endpoint,
            marks,
            listed.since,
            now,
            recent=listed.recent,
            hours=listed.hours,
            goes_on=clock.is_left,
        )
        is_all = False
        while not is_all:
            portion = list(islice(windows, self._portion))
            is_all = len(portion) < self._portion and not clock.is_over
            sums = counted(sums, portion, now, is_all=is_all, is_from_since=listed.recent == listed.since)
            body = sums.model_dump(mode="json")
            try:
                if stored:
                    stored = self._documents.replace(Container.ENDPOINTS, body, etag=stored.etag)
                else:
                    stored = self._documents.create(Container.ENDPOINTS, body)
            except (AlreadyExistsError, ChangedMeanwhileError):
                return
            if not clock.is_left():
                return


@dataclass(slots=True)
class _Deadline:
    """Whether a time of the monotonic clock has come, and whether that was ever said."""

    monotonic: Callable[[], float]
    until: float
    is_over: bool = False

    def is_left(self) -> bool:
        self.is_over = self.is_over or self.monotonic() >= self.until
        return not self.is_over


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What a call lists: the minutes from `recent` on, and whole hours before, of what was written from `since` on."""

    since: datetime
    recent: datetime
    hours: tuple[datetime, ...] = ()


def _to_list(sums: RequestSums, now: datetime) -> _Listed:
    if sums.whole_at is None or not timedelta() <= now - sums.whole_at <= RECENT:
        return _Listed(since=sums.since, recent=sums.since)
    since = max(sums.since - _ONCE_MORE, sums.begun_at or sums.since - _ONCE_MORE)
    turns = range(_number(sums.whole_at, TURN) + 1, _number(now, TURN) + 1)
    due = {turn % _HOURS for turn in turns}
    hours = tuple(hour for hour in hours_of(since, now) if _number(hour, HOUR) % _HOURS in due)
    return _Listed(since=since, recent=max(sums.whole_at, since), hours=hours)


def _number(at: datetime, length: timedelta) -> int:
    """The number of the hour, or of the turn, that a time lies in."""
    return int(at.timestamp() // length.total_seconds())
