"""Names of windows: a folder for each minute, so that who counts each minute need not list the hour.

A window lies under the minute of its end in UTC: `<endpoint>/2026-11-21T08-05/<pod>-<sequence>.json`. The names of an
hour begin with `<endpoint>/2026-11-21T08`, those of ten minutes with `<endpoint>/2026-11-21T08-0`. Before there were
minutes, windows lay under the hour, `<endpoint>/2026-11-21T08/`: whatever lists any of that hour finds them too.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clocks of pods may be from ours."""
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
IDLE = MINUTE
"""A pod that has nothing to count writes a window so often, by which it is known to be there."""


def window_name(folder: str, ended_at: datetime, pod: str, sequence: int) -> str:
    """A window's name within a folder of windows."""
    return f"{folder}/{ended_at.astimezone(UTC):%Y-%m-%dT%H-%M}/{pod}-{sequence:010d}.json"


def place_of(name: str) -> tuple[str, int] | None:
    """The pod and the sequence in a window's name; None where it is no window's."""
    pod, _, sequence = name.rpartition("/")[2].removesuffix(".json").rpartition("-")
    return (pod, int(sequence)) if pod and sequence.isascii() and sequence.isdigit() else None


def minute_of(at: datetime) -> datetime:
    """The beginning of its minute, in UTC."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)


def prefixes(folder: str, since: datetime, until: datetime) -> Iterator[str]:
    """What the names of the windows begin with that end in the minutes from that of `since` to that of `until`, in the
    order of time: few prefixes, each of one minute, of ten, or of an hour.

    Of an hour of which only a part is asked for, all that lies directly under it comes first.
    """
    minute, last = minute_of(since), minute_of(until)
    hour: datetime | None = None
    while minute <= last:
        begun = minute.replace(minute=0)
        if minute == begun and minute + HOUR <= last + MINUTE:
            yield f"{folder}/{minute:%Y-%m-%dT%H}"
            minute += HOUR
            continue
        if begun != hour:
            hour = begun
            yield f"{folder}/{hour:%Y-%m-%dT%H}/"
        ten = f"{folder}/{minute:%Y-%m-%dT%H-%M}"
        if minute.minute % 10 == 0 and minute + 10 * MINUTE <= last + MINUTE:
            yield ten[:-1]
            minute += 10 * MINUTE
        else:
            yield f"{ten}/"
            minute += MINUTE
