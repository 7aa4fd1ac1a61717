"""LitServe with one worker on the CPU, its access log off, with and without batching and its fast queue.

Bodies may hold several rows: a batch joins them for one run, and gives each request its own.

Settings: PEER_MODEL, PEER_PORT; PEER_BATCH for batching, PEER_WAIT_S for how long a batch waits to fill;
PEER_FAST_QUEUE.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-unimported"
# What it imports is in the peer's own environment.

import os
from typing import Any

import litserve
import numpy as np
import onnxruntime


class Served(litserve.LitAPI):
    """The model."""

    def setup(self, device: str) -> None:
        """Make the session."""
        del device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.environ["PEER_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def decode_request(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - as LitServe has it
        """The rows of a request."""
        return np.array(request["features"], dtype=np.float32)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """The requests of a batch as they are."""
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Each request's answer."""
        return output

    def predict(self, x: Any) -> Any:  # noqa: ANN401 - as LitServe has it
        """Run it: one request's rows, or a batch's list of them."""
        if not isinstance(x, list):
            return self._session.run([self._output], {self._input: x})[0]
        found = self._session.run([self._output], {self._input: np.concatenate(x)})[0]
        return np.split(found, np.cumsum([len(rows) for rows in x])[:-1])

    def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: ANN401 - as LitServe has it
        """An answer's body."""
        return {"predictions": output.tolist()}


def main() -> None:
    """Serve."""
    batch = int(os.environ.get("PEER_BATCH", "1"))
    wait_s = float(os.environ.get("PEER_WAIT_S", "0"))
    server = litserve.LitServer(
        Served(max_batch_size=batch, batch_timeout=wait_s),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=os.environ.get("PEER_FAST_QUEUE") == "1",
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
