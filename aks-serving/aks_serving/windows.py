"""Closes telemetry windows: every few seconds, and whenever another snapshot answers an endpoint.

Counts belong to the snapshot that a request began with, so no window mixes two plans; a replaced snapshot's window is
closed once its requests are done (or, where one hangs, in parts). A window without requests is sent while the plan is a
rollout's (it has a candidate, or a shadow), when what answers changed, once a minute, and when the server stops: the
control plane learns from it that this pod is ready, that it went back, that it is there, and that it ends on purpose.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from time import monotonic

from aks_serving.counts import Variant, VersionTally, added
from aks_serving.serving import Serving
from shared.core.clock import Clock
from shared.core.slots import Slot
from shared.routing.plan import RoutePlan
from shared.telemetry.histogram import merged
from shared.telemetry.names import CLOCK_SKEW, IDLE
from shared.telemetry.window import Deaths, Window, window_blob_name

log = logging.getLogger(__name__)

_DRAIN_S = 1.0
"""How long windows stay open for the requests of a replaced snapshot, so that they are closed in order."""
_SETTLE_S = 0.005
"""How long after a swap windows are closed: a millisecond's work, which would be the first requests' wait."""


class _Open:
    """The open window of one snapshot."""

    __slots__ = ("announced", "serving", "started_at")

    def __init__(self, serving: Serving, started_at: datetime) -> None:
        self.serving = serving
        self.started_at = started_at
        self.announced = False


class Windows:
    """The windows of every endpoint of this pod. Used from the event loop alone."""

    def __init__(
        self,
        *,
        pod: str,
        clock: Clock,
        keep: Callable[[str, bytes], None],
        is_behind: Callable[[str], bool] = lambda _: False,
        memory_share: Callable[[], float | None] = lambda: None,
        deaths: Callable[[str], Deaths | None] = lambda _endpoint: None,
        slot: Slot | None = None,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        """`keep` takes a closed window's name and bytes, and does not block.

        `is_behind` tells whether an endpoint's latest plan is not applied yet: such a pod reports even when idle, so
        that the control plane waits for it. `memory_share` is of what the server may take. `deaths` tells of an
        endpoint which processes of the pod ended unbidden, and with what. `slot` is the pod's. By `now_s` it is told
        when a version was last seen.
        """
        self._now_s = now_s
        self._slot = slot
        self._deaths = deaths
        self._memory_share = memory_share
        self._is_behind = is_behind
        self._pod = pod
        self._clock = clock
        self._keep = keep
        self._open: dict[str, list[_Open]] = {}
        self._totals: dict[str, dict[Variant, VersionTally]] = {}
        self._seen_s: dict[str, dict[int, float]] = {}
        self._refused: dict[str, dict[str, int]] = {}
        self._sequence: dict[str, int] = {}
        self._named: dict[str, datetime] = {}
        self._changed = asyncio.Event()

    def applied(self, serving: Serving) -> None:
        """Another snapshot answers its endpoint."""
        windows = self._open.setdefault(serving.plan.endpoint, [])
        windows.append(_Open(serving, self._clock.now()))
        self._changed.set()

    def announce(self, endpoint: str) -> None:
        """Report soon what answers the endpoint, where anything does."""
        if endpoint in self._open:
            self._open[endpoint][-1].announced = False
            self._changed.set()

    def totals(self) -> dict[str, Mapping[Variant, VersionTally]]:
        """What was counted since the start, by endpoint and variant, but of what was forgotten."""
        totals: dict[str, Mapping[Variant, VersionTally]] = {}
        for endpoint, windows in self._open.items():
            for window in windows:
                window.serving.count_runs()
            parts = [_variants(w.serving, w.serving.tally.versions) for w in windows]
            totals[endpoint] = added([self._totals.get(endpoint, {}), *parts])
        return totals

    def seen_s(self) -> dict[str, dict[int, float]]:
        """When each version was last counted, or in a plan that answers, by endpoint, but of what was forgotten."""
        for endpoint in self._open:
            self._see(endpoint)
        return self._seen_s

    def forget(self, kept: Mapping[str, Container[int]]) -> None:
        """Of what was counted before, keep these versions alone, by endpoint."""
        for endpoint, seen_s in self._seen_s.items():
            for version in [version for version in seen_s if version not in kept[endpoint]]:
                del seen_s[version]
        for endpoint, totals in self._totals.items():
            for variant in [variant for variant in totals if variant[0] not in kept[endpoint]]:
                del totals[variant]

    def refused(self) -> dict[str, dict[str, int]]:
        """Requests that no version ran since the start, by endpoint and why."""
        return {
            endpoint: merged([self._refused.get(endpoint, {}), *(w.serving.tally.refused for w in windows)])
            for endpoint, windows in self._open.items()
        }

    async def run(self, *, every_s: float) -> None:
        """Close windows for ever."""
        due_s = monotonic() + every_s
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(0.0, due_s - monotonic()))
            if self._changed.is_set():
                await asyncio.sleep(_SETTLE_S)
            self._changed.clear()
            await self._replaced_are_done()
            close = self.close_changed
            if monotonic() >= due_s:
                close, due_s = self.close_all, monotonic() + every_s
            try:
                close()
            except Exception:
                log.exception("closing windows went wrong; the next ones follow")

    def close_changed(self) -> None:
        """Close the windows of replaced snapshots and of those not announced yet."""
        for endpoint, windows in self._open.items():
            if len(windows) > 1 or not windows[-1].announced:
                self._close(endpoint)

    def close_all(self, *, is_last: bool = False) -> None:
        """Close every window. `is_last`: the server stops, and the latest of each endpoint says so."""
        for endpoint in self._open:
            self._close(endpoint, is_last=is_last)

    async def _replaced_are_done(self) -> None:
        give_up_s = monotonic() + _DRAIN_S
        # Looked at, not awaited: an event that tells of the last request would cost every request.
        while self._replaced_in_flight() and monotonic() < give_up_s:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _replaced_in_flight(self) -> bool:
        return any(window.serving.tally.in_flight for windows in self._open.values() for window in windows[:-1])

    def _see(self, endpoint: str) -> None:
        seen_s = self._seen_s.setdefault(endpoint, {})
        for window in self._open[endpoint]:
            planned = (route.version for route in window.serving.plan.routes)
            seen_s.update(dict.fromkeys((*planned, *window.serving.tally.versions), self._now_s()))

    def _close(self, endpoint: str, *, is_last: bool = False) -> None:
        windows = self._open[endpoint]
        self._see(endpoint)
        for window in windows:
            is_latest = window is windows[-1]
            self._close_one(endpoint, window, replaced=not is_latest, is_last=is_last and is_latest)
        self._open[endpoint] = [w for w in windows[:-1] if w.serving.tally.in_flight] + windows[-1:]

    def _close_one(self, endpoint: str, window: _Open, *, replaced: bool, is_last: bool) -> None:
        serving = window.serving
        serving.count_runs()
        counted, refused = serving.tally.take()
        feedback = serving.tally.feedback.take()
        started_at, window.started_at = window.started_at, self._clock.now()
        beats = _rolls_out(serving.plan) or self._is_behind(endpoint) or self._is_idle(endpoint, window.started_at)
        heartbeat = (beats and not replaced) or is_last
        if not (counted or refused or feedback or heartbeat) and window.announced:
            return
        window.announced = True
        totals = self._totals.setdefault(endpoint, {})
        for variant, tally in _variants(serving, counted).items():
            totals.setdefault(variant, VersionTally()).add(tally)
        self._refused[endpoint] = merged([self._refused.get(endpoint, {}), refused])
        sequence = self._sequence[endpoint] = self._sequence.get(endpoint, -1) + 1
        closed = Window(
            endpoint=endpoint,
            pod=self._pod,
            sequence=sequence,
            generation=serving.plan.generation,
            started_at=started_at,
            ended_at=max(started_at, window.started_at),
            loaded=sorted(serving.lanes),
            failed={version: why for version, why in serving.failed.items() if version not in serving.waiting},
            tripped=dict(serving.tripped),
            refused=refused,
            memory_share=self._memory_share(),
            deaths=self._deaths(endpoint),
            versions={version: tally.counts() for version, tally in counted.items()},
            feedback=feedback,
            is_last=is_last,
            slot=self._slot,
        )
        name = window_blob_name(endpoint, self._named_at(endpoint, closed.ended_at), self._pod, sequence)
        self._keep(name, closed.model_dump_json().encode())

    def _is_idle(self, endpoint: str, now: datetime) -> bool:
        """Whether the last window is so long ago that the pod may be taken for dead."""
        return endpoint in self._named and abs(now - self._named[endpoint]) >= IDLE

    def _named_at(self, endpoint: str, ended_at: datetime) -> datetime:
        """The time in a window's name: no earlier than in the one before, where the clock was set back a little, for
        names are read in their order.
        """
        before = self._named.get(endpoint, ended_at)
        self._named[endpoint] = before if ended_at < before <= ended_at + CLOCK_SKEW else ended_at
        return self._named[endpoint]


def _rolls_out(plan: RoutePlan) -> bool:
    """Whether the plan is a rollout's, and has this pod take part in it."""
    return bool(plan.routes) and (plan.candidate is not None or plan.rollout_id is not None or bool(plan.shadows))


def _variants(serving: Serving, versions: Mapping[int, VersionTally]) -> dict[Variant, VersionTally]:
    return {(version, str(serving.routes[version].role)): tally for version, tally in versions.items()}
