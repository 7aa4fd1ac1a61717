"""Triton through PyTriton: Triton's own HTTP server in front, the model in a Python process behind it.

With dynamic batching Triton joins what waits while a batch runs, and holds nothing back; without, each request is a
batch of its own. No metrics, no request log.

Settings: PEER_MODEL, PEER_NAME, PEER_PORT, PEER_FOLDER; PEER_BATCH for dynamic batching.
"""

# mypy: disable-error-code="import-not-found,misc,no-any-unimported,untyped-decorator"
# What it imports is in the peer's own environment.

import os
import socket
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

_MOST_ROWS = 256


def main() -> None:
    """Serve."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"])
    given, found = session.get_inputs()[0], session.get_outputs()[0]

    @batch
    def infer(**inputs: Any) -> dict[str, Any]:  # noqa: ANN401 - as PyTriton has it
        return {found.name: session.run([found.name], inputs)[0]}

    is_batching = bool(os.environ.get("PEER_BATCH"))
    config = ModelConfig(
        max_batch_size=_MOST_ROWS, batcher=DynamicBatcher(max_queue_delay_microseconds=0) if is_batching else None
    )
    served = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PEER_PORT"]),
        grpc_address="127.0.0.1",
        grpc_port=_free_port(),
        allow_metrics=False,
        log_verbose=0,
    )
    # Triton's own process loads the interpreter as a library, which may lie where the loader does not look.
    libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    with Triton(config=served, workspace=Path(os.environ["PEER_FOLDER"], "triton")) as triton:
        triton.bind(
            model_name=os.environ["PEER_NAME"],
            infer_func=infer,
            inputs=[Tensor(name=given.name, dtype=np.float32, shape=tuple(given.shape[1:]))],
            outputs=[Tensor(name=found.name, dtype=np.float32, shape=tuple(found.shape[1:]))],
            config=config,
            strict=False,
        )
        triton.serve()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
