"""An endpoint that is watched: versions with reference profiles, and pods that write feature windows, over fakes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from shared.core.canonical import canonical_json
from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.registry.policy import Policy
from shared.rollout.documents import Target
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobContainer, Container
from shared.telemetry.features import FeatureCounts, FeatureWindow, feature_window_blob_name
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile
from shared.watching.documents import DriftReport, ReportSummary
from tests.world.world import MODEL, World

type Table = NDArray[np.float64]

NAMES = ("age", "income", "score", "visits", "depth", "speed")


def rows_of(rng: np.random.Generator, rows: int, moved: Mapping[str, float] | None = None) -> dict[str, Table]:
    """Rows of six independent numbers, some moved by so many standard deviations, and what is answered to them."""
    table = rng.normal(size=(rows, len(NAMES)))
    for name, by in (moved or {}).items():
        table[:, NAMES.index(name)] += by
    return {"x": table, "label": (table[:, :1] + table[:, 1:2] > 0).astype(np.float64)}


def counted(profile: Profile, arrays: Mapping[str, Table]) -> FeatureCounts:
    """Rows, as a pod counts them."""
    tally = FeatureTally(profile)
    tally.saw(arrays, len(arrays["x"]))
    return tally.take()


@dataclass
class Watched:
    """A world with an endpoint whose stable version has a profile."""

    policy: DriftPolicy = field(default_factory=DriftPolicy)
    seed: int = 1
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.profile = self.profiled(rows_of(self.rng, 4_000))
        self.world.put_policy(Policy(drift=self.policy))
        endpoint = Endpoint(endpoint=MODEL, stable=self.target(1), generation=1)
        self.world.documents.create(Container.ENDPOINTS, endpoint.to_body())
        self.sequences: dict[str, int] = {}

    @property
    def now(self) -> datetime:
        """The world's time."""
        return self.world.clock.now()

    def profiled(self, reference: Mapping[str, Table]) -> Profile:
        """The profile of reference rows, which is stored."""
        found = profile_of({"x": reference["x"]}, {"label": reference["label"]}, names={"x": NAMES})
        assert found is not None
        name = artifact_blob_name(found.id)
        self.world.blobs.put(BlobContainer.ARTIFACTS, name, canonical_json(found.model_dump(mode="json")), {})
        return found

    def target(self, version: int, profile: Profile | None = None) -> Target:
        """A version with a profile: stable's, if none is given."""
        digest = (profile or self.profile).id
        return Target(
            version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None, profile_digest=digest
        )

    def write(self, counts: Mapping[str, FeatureCounts], *, pod: str = "pod-1", at: datetime | None = None) -> str:
        """A pod's window of these versions, written as its end comes."""
        ended_at, sequence = at or self.now, self.sequences.get(pod, 0)
        self.sequences[pod] = sequence + 1
        window = FeatureWindow(
            endpoint=MODEL,
            pod=pod,
            sequence=sequence,
            started_at=ended_at - timedelta(minutes=1),
            ended_at=ended_at,
            versions=dict(counts),
        )
        name = feature_window_blob_name(MODEL, ended_at, pod, sequence)
        self.world.blobs.put(BlobContainer.TELEMETRY, name, window.model_dump_json().encode(), {})
        return name

    def hour(self, rows: int = 300, *, moved: Mapping[str, float] | None = None, key: str = "1:stable") -> None:
        """An hour of traffic in one window, and the looks of its end."""
        self.world.clock.pass_s(1_800)
        self.write({key: counted(self.profile, rows_of(self.rng, rows, moved))})
        self.world.clock.pass_s(1_800)
        self.look()

    def look(self) -> None:
        """The timer, a while after the hour."""
        self.world.clock.pass_s(240)
        self.world.watching.watch()
        self.world.clock.pass_s(-240)

    def report(self, version: int = 1, role: str = "stable") -> DriftReport:
        """How a version stands."""
        return next(
            one for one in self.world.watching.reports.latest(MODEL) if (one.version, one.role) == (version, role)
        )

    @property
    def latest(self) -> ReportSummary:
        """The stable version's latest report."""
        found = self.report().latest
        assert found is not None
        return found

    def firing(self) -> dict[str, int]:
        """The alerts that fire, and how often something new was found of each."""
        return {alert.rule.value: alert.count for alert in self.world.alerts.alerts("firing").items}


def endpoint_of(world: World) -> Endpoint:
    """The endpoint as it is stored."""
    stored = world.documents.held[Container.ENDPOINTS, MODEL, ENDPOINT_ID]
    return Endpoint.from_body(stored.body)
