"""Evidence: the windows that the pods wrote, as far as they were not read yet."""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import batched

from shared.core.errors import InvalidInputError
from shared.core.threads import AT_ONCE, side_by_side
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.telemetry.names import CLOCK_SKEW, HOUR, MINUTE, minute_of, place_of, prefixes
from shared.telemetry.plausible import is_plausible
from shared.telemetry.window import Window

MAX_WINDOW_BYTES = 1_000_000
ASKED = 500
"""After how many names it is asked whether there is time for more."""
LISTING = 10
"""A listing takes as long as so many names, however few it finds."""
FEW_GAPS = 8
"""Of so many pods with a gap each is looked for by itself; of more, minutes are listed whole, once for all of them."""

_log = logging.getLogger(__name__)

type _Named = tuple[int, str, bool]
"""Of a window: its sequence, its name, and whether it was written since then."""


def windows_after(
    blobs: BlobStore,
    endpoint: str,
    marks: Mapping[str, int],
    since: datetime,
    until: datetime,
    *,
    recent: datetime | None = None,
    hours: Collection[datetime] = (),
    earliest: datetime | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[Window]:
    """The endpoint's windows written from `since` on, but for those that `marks` says were read: by pod, up to which.

    Looked at are the minutes from `recent` on, which is `since` where it is not given, and `hours` before. Of a pod
    whose numbers have a gap before one of them, what is missing is looked for back to `earliest`, or `since`: a pod's
    windows always come in their order.

    What was read is not fetched again; no more than AT_ONCE are fetched ahead of what is taken. One that cannot be
    read, or that no pod counts so, is left out, and logged. Ends early once `goes_on` says no, which is asked every
    ASKED names, listings counted as LISTING each.
    """
    recent = recent or since
    names = _Names(blobs, endpoint, since, min(earliest or since, recent), goes_on)
    for some in batched(names.unread(marks, recent, until, hours), AT_ONCE, strict=False):
        for window in side_by_side(partial(read_window, blobs), some):
            if window and window.endpoint == endpoint:
                yield window


def hours_of(since: datetime, until: datetime) -> list[datetime]:
    """The hours under which windows of a time may lie: those of their pods' clocks, which may be behind or ahead."""
    hour = (since.astimezone(UTC) - CLOCK_SKEW).replace(minute=0, second=0, microsecond=0)
    found = []
    while hour <= until.astimezone(UTC) + CLOCK_SKEW:
        found.append(hour)
        hour += HOUR
    return found


def read_window(blobs: BlobStore, name: str) -> Window | None:
    """A window; None, which the log explains, where it cannot be read, or no pod counts so, and where it is gone."""
    try:
        blob = blobs.read(BlobContainer.TELEMETRY, name, max_bytes=MAX_WINDOW_BYTES)
        window = Window.model_validate_json(blob.data) if blob else None
    except (InvalidInputError, ValueError) as error:
        _log.warning("telemetry window %s is left out: %s", name, error)
        return None
    if window is not None and not is_plausible(window):
        _log.warning("telemetry window %s is left out: no pod counts so", name)
        return None
    return window


class _OutOfTimeError(Exception):
    """There is no time for more names."""


@dataclass(slots=True)
class _Names:
    """The names of an endpoint's windows."""

    blobs: BlobStore
    endpoint: str
    since: datetime
    earliest: datetime
    goes_on: Callable[[], bool]
    gaps: set[str] = field(default_factory=set)
    """The pods of which something was missing."""
    whole: dict[str, dict[str, list[_Named]]] = field(default_factory=dict)
    """What lies in minutes that were listed for want of it, by pod."""
    worked: int = 0
    """Names since it was asked last whether there is time for more."""

    def unread(
        self, marks: Mapping[str, int], recent: datetime, until: datetime, hours: Collection[datetime]
    ) -> Iterator[str]:
        """Those to read, a pod's in their order."""
        # Whatever is behind the name that it ends at waits too: a pod's later window must not overtake it.
        with contextlib.suppress(_OutOfTimeError):
            yield from self._unread(marks, recent, until, hours)

    def _unread(
        self, marks: Mapping[str, int], recent: datetime, until: datetime, hours: Collection[datetime]
    ) -> Iterator[str]:
        reached = dict(marks)
        begun = recent - CLOCK_SKEW
        spans = [(hour, hour + HOUR - MINUTE) for hour in sorted(hours) if hour < begun]
        for first, last in [*spans, (begun, until + CLOCK_SKEW)]:
            before = self._before(first)
            for prefix in prefixes(self.endpoint, first, last):
                for pod, (sequence, name, is_new) in self._of(prefix):
                    mark = reached.get(pod, -1)
                    if sequence <= mark:
                        continue
                    reached[pod] = sequence
                    if not is_new:
                        continue
                    if before and sequence > mark + 1:
                        yield from self._missed(pod, mark, sequence, before)
                    yield name

    def _before(self, first: datetime) -> Sequence[str]:
        """What is looked through for what is missing before a time: minute by minute, the latest first."""
        found: list[str] = []
        minute = minute_of(first - MINUTE)
        while minute >= minute_of(self.earliest - CLOCK_SKEW):
            found += prefixes(self.endpoint, minute, minute)
            minute -= MINUTE
        return list(dict.fromkeys(found))

    def _missed(self, pod: str, mark: int, sequence: int, before: Sequence[str]) -> list[str]:
        """A pod's windows between two of its numbers that lie where was not looked, in their order."""
        self.gaps.add(pod)
        found: dict[int, str] = {}
        for prefix in before:
            held = self._whole(prefix).get(pod, ()) if len(self.gaps) > FEW_GAPS else self._by_pod(prefix, pod)
            found |= {number: name for number, name, is_new in held if is_new and mark < number < sequence}
            # What a pod wrote before the first that can be missing was read, or is not asked for.
            if any(number <= mark + 1 or not is_new for number, _, is_new in held):
                break
        return [found[number] for number in sorted(found)]

    def _by_pod(self, prefix: str, pod: str) -> list[_Named]:
        return [one for other, one in self._of(f"{prefix}{pod}-") if other == pod]

    def _whole(self, prefix: str) -> Mapping[str, list[_Named]]:
        if prefix not in self.whole:
            found: dict[str, list[_Named]] = {}
            for pod, one in self._of(prefix):
                found.setdefault(pod, []).append(one)
            self.whole[prefix] = found
        return self.whole[prefix]

    def _of(self, prefix: str) -> Iterator[tuple[str, _Named]]:
        self._work(LISTING)
        for info in self.blobs.list(BlobContainer.TELEMETRY, prefix):
            self._work(1)
            place = place_of(info.name)
            if place:
                yield place[0], (place[1], info.name, self._is_new(info))

    def _work(self, names: int) -> None:
        self.worked += names
        if self.worked > ASKED:
            self.worked = 0
            if not self.goes_on():
                raise _OutOfTimeError

    def _is_new(self, info: BlobInfo) -> bool:
        # last_modified has whole seconds.
        return (info.last_modified - self.since).total_seconds() >= -1
