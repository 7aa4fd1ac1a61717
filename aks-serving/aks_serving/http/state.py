"""What the connections of one transport share."""

import asyncio
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING

from aks_serving.exchange import Exchange
from aks_serving.http.access import Tokens
from aks_serving.http.answers import DATED
from aks_serving.http.head import RequestHead
from aks_serving.http.limits import Limits
from aks_serving.http.unsent import Unsent

if TYPE_CHECKING:
    from aks_serving.http.protocol import Connection

_KEPT_HEADS = 1024
_KEPT_HEAD_BYTES = 2048


class Shared:
    """One of it for each transport."""

    __slots__ = (
        "buffered_bytes", "clock", "connections", "draining", "emptied", "handle", "heads", "limits", "refused",
        "retiring", "sights", "spares", "tokens", "unsent",
    )  # fmt: skip

    def __init__(
        self, handle: Callable[[Exchange], None], limits: Limits, tokens: Tokens | None, clock: Callable[[], float]
    ) -> None:
        self.handle = handle
        self.limits = limits
        self.tokens = tokens
        self.clock = clock
        self.connections: set[Connection] = set()
        self.heads: dict[bytes, RequestHead] = {}
        """Plain heads that came twice, by their bytes, each let in by the tokens of now."""
        self.sights: set[int] = set()
        """Hashes of heads that came once: gateways number and trace requests, and such a head never comes again."""
        self.spares = 0
        """Connections beyond the bound that may ask how the server is."""
        self.retiring = False
        """Every answer is its connection's last."""
        self.draining = False
        self.emptied = asyncio.Event()
        """Set once the last connection is lost, when draining."""
        self.buffered_bytes = 0
        """Of bodies that are not whole yet."""
        self.unsent = Unsent(limits.unsent_bytes)
        DATED.tell(time())
        self.refused: dict[int, int] = {}
        """Requests that the transport answered itself, by status."""

    def keep(self, raw: bytes, head: RequestHead) -> None:
        """Remember a head that was let in, from its second time on, where requests may go the fast way by it."""
        if not head.plain or len(raw) > _KEPT_HEAD_BYTES or self.retiring:
            return
        sight = hash(raw)
        if sight not in self.sights:
            if len(self.sights) >= _KEPT_HEADS:
                self.sights.clear()
            self.sights.add(sight)
            return
        if len(self.heads) >= _KEPT_HEADS:
            self.heads.clear()
        head.kept = True
        self.heads[raw] = head


class Pace:
    """How fast bytes move one way, looked at a span at a time."""

    __slots__ = ("_since_s", "moved_bytes")

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self.moved_bytes = 0

    def restart(self, now_s: float) -> None:
        """Begin a span."""
        self._since_s = now_s
        self.moved_bytes = 0

    def elapsed_s(self, now_s: float) -> float:
        """Since the span began."""
        return now_s - self._since_s

    def too_slow(self, now_s: float, limits: Limits) -> bool:
        """Whether a whole span passed, and too little moved in it. A span with enough is followed by the next."""
        span_s = now_s - self._since_s
        if span_s < limits.progress_s:
            return False
        if self.moved_bytes < limits.min_bytes_per_s * span_s:
            return True
        self.restart(now_s)
        return False
