"""Carries closed windows to storage on a thread of its own: serving never waits for telemetry.

While storage is down the latest windows are kept in memory, up to a bound; beyond it the oldest are lost, counted, and
the loss is logged. A window is sent until storage has it: its name is taken once, so sending it twice is harmless.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from shared.core.errors import UnavailableError

log = logging.getLogger(__name__)

MAX_WAITING = 1000
_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 15.0
_TOLD_FAILURES = 2
"""From so many tries in a row that fail on, it is told: storage may close a connection just as it is used."""


class Uplink:
    """Sends named blobs, oldest first."""

    def __init__(self, send: Callable[[str, bytes], None], *, max_waiting: int = MAX_WAITING) -> None:
        """`send` blocks and raises UnavailableError where it should be tried again."""
        self._send = send
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._changed = threading.Condition()
        self._stop_at_s: float | None = None
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._thread.start()

    def put(self, name: str, data: bytes) -> None:
        """Take a blob to send. Does not block."""
        with self._changed:
            self._waiting.append((name, data))
            if len(self._waiting) > self._max_waiting:
                self._waiting.popleft()
                self.lost += 1
            self._changed.notify()

    def close(self, *, within_s: float) -> None:
        """Send what waits, for at most so long; what is left then is lost, and logged."""
        with self._changed:
            self._stop_at_s = monotonic() + within_s
            self._changed.notify()
        self._thread.join(within_s + 1.0)
        if self._waiting:
            log.error("%d telemetry windows could not be sent before the stop and are lost", len(self._waiting))

    def _run(self) -> None:
        failures = reported = 0
        while (item := self._next()) is not None:
            try:
                self._send(*item)
            except UnavailableError as error:
                failures += 1
                if failures == _TOLD_FAILURES:
                    log.warning("telemetry cannot be sent, it is kept for now: %s", error)
                self._pause(min(_BACKOFF_S * 2 ** min(failures - 1, 10), _MAX_BACKOFF_S))
                continue
            except Exception:
                log.exception("the telemetry window %s cannot be sent and is lost", item[0])
                self.lost += 1
            if failures >= _TOLD_FAILURES:
                log.warning("telemetry can be sent again")
            failures = 0
            if self.lost > reported:
                log.error("%d telemetry windows were lost", self.lost - reported)
                reported = self.lost
            with self._changed:
                if self._waiting and self._waiting[0] is item:
                    self._waiting.popleft()

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            while not self._waiting:
                if self._stop_at_s is not None:
                    return None
                self._changed.wait()
            if self._stop_at_s is not None and monotonic() >= self._stop_at_s:
                return None
            return self._waiting[0]

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if self._stop_at_s is None:
                # A window that comes in the meantime does not shorten the pause.
                self._changed.wait_for(lambda: self._stop_at_s is not None, timeout=seconds)
            else:
                self._changed.wait(timeout=min(seconds, max(0.0, self._stop_at_s - monotonic())))
