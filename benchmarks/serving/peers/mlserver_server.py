"""MLServer with a runtime of ours for ONNX models, which it does not ship, in the server's own process.

No parallel workers: on one core a second process only adds a hop. No metrics server, no access log, no gzip.

Settings: PEER_MODEL, PEER_NAME, PEER_PORT, PEER_FOLDER; PEER_BATCH and PEER_WAIT_S for adaptive batching.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-unimported,no-any-return,untyped-decorator"
# What it imports is in the peer's own environment.

import json
import os
import socket
import sys
from pathlib import Path

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    """The model."""

    async def load(self) -> bool:
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.environ["PEER_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        found = self._session.run([self._output], {self._input: NumpyCodec.decode_input(payload.inputs[0])})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self._output, found)])


def main() -> None:
    """Write MLServer's two settings files, and become it."""
    folder = Path(os.environ["PEER_FOLDER"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        grpc_port = probe.getsockname()[1]
    server = {
        "host": "127.0.0.1",
        "http_port": int(os.environ["PEER_PORT"]),
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
        "gzip_enabled": False,
    }
    model = {
        "name": os.environ["PEER_NAME"],
        "implementation": f"{Path(__file__).stem}.Runtime",
        "max_batch_size": int(os.environ.get("PEER_BATCH", "0")),
        "max_batch_time": float(os.environ.get("PEER_WAIT_S", "0")),
    }
    (folder / "settings.json").write_text(json.dumps(server), "utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), "utf-8")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    command = Path(sys.executable).with_name("mlserver")
    os.execv(command, [str(command), "start", str(folder)])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
