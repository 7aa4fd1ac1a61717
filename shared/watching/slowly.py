"""Feeds the detector of slow drift the hours that it has not seen, and keeps its state.

The state is a blob under a name made of its content, stored before the document that names it.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from shared.core.canonical import digest_of_bytes
from shared.core.errors import InvalidInputError
from shared.drift.slow import SlowDrift, SlowState
from shared.registry.drift_policy import DriftPolicy
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.profile import Profile
from shared.watching.assessing import SLOW_LEARNS_H, Seen, feed, slow_detector
from shared.watching.documents import Alarm, DriftReport
from shared.watching.gathering import History
from shared.watching.rollups import HOUR, hour_of
from shared.watching.seeing import unhealthy

MAX_STATE_BYTES = 64_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """The detector of slow drift after a look: as it is to be kept, and as it is to be told of."""

    kept: SlowDrift
    told: SlowDrift
    until: datetime


def look_for_slow(
    blobs: BlobStore, report: DriftReport, seen: Seen, policy: DriftPolicy, history: History
) -> Slow | None:
    """Feed the detector the whole hours that it has not seen. None where too little is known yet."""
    profile, until = seen.profile, hour_of(history.until)
    if profile is None:
        return None
    before = history.before(f"{seen.version}:{seen.role}", unhealthy(report))
    before = [(hour, counts) for hour, counts in before if hour + HOUR <= until and counts.profile == profile.id]
    if report.slow_until is None:
        learned, fresh = before[:SLOW_LEARNS_H], before[SLOW_LEARNS_H:]
        if len(learned) < SLOW_LEARNS_H:
            return None
    else:
        learned = [one for one in before if one[0] < report.slow_until]
        fresh = [one for one in before if one[0] >= report.slow_until]
    detector = _detector(blobs, report, profile, policy)
    if Alarm.DATA_DRIFT in report.alarms or len(learned) < SLOW_LEARNS_H // 3:
        return Slow(kept=detector, told=detector, until=until)
    told: SlowDrift | None = None
    usual, hours = learned, fresh
    while hours:
        taken = feed(detector, hours, usual)
        done = len(hours) if taken is None else taken
        usual, hours = [*usual, *hours[:done]], hours[done:]
        if taken is not None:
            told, detector = detector, slow_detector(profile, policy)
    return Slow(kept=detector, told=told or detector, until=until)


def store_state(blobs: BlobStore, report: DriftReport, slow: Slow) -> str:
    """Store the detector as it is to be kept; its name."""
    data = slow.kept.state.model_dump_json().encode()
    name = f"{report.model}/drift-state/{report.version}-{report.role}-{digest_of_bytes(data)[:32]}.json"
    while not blobs.create(BlobContainer.REPORTS, name, data):
        # No deletion that was decided before it is named again succeeds; after one that did it is stored again.
        if blobs.touch(BlobContainer.REPORTS, name):
            break
    return name


def _detector(blobs: BlobStore, report: DriftReport, profile: Profile, policy: DriftPolicy) -> SlowDrift:
    fresh = slow_detector(profile, policy)
    if report.slow_blob is None:
        return fresh
    try:
        blob = blobs.read(BlobContainer.REPORTS, report.slow_blob, max_bytes=MAX_STATE_BYTES)
        state = SlowState.model_validate_json(blob.data) if blob else None
        if state is None:
            _log.warning("slow drift of %s is looked for from now on: %s is gone", report.stream, report.slow_blob)
            return fresh
        if state.mean_windows != fresh.state.mean_windows:
            return fresh
        return SlowDrift.of(profile, state)
    except (InvalidInputError, ValidationError) as error:
        _log.warning("slow drift of %s is looked for from now on: %s", report.stream, error)
        return fresh
