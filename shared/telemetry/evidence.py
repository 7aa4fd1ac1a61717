"""Evidence: the windows that the pods wrote, as far as they were not read yet."""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched

from pydantic import ValidationError

from shared.core.errors import InvalidInputError
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.window import Window

MAX_WINDOW_BYTES = 1_000_000
AT_ONCE = 16
"""Windows that are read side by side: a tick of a hundred pods reads some hundreds, each a request to storage."""
ASKED = 500
"""After how many names it is asked whether there is time for more."""
CLOCK_SKEW = timedelta(minutes=5)

_log = logging.getLogger(__name__)


def windows_after(
    blobs: BlobStore,
    endpoint: str,
    marks: Mapping[str, int],
    since: datetime,
    until: datetime,
    *,
    hours: Collection[datetime] | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[Window]:
    """The endpoint's windows written from `since` on, but for those that `marks` says were read: by pod, up to which.

    What was read is not fetched again; no more than AT_ONCE are fetched ahead of what is taken. One that cannot be
    read is left out, and logged. With `hours` only theirs are looked at, and of a pod whose numbers have a gap before
    one of them every hour before it: a pod's windows always come in their order. Ends early once `goes_on` says no,
    which is asked every ASKED names.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="windows") as threads:
        asked = _Names(blobs, endpoint, since, goes_on).unread(marks, hours_of(since, until), hours)
        for names in batched(asked, AT_ONCE, strict=False):
            for window in threads.map(lambda name: _window(blobs, name), names):
                if window and window.endpoint == endpoint:
                    yield window


def hours_of(since: datetime, until: datetime) -> list[datetime]:
    """The hours under which windows of a time may lie: those of their pods' clocks, which may be behind or ahead."""
    hour = (since.astimezone(UTC) - CLOCK_SKEW).replace(minute=0, second=0, microsecond=0)
    found = []
    while hour <= until.astimezone(UTC) + CLOCK_SKEW:
        found.append(hour)
        hour += timedelta(hours=1)
    return found


class _OutOfTimeError(Exception):
    """There is no time for more names."""


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of an endpoint's windows."""

    blobs: BlobStore
    endpoint: str
    since: datetime
    goes_on: Callable[[], bool]

    def unread(
        self, marks: Mapping[str, int], every: Sequence[datetime], hours: Collection[datetime] | None
    ) -> Iterator[str]:
        """Those to read, a pod's in their order."""
        # Whatever is behind the name that it ends at waits too: a pod's later window must not overtake it.
        with contextlib.suppress(_OutOfTimeError):
            yield from self._unread(marks, every, hours)

    def _unread(
        self, marks: Mapping[str, int], every: Sequence[datetime], hours: Collection[datetime] | None
    ) -> Iterator[str]:
        reached = dict(marks)
        for number, hour in enumerate(every):
            if hours is not None and hour not in hours:
                continue
            for pod, sequence, name in self._of(hour):
                if sequence <= reached.get(pod, -1):
                    continue
                if hours is not None and sequence > reached.get(pod, -1) + 1:
                    yield from self._missed(pod, reached.get(pod, -1), every[:number])
                reached[pod] = sequence
                yield name

    def _missed(self, pod: str, mark: int, before: Sequence[datetime]) -> Iterator[str]:
        """A pod's windows of hours that were not looked at."""
        for hour in before:
            for found, sequence, name in self._of(hour, f"{pod}-"):
                if found == pod and sequence > mark:
                    mark = sequence
                    yield name

    def _of(self, hour: datetime, prefix: str = "") -> Iterator[tuple[str, int, str]]:
        infos = self.blobs.list(BlobContainer.TELEMETRY, f"{self.endpoint}/{hour:%Y-%m-%dT%H}/{prefix}")
        for number, info in enumerate(infos):
            if number and number % ASKED == 0 and not self.goes_on():
                raise _OutOfTimeError
            pod, _, sequence = info.name.rpartition("/")[2].removesuffix(".json").rpartition("-")
            # last_modified has whole seconds.
            if sequence.isdigit() and info.last_modified >= self.since - timedelta(seconds=1):
                yield pod, int(sequence), info.name


def _window(blobs: BlobStore, name: str) -> Window | None:
    try:
        blob = blobs.read(BlobContainer.TELEMETRY, name, max_bytes=MAX_WINDOW_BYTES)
        return Window.model_validate_json(blob.data) if blob else None
    except (InvalidInputError, ValidationError) as error:
        _log.warning("telemetry window %s is left out: %s", name, error)
        return None
