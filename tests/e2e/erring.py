"""A version that validation cannot see through: its graph fails a row of flowers larger than any in the data."""

import numpy as np

_LARGEST = 8
"""Centimetres, rounded down, above which no feature of iris lies."""


def erring(model: bytes) -> bytes:
    """The model behind a look-up that has no entry for larger flowers."""
    from onnx import TensorProto, checker, helper, load_from_string, numpy_helper

    loaded = load_from_string(model)
    graph = loaded.graph
    name = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["looked_up" if given == name else given for given in node.input]
    nodes = [
        helper.make_node("ReduceMax", [name, "per_row"], ["largest"], keepdims=1),
        helper.make_node("Cast", ["largest"], ["centimetres"], to=TensorProto.INT64),
        helper.make_node("Gather", ["entries", "centimetres"], ["entry"]),
        helper.make_node("Mul", [name, "entry"], ["looked_up"]),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.ones(_LARGEST, dtype=np.float32), "entries"))
    graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "per_row"))
    checker.check_model(loaded)
    return bytes(loaded.SerializeToString())
