"""Small real ONNX models, built by hand, and the plans and golden rows that go with them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from shared.core.slots import Slot
from shared.routing.plan import ArtifactFile, Role, Route, RoutePlan, Signing

type Size = int | str | None

FLOAT = TensorProto.FLOAT
ONNX_TYPE = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def graph(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[Size] | None]],
    outputs: Sequence[tuple[str, int, Sequence[Size] | None]],
    constants: dict[str, Any] | None = None,
) -> bytes:
    """An ONNX file from nodes, (name, type, shape) of inputs and outputs, and named constants."""
    made = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def scaler(factor: float, *, name: str = "x", width: Size = 2) -> bytes:
    """Multiplies: y = x * factor, row by row."""
    return graph(
        [helper.make_node("Mul", [name, "factor"], ["y"])],
        [(name, FLOAT, ["n", width])],
        [("y", FLOAT, ["n", width])],
        {"factor": np.float32(factor)},
    )


def identity(datatype: str, shape: Sequence[Size] | None = ("n", "m")) -> bytes:
    """Gives back what it takes: y = x of any datatype."""
    kind = ONNX_TYPE[datatype]
    return graph([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, shape)], [("y", kind, shape)])


def totals() -> bytes:
    """Two inputs, numbers in any width and texts: the sum of each row, and its text."""
    return graph(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=1),
            helper.make_node("Identity", ["s"], ["label"]),
        ],
        [("x", FLOAT, ["n", "m"]), ("s", TensorProto.STRING, ["n", 1])],
        [("total", FLOAT, ["n", 1]), ("label", TensorProto.STRING, ["n", 1])],
        {"axes": np.array([1], np.int64)},
    )


def picky(limit: int = 4) -> bytes:
    """Looks up ten times the index in a table: ONNX Runtime raises for an index from `limit` on."""
    return graph(
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        [("x", TensorProto.INT64, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
        {"table": np.arange(limit, dtype=np.float32) * 10},
    )


def table(limit: int = 1000) -> bytes:
    """As `picky`, and takes every index that the tests send."""
    return picky(limit)


def column_softmax() -> bytes:
    """Rows influence each other: a softmax over the first axis."""
    return graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])]
    )


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def golden(cases: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> bytes:
    """A golden rows file; each case is its inputs and outputs, as V2 tensors by name without it."""
    rows = [
        {
            "inputs": [{"name": name, **tensor} for name, tensor in inputs.items()],
            "outputs": [{"name": name, **tensor} for name, tensor in outputs.items()],
        }
        for inputs, outputs in cases
    ]
    return json.dumps({"schema_version": 1, "rtol": 1e-4, "atol": 1e-5, "cases": rows}).encode()


def golden2(
    cases: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    tolerances: dict[str, Any],
    *,
    runtime: str = "onnxruntime 1",
) -> bytes:
    """As `golden`, in version 2 of the file: tolerances by output, and the runtime that recorded it."""
    first = json.loads(golden(cases))
    file = {"schema_version": 2, "tolerances": tolerances, "runtime": runtime, "cases": first["cases"]}
    return json.dumps(file).encode()


def lookup(*places: tuple[str, int, int]) -> bytes:
    """Looks up a number in tables that lie outside the file: y = a[x] + b[x] + ..., and x is an index.

    A place is where a table of 32-bit floats lies: the file, the offset and the length in bytes.
    """
    tables = []
    for number, (location, offset, length) in enumerate(places):
        table = TensorProto(name=f"table{number}", data_type=FLOAT, dims=[length // 4, 1])
        table.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            entry = table.external_data.add()
            entry.key, entry.value = key, str(value)
        tables.append(table)
    found = [f"found{number}" for number in range(len(places))]
    nodes = [helper.make_node("GatherND", [table.name, "x"], [name]) for table, name in zip(tables, found, strict=True)]
    made = helper.make_graph(
        [*nodes, helper.make_node("Sum", found, ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 1])],
        tables,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def numbers(*values: float) -> bytes:
    """A table as it lies outside a model's file."""
    return np.asarray(values, dtype="<f4").tobytes()


def route(
    version: int,
    data: bytes,
    *,
    role: Role = Role.STABLE,
    weight: int = 10_000,
    golden: bytes = b"",
    external: Mapping[str, bytes] | None = None,
    signing: Signing | None = None,
    slot: Slot | None = None,
) -> Route:
    files = (external or {}).items()
    return Route(
        version=version,
        role=role,
        weight_bp=weight,
        artifact_digest=digest(data),
        size_bytes=len(data),
        external=tuple(ArtifactFile(name=name, digest=digest(file), size_bytes=len(file)) for name, file in files),
        signing=signing,
        golden_digest=digest(golden) if golden else None,
        slot=slot,
    )


def canary(stable: tuple[int, bytes], candidate: tuple[int, bytes], weight: int) -> tuple[Route, Route]:
    """The routes of a canary: each side a version and its ONNX file, the candidate at `weight` basis points."""
    return (
        route(*stable, weight=10_000 - weight),
        route(*candidate, role=Role.CANDIDATE, weight=weight),
    )


def plan(generation: int, *routes: Route, endpoint: str = "churn", salt: str = "salt") -> RoutePlan:
    return RoutePlan(endpoint=endpoint, generation=generation, salt=salt, routes=routes)
