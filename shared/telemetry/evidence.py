"""Evidence: what the pods reported of one generation of an endpoint's plan, merged."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.window import VersionCounts, Window, merge_counts

MAX_WINDOW_BYTES = 1_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Counts per version over all windows of one generation, and each pod's latest window of it."""

    counts: dict[int, VersionCounts]
    pods: dict[str, Window]

    def of(self, version: int) -> VersionCounts:
        """A version's counts; zeros where nothing was reported."""
        return self.counts.get(version, VersionCounts())


def evidence_of(windows: Iterable[Window], generation: int) -> Evidence:
    """Merge the windows of a generation. The order of the windows does not matter; one that comes twice counts once."""
    once = {(w.pod, w.sequence): w for w in windows if w.generation == generation}
    versions: dict[int, list[VersionCounts]] = {}
    pods: dict[str, Window] = {}
    for window in once.values():
        for version, counts in window.versions.items():
            versions.setdefault(version, []).append(counts)
        latest = pods.get(window.pod)
        if latest is None or window.sequence > latest.sequence:
            pods[window.pod] = window
    return Evidence(counts={version: merge_counts(counts) for version, counts in versions.items()}, pods=pods)


def windows_since(blobs: BlobStore, endpoint: str, since: datetime, until: datetime) -> Iterator[Window]:
    """The endpoint's windows that were written from `since` on. One that cannot be read is left out, and logged."""
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    # A pod's clock may be ahead of ours: the hour after `until` is looked at as well.
    while hour <= until.astimezone(UTC) + timedelta(hours=1):
        for info in blobs.list(BlobContainer.TELEMETRY, f"{endpoint}/{hour:%Y-%m-%dT%H}/"):
            # last_modified has whole seconds.
            if info.last_modified < since - timedelta(seconds=1):
                continue
            window = _window(blobs, info.name)
            if window and window.endpoint == endpoint:
                yield window
        hour += timedelta(hours=1)


def _window(blobs: BlobStore, name: str) -> Window | None:
    blob = blobs.read(BlobContainer.TELEMETRY, name, max_bytes=MAX_WINDOW_BYTES)
    if blob is None:
        return None
    try:
        return Window.model_validate_json(blob.data)
    except ValidationError as error:
        _log.warning("telemetry window %s is left out: %s", name, error)
        return None
