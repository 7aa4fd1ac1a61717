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
        blob = self.blobs.read(BlobContainer.REPORTS, PLACE, max_bytes=10_000)
        place = blob.data.decode("utf-8", "replace") if blob else ""
        begun_s = kept_s = self.monotonic()
        before: str | None = None
        for name in sorted(names, key=lambda name: (name <= place, name)):
            now_s = self.monotonic()
            if before is not None and now_s - begun_s >= self.call_s:
                self._keep(before)
                return
            if before is None or now_s - kept_s >= KEPT_S:
                self._keep(name)
                kept_s = now_s
            yield name
            before = name

    def _keep(self, name: str) -> None:
        data = name.encode()
        found = self.blobs.info(BlobContainer.REPORTS, PLACE)
        try:
            if found is None:
                self.blobs.create(BlobContainer.REPORTS, PLACE, data)
            else:
                self.blobs.replace(BlobContainer.REPORTS, PLACE, data, etag=found.etag)
        except ChangedMeanwhileError:
            pass  # Another call keeps its own, which is as good.
