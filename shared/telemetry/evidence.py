"""Evidence: the windows that the pods wrote, as far as they were not read yet."""

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from shared.core.errors import InvalidInputError
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.window import Window

MAX_WINDOW_BYTES = 1_000_000
_CLOCK_SKEW = timedelta(minutes=5)

_log = logging.getLogger(__name__)


def windows_after(
    blobs: BlobStore, endpoint: str, marks: Mapping[str, int], since: datetime, until: datetime
) -> Iterator[Window]:
    """The endpoint's windows written from `since` on, but for those that `marks` says were read: by pod, up to which.

    What was read is not fetched again. One that cannot be read is left out, and logged.
    """
    # A window lies under the hour of its pod's clock, which may be behind ours or ahead of it.
    hour = (since.astimezone(UTC) - _CLOCK_SKEW).replace(minute=0, second=0, microsecond=0)
    while hour <= until.astimezone(UTC) + _CLOCK_SKEW:
        for info in blobs.list(BlobContainer.TELEMETRY, f"{endpoint}/{hour:%Y-%m-%dT%H}/"):
            # last_modified has whole seconds.
            if info.last_modified < since - timedelta(seconds=1) or _is_read(info.name, marks):
                continue
            window = _window(blobs, info.name)
            if window and window.endpoint == endpoint:
                yield window
        hour += timedelta(hours=1)


def _is_read(name: str, marks: Mapping[str, int]) -> bool:
    pod, _, sequence = name.rpartition("/")[2].removesuffix(".json").rpartition("-")
    return sequence.isdigit() and int(sequence) <= marks.get(pod, -1)


def _window(blobs: BlobStore, name: str) -> Window | None:
    try:
        blob = blobs.read(BlobContainer.TELEMETRY, name, max_bytes=MAX_WINDOW_BYTES)
        return Window.model_validate_json(blob.data) if blob else None
    except (InvalidInputError, ValidationError) as error:
        _log.warning("telemetry window %s is left out: %s", name, error)
        return None
