"""The memory that validation predicts a version to cost a server, beside what the server's own loader takes.

Run `.venv/bin/python -m benchmarks.memory_prediction`. Each model is validated in the real sandbox; then a fresh
process makes the model server's `Model` of the same bytes and runs full batches over all of its tables. Both are
measured once freed memory is given back. The bar: within 15 % for models above 20 MB.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.models import convolution, embedding, forest, layers, saved, saved_apart
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.validation.sandbox import ModelFiles, SandboxLimits, run_validation

BAR = 0.15
TABLE_ROWS = 470_000
MB = 1_000_000

MODELS: dict[str, Callable[[Path], ModelFiles]] = {
    "dense layers": lambda folder: saved(layers(2_048, 3), folder),
    "dense layers, large": lambda folder: saved(layers(2_048, 4, last=20_480), folder),
    "dense layers, weights apart": lambda folder: saved_apart(layers(2_048, 4, last=20_480), folder),
    "embedding table": lambda folder: saved(embedding(TABLE_ROWS, 64), folder),
    "embedding table, apart": lambda folder: saved_apart(embedding(TABLE_ROWS, 64), folder),
    "convolution": lambda folder: saved(convolution(1_024), folder),
    "random forest": lambda folder: saved(forest(100, 20_000), folder),
}

_SERVER = """
import ctypes, json, sys
from pathlib import Path
import numpy as np
from aks_serving.model import ExternalData, Model
from aks_serving.tensors import DTYPES

def resident():
    ctypes.CDLL(None).malloc_trim(0)
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024

def made(path, folder):
    return Model(version=1, digest="", data=path.read_bytes(), external=ExternalData(folder=folder))

def batch(model, number):
    rows = {}
    for spec in model.signature.inputs:
        shape = [128, *spec.shape[1:]]
        ids = (np.arange(np.prod(shape)) * 16 + number * 16_384).reshape(shape) % TABLE_ROWS
        rows[spec.name] = (ids if spec.datatype == "INT64" else np.zeros(shape)).astype(DTYPES[spec.datatype])
    return rows

TABLE_ROWS = int(sys.argv[3])
path, tiny = Path(sys.argv[1]), Path(sys.argv[2])
small = made(tiny, None)  # what the runtime itself takes is no model's
small.run(batch(small, 0))
before = resident()
model = made(path, path.parent)
for number in range(32):
    model.run(batch(model, number))
print(json.dumps(resident() - before))
"""


def predicted(files: ModelFiles, folder: Path) -> int:
    """What validation says, in the real sandbox."""
    validation = run_validation(
        model=files,
        validation=None,
        reference=None,
        manifest=Manifest(task=Task.CLASSIFICATION),
        policy=ValidationPolicy(require_validation_data=False, max_size_bytes=8_000_000_000),
        workdir=folder,
        limits=SandboxLimits(),
    )
    load = validation.report.details.load
    if load is None:
        raise RuntimeError(f"the model did not load: {[v.sentence for v in validation.report.verdicts]}")
    return load.predicted_server_bytes


def measured(files: ModelFiles, folder: Path) -> int:
    """What a fresh process grows by with the server's own loader."""
    tiny = saved(layers(4, 1), folder).path
    ran = subprocess.run(
        [sys.executable, "-c", _SERVER, str(files.path), str(tiny), str(TABLE_ROWS)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(json.loads(ran.stdout))


def main() -> int:
    """Print the table; 1 where a model is beyond the bar."""
    print(f"{'model':28} {'file':>9} {'predicted':>10} {'measured':>9} {'off by':>7}")
    beyond = False
    for name, make in MODELS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folders = {part: Path(scratch, part) for part in ("model", "work", "server")}
            for folder in folders.values():
                folder.mkdir()
            files = make(folders["model"])
            size_bytes = files.size_bytes
            told, found = predicted(files, folders["work"]), measured(files, folders["server"])
        off = told / found - 1
        beyond |= abs(off) > BAR
        print(f"{name:28} {size_bytes / MB:6.1f} MB {told / MB:7.1f} MB {found / MB:6.1f} MB {off:+7.1%}")
    return int(beyond)


if __name__ == "__main__":
    sys.exit(main())
