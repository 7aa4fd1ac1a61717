"""Models of a chosen size and speed, for benchmarks and long tests. Their weights are random: nobody asks how good."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shared.validation.wire import ModelFiles

type Weights = dict[str, NDArray[Any]]


def layers(width: int, count: int, *, last: int | None = None) -> onnx.ModelProto:
    """`count` dense layers of `width`, the last one `last` wide."""
    random = np.random.default_rng(width * 1_000 + count)
    weights: Weights = {}
    nodes = []
    value = "x"
    for number in range(count):
        out = last if last and number == count - 1 else width
        weights[f"w{number}"] = (random.normal(size=(width, out)) / width**0.5).astype(np.float32)
        weights[f"b{number}"] = np.zeros(out, dtype=np.float32)
        name = "y" if number == count - 1 else f"h{number}"
        nodes += [
            helper.make_node("Gemm", [value, f"w{number}", f"b{number}"], [f"g{number}"]),
            helper.make_node("Relu", [f"g{number}"], [name]),
        ]
        value = name
    return _model(nodes, ("x", TensorProto.FLOAT, ["rows", width]), ["rows", last or width], weights)


def mlp(widths: Sequence[int]) -> onnx.ModelProto:
    """Dense layers of those widths, the first one the input's; ReLU between them."""
    random = np.random.default_rng(widths[0])
    weights: Weights = {}
    nodes = []
    value = "x"
    for number, (given, out) in enumerate(pairwise(widths)):
        weights[f"w{number}"] = (random.normal(size=(given, out)) * (2 / given) ** 0.5).astype(np.float32)
        weights[f"b{number}"] = random.normal(scale=0.1, size=out).astype(np.float32)
        is_last = number == len(widths) - 2
        name = "y" if is_last else f"g{number}"
        nodes.append(helper.make_node("Gemm", [value, f"w{number}", f"b{number}"], [name]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [name], [f"h{number}"]))
        value = f"h{number}"
    return _model(nodes, ("x", TensorProto.FLOAT, ["rows", widths[0]]), ["rows", widths[-1]], weights)


def embedding(rows: int, width: int) -> onnx.ModelProto:
    """The mean of eight entries of a table."""
    table = np.random.default_rng(1).normal(size=(rows, width)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"]),
        helper.make_node("ReduceMean", ["found"], ["y"], axes=[1], keepdims=0),
    ]
    return _model(nodes, ("ids", TensorProto.INT64, ["rows", 8]), ["rows", width], {"table": table})


def convolution(channels: int) -> onnx.ModelProto:
    """One convolution of 3 x 3 over images of 8 x 8."""
    kernel = np.random.default_rng(2).normal(size=(channels, channels, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    return _model(
        nodes, ("x", TensorProto.FLOAT, ["rows", channels, 8, 8]), ["rows", channels, 1, 1], {"kernel": kernel}
    )


def forest(trees: int, rows: int) -> bytes:
    """A random forest on noise, so that its trees grow deep."""
    from skl2onnx import to_onnx  # noqa: PLC0415 - heavy
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - heavy

    random = np.random.default_rng(3)
    x = random.normal(size=(rows, 20)).astype(np.float32)
    y = (x[:, 0] + random.normal(size=rows) > 0).astype(int)
    fitted = RandomForestClassifier(trees, random_state=0, n_jobs=2).fit(x, y)
    exported: bytes = to_onnx(fitted, x[:1], options={"zipmap": False}).SerializeToString()
    return exported


def saved(model: onnx.ModelProto | bytes, folder: Path) -> ModelFiles:
    """The model in one file."""
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return ModelFiles(path=path)


def saved_apart(model: onnx.ModelProto, folder: Path) -> ModelFiles:
    """The model with its weights in a file of their own."""
    path = folder / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1_024)
    return ModelFiles(path=path, external={"weights.bin": folder / "weights.bin"})


def _model(
    nodes: list[onnx.NodeProto], given: tuple[str, int, list[int | str]], out: list[int | str], weights: Weights
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
