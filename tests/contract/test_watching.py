"""Watching over real storage: Azurite and SQLite, two timers side by side."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest

from shared.alerts.documents import Alert
from shared.alerts.service import AlertService
from shared.core.canonical import canonical_json
from shared.core.verdict import Outcome
from shared.drift.profiling import profile_of
from shared.registry.documents import Model, ModelVersion
from shared.registry.drift_policy import DriftPolicy
from shared.registry.policy import Policy
from shared.registry.service import RegistryService
from shared.rollout.documents import Target
from shared.rollout.endpoint import Endpoint
from shared.routing.plan import artifact_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Container, DocumentStore
from shared.store.queues import AzureQueues
from shared.store.repository import Repository
from shared.telemetry.features import FeatureCounts, FeatureWindow, feature_window_blob_name
from shared.watching.documents import DriftReport, Retraining
from shared.watching.rollups import hour_of, hourly_name, read_rollups
from shared.watching.service import WatchService
from tests.world.fakes import FakeClock
from tests.world.watched import NAMES, counted, rows_of

pytestmark = pytest.mark.azurite

PODS, WINDOWS, ROWS = 6, 8, 40


def test_two_timers_over_real_storage_leave_one_report_of_every_row(
    documents: DocumentStore, blobs: AzureBlobs, queues: AzureQueues
) -> None:
    rng, clock, model = np.random.default_rng(4), FakeClock(), f"m{uuid4().hex[:12]}"
    reference = rows_of(rng, 2_000)
    profile = profile_of({"x": reference["x"]}, {"label": reference["label"]}, names={"x": NAMES})
    assert profile is not None
    content = canonical_json(profile.model_dump(mode="json"))
    blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(profile.id), content)
    policy = Policy(drift=DriftPolicy(span_h=1.0))
    target = Target(version=1, artifact_digest="a" * 64, size_bytes=1, golden_digest=None, profile_digest=profile.id)
    documents.create(Container.ENDPOINTS, Endpoint(endpoint=model, stable=target, generation=1).to_body())
    documents.create(Container.MODELS, Model(model=model, policy=policy).to_body())
    hour, counts = hour_of(clock.now()), []
    for pod in range(PODS):
        for sequence in range(WINDOWS):
            found = counted(profile, rows_of(rng, ROWS, {"depth": 2.0}))
            at = hour + timedelta(minutes=sequence + 1)
            window = FeatureWindow(
                endpoint=model,
                pod=f"pod-{pod}",
                sequence=sequence,
                started_at=at,
                ended_at=at,
                versions={"1:stable": found},
            )
            name = feature_window_blob_name(model, at, window.pod, sequence)
            blobs.create(BlobContainer.TELEMETRY, name, window.model_dump_json().encode())
            counts.append(found)
    clock.time = hour + timedelta(hours=1, minutes=4)

    def service() -> WatchService:
        outbox = Outbox(documents, blobs, queues, clock)
        models, versions = Repository(Model, documents, outbox), Repository(ModelVersion, documents, outbox)
        return WatchService(
            endpoints=Repository(Endpoint, documents, outbox),
            reports=Repository(DriftReport, documents, outbox),
            retraining=Repository(Retraining, documents, outbox),
            registry=RegistryService(models=models, versions=versions, documents=documents, clock=clock),
            alerts=AlertService(alerts=Repository(Alert, documents, outbox), clock=clock),
            documents=documents,
            blobs=blobs,
            clock=clock,
        )

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(service().watch) for _ in range(2)]:
            done.result()
    (rollup,) = read_rollups(blobs, [hourly_name(model, hour)])
    assert rollup.versions == {"1:stable": FeatureCounts.sum_of(counts)}
    assert (rollup.windows, rollup.left_out) == (PODS * WINDOWS, 0)
    reports = service().reports
    (report,) = reports.latest(model)
    assert report.latest is not None
    assert (report.latest.rows, report.latest.outcome) == (PODS * WINDOWS * ROWS, Outcome.FAIL)
    assert report.latest.most_to_blame[0].name == "depth"
    (record,) = reports.since(model, hour, clock.now())
    assert record.report == report.latest
    assert b"depth" in reports.page(model, record.id)
