"""How long the timer's call takes to a verdict on a candidate at 1,000 pods: 10,000,000 rows of 50 features a minute.

Run `.venv/bin/python -m benchmarks.drift_verdict [--pods 1000]`. Storage is Azurite, beside this process on the same
machine, and documents are in SQLite. Each pod writes one window a minute, of 9,000 rows of the stable version and 1,000
of the candidate. In the first minute the two are alike; in the second one feature of the candidate's is moved by a
deviation. Timed is each call of the whole service: windows listed and read, added to the hour's roll-up, both versions
scored, the report and its page written, the alarm raised and its alert fired. Exits 1 where the second call raises
none, the first one does, or a call takes longer than a minute.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.drift_traffic import reference_profile, window_of
from local.azurite import Azurite
from shared.alerts.documents import Alert
from shared.alerts.service import AlertService
from shared.core.canonical import canonical_json
from shared.registry.documents import Model, ModelVersion
from shared.registry.rollout_policy import RolloutPolicy
from shared.registry.service import RegistryService
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.routing.plan import artifact_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Container
from shared.store.queues import AzureQueues
from shared.store.repository import Repository
from shared.store.sqlite import SqliteDocuments
from shared.telemetry.features import FeatureCounts, FeatureWindow, feature_window_blob_name
from shared.telemetry.names import MINUTE
from shared.telemetry.profile import Profile
from shared.watching.documents import DriftReport, Retraining
from shared.watching.service import WatchService

MODEL, FEATURES, DRAWN = "m", 50, 8
ROWS = {"1:stable": 9_000, "2:candidate": 1_000}
"""Of a window."""
BAR_S = 60.0
BEGUN = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@dataclass
class Hand:
    """A clock in the benchmark's hand."""

    time: datetime

    def now(self) -> datetime:
        """The time that it was set to."""
        return self.time


def _target(version: int, profile: Profile) -> Target:
    return Target(
        version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None, profile_digest=profile.id
    )


def _endpoint(profile: Profile) -> Endpoint:
    """Version 2 is being rolled out beside version 1."""
    rollout = Rollout(
        rollout_id="rollout-000002-x",
        command_id="c",
        candidate=_target(2, profile),
        stable=_target(1, profile),
        policy=RolloutPolicy(),
        state=RolloutState.PROGRESSING,
        stage=0,
        started_at=BEGUN,
        published_at=BEGUN,
        next_tick_at=BEGUN + timedelta(hours=1),
        requested_by="benchmark",
    )
    return Endpoint(endpoint=MODEL, stable=_target(1, profile), generation=2, rollout=rollout)


def _service(documents: SqliteDocuments, blobs: AzureBlobs, queues: AzureQueues, clock: Hand) -> WatchService:
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


def _write(blobs: AzureBlobs, pods: int, minute: int, drawn: Mapping[str, Sequence[FeatureCounts]]) -> None:
    """Write each pod's window of a minute, as the pods do."""
    ended_at = BEGUN + MINUTE * minute + timedelta(seconds=30)

    def write(pod: int) -> None:
        name = f"pod-{pod:04d}-5f3a9c"
        window = FeatureWindow(
            endpoint=MODEL,
            pod=name,
            sequence=minute,
            started_at=ended_at - MINUTE,
            ended_at=ended_at,
            versions={key: some[pod % DRAWN] for key, some in drawn.items()},
        )
        blob = feature_window_blob_name(MODEL, ended_at, name, minute)
        blobs.create(BlobContainer.TELEMETRY, blob, window.model_dump_json().encode())

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(pods)))


def _call(service: WatchService) -> tuple[float, float]:
    started, before = time.perf_counter(), time.process_time()
    service.watch()
    return time.perf_counter() - started, time.process_time() - before


def _measured(folder: Path, pods: int) -> bool:
    """Print what each call takes and finds; whether it is as it should be."""
    generator = np.random.default_rng(7)
    profile = reference_profile(generator, 20_000, FEATURES)
    moved = np.zeros(FEATURES)
    moved[0] = 1.0
    clock, held = Hand(BEGUN), True
    with (
        Azurite(log_path=folder / "log") as azurite,
        closing(AzureBlobs.from_connection_string(azurite.connection_string)) as blobs,
        closing(AzureQueues.from_connection_string(azurite.connection_string)) as queues,
        closing(SqliteDocuments(folder / "documents.sqlite")) as documents,
    ):
        blobs.ensure_containers()
        content = canonical_json(profile.model_dump(mode="json"))
        blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(profile.id), content)
        documents.create(Container.MODELS, Model(model=MODEL).to_body())
        documents.create(Container.ENDPOINTS, _endpoint(profile).to_body())
        service = _service(documents, blobs, queues, clock)
        for minute, levels in enumerate((None, moved)):
            of = {"1:stable": None, "2:candidate": levels}
            drawn = {
                key: [window_of(generator, profile, rows, FEATURES, of[key]) for _ in range(DRAWN)]
                for key, rows in ROWS.items()
            }
            _write(blobs, pods, minute, drawn)
            clock.time = BEGUN + MINUTE * (minute + 1)
            took_s, processor_s = _call(service)
            finding = service.reports.finding(MODEL, 2, "candidate", "concurrent")
            report = next(one for one in service.reports.latest(MODEL) if one.role == "candidate")
            held &= bool(report.alarms) == (levels is not None) and took_s <= BAR_S
            said = finding.sentence if finding else "nothing"
            print(f"minute {minute + 1}: {took_s:.1f} s, {processor_s:.1f} s of this process's: {said}", flush=True)
    return held


def main() -> int:
    """Print the figures; 0 where the verdicts are as they should be, and in time."""
    parser = argparse.ArgumentParser(description="The timer's call, to a verdict on a candidate.")
    parser.add_argument("--pods", type=int, default=1_000)
    with tempfile.TemporaryDirectory() as folder:
        held = _measured(Path(folder), parser.parse_args().pods)
    print("the bar is met" if held else "the bar is missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
