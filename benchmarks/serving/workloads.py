"""The two models that every server in the benchmark serves, and the rows that are asked of them.

Both are generated from fixed seeds, so that two runs, and two machines, serve the same bytes. The small one is what
most tabular models are: a run takes microseconds, and the server around it is what is measured. The mid one takes a
millisecond a row and far less in a batch: there it is measured whether a server batches at all.

Features are rounded to four decimals, as clients send them; an answer is one output of one value a row (small) or ten
(mid), so that every server encodes the same.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.models import mlp

SMALL, MID = "small", "mid"
NAMES = (SMALL, MID)
_TREES, _DEPTH, _SMALL_FEATURES = 100, 6, 30
_MID_WIDTHS = (512, 2048, 2048, 10)
_RECIPE = "1"
"""Changed with anything above, so that no model of an older recipe is taken from the cache."""
_DISTINCT_ROWS = 1024

type Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model in a file, the names that its tensors have, and rows of its input (float32, [1024, features])."""

    name: str
    path: Path
    input_name: str
    output_name: str
    rows: Rows

    @property
    def digest(self) -> str:
        """SHA-256 of the model."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def expected(self, rows: Rows) -> NDArray[np.float32]:
        """What the model answers, by ONNX Runtime itself."""
        outputs = session(self.path).run([self.output_name], {self.input_name: rows})
        return np.asarray(outputs[0], dtype=np.float32)


def workload(name: str, folder: Path) -> Workload:
    """The workload of that name; its model is made once and kept in `folder`."""
    path = folder / f"{name}-{_RECIPE}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(_small_model() if name == SMALL else mlp(_MID_WIDTHS).SerializeToString())
        unfinished.replace(path)
    graph = onnx.load(path).graph
    return Workload(
        name=name,
        path=path,
        input_name=graph.input[0].name,
        output_name=graph.output[0].name,
        rows=_rows(_SMALL_FEATURES if name == SMALL else _MID_WIDTHS[0]),
    )


@cache
def session(path: Path) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """A session of one intra-op thread, as every server here has."""
    import onnxruntime  # noqa: PLC0415 - heavy

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _rows(features: int) -> Rows:
    return np.random.default_rng(features).normal(size=(_DISTINCT_ROWS, features)).round(4).astype(np.float32)


def _small_model() -> bytes:
    from skl2onnx import to_onnx  # noqa: PLC0415 - heavy
    from sklearn.datasets import make_regression  # noqa: PLC0415 - heavy
    from sklearn.ensemble import GradientBoostingRegressor  # noqa: PLC0415 - heavy

    x, y = make_regression(2_000, _SMALL_FEATURES, n_informative=15, noise=5, random_state=0)
    trees = GradientBoostingRegressor(n_estimators=_TREES, max_depth=_DEPTH, subsample=0.5, random_state=0).fit(x, y)
    exported: bytes = to_onnx(trees, x[:1].astype(np.float32)).SerializeToString()
    return exported
