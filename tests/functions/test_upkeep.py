"""Altered artifacts and retention through the real host, and retention's deletions over Azurite and SQLite."""

import hashlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob import BlobServiceClient

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from shared.alerts.documents import Alert
from shared.alerts.service import AlertService
from shared.core.ids import ModelName, VersionNumber
from shared.integrity.documents import ArtifactCheck
from shared.integrity.service import IntegrityService
from shared.registration.documents import Drop
from shared.registry.alias_service import AliasService
from shared.registry.aliases import Alias
from shared.registry.documents import Model, ModelVersion, VersionState, version_id
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import Policy, RetentionPolicy
from shared.registry.service import RegistryService
from shared.retention.documents import RetentionRun, RunState
from shared.retention.service import GRACE, RetentionService
from shared.retention.uses import Uses
from shared.rollout.endpoint import Endpoint
from shared.rollout.service import RolloutService
from shared.routing.plan import artifact_blob_name
from shared.store.aggregate import Aggregate
from shared.store.blobs import AzureBlobs
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer
from shared.store.queues import AzureQueues
from shared.store.repository import Repository
from shared.store.sqlite import SqliteDocuments
from tests.e2e.driver import SETTINGS
from tests.support.models import bundle, classifier
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

pytestmark = pytest.mark.azurite

MODEL = ModelName("iris")
POLICY = {
    "rollout": {"automatic": False},
    "retention": {"keep_latest": 1, "keep_days": 0},
    # That one small model may be a little worse than another is not what these tests are about.
    "validation": {"noninferiority_margin": None},
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Generator[System]:
    """Azurite and a functions host, without a model server."""
    settings = SETTINGS | {"SLIPWAY_SWEEP_SCHEDULE": "* * * * * *"}
    system = System(StateDir(tmp_path_factory.mktemp("state")), settings={FUNCTIONS: settings})
    try:
        system.state.create()
        system.start_part(AZURITE)
        system.start_part(FUNCTIONS)
        yield system
    finally:
        system.stop()


def call(system: System, method: str, path: str, **request: Any) -> Any:
    headers = {"x-functions-key": system.key}
    answer = httpx.request(
        method, f"{system.functions_url}/api/{path}", headers=headers, timeout=60, verify=NO_TLS, **request
    )
    return answer.json() | {"status": answer.status_code}


def validated(system: System, blobs: BlobServiceClient, *, c: float, name: str) -> dict[str, Any]:
    """Drop a model, and wait for its validated version."""
    blobs.get_blob_client("incoming", f"{MODEL}/{name}").upload_blob(bundle(classifier(c=c)))

    def find() -> dict[str, Any] | None:
        versions = call(system, "GET", f"models/{MODEL}/versions").get("items", [])
        return next((v for v in versions if v["drop"].endswith(name) and v["state"] == "validated"), None)

    found = eventually(find, what=f"the version of {name}", deadline_s=120)
    assert found is not None
    return found


def test_an_overwritten_artifact_is_found_alerted_and_refused_until_the_right_bytes_are_back(system: System) -> None:
    with closing(BlobServiceClient.from_connection_string(system.storage_connection)) as blobs:
        call(system, "PUT", f"models/{MODEL}/policy", json=POLICY)
        version = validated(system, blobs, c=1.0, name="one.zip")
        call(system, "PUT", f"models/{MODEL}/aliases/staging", json={"version": version["version"], "reason": "test"})
        artifact = blobs.get_blob_client("artifacts", artifact_blob_name(version["artifact_digest"]))
        right = artifact.download_blob().readall()
        artifact.upload_blob(right[:-1] + bytes([right[-1] ^ 1]), overwrite=True)
        (alert,) = eventually(
            lambda: call(system, "GET", "alerts?state=firing")["items"], what="an alert", deadline_s=120
        )
        assert (alert["rule"], alert["subject"]) == ("artifact_altered", f"version:{MODEL}:{version['version']}")
        # The alert comes first: the version says it a moment later.
        eventually(
            lambda: call(system, "GET", f"models/{MODEL}/versions/{version['version']}")["altered"],
            what="the version altered",
            deadline_s=120,
        )
        refused = call(system, "POST", f"endpoints/{MODEL}/rollouts", json={"version": version["version"]})
        assert refused["status"] == 409
        assert f"model.onnx at sha256/{version['artifact_digest']} holds bytes" in refused["error"]["message"]
        shown = call(system, "GET", f"models/{MODEL}/versions/{version['version']}")
        assert shown["altered"] in refused["error"]["message"]
        audited = call(system, "POST", f"models/{MODEL}/artifacts/audit")
        assert [finding["version"] for finding in audited["findings"]] == [version["version"]]
        artifact.upload_blob(right, overwrite=True)
        eventually(
            lambda: call(system, "GET", "alerts?state=resolved")["items"], what="the alert resolved", deadline_s=120
        )
        assert call(system, "POST", f"models/{MODEL}/artifacts/audit")["findings"] == []
        events = call(system, "GET", f"audit/events?stream=version:{MODEL}:{version['version']}")["items"]
        told = [event["kind"] for event in events if event["kind"].startswith("artifact_")]
        assert told == ["artifact_altered", "artifact_restored"]
        started = call(system, "POST", f"endpoints/{MODEL}/rollouts", json={"version": version["version"]})
        assert started["status"] == 200
        ended = call(system, "POST", f"endpoints/{MODEL}/rollouts/{started['rollout_id']}/abort")
        assert ended["state"] == "aborted"
        assert call(system, "GET", "audit/verify")["verified"] is True


def test_a_plan_is_shown_and_run_by_its_id_alone(system: System) -> None:
    call(system, "PUT", "models/other/policy", json=POLICY)
    plan = call(system, "GET", "models/other/retention/plan")
    assert (plan["archive"], plan["delete"], plan["size_bytes"]) == ([], [], 0)
    ended = call(system, "POST", "models/other/retention/run", json={"plan_id": plan["plan_id"]})
    assert (ended["status"], ended["state"], ended["deleted"]) == (200, "done", 0)
    assert [run["run_id"] for run in call(system, "GET", "models/other/retention/runs")["items"]] == [ended["run_id"]]
    assert call(system, "GET", f"models/other/retention/runs/{ended['run_id']}")["state"] == "done"
    stale = call(system, "POST", "models/other/retention/run", json={"plan_id": "0" * 64})
    assert (stale["status"], stale["error"]["code"]) == (409, "conflict")
    wrong = call(system, "POST", "models/other/retention/run", json={"plan_id": "all of it"})
    assert (wrong["status"], wrong["error"]["code"]) == (400, "invalid_input")
    assert call(system, "GET", "models/nothing/retention/plan")["status"] == 404


@dataclass
class LaterClock:
    """The real time, and then some: what storage notes as now is then long ago."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """Services over Azurite and SQLite."""

    clock: LaterClock
    blobs: AzureBlobs
    registry: RegistryService
    versions: Repository[ModelVersion]
    aliases: Repository[Alias]
    retention: RetentionService
    integrity: IntegrityService


@pytest.fixture
def real(storage: str, tmp_path: Path) -> Iterator[Real]:
    with ExitStack() as stack:
        documents = stack.enter_context(closing(SqliteDocuments(tmp_path / "documents.db")))
        blobs = stack.enter_context(closing(AzureBlobs.from_connection_string(storage)))
        queues = stack.enter_context(closing(AzureQueues.from_connection_string(storage)))
        blobs.ensure_containers()
        queues.ensure_queues()
        clock = LaterClock()
        outbox = Outbox(documents, blobs, queues, clock)

        def repository[A: Aggregate](kind: type[A]) -> Repository[A]:
            return Repository(kind, documents, outbox)

        versions, endpoints, aliases = repository(ModelVersion), repository(Endpoint), repository(Alias)
        registry = RegistryService(models=repository(Model), versions=versions, documents=documents, clock=clock)
        alias_service = AliasService(aliases=aliases, registry=registry, documents=documents, clock=clock)
        uses = Uses(endpoints=endpoints, aliases=aliases)
        yield Real(
            clock=clock,
            blobs=blobs,
            registry=registry,
            versions=versions,
            aliases=aliases,
            retention=RetentionService(
                registry=registry,
                rollouts=RolloutService(
                    endpoints=endpoints,
                    registry=registry,
                    aliases=alias_service,
                    documents=documents,
                    blobs=blobs,
                    clock=clock,
                ),
                versions=versions,
                drops=repository(Drop),
                runs=repository(RetentionRun),
                uses=uses,
                blobs=blobs,
                clock=clock,
            ),
            integrity=IntegrityService(
                versions=versions,
                checks=repository(ArtifactCheck),
                uses=uses,
                alerts=AlertService(alerts=repository(Alert), clock=clock),
                blobs=blobs,
                clock=clock,
            ),
        )


def store(real: Real, number: int, content: bytes) -> str:
    """A validated version with this artifact; the artifact's name."""
    digest = hashlib.sha256(content).hexdigest()
    real.blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(digest), content)
    now = real.clock.now()
    real.versions.create(
        ModelVersion(
            id=version_id(number),
            model=MODEL,
            version=number,
            state=VersionState.VALIDATED,
            drop=f"{MODEL}/{number}.onnx",
            digest=digest,
            artifact_digest=digest,
            artifact_size_bytes=len(content),
            manifest=Manifest(task=Task.CLASSIFICATION),
            registered_at=now,
            decided_at=now,
            attempted_at=now,
        )
    )
    return artifact_blob_name(digest)


def test_over_real_storage_the_planned_blobs_go_and_those_touched_meanwhile_stay(real: Real) -> None:
    policy = Policy(retention=RetentionPolicy(keep_latest=1, keep_days=1))
    real.registry.put_policy(MODEL, policy, by="test")
    names = [store(real, number, bytes([number]) * 5_000_000) for number in (1, 2, 3, 4)]
    assert real.retention.plan(MODEL).deeds.archive == ()
    real.clock.ahead = timedelta(days=2)
    plan = real.retention.plan(MODEL)
    assert [version.version for version in plan.deeds.archive] == [1, 2, 3]
    assert [blob.name for blob in plan.deeds.delete] == names[:3]
    real.retention.run(MODEL, plan.plan_id, by="test")
    assert real.blobs.touch(BlobContainer.ARTIFACTS, names[1])
    assert real.blobs.delete(BlobContainer.ARTIFACTS, names[2], etag=plan.deeds.delete[2].etag)
    real.clock.ahead += GRACE
    real.retention.resume()
    (run,) = real.retention.runs(MODEL).items
    assert (run.state, run.archived, run.deleted, run.deleted_bytes) == (RunState.DONE, [1, 2, 3], 2, 10_000_000)
    assert run.spared == [f"artifacts/{names[1]} stays: it is not what it was when the plan was made"]
    standing = [name for name in names if real.blobs.info(BlobContainer.ARTIFACTS, name)]
    assert standing == [names[1], names[3]]
    assert real.registry.version(MODEL, VersionNumber(4)).state is VersionState.VALIDATED


def test_over_real_storage_a_touched_artifact_is_hashed_again_and_is_whole(real: Real) -> None:
    real.registry.put_policy(MODEL, Policy(), by="test")
    name = store(real, 1, b"x" * 5_000_000)
    first, again = real.integrity.audit(MODEL), real.integrity.audit(MODEL)
    assert (first.hashed_bytes, again.hashed_bytes) == (5_000_000, 5_000_000)
    real.blobs.touch(BlobContainer.ARTIFACTS, name)
    assert real.integrity.audit(MODEL).findings == ()
    info = real.blobs.info(BlobContainer.ARTIFACTS, name)
    assert info is not None
    real.blobs.replace(BlobContainer.ARTIFACTS, name, b"y" * 5_000_000, etag=info.etag)
    (finding,) = real.integrity.audit(MODEL).findings
    assert "holds bytes with the SHA-256" in finding.sentence
    assert real.registry.version(MODEL, VersionNumber(1)).altered == finding.sentence
