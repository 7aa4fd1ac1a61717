"""KServe's model server with a model class of ours, over its V1 and its V2 protocol.

One worker, no gRPC, no access log, no log of latencies. Its batcher is another process (the agent), which answers only
V1 and waits: there is none here.

Settings: PEER_MODEL, PEER_NAME, PEER_PORT.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-unimported"
# What it imports is in the peer's own environment.

import os
from typing import Any

import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Served(Model):
    """The model."""

    def load(self) -> bool:
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.environ["PEER_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self.ready = True
        return True

    async def predict(
        self,
        payload: Any,  # noqa: ANN401 - as KServe has it
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - as KServe has it
        """Run it: a dictionary by V1, an InferRequest by V2."""
        del headers, response_headers
        if isinstance(payload, InferRequest):
            found = self._run(payload.inputs[0].as_numpy())
            output = InferOutput(
                name=self._output, shape=list(found.shape), datatype="FP32", data=found.ravel().tolist()
            )
            return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=[output])
        return {"predictions": self._run(np.array(payload["instances"], dtype=np.float32)).tolist()}

    def _run(self, rows: Any) -> Any:  # noqa: ANN401 - onnxruntime has no types
        return self._session.run([self._output], {self._input: rows})[0]


def main() -> None:
    """Serve."""
    model = Served(os.environ["PEER_NAME"])
    model.load()
    ModelServer(
        http_port=int(os.environ["PEER_PORT"]),
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
        access_log_format=None,
    ).start([model])


if __name__ == "__main__":
    main()
