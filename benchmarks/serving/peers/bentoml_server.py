"""BentoML with one worker, its access log, metrics and traces off, with and without adaptive batching.

The latency above which its batcher gives up is set far away: under a closed loop it would refuse requests.

Settings: PEER_MODEL, PEER_PORT; PEER_BATCH for adaptive batching.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-unimported,no-any-return,untyped-decorator"
# What it imports is in the peer's own environment.

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import DType

_BATCH = int(os.environ.get("PEER_BATCH", "0"))


@bentoml.service(
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
)
class Served:
    """The model."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.environ["PEER_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    @bentoml.api(route="/predict", batchable=_BATCH > 0, max_batch_size=_BATCH or 100, max_latency_ms=60_000)
    async def predict(self, features: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        """Run it."""
        return self._session.run([self._output], {self._input: features})[0]


def main() -> None:
    """Become BentoML."""
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ["BENTOML_HOME"] = os.environ["PEER_FOLDER"]
    command = Path(sys.executable).with_name("bentoml")
    options = ["--working-dir", str(Path(__file__).parent), "--host", "127.0.0.1", "--port", os.environ["PEER_PORT"]]
    served = f"{Path(__file__).stem}:Served"
    os.execv(command, [str(command), "serve", served, *options])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
