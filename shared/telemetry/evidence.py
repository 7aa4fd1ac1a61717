"""Evidence: the windows that the pods wrote, as far as they were not read yet."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import batched

from pydantic import ValidationError

from shared.core.errors import InvalidInputError
from shared.store.ports import BlobContainer, BlobStore
from shared.telemetry.window import Window

MAX_WINDOW_BYTES = 1_000_000
AT_ONCE = 16
"""Windows that are read side by side: a tick of a hundred pods reads some hundreds, each a request to storage."""
_CLOCK_SKEW = timedelta(minutes=5)

_log = logging.getLogger(__name__)


def windows_after(
    blobs: BlobStore, endpoint: str, marks: Mapping[str, int], since: datetime, until: datetime
) -> Iterator[Window]:
    """The endpoint's windows written from `since` on, but for those that `marks` says were read: by pod, up to which.

    What was read is not fetched again; no more than AT_ONCE are fetched ahead of what is taken. One that cannot be
    read is left out, and logged.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="windows") as threads:
        for names in batched(_unread(blobs, endpoint, marks, since, until), AT_ONCE, strict=False):
            for window in threads.map(lambda name: _window(blobs, name), names):
                if window and window.endpoint == endpoint:
                    yield window


def _unread(
    blobs: BlobStore, endpoint: str, marks: Mapping[str, int], since: datetime, until: datetime
) -> Iterator[str]:
    """The names of the windows to read."""
    # A window lies under the hour of its pod's clock, which may be behind ours or ahead of it.
    hour = (since.astimezone(UTC) - _CLOCK_SKEW).replace(minute=0, second=0, microsecond=0)
    while hour <= until.astimezone(UTC) + _CLOCK_SKEW:
        for info in blobs.list(BlobContainer.TELEMETRY, f"{endpoint}/{hour:%Y-%m-%dT%H}/"):
            # last_modified has whole seconds.
            if info.last_modified >= since - timedelta(seconds=1) and not _is_read(info.name, marks):
                yield info.name
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
