"""The campaign's model servers: each follows the plan, serves what it says, and tells of it in windows.

They count exactly what each share comes to, without chance. What cannot be written waits, as in the real server; what
waits when a server dies is lost.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.ports import BlobContainer
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import Deaths, ShadowCounts, VersionCounts, Window, window_blob_name
from tests.world.campaign_draws import CANDIDATE, Scenario, Trait
from tests.world.fakes import FakeBlobs, FakeClock
from tests.world.world import ENDPOINT

REQUESTS_A_SECOND = 60
WINDOW_S = 5
LOAD_S = 3
_CRASHES_AFTER_S = 6
"""Long enough to have told that it serves."""
_ERRING, _GUARD_ERRORS = 0.3, 40
_WELL_MS, _SLOW_MS = 5.0, 2_000.0
_LABELS = {"a": 0.7, "b": 0.3}
_DRIFTED = {"a": 0.1, "b": 0.9}


@dataclass
class Server:
    """A model server."""

    name: str
    scenario: Scenario
    served: Counter[int]
    """What all servers counted, by version."""
    plan: RoutePlan | None = None
    sequence: int = 0
    age_s: int = 0
    began_at: datetime | None = None
    since: dict[int, int] = field(default_factory=dict)
    """When each version began to load, by the server's age."""
    assigned: dict[int, float] = field(default_factory=dict)
    copied: dict[int, float] = field(default_factory=dict)
    tripped: dict[int, str] = field(default_factory=dict)
    waiting: list[Window] = field(default_factory=list)
    deaths: Deaths | None = None
    """Of those before it in its place."""
    ran_s: int = 0
    """For how long it has run the candidate."""

    @property
    def is_dead(self) -> bool:
        """Whether the candidate has ended it."""
        return self.scenario.trait is Trait.CRASHING and self.ran_s >= _CRASHES_AFTER_S

    def follower(self, name: str) -> "Server":
        """What follows it where it died: with nothing but what was noted on disk."""
        rollout_id = self.plan.rollout_id if self.plan else None
        if rollout_id is None:
            return Server(name=name, scenario=self.scenario, served=self.served, deaths=self.deaths)
        before = self.deaths.processes if self.deaths and self.deaths.rollout_id == rollout_id else {}
        processes = {version: before.get(version, 0) + 1 for version in self.since}
        deaths = Deaths(rollout_id=rollout_id, processes=processes)
        return Server(name=name, scenario=self.scenario, served=self.served, deaths=deaths)

    def leave(self, now: datetime) -> None:
        """Stop as it is told: what it has counted is to be sent."""
        self._close(now)

    def live(self, blobs: FakeBlobs, clock: FakeClock, *, is_cut_off: bool) -> None:
        """Serve for a second; poll the plan and write windows unless storage is out of reach."""
        if not is_cut_off:
            self._poll(blobs, clock)
        self._serve()
        self.age_s += 1
        if self.age_s % WINDOW_S == 0:
            self._close(clock.now())
        if not is_cut_off:
            self.send(blobs)

    def send(self, blobs: FakeBlobs) -> None:
        """Write the windows that wait."""
        for window in self.waiting:
            name = window_blob_name(ENDPOINT, window.ended_at, window.pod, window.sequence)
            blobs.put(BlobContainer.TELEMETRY, name, window.model_dump_json().encode(), {})
        self.waiting.clear()

    def _poll(self, blobs: FakeBlobs, clock: FakeClock) -> None:
        blob = blobs.held.get((BlobContainer.ROUTES, plan_blob_name(ENDPOINT)))
        if blob is None:
            return
        plan = RoutePlan.model_validate_json(blob.data)
        if self.plan is not None and plan.generation <= self.plan.generation:
            return
        self._close(clock.now())
        self.plan, self.began_at, self.tripped = plan, clock.now(), {}
        self.since = {route.version: self.since.get(route.version, self.age_s) for route in plan.routes}

    def _serve(self) -> None:
        if self.plan is None or self.scenario.trait is Trait.QUIET:
            return
        plan = self.plan.for_pod(self.name)
        stable = plan.stable
        for route in plan.routes:
            takes = route.version in self._loaded() and route.version not in self.tripped
            version = route.version if takes or stable is None else stable.version
            self.assigned[version] = self.assigned.get(version, 0) + REQUESTS_A_SECOND * route.weight_bp / 10_000
            self.ran_s += route.version == CANDIDATE and takes and bool(route.weight_bp or route.mirror_bp)
            if route.mirror_bp and takes:
                copies = REQUESTS_A_SECOND * route.mirror_bp / 10_000
                self.copied[route.version] = self.copied.get(route.version, 0) + copies
        errors = self.assigned.get(CANDIDATE, 0) * _ERRING
        is_watched = self.scenario.is_guarded and self.scenario.trait is Trait.ERRING and stable is not None
        if is_watched and stable is not None and stable.version != CANDIDATE and errors >= _GUARD_ERRORS:
            self.tripped = {CANDIDATE: f"it failed {errors:.0f} requests"}

    def _loaded(self) -> list[int]:
        return [
            version
            for version, since in self.since.items()
            if self.age_s - since >= LOAD_S and not (version == CANDIDATE and self.scenario.trait is Trait.UNLOADABLE)
        ]

    def _close(self, now: datetime) -> None:
        if self.plan is None or self.began_at is None:
            return
        is_bad = self.scenario.trait is Trait.UNLOADABLE and CANDIDATE in self.since
        self.waiting.append(
            Window(
                endpoint=ENDPOINT,
                pod=self.name,
                sequence=self.sequence,
                generation=self.plan.generation,
                started_at=self.began_at,
                ended_at=now,
                loaded=self._loaded(),
                failed={CANDIDATE: "it has an unknown operator"} if is_bad else {},
                tripped=self.tripped,
                deaths=self.deaths,
                versions=self._counted(),
            )
        )
        self.sequence, self.began_at = self.sequence + 1, now

    def _counted(self) -> dict[int, VersionCounts]:
        found = {version: self._counts(version, _whole(self.assigned, version)) for version in list(self.assigned)}
        for version in list(self.copied):
            copies = _whole(self.copied, version)
            is_erring = version == CANDIDATE and self.scenario.trait is Trait.ERRING
            errors = round(copies * _ERRING) if is_erring else 0
            is_other = version == CANDIDATE and self.scenario.trait is Trait.DRIFTED
            shadow = ShadowCounts(
                mirrored=copies,
                errors=errors,
                compared=copies - errors,
                disagreements=round(copies * 0.6) if is_other else 0,
            )
            found[version] = found.get(version, VersionCounts()).model_copy(update={"shadow": shadow})
        return found

    def _counts(self, version: int, requests: int) -> VersionCounts:
        self.served[version] += requests
        trait = self.scenario.trait if version == CANDIDATE else Trait.HEALTHY
        errors = round(requests * _ERRING) if trait is Trait.ERRING else 0
        answered = requests - errors
        labels = _DRIFTED if trait is Trait.DRIFTED else _LABELS
        return VersionCounts(
            requests=requests,
            errors=errors,
            latency_ms={bucket_index(_SLOW_MS if trait is Trait.SLOW else _WELL_MS): answered} if answered else {},
            predictions={label: round(answered * share) for label, share in labels.items()},
        )


def _whole(counts: dict[int, float], version: int) -> int:
    """Take the whole requests out of what came to be counted; the rest counts later."""
    whole = int(counts[version] + 1e-9)
    counts[version] -= whole
    return whole
