"""Whose turn it is: of endpoints that one call has no time for all of, each has its turn.

They are gone over in the order of their names, from the one after the last that an earlier call came to. The place is
kept in a blob, before the first that is gone over and later where time has passed. So of those at which calls die none
keeps the others waiting: the next call begins behind the place that was kept last.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shared.core.errors import ChangedMeanwhileError
from shared.store.ports import BlobContainer, BlobStore

CALL_S = 240.0
"""How long a call goes on at most, but for the endpoint that it is at."""
KEPT_S = 10.0
"""How long it goes on before it keeps its place again."""
PLACE = "drift-turn.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Gives turns. Intervals are of the monotonic clock."""

    blobs: BlobStore
    monotonic: Callable[[], float]
    call_s: float = CALL_S

    def of(self, names: Iterable[str]) -> Iterator[str]:
        """Those of the names that have their turn in this call: the first in any case, and all if time is left."""
        place = read_place(self.blobs, PLACE)
        begun_s = kept_s = self.monotonic()
        before: str | None = None
        for name in sorted(names, key=lambda name: (name <= place, name)):
            now_s = self.monotonic()
            if before is not None and now_s - begun_s >= self.call_s:
                keep_place(self.blobs, PLACE, before)
                return
            if before is None or now_s - kept_s >= KEPT_S:
                keep_place(self.blobs, PLACE, name)
                kept_s = now_s
            yield name
            before = name


def read_place(blobs: BlobStore, name: str) -> str:
    """The place that was kept in a blob; empty where none was."""
    blob = blobs.read(BlobContainer.REPORTS, name, max_bytes=10_000)
    return blob.data.decode("utf-8", "replace") if blob else ""


def keep_place(blobs: BlobStore, name: str, place: str) -> None:
    """Keep a place. Of several calls at once one keeps its own."""
    found = blobs.info(BlobContainer.REPORTS, name)
    try:
        if found is None:
            blobs.create(BlobContainer.REPORTS, name, place.encode())
        else:
            blobs.replace(BlobContainer.REPORTS, name, place.encode(), etag=found.etag)
    except ChangedMeanwhileError:
        pass  # Another call's is as good.
