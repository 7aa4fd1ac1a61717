"""Lost, doubled and shuffled events of drops: how many are registered before the sweep, and after it.

Run `.venv/bin/python -m benchmarks.lost_events` (`--drops 100` for a short one). Real models as files, bundles and
folders in Azurite, documents in SQLite, every drop looked at in the real sandbox. Of the events 30 % are lost; each of
the rest comes ten times, shuffled, to two workers with services of their own. Then one sweep runs, and its messages are
delivered in the same way. At last some more drops are made without any event, and of the sweep's own messages 30 % are
lost, until all are registered.
"""

import argparse
import hashlib
import io
import json
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from local.azurite import Azurite
from local.system import create_storage
from shared.audit.service import AuditService
from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError
from shared.registration.documents import Drop, DropState
from shared.registration.service import RegistrationService
from shared.registry.documents import Model, ModelVersion
from shared.store.aggregate import Aggregate
from shared.store.blobs import AzureBlobs
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer
from shared.store.queues import AzureQueues
from shared.store.repository import Repository
from shared.store.sqlite import SqliteDocuments
from shared.validation.sandbox import SandboxLimits

GRACE = timedelta(minutes=5)
LOST = 0.3
COPIES = 10
WORKERS = 2
MODELS = 20
AGAIN_SHARE = 0.1
"""How many more drops are made, as a share, for the part in which queue messages are lost too."""
_MAX_SWEEPS = 30


@dataclass
class ShiftedClock:
    """The machine's clock, moved on by the test, so that nobody waits for a grace to pass."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        """The present moment, moved on."""
        return datetime.now(UTC) + self.ahead


@dataclass(slots=True, kw_only=True)
class Counts:
    """What happened."""

    drops: int = 0
    events: int = 0
    lost: int = 0
    delivered: int = 0
    before_sweep: int = 0
    sweep_messages: int = 0
    after_sweep: int = 0
    versions: int = 0
    more_drops: int = 0
    more_sweeps: int = 0
    more_messages: int = 0
    more_lost: int = 0
    registered_in_the_end: int = 0
    audit_verified: bool = False
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Worker:
    """A process's services, over one storage account and one database."""

    def __init__(self, connection: str, database: Path, clock: Clock, stack: ExitStack) -> None:
        self.blobs = stack.enter_context(closing(AzureBlobs.from_connection_string(connection)))
        self.documents = stack.enter_context(closing(SqliteDocuments(database)))
        queues = stack.enter_context(closing(AzureQueues.from_connection_string(connection)))
        outbox = Outbox(self.documents, self.blobs, queues, clock)
        self.models = Repository(Model, self.documents, outbox)
        self.versions = Repository(ModelVersion, self.documents, outbox)
        self.drops = Repository(Drop, self.documents, outbox)
        self.registration = RegistrationService(
            models=self.models,
            versions=self.versions,
            drops=self.drops,
            blobs=self.blobs,
            clock=clock,
            limits=SandboxLimits(),
        )

    def handle(self, blobs: list[str]) -> None:
        """Register what the events name; a drop that another writer changed meanwhile is looked at again."""
        for blob in blobs:
            while True:
                try:
                    self.registration.register(blob)
                except ChangedMeanwhileError:
                    continue
                break


def model_bytes(number: int) -> bytes:
    """A small valid model, another one for each number."""
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["scores"], axis=1)],
        f"model-{number}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 3])],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def put_drop(blobs: AzureBlobs, number: int) -> Iterator[str]:
    """Put a drop into storage: by its number a file, a bundle or a folder. The blobs, each of which has an event."""
    model, name = model_bytes(number), f"model-{number % MODELS}"
    if number % 5 == 0:
        digest = hashlib.sha256(model).hexdigest()
        manifest = f"task: classification\nfiles:\n  model.onnx: {digest}\n".encode()
        files = {f"{name}/{number}/model.onnx": model, f"{name}/{number}/slipway.yaml": manifest}
    elif number % 5 == 1:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("slipway.yaml", "task: classification\n")
            archive.writestr("model.onnx", model)
        files = {f"{name}/{number}.zip": buffer.getvalue()}
    else:
        files = {f"{name}/{number}.onnx": model}
    for blob, data in files.items():
        blobs.create(BlobContainer.INCOMING, blob, data)
        yield blob


def deliver(workers: list[Worker], blobs: list[str], rng: random.Random) -> int:
    """Deliver each event COPIES times, shuffled, to all workers at once. How many were delivered."""
    due = blobs * COPIES
    rng.shuffle(due)
    with ThreadPoolExecutor(len(workers)) as pool:
        shares = [due[start :: len(workers)] for start in range(len(workers))]
        for done in [pool.submit(worker.handle, share) for worker, share in zip(workers, shares, strict=True)]:
            done.result()
    return len(due)


def registered(worker: Worker) -> int:
    """How many drops are registered."""
    return sum(1 for _ in worker.drops.where(state=DropState.REGISTERED.value))


def run(drops: int, seed: int) -> Counts:
    """Play it all."""
    rng, clock, counts = random.Random(seed), ShiftedClock(), Counts(drops=drops)
    with tempfile.TemporaryDirectory(prefix="slipway-events-") as scratch, ExitStack() as stack:
        azurite = stack.enter_context(Azurite(log_path=Path(scratch) / "azurite.log"))
        create_storage(azurite.connection_string)
        workers = [
            Worker(azurite.connection_string, Path(scratch) / "documents.db", clock, stack) for _ in range(WORKERS)
        ]
        began = time.monotonic()
        _lose_events(counts, workers, clock, rng)
        _lose_messages(counts, workers, clock, rng)
        counts.seconds = round(time.monotonic() - began, 1)
        _verify(counts, workers[0])
    return counts


def _lose_events(counts: Counts, workers: list[Worker], clock: ShiftedClock, rng: random.Random) -> None:
    events = [blob for number in range(counts.drops) for blob in put_drop(workers[0].blobs, number)]
    kept = [blob for blob in events if rng.random() >= LOST]
    counts.events, counts.lost = len(events), len(events) - len(kept)
    counts.delivered = deliver(workers, kept, rng)
    counts.before_sweep = registered(workers[0])
    clock.ahead += 2 * GRACE
    messages = [message.blob for message in workers[0].registration.missed_drops(GRACE)]
    counts.sweep_messages = len(messages)
    deliver(workers, messages, rng)
    counts.after_sweep = registered(workers[0])


def _lose_messages(counts: Counts, workers: list[Worker], clock: ShiftedClock, rng: random.Random) -> None:
    counts.more_drops = max(1, round(counts.drops * AGAIN_SHARE))
    for number in range(counts.drops, counts.drops + counts.more_drops):
        list(put_drop(workers[0].blobs, number))
    wanted = counts.after_sweep + counts.more_drops
    while registered(workers[0]) < wanted and counts.more_sweeps < _MAX_SWEEPS:
        clock.ahead += 2 * GRACE
        counts.more_sweeps += 1
        messages = [message.blob for message in workers[0].registration.missed_drops(GRACE)]
        kept = [blob for blob in messages if rng.random() >= LOST]
        counts.more_messages += len(messages)
        counts.more_lost += len(messages) - len(kept)
        deliver(workers, kept, rng)
    counts.registered_in_the_end = registered(workers[0])


def _verify(counts: Counts, worker: Worker) -> None:
    """Every drop registered, in one version each, numbered without a gap; the audit whole."""
    versions = list(worker.versions.where())
    counts.versions = len(versions)
    digests = Counter(version.digest for version in versions)
    counts.problems += [f"{digest} has {count} versions" for digest, count in digests.items() if count > 1]
    for model in worker.models.where():
        numbers = sorted(version.version for version in versions if version.model == model.model)
        if numbers != list(range(1, len(numbers) + 1)):
            counts.problems.append(f"{model.model} has the versions {numbers}")
    kinds: dict[str, type[Aggregate]] = {"model": Model, "version": ModelVersion, "drop": Drop}
    counts.audit_verified = AuditService(worker.documents, kinds).verify().verified
    counts.problems += [
        f"{drop.blob} is {drop.state}: {drop.reason or drop.waiting_for}"
        for drop in worker.drops.where()
        if drop.state is not DropState.REGISTERED
    ]


def main() -> int:
    """Play, print, and fail unless one sweep left nothing unregistered and every drop has one version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drops", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = run(arguments.drops, arguments.seed)
    good = (
        found.after_sweep == found.drops
        and found.registered_in_the_end == found.versions == found.drops + found.more_drops
        and found.audit_verified
        and not found.problems
    )
    shown = {name: getattr(found, name) for name in Counts.__slots__} | {"good": good}
    if arguments.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            print(f"{name.replace('_', ' '):22} {value}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
