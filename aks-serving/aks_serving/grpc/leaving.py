"""How calls end when the server stops: each is answered, or told to ask another server, and none is cancelled.

gRPC's own stop cancels every call that reaches it before its caller knows of the stop, and a busy caller has the next
one on its way as soon as it has an answer. So answers are held back for a moment before it: callers fall silent, what
they sent is taken, and the first thing that they then hear is that the connection takes no more calls. Their answers
follow, and their next calls go elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from shared.core.errors import UnavailableError

_QUIET_S = 0.02
"""For so long no call may have begun. The time from an answer to the caller's next call, over the network."""
_HELD_S = 0.1
"""Answers are held back no longer than this, whoever goes on calling."""


class StoppingError(UnavailableError):
    """The server stops, and the call is not done by then."""

    def __init__(self) -> None:
        super().__init__("this server", "it is stopping: ask another server")


class Leaving:
    """The calls that run. Used from the event loop alone."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        """Of those that run."""
        self._end_s: float | None = None
        """Until when they may, on the event loop's clock; None while the server does not stop."""
        self._began_s = 0.0
        """When the last one began, by perf_counter."""
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """A call, from when it was taken until it may be answered. Raises StoppingError where it is not to run on."""
        self._began_s = perf_counter()
        try:
            async with asyncio.timeout_at(self._end_s) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoppingError from error
        finally:
            if not self._may_answer.is_set():
                await self._may_answer.wait()

    async def hold(self) -> None:
        """Hold all answers back until callers have fallen silent."""
        self._may_answer.clear()
        held_s = quiet_s = perf_counter()
        while quiet_s - max(self._began_s, held_s) < _QUIET_S and quiet_s - held_s < _HELD_S:
            await asyncio.sleep(_QUIET_S / 4)
            quiet_s = perf_counter()

    def release(self, within_s: float) -> None:
        """Let answers go. A call that is not done `within_s` from now ends with StoppingError."""
        self._may_answer.set()
        self._end_s = asyncio.get_running_loop().time() + within_s
        for limit in self._limits:
            limit.reschedule(self._end_s)
