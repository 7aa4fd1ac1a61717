"""What the model server's checks at load cost: seconds and memory, beside ONNX Runtime alone on the same files.

Run `.venv/bin/python -m benchmarks.load_checks`. For a small model and for 300 MB of external data, each way of loading
runs in fresh processes, the ways interleaved, and the table has the medians:

- `runtime`: `onnxruntime.InferenceSession` on the files as they lie, nothing checked: the peer;
- `cached`: the server's loader, from its disk cache: digests, signature, golden rows, private copies;
- `fetched`: the same with an empty cache; storage is a local folder, so that no network is measured.

Memory is what the process grew by: anonymous (cannot be given back under pressure) and at its peak (mapped files too).
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from aks_serving.cache import DiskCache
from aks_serving.loader import Loader
from aks_serving.ports import StoredPlan
from onnx import TensorProto, helper

from shared.core.canonical import digest_of_bytes
from shared.core.errors import NotFoundError
from shared.core.ids import EndpointName
from shared.routing.plan import ArtifactFile, Role, Route, Signing
from shared.signing.sign import new_key, read_private_key, sign_files

MIB = 1024 * 1024
SIZES_MIB = {"small": 1, "large": 300}
KINDS = ("lookup", "product")
WAYS = ("runtime", "cached", "fetched")
ROUNDS = 5
_WIDTH = 1024


class _Folder:
    """Storage in a folder: artifacts by their digests, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan_etags(self) -> dict[EndpointName, str]:
        return {}

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        del endpoint, unless_etag
        return None

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        del max_bytes
        path = self._folder / digest
        if not path.exists():
            raise NotFoundError(f"artifact {digest}")
        with path.open("rb") as file:
            while chunk := file.read(4 * MIB):
                yield chunk

    def keep_window(self, name: str, data: bytes) -> None:
        del name, data


def _model(kind: str, rows: int) -> bytes:
    """A table of `rows` rows in weights.bin: looked up by index, or multiplied with, which the runtime packs anew."""
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, _WIDTH])
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", 0), ("length", rows * _WIDTH * 4)):
        entry = table.external_data.add()
        entry.key, entry.value = key, str(value)
    if kind == "lookup":
        node = helper.make_node("Gather", ["table", "x"], ["y"], axis=0)
        given = helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])
    else:
        node = helper.make_node("MatMul", ["x", "table"], ["y"])
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", _WIDTH])
    graph = helper.make_graph([node], "graph", [given], [wanted], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _golden(kind: str, rows: int) -> bytes:
    """One case: row 1 of the table, which holds ones."""
    given = (
        {"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}
        if kind == "lookup"
        else {"name": "x", "datatype": "FP32", "shape": [1, rows], "data": [0.0, 1.0] + [0.0] * (rows - 2)}
    )
    found = {"name": "y", "datatype": "FP32", "shape": [1, _WIDTH], "data": [1.0] * _WIDTH}
    tolerances = {"y": {"rtol": 1e-4, "atol": 1e-5}}
    runtime = f"onnxruntime {onnxruntime.__version__}"
    cases = [{"inputs": [given], "outputs": [found]}]
    file = {"schema_version": 2, "tolerances": tolerances, "runtime": runtime, "cases": cases}
    return json.dumps(file).encode()


def _make(folder: Path, kind: str, size_mib: int) -> Route:
    """Writes the files as they lie and as storage holds them; the route to them."""
    rows = size_mib * MIB // 4 // _WIDTH
    model, golden = _model(kind, rows), _golden(kind, rows)
    plain, stored = folder / "plain", folder / "stored"
    plain.mkdir(parents=True)
    stored.mkdir()
    weights = np.repeat(np.arange(rows, dtype="<f4"), _WIDTH).tobytes()
    (plain / "model.onnx").write_bytes(model)
    (plain / "weights.bin").write_bytes(weights)
    private, public = new_key()
    digests = {"model.onnx": digest_of_bytes(model), "weights.bin": digest_of_bytes(weights)}
    signature = sign_files(digests, read_private_key(private), name="drop")
    for data in (model, weights, golden, signature):
        (stored / digest_of_bytes(data)).write_bytes(data)
    return Route(
        version=1,
        role=Role.STABLE,
        weight_bp=10_000,
        artifact_digest=digests["model.onnx"],
        size_bytes=len(model),
        external=(ArtifactFile(name="weights.bin", digest=digests["weights.bin"], size_bytes=len(weights)),),
        signing=Signing(digest=digest_of_bytes(signature), trusted_keys=(public.decode(),)),
        golden_digest=digest_of_bytes(golden),
    )


def _load(folder: Path, way: str) -> dict[str, float]:
    """Load once in this process, whose libraries are warm by then; what it took."""
    route = Route.model_validate_json((folder / "route.json").read_text())
    warm = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnxruntime.InferenceSession(helper.make_model(warm, opset_imports=opsets, ir_version=9).SerializeToString())
    anonymous, peak, started_s = _memory("RssAnon"), _memory("VmHWM"), time.perf_counter()
    if way == "runtime":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        kept: object = onnxruntime.InferenceSession(str(folder / "plain" / "model.onnx"), options)
    else:
        kept = Loader(_Folder(folder / "stored"), DiskCache(folder / f"cache-{way}")).load("checks", route)
    took_s = time.perf_counter() - started_s
    found = {"s": took_s, "anonymous_mib": _memory("RssAnon") - anonymous, "peak_mib": _memory("VmHWM") - peak}
    del kept
    return found


def _memory(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def _measured(folder: Path, way: str) -> dict[str, float]:
    if way == "fetched":
        shutil.rmtree(folder / "cache-fetched", ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.load_checks", str(folder), way]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def main() -> None:
    """Measure and print, or, as a child, load once and say what it took."""
    if len(sys.argv) == 3:
        print(json.dumps(_load(Path(sys.argv[1]), sys.argv[2])))
        return
    print(f"{'model':<16}{'way':<10}{'median s':>10}{'range s':>16}{'anonymous MiB':>16}{'peak MiB':>12}")
    with tempfile.TemporaryDirectory() as scratch:
        for size, size_mib in SIZES_MIB.items():
            for kind in KINDS:
                folder = Path(scratch) / f"{size}-{kind}"
                folder.mkdir()
                (folder / "route.json").write_text(_make(folder, kind, size_mib).model_dump_json(), encoding="ascii")
                _measured(folder, "cached")
                rounds = [{way: _measured(folder, way) for way in WAYS} for _ in range(ROUNDS)]
                for way in WAYS:
                    times = [one[way]["s"] for one in rounds]
                    anonymous, peak = (
                        statistics.median(one[way][key] for one in rounds) for key in ("anonymous_mib", "peak_mib")
                    )
                    print(
                        f"{size + ' ' + kind:<16}{way:<10}{statistics.median(times):>10.3f}"
                        f"{f'{min(times):.3f}-{max(times):.3f}':>16}{anonymous:>16.0f}{peak:>12.0f}"
                    )


if __name__ == "__main__":
    main()
