"""Counts what versions are asked and answer by their reference profiles, and closes the windows of these counts.

Counted are the rows of requests that the plan assigned to a version and that it answered, and of copies that a shadow
answered; not those whose caller named the version, nor those that stable answered in place of a candidate that failed.
A row is taken down on the event loop (aks_serving.taking), which costs little, and counted on a thread of its own, some
thousand at a time: no request waits while that is done. What the thread cannot keep up with is dropped, counted, and
told in the window.

While a candidate or a shadow has another profile than stable, stable's rows are counted by that one too, so that the
two can be compared in the same bins. They are taken down once, and are dropped for both where they are.

A window lasts a minute by default, and spans generations of the plan: it is of versions and what they were. It is sent
as telemetry is (aks_serving.uplink).
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import numpy as np

from aks_serving.lanes import Lane
from aks_serving.priority import give_way
from aks_serving.profiles import beside
from aks_serving.serving import Serving
from aks_serving.taking import Batch, FeatureCounter, Taken
from aks_serving.tensors import Array
from shared.core.clock import Clock
from shared.routing.plan import Role, Route
from shared.telemetry.features import FeatureCounts, FeatureWindow, feature_window_blob_name
from shared.telemetry.profile import Profile

log = logging.getLogger(__name__)

FLUSH_S = 2.0
MAX_BEHIND_ROWS = 64 * 1024
MAX_BEHIND_BYTES = 64_000_000
"""What waits for the thread, of all versions together, at most."""
MAX_HELD_BYTES = 64_000_000
"""With that which is kept until some thousand rows are there: beyond it, rows are counted as they come."""


class Features:
    """The feature windows of every endpoint of this process. Used from the event loop alone."""

    def __init__(
        self,
        *,
        pod: str,
        clock: Clock,
        keep: Callable[[str, bytes], None],
        share: float = 1.0,
        seed: int | None = None,
        max_behind_rows: int = MAX_BEHIND_ROWS,
    ) -> None:
        """`keep` takes a closed window's name and bytes, on any thread, and does not block. `share` of the rows are
        counted, drawn at random; 0: nothing is counted, and there are no windows.
        """
        self._pod = pod
        self._clock = clock
        self._keep = keep
        self._share = share
        # Its module takes 2 MB: only where rows are drawn.
        self._random = np.random.default_rng(seed) if share < 1 else None
        self._max_behind_rows = max_behind_rows
        self._behind_rows = self._behind_bytes = self.held_bytes = 0
        self._counters: dict[tuple[str, str], FeatureCounter] = {}
        self._fresh: dict[str, dict[FeatureCounter, None]] = {}
        self._late: dict[str, Profile | None] = {}
        """Profiles that could not be had when their versions were loaded, by digest; None: they cannot be used."""
        self._made_at = clock.now()
        self._started_at: dict[str, datetime] = {}
        self._sequence: dict[str, int] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="features", initializer=give_way)
        self._loop = asyncio.get_running_loop()
        self._closed = self._is_given_up = False

    def applied(self, serving: Serving) -> None:
        """Have a snapshot's versions counted, before it answers."""
        if not self._share:
            return
        endpoint = serving.plan.endpoint
        self._started_at.setdefault(endpoint, self._clock.now())
        for route in serving.plan.routes:
            lane = serving.lanes.get(route.version)
            if lane is None:
                continue
            key = f"{route.version}:{route.role}"
            profile, others = self._profile(route, lane), self._beside(serving, route, lane)
            if route.profile_digest is None and not others:
                continue
            counter = self._counters.get((endpoint, key))
            if counter is None or counter.profile is not profile or counter.beside != others:
                outputs = [spec.name for spec in lane.model.signature.outputs]
                counter = FeatureCounter(self, endpoint, key, profile, outputs, beside=others)
                self._counters[endpoint, key] = counter
            serving.features[route.version] = counter
        if serving.mirrors is not None:
            serving.mirrors.counted_by(serving.features)
        # What is no longer served is forgotten; requests under way hold their own.
        served = {f"{route.version}:{route.role}" for route in serving.plan.routes}
        for at in [at for at in self._counters if at[0] == endpoint and at[1] not in served]:
            del self._counters[at]

    def _profile(self, route: Route, lane: Lane) -> Profile | None:
        if route.profile_digest is None:
            return None
        return lane.loaded.profile or self._late.get(route.profile_digest)

    def _beside(self, serving: Serving, route: Route, lane: Lane) -> tuple[Profile, ...]:
        """The profiles of versions beside stable that its rows are counted by, too: the candidate's first."""
        own = self._profile(route, lane)
        if route.role is not Role.STABLE or (own is None and route.profile_digest is not None):
            return ()
        others = []
        for other in sorted(serving.plan.routes, key=lambda one: one.role is not Role.CANDIDATE):
            theirs = serving.lanes.get(other.version)
            profile = self._profile(other, theirs) if theirs is not None and other is not route else None
            if theirs is not None and profile is not None:
                others.append((profile, theirs.model.signature))
        return beside(own, lane.model.signature, others)

    def lacking(self, serving: Serving) -> Iterator[tuple[Route, Lane]]:
        """The versions whose profile may yet be had."""
        for route in serving.plan.routes:
            lane = serving.lanes.get(route.version)
            if lane is None or route.profile_digest is None or not self._share:
                continue
            if lane.loaded.profile is None and route.profile_digest not in self._late:
                yield route, lane

    def found(self, serving: Serving, digest: str, profile: Profile | None) -> None:
        """A profile can be had now, or turned out not to be usable: have what the snapshot answers from now on counted
        by it.
        """
        self._late[digest] = profile
        self.applied(serving)

    async def run(self, *, every_s: float) -> None:
        """Close windows for ever."""
        while True:
            await asyncio.sleep(every_s)
            try:
                self.close_windows()
            except Exception:
                log.exception("closing feature windows went wrong; the next ones follow")

    def close_windows(self) -> None:
        """Close every window in which anything was to be counted."""
        now = self._clock.now()
        for endpoint, counters in self._fresh.items():
            started_at, self._started_at[endpoint] = self._started_at.get(endpoint, self._made_at), now
            parts = [counter.taken() for counter in counters]
            for part in parts:
                self.hand_over(part.counter, part.batch)
            self._submit(functools.partial(self._write, endpoint, started_at, max(started_at, now), parts))
        for endpoint in self._started_at.keys() - self._fresh.keys():
            self._started_at[endpoint] = now
        self._fresh = {}

    async def close(self, *, within_s: float = FLUSH_S) -> None:
        """Close the last windows, and have them kept: so long for rows that are to be counted, and as long again."""
        if self._closed:
            return
        self.close_windows()
        self._closed = True
        last = self._submit(lambda: None)
        if last is not None:
            ended = asyncio.wrap_future(last)
            _, late = await asyncio.wait([ended], timeout=within_s)
            if late:
                # What was counted is kept all the same, and says of the rest that it was dropped.
                self._is_given_up = True
                log.error("%d rows could not be counted before the stop and are dropped", self._behind_rows)
                await asyncio.wait([ended], timeout=within_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- for the counters

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the thread that rows are dropped."""
        return self._behind_rows >= self._max_behind_rows or self._behind_bytes >= MAX_BEHIND_BYTES

    def chosen(self, rows: int) -> Array | None:
        """Which of so many rows are counted; None: all."""
        return None if self._random is None else np.flatnonzero(self._random.random(rows) < self._share)

    def saw(self, counter: FeatureCounter) -> None:
        """A counter has something for the window that is open."""
        self._fresh.setdefault(counter.endpoint, {})[counter] = None

    def holds(self, size_bytes: int) -> bool:
        """So much more is kept; whether that is too much to keep for later."""
        self.held_bytes += size_bytes
        return self.held_bytes > MAX_HELD_BYTES

    def hand_over(self, counter: FeatureCounter, batch: Batch) -> None:
        """Have rows counted on the thread."""
        self._behind_rows += batch.rows
        self._behind_bytes += batch.size_bytes
        self._submit(lambda: self._count(counter, batch))

    def _count(self, counter: FeatureCounter, batch: Batch) -> None:
        if self._is_given_up:
            counter.drop(batch)
        else:
            counter.fold(batch)
        with contextlib.suppress(RuntimeError):  # the loop is gone, at a stop
            self._loop.call_soon_threadsafe(self._forget, batch.rows, batch.size_bytes)

    def _forget(self, rows: int, size_bytes: int) -> None:
        self._behind_rows -= rows
        self._behind_bytes -= size_bytes
        self.held_bytes -= size_bytes

    def _submit(self, do: Callable[[], None]) -> Future[None] | None:
        try:
            return self._thread.submit(do)
        except RuntimeError:  # it was shut down, at a stop, or no thread can be started
            log.exception("rows could not be counted and are lost")
            return None

    def _write(self, endpoint: str, started_at: datetime, ended_at: datetime, parts: Sequence[Taken]) -> None:
        """Write the window of an endpoint, on the thread; two where a version was counted by two profiles."""
        try:
            left = list(parts)
            while left:
                named = {part.counter.key: part for part in reversed(left)}
                left = [part for part in left if named[part.counter.key] is not part]
                self._write_one(endpoint, started_at, ended_at, list(named.values()))
        except Exception:
            log.exception("the feature window of %s is lost", endpoint)

    def _write_one(self, endpoint: str, started_at: datetime, ended_at: datetime, parts: Sequence[Taken]) -> None:
        versions: dict[str, FeatureCounts] = {}
        for part in parts:
            versions |= {key: counts for key, counts in part.counter.take().items() if counts.rows}
        lost = [(part.counter, part.dropped + part.counter.take_dropped()) for part in parts]
        dropped = {key: rows for counter, rows in lost if rows for key in counter.profiles}
        if not versions and not dropped:
            return
        sequence = self._sequence[endpoint] = self._sequence.get(endpoint, -1) + 1
        window = FeatureWindow(
            endpoint=endpoint,
            pod=self._pod,
            sequence=sequence,
            started_at=started_at,
            ended_at=ended_at,
            share=self._share,
            versions=versions,
            dropped=dropped,
        )
        name = feature_window_blob_name(endpoint, ended_at, self._pod, sequence)
        self._keep(name, window.model_dump_json().encode())
