"""The bound over all answers that are made and not sent: what clients that read slowly, or not at all, may hold.

A connection holds what its socket did not take, once that is more than the event loop's mark (64 KiB; over TLS twice
that, as aks_serving.http.secured tells), and the answers that wait behind an earlier one. Beyond the bound who holds
most is cut off, among equals who has held for the longest.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aks_serving.http.protocol import Connection

log = logging.getLogger(__name__)


class Unsent:
    """The unsent bytes of one transport's connections, `max_bytes` at most."""

    __slots__ = ("_held", "_max_bytes", "_on_its_way", "total_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[Connection, int] = {}
        """In the order in which they began to hold any."""
        self._on_its_way = False
        self.total_bytes = 0

    def hold(self, connection: "Connection", size_bytes: int) -> None:
        """A connection holds so much now. Nobody is cut off before the next turn of the event loop: this is called in
        the midst of writing.
        """
        self.total_bytes += size_bytes - self._held.get(connection, 0)
        if size_bytes:
            self._held[connection] = size_bytes
        else:
            self._held.pop(connection, None)
        if self.total_bytes > self._max_bytes and not self._on_its_way:
            self._on_its_way = True
            asyncio.get_running_loop().call_soon(self._cut)

    def _cut(self) -> None:
        """Abort the largest holders until the rest fits."""
        for connection in tuple(self._held):
            self.hold(connection, connection.held_bytes)  # some was sent meanwhile
        cut = cut_bytes = 0
        while self.total_bytes > self._max_bytes:
            largest = max(self._held, key=self._held.__getitem__)
            cut += 1
            cut_bytes += self._held[largest]
            largest.abort()
            self.hold(largest, 0)
        self._on_its_way = False
        if cut:
            log.warning(
                "%d connections that held %d bytes of unsent answers were cut off: all together held more than %d",
                cut, cut_bytes, self._max_bytes,
            )  # fmt: skip
