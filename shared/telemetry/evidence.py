"""Evidence: what the pods reported of one generation of an endpoint's plan, merged."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from shared.core.errors import InvalidInputError
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.window import VersionCounts, Window, merge_counts

MAX_WINDOW_BYTES = 1_000_000
_CLOCK_SKEW = timedelta(minutes=5)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Counts per version over all windows of one generation, and each pod's latest window of whichever generation.

    A pod whose latest window is of an older generation has not applied this one yet. `tripped` says of each version
    that a pod took out of traffic by itself under this generation which pod was the first, and why.
    """

    generation: int
    counts: dict[int, VersionCounts]
    pods: dict[str, Window]
    tripped: dict[int, str] = field(default_factory=dict)

    def of(self, version: int) -> VersionCounts:
        """A version's counts; zeros where nothing was reported."""
        return self.counts.get(version, VersionCounts())


def evidence_of(windows: Iterable[Window], generation: int) -> Evidence:
    """Merge the windows of a generation. The order of the windows does not matter; one that comes twice counts once."""
    once = {(window.pod, window.sequence): window for window in windows}
    versions: dict[int, list[VersionCounts]] = {}
    pods: dict[str, Window] = {}
    for window in once.values():
        if window.generation == generation:
            for version, found in window.versions.items():
                versions.setdefault(version, []).append(found)
        latest = pods.get(window.pod)
        # A run that outlasts its plan is reported late, under the older generation and a higher sequence.
        if latest is None or (window.generation, window.sequence) > (latest.generation, latest.sequence):
            pods[window.pod] = window
    counts = {version: merge_counts(parts) for version, parts in versions.items()}
    return Evidence(generation=generation, counts=counts, pods=pods, tripped=_tripped(once.values(), generation))


def windows_since(blobs: BlobStore, endpoint: str, since: datetime, until: datetime) -> Iterator[Window]:
    """The endpoint's windows that were written from `since` on. One that cannot be read is left out, and logged."""
    # A window lies under the hour of its pod's clock, which may be behind ours or ahead of it.
    hour = (since.astimezone(UTC) - _CLOCK_SKEW).replace(minute=0, second=0, microsecond=0)
    while hour <= until.astimezone(UTC) + _CLOCK_SKEW:
        for info in blobs.list(BlobContainer.TELEMETRY, f"{endpoint}/{hour:%Y-%m-%dT%H}/"):
            # last_modified has whole seconds.
            if info.last_modified < since - timedelta(seconds=1):
                continue
            window = _window(blobs, info.name)
            if window and window.endpoint == endpoint:
                yield window
        hour += timedelta(hours=1)


def _tripped(windows: Iterable[Window], generation: int) -> dict[int, str]:
    tripped: dict[int, str] = {}
    for window in sorted(windows, key=lambda window: (window.ended_at, window.pod, window.sequence)):
        if window.generation == generation:
            for version, reason in window.tripped.items():
                tripped.setdefault(version, f"pod {window.pod}: {reason}")
    return tripped


def _window(blobs: BlobStore, name: str) -> Window | None:
    try:
        blob = blobs.read(BlobContainer.TELEMETRY, name, max_bytes=MAX_WINDOW_BYTES)
        return Window.model_validate_json(blob.data) if blob else None
    except (InvalidInputError, ValidationError) as error:
        _log.warning("telemetry window %s is left out: %s", name, error)
        return None
