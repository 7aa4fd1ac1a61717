"""FastAPI on uvicorn: what most teams write first, with the parts that make it fast (uvloop, httptools, no access log).

A coroutine, not a function: FastAPI would give a function to a thread, which costs more than either model's run gains.

Settings: PEER_MODEL, PEER_PORT.
"""

# mypy: disable-error-code="import-not-found,untyped-decorator"
# What it imports is in the peer's own environment.

import os

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Asked(BaseModel):
    """A request's body."""

    features: list[list[float]]


class Answer(BaseModel):
    """An answer's body."""

    predictions: list[list[float]]


def main() -> None:
    """Serve."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.get_outputs()[0].name]
    app = FastAPI()

    @app.post("/predict")
    async def predict(asked: Asked) -> Answer:
        found = session.run(outputs, {name: np.array(asked.features, dtype=np.float32)})[0]
        return Answer(predictions=found.tolist())

    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
