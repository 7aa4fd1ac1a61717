"""What registering a drop of gigabytes costs the process that registers it: its peak resident memory, and what it sent.

Run `.venv/bin/python -m benchmarks.large_drop` (`--megabytes 2000 --form folder --form zip`). Azurite keeps its state
on disk. For each form the drop is a small ONNX graph whose one tensor lies in a file of the given size. A process of
its own, which holds what a functions process holds, registers it with the real service, store and sandbox, and reports
its VmHWM, how many parts storage copied by itself, and how many bytes it had to send.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from local.azurite import Azurite
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

LIMIT_BYTES = 200_000_000
MODEL = "large"
FORMS = ("folder", "zip")
_CHUNK_BYTES = 8_000_000
_WEIGHTS = "weights.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one registration cost, in bytes and seconds."""

    blob: str
    state: str
    reason: str
    version: int | None
    before_bytes: int
    """The process's peak before it registered: its libraries."""
    peak_bytes: int
    copies: int
    sent_bytes: int
    seconds: float


def write_drop(folder: Path, size_bytes: int, *, seed: int = 0) -> None:
    """A model whose tensor, random by `seed`, lies in a file of `size_bytes`; and the manifest that names all."""
    rows = size_bytes // 4
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[rows])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=_WEIGHTS)
    weights.external_data.add(key="offset", value="0")
    weights.external_data.add(key="length", value=str(rows * 4))
    graph = helper.make_graph(
        [helper.make_node("Gather", ["weights", "row"], ["y"])],
        "large",
        [helper.make_tensor_value_info("row", TensorProto.INT64, ["rows"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows"])],
        initializer=[weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    random = np.random.default_rng(seed)
    with (folder / _WEIGHTS).open("wb") as file:
        for start in range(0, rows * 4, _CHUNK_BYTES):
            file.write(random.bytes(min(_CHUNK_BYTES, rows * 4 - start)))
    digests = {name: _sha256(folder / name) for name in ("model.onnx", _WEIGHTS)}
    named = "".join(f"  {name}: {digest}\n" for name, digest in digests.items())
    (folder / "slipway.yaml").write_text(f"task: regression\nfiles:\n{named}")


def put_drop(blobs: AzureBlobs, form: str, folder: Path) -> str:
    """Put the drop that lies in `folder` into storage; the blob whose event registers it."""
    files = sorted(folder.iterdir(), key=lambda file: file.name == "slipway.yaml")
    if form == "folder":
        for file in files:
            blobs.create(BlobContainer.INCOMING, f"{MODEL}/drop/{file.name}", file)
        return f"{MODEL}/drop/slipway.yaml"
    bundle = folder.parent / "drop.zip"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    blobs.create(BlobContainer.INCOMING, f"{MODEL}/drop.zip", bundle)
    bundle.unlink()
    return f"{MODEL}/drop.zip"


def measure(connection: str, blob: str, work: Path) -> Measured:
    """Register a blob in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.large_drop", "--register", blob, "--work", str(work)]
    done = subprocess.run(command, input=connection, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the registering process ended with {done.returncode}:\n{done.stderr[-3_000:]}")
    return Measured(**json.loads(done.stdout))


def _register(connection: str, blob: str, work: Path) -> Measured:
    """In the process of its own: compose what a functions process does, and register."""
    import functions.registration  # noqa: F401, PLC0415 - what a functions process has loaded
    from shared.core.clock import SystemClock  # noqa: PLC0415
    from shared.registration.documents import Drop  # noqa: PLC0415
    from shared.registration.service import RegistrationService  # noqa: PLC0415
    from shared.registry.documents import Model, ModelVersion  # noqa: PLC0415
    from shared.store.outbox import Outbox  # noqa: PLC0415
    from shared.store.queues import AzureQueues  # noqa: PLC0415
    from shared.store.repository import Repository  # noqa: PLC0415
    from shared.store.sqlite import SqliteDocuments  # noqa: PLC0415
    from shared.validation.sandbox import SandboxLimits  # noqa: PLC0415

    with (
        closing(_CountedBlobs.from_connection_string(connection)) as blobs,
        closing(SqliteDocuments(work / "documents.db")) as documents,
        closing(AzureQueues.from_connection_string(connection)) as queues,
    ):
        outbox = Outbox(documents, blobs, queues, SystemClock())
        service = RegistrationService(
            models=Repository(Model, documents, outbox),
            versions=Repository(ModelVersion, documents, outbox),
            drops=Repository(Drop, documents, outbox),
            blobs=blobs,
            clock=SystemClock(),
            limits=SandboxLimits(),
        )
        before_bytes, began = _peak_bytes(), time.monotonic()
        drop = service.register(blob)
        assert drop is not None  # noqa: S101 - the parent has put it there
        return Measured(
            blob=drop.blob,
            state=drop.state,
            reason=drop.reason or "; ".join(drop.waiting_for),
            version=drop.version,
            before_bytes=before_bytes,
            peak_bytes=_peak_bytes(),
            copies=blobs.copies,
            sent_bytes=blobs.sent_bytes,
            seconds=round(time.monotonic() - began, 1),
        )


class _CountedBlobs(AzureBlobs):
    """Blobs that count what storage copied by itself, and what was sent to it."""

    copies = 0
    sent_bytes = 0

    def copy(self, source: BlobContainer, source_name: str, target: BlobContainer, name: str, *, etag: str) -> bool:
        copied = super().copy(source, source_name, target, name, etag=etag)
        self.copies += copied
        return copied

    def create(
        self, container: BlobContainer, name: str, source: bytes | Path, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        created = super().create(container, name, source, metadata=metadata)
        if created:
            self.sent_bytes += len(source) if isinstance(source, bytes) else source.stat().st_size
        return created


def _peak_bytes() -> int:
    """This process's peak resident memory (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rounds(forms: list[str], size_bytes: int, tell: Callable[[str], None]) -> Iterator[tuple[str, Measured]]:
    with tempfile.TemporaryDirectory(prefix="slipway-large-") as scratch:
        root = Path(scratch)
        for form in forms:
            with Azurite(log_path=root / f"{form}.log", location=root / form) as azurite:
                with closing(AzureBlobs.from_connection_string(azurite.connection_string)) as blobs:
                    _create_storage(azurite.connection_string)
                    folder = root / f"drop-{form}"
                    folder.mkdir()
                    tell(f"{form}: writing and uploading {size_bytes / 1e6:.0f} MB")
                    write_drop(folder, size_bytes)
                    blob = put_drop(blobs, form, folder)
                tell(f"{form}: registering")
                yield form, measure(azurite.connection_string, blob, folder.parent / form)


def _create_storage(connection: str) -> None:
    from local.system import create_storage  # noqa: PLC0415

    create_storage(connection)


def main() -> int:
    """Measure, print, and fail where a drop is not registered or the limit is not held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2_000)
    parser.add_argument("--form", choices=FORMS, action="append", help="repeat it; both without it")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--register", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.register:
        print(json.dumps(asdict(_register(sys.stdin.read(), arguments.register, arguments.work))))
        return 0
    good = True
    for form, found in _rounds(
        arguments.form or list(FORMS), arguments.megabytes * 1_000_000, lambda line: print(line, file=sys.stderr)
    ):
        held = found.state == "registered" and found.peak_bytes < LIMIT_BYTES
        good &= held
        if arguments.json:
            print(json.dumps({"form": form, "held": held, **asdict(found)}))
            continue
        print(
            f"{form:6} {found.state} as version {found.version} in {found.seconds:.0f} s: peak "
            f"{found.peak_bytes / 1e6:.0f} MB (libraries {found.before_bytes / 1e6:.0f} MB), {found.copies} parts "
            f"copied by storage, "
            f"{found.sent_bytes / 1e6:.1f} MB sent{f': {found.reason}' if found.reason else ''}"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
