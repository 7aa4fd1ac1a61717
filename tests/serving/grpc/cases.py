"""What the gRPC tests send: tensors of tritonclient, and messages by hand."""

from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

from tests.serving import models
from tests.serving.fakes import MemoryStorage

VALUES: dict[str, Any] = {
    "BOOL": [True, False, True, True, False, False],
    "UINT8": [0, 1, 2, 3, 254, 255],
    "UINT16": [0, 1, 2, 3, 4, 65535],
    "UINT32": [0, 1, 2, 3, 4, 2**32 - 1],
    "UINT64": [0, 1, 2, 3, 4, 2**64 - 1],
    "INT8": [0, 1, 2, 3, -128, 127],
    "INT16": [0, 1, 2, 3, -(2**15), 2**15 - 1],
    "INT32": [0, 1, 2, 3, -(2**31), 2**31 - 1],
    "INT64": [0, 1, 2, 3, -(2**63), 2**63 - 1],
    "FP16": [0.0, 1.5, -2.5, float("inf"), 6e-5, 65504.0],
    "FP32": [0.0, 1.5, -2.5, float("inf"), 1e-38, 3e38],
    "FP64": [0.0, 1.5, -2.5, float("-inf"), 1e-300, 1e300],
    "BYTES": ["", "a", "é", "a longer text", "\N{SNOWMAN}", "\0"],
}
"""Six values of each datatype, its ends among them."""

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def array(datatype: str, *shape: int) -> Any:
    """An array of the datatype with as many of its six values as the shape takes."""
    count = int(np.prod(shape))
    return np.resize(np.array(VALUES[datatype], DTYPES[datatype]), count).reshape(shape)


def tensor(values: Any, datatype: str = "FP32", name: str = "x") -> triton.InferInput:
    """An input of tritonclient's, with raw contents."""
    given = np.asarray(values, DTYPES[datatype])
    made = triton.InferInput(name, list(given.shape), datatype)
    made.set_data_from_numpy(given)
    return made


def request(*values: float, model: str = "churn", **fields: Any) -> Any:
    """A request by hand, of the client's own class: one row, raw."""
    made = service_pb2.ModelInferRequest(model_name=model, **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    made.raw_input_contents.append(np.array(values, np.float32).tobytes())
    return made


def typed(datatype: str, values: Any, *shape: int, field: str = "", model: str = "churn") -> Any:
    """A request with typed contents."""
    made = service_pb2.ModelInferRequest(model_name=model)
    added = made.inputs.add(name="x", datatype=datatype, shape=shape)
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    getattr(added.contents, field or FIELDS[datatype]).extend(encoded)
    return made


def publish(storage: MemoryStorage, data: bytes, **models_beside: bytes) -> None:
    """An endpoint churn of one model, and others by name."""
    for endpoint, file in {"churn": data, **models_beside}.items():
        storage.put(file)
        storage.publish(models.plan(1, models.route(1, file), endpoint=endpoint))
