"""Adds the feature windows that came to the roll-ups of their hours, and hours to days.

Each roll-up is replaced by one conditional write: of two writers at once the second begins anew, and one that dies
leaves what was. Whatever cannot be read, contradicts itself or is by a profile that nobody has is left out and counted.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.core.errors import ChangedMeanwhileError, InvalidInputError
from shared.core.threads import side_by_side
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.features import FeatureCounts, FeatureWindow, beside_key, feature_folder
from shared.telemetry.names import MINUTE, place_of, prefixes
from shared.watching.rollups import (
    DAY,
    HOUR,
    ROLLUPS,
    FeatureRollup,
    Runs,
    daily_name,
    hourly_name,
    read_rollup,
)

MAX_WINDOW_BYTES = 4_000_000
_CHUNK = 256
"""Windows that are held at once: of many pods and features they are some megabytes."""
_ATTEMPTS = 8

_log = logging.getLogger(__name__)

type Check = Callable[[FeatureCounts], None]
"""Raises InvalidInputError where counts contradict themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """What a look at an hour came to: windows that were added, and whether some wait for the next look."""

    added: int
    is_left: bool = False
    listed: int = 0
    """Windows whose names were listed, whether they were added or had been before."""


def roll_up_hour(blobs: BlobStore, endpoint: str, hour: datetime, *, check: Check, most: int) -> Rolled:
    """Add to an hour's roll-up the windows that it does not hold, `most` of them at one look."""
    return _rolled(blobs, endpoint, hour, _listed(blobs, endpoint, hour, hour + HOUR - MINUTE), check, most)


def roll_up_minutes(
    blobs: BlobStore, endpoint: str, since: datetime, until: datetime, *, check: Check, most: int
) -> Rolled:
    """Add the windows of some minutes to the roll-ups of their hours, the newest hour first: see `roll_up_hour`."""
    by_hour: dict[datetime, list[str]] = {}
    for name in _listed(blobs, endpoint, since, until):
        hour = _hour_in(name.removeprefix(f"{feature_folder(endpoint)}/"))
        if hour is not None:
            by_hour.setdefault(hour, []).append(name)
    added, is_left = 0, False
    for hour in sorted(by_hour, reverse=True):
        rolled = _rolled(blobs, endpoint, hour, by_hour[hour], check, most - added)
        added, is_left = added + rolled.added, is_left or rolled.is_left
    return Rolled(added=added, is_left=is_left, listed=sum(map(len, by_hour.values())))


def roll_up_day(blobs: BlobStore, endpoint: str, day: datetime) -> bool:
    """Make a day's roll-up the sum of its hours' as they are. Whether there was anything to do."""
    for _ in range(_ATTEMPTS):
        try:
            return _rolled_day(blobs, endpoint, day)
        except ChangedMeanwhileError:
            continue
    raise ChangedMeanwhileError(daily_name(endpoint, day))


def _listed(blobs: BlobStore, endpoint: str, since: datetime, until: datetime) -> list[str]:
    """The names of the windows of some minutes."""
    asked = prefixes(feature_folder(endpoint), since, until)
    return [info.name for prefix in asked for info in blobs.list(BlobContainer.TELEMETRY, prefix)]


def _rolled(blobs: BlobStore, endpoint: str, hour: datetime, names: Sequence[str], check: Check, most: int) -> Rolled:
    """Add to an hour's roll-up those of these windows that it does not hold."""
    for _ in range(_ATTEMPTS):
        try:
            return _added_to(blobs, endpoint, hour, names, check, most) if names else Rolled(added=0)
        except ChangedMeanwhileError:
            continue
    raise ChangedMeanwhileError(hourly_name(endpoint, hour))


def _added_to(blobs: BlobStore, endpoint: str, hour: datetime, names: Sequence[str], check: Check, most: int) -> Rolled:
    rollup, etag = read_rollup(blobs, hourly_name(endpoint, hour))
    rollup = rollup or FeatureRollup(endpoint=endpoint, since=hour, until=hour + HOUR)
    taken = {pod: _unpacked(runs) for pod, runs in rollup.taken.items()}
    unread = [(name, place) for name in names if (place := place_of(name)) and place[1] not in taken.get(place[0], ())]
    now, left_out = unread[: max(0, most)], rollup.left_out
    if not now:
        return Rolled(added=0, is_left=bool(unread), listed=len(names))
    versions, dropped = dict(rollup.versions), Counter(rollup.dropped)
    asked = Counter({key: rollup.asked_of(key) for key in {*rollup.versions, *rollup.dropped}})
    for start in range(0, len(now), _CHUNK):
        windows = _windows(blobs, endpoint, [name for name, _ in now[start : start + _CHUNK]])
        out = _add(versions, [window.versions if window else None for window in windows], check)
        left_out += len(out)
        for at, window in enumerate(windows):
            if window is not None:
                dropped.update(window.dropped)
                asked.update({key: rows for key, rows in _asked(window).items() if (at, key) not in out})
    for _, (pod, sequence) in now:
        taken.setdefault(pod, set()).add(sequence)
    changed = rollup.model_copy(
        update={
            "windows": rollup.windows + len(now),
            "left_out": left_out,
            "taken": {pod: _packed(taken[pod]) for pod in sorted(taken)},
            "versions": {key: versions[key] for key in sorted(versions)},
            "dropped": {key: dropped[key] for key in sorted(dropped)},
            "asked": {key: asked[key] for key in sorted(asked)},
        }
    )
    _store(blobs, hourly_name(endpoint, hour), changed, etag)
    return Rolled(added=len(now), is_left=len(unread) > len(now), listed=len(names))


def _rolled_day(blobs: BlobStore, endpoint: str, day: datetime) -> bool:
    prefix = hourly_name(endpoint, day).removesuffix("T00.json")
    infos = {info.name: info.etag for info in blobs.list(ROLLUPS, prefix)}
    rollup, etag = read_rollup(blobs, daily_name(endpoint, day))
    if not infos or (rollup is not None and rollup.hours == infos):
        return False
    read = dict(zip(infos, side_by_side(lambda name: read_rollup(blobs, name), infos), strict=True))
    hours = [found for found, _ in read.values() if found is not None]
    versions: dict[str, FeatureCounts] = {}
    out = _add(versions, [hour.versions for hour in hours], _unchecked)
    left_out = sum(hour.left_out for hour in hours) + len(out)
    asked: Counter[str] = Counter()
    for at, hour in enumerate(hours):
        keys = {*hour.versions, *hour.dropped}
        asked.update({key: hour.asked_of(key) for key in keys if (at, key) not in out})
    changed = FeatureRollup(
        endpoint=endpoint,
        since=day,
        until=day + DAY,
        windows=sum(hour.windows for hour in hours),
        left_out=left_out,
        # What was read, which another writer may have changed since the listing: then there is a next time.
        hours={name: found_etag for name, (_, found_etag) in read.items() if found_etag},
        versions={key: versions[key] for key in sorted(versions)},
        dropped=dict(sum((Counter(hour.dropped) for hour in hours), Counter[str]())),
        asked={key: asked[key] for key in sorted(asked)},
    )
    _store(blobs, daily_name(endpoint, day), changed, etag)
    return True


def _asked(window: FeatureWindow) -> dict[str, int]:
    """By key, of how many rows those that were counted or dropped are the share that the window states."""
    rows = Counter({key: counts.rows for key, counts in window.versions.items()})
    rows.update(window.dropped)
    return {key: round(number / window.share) for key, number in rows.items()}


def _add(
    versions: dict[str, FeatureCounts], windows: Sequence[Mapping[str, FeatureCounts] | None], check: Check
) -> set[tuple[int, str]]:
    """Add windows to counts; which of them were left out, by their place and key, or without a key the whole window."""
    out = {(at, "") for at, window in enumerate(windows) if window is None}
    parts: dict[str, list[FeatureCounts]] = {key: [counts] for key, counts in versions.items()}
    for at, window in enumerate(windows):
        for key, counts in (window or {}).items():
            held = parts.setdefault(key, [])
            try:
                check(counts)
                _check_alike(key, held, counts)
            except InvalidInputError as error:
                _log.warning("feature counts of %s are left out: %s", key, error)
                out.add((at, key))
                continue
            held.append(counts)
    versions |= {key: FeatureCounts.sum_of(held) for key, held in parts.items() if held}
    return out


def _check_alike(key: str, held: Sequence[FeatureCounts], counts: FeatureCounts) -> None:
    if "@" in key and beside_key(key.partition("@")[0], counts.profile) != key:
        raise InvalidInputError(f"they are by profile {counts.profile[:12]}, which their key does not name")
    if held and (held[0].profile, len(held[0].cells)) != (counts.profile, len(counts.cells)):
        raise InvalidInputError(
            f"they are by profile {counts.profile[:12]}, and those before by {held[0].profile[:12]}: a version has one"
        )


def _unchecked(counts: FeatureCounts) -> None:
    """They were checked when they went into the hour."""


def _windows(blobs: BlobStore, endpoint: str, names: Sequence[str]) -> list[FeatureWindow | None]:
    return list(side_by_side(lambda name: _window(blobs, endpoint, name), names))


def _window(blobs: BlobStore, endpoint: str, name: str) -> FeatureWindow | None:
    try:
        blob = blobs.read(BlobContainer.TELEMETRY, name, max_bytes=MAX_WINDOW_BYTES)
        window = FeatureWindow.model_validate_json(blob.data) if blob else None
    except (InvalidInputError, ValueError) as error:
        _log.warning("feature window %s is left out: %s", name, error)
        return None
    return window if window and window.endpoint == endpoint else None


def _store(blobs: BlobStore, name: str, rollup: FeatureRollup, etag: str | None) -> None:
    data = rollup.model_dump_json().encode()
    if etag is not None:
        blobs.replace(ROLLUPS, name, data, etag=etag)
    elif not blobs.create(ROLLUPS, name, data):
        raise ChangedMeanwhileError(name)


def _hour_in(name: str) -> datetime | None:
    """The hour that a window's name within its folder begins with."""
    try:
        return datetime.strptime(name[: len("2026-11-21T08")], "%Y-%m-%dT%H").replace(tzinfo=UTC)
    except ValueError:
        return None


def _unpacked(runs: Runs) -> set[int]:
    return {number for first, last in runs for number in range(first, last + 1)}


def _packed(numbers: set[int]) -> Runs:
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)
