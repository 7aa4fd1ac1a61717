"""Hostile ONNX models: cyclic and absurd graphs, gigabytes from a few bytes, loops without end, damaged protobuf.

Some are written field by field, for what the ONNX library would not write.
"""

from collections.abc import Sequence
from itertools import pairwise

import onnx
from onnx import TensorProto as Type
from onnx import helper

from tests.unit.validation.drops import Spec, onnx_model, scorer

_ROWS: list[Spec] = [("x", Type.FLOAT, ["rows", 3])]
_OUT: list[Spec] = [("y", Type.FLOAT, ["rows", 3])]
_OUT_FREE: list[Spec] = [("y", Type.FLOAT, ["a", "b"])]


def varint(value: int) -> bytes:
    """An unsigned number on the wire."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def held(number: int, content: bytes | str) -> bytes:
    """A field with a length."""
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def whole(number: int, value: int) -> bytes:
    """A field of a whole number; a negative one as int64."""
    return varint(number << 3) + varint(value % 2**64)


def written(graph: bytes, *, ir_version: int = 9, opset: int = 17, more: bytes = b"") -> bytes:
    """A model of a graph written by hand."""
    return whole(1, ir_version) + held(7, graph) + held(8, whole(2, opset)) + more


def tensor(*dims: int, kind: int = Type.FLOAT, raw: bytes = bytes(4), name: str = "w") -> bytes:
    """A tensor of a shape that its bytes need not fill."""
    return b"".join(whole(1, dim) for dim in dims) + whole(2, kind) + held(8, name) + held(9, raw)


def with_tensor(content: bytes) -> bytes:
    """A model with an initializer written by hand."""
    return _graph_with(held(5, content))


def _graph_with(more: bytes = b"", *nodes: bytes) -> bytes:
    ends = scorer().graph
    graph = b"".join(held(1, node) for node in nodes) or held(1, ends.node[0].SerializeToString())
    graph += held(2, "g") + more
    graph += held(11, ends.input[0].SerializeToString()) + held(12, ends.output[0].SerializeToString())
    return written(graph)


def of(*nodes: onnx.NodeProto, constants: Sequence[onnx.TensorProto] = (), free: bool = False) -> bytes:
    """A model from `x`, FP32 [rows, 3], to `y`."""
    return bytes(onnx_model(nodes, _ROWS, _OUT_FREE if free else _OUT, constants=constants).SerializeToString())


def numbers(name: str, values: Sequence[int], *, scalar: bool = False) -> onnx.TensorProto:
    """A small tensor of whole numbers."""
    return helper.make_tensor(name, Type.INT64, [] if scalar else [len(values)], values)


def truncated() -> bytes:
    content: bytes = scorer().SerializeToString()
    return content[: len(content) // 2]


def bit_flipped() -> bytes:
    """One bit of the graph's length."""
    content = bytearray(scorer().SerializeToString())
    content[content.index(0x3A) + 1] ^= 0x40
    return bytes(content)


def cyclic() -> bytes:
    return of(helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Neg", ["y"], ["z"]))


def own_input() -> bytes:
    return of(helper.make_node("Add", ["x", "y"], ["y"]))


def written_twice() -> bytes:
    return of(helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"]))


def same_initializer_twice() -> bytes:
    return of(helper.make_node("Add", ["x", "w"], ["y"]), constants=[_floats("w", 3), _floats("w", 3)])


def _floats(name: str, count: int) -> onnx.TensorProto:
    return helper.make_tensor(name, Type.FLOAT, [count], [0.0] * count)


def many_nodes(count: int = 300_000) -> bytes:
    node = held(1, held(1, "x") + held(2, "y") + held(4, "Neg"))
    return written(node * count)


def nested_ifs(depth: int) -> bytes:
    """Written from the inside out: the library's own encoder gives up before."""
    node = held(4, "Identity") + held(1, "x") + held(2, "y")
    for _ in range(depth):
        branch = held(1, node) + held(12, held(1, "y"))
        node = (
            held(1, "x")
            + held(2, "y")
            + held(4, "If")
            + held(5, held(1, "then_branch") + held(6, branch) + whole(20, 5))
        )
    return _graph_with(b"", node)


def nested_types(depth: int) -> bytes:
    kind = held(1, whole(1, Type.FLOAT))
    for _ in range(depth):
        kind = held(4, held(1, kind))
    return _graph_with(held(13, held(1, "v") + held(2, kind)))


def recursive_functions(*, circle: int) -> bytes:
    """Functions of which each calls the next, and the last the first."""
    return _functions([[(n + 1) % circle] for n in range(circle)])


def laughing_functions(levels: int = 40) -> bytes:
    """Each function calls the next twice: 2**40 nodes in the end."""
    return _functions([[n + 1, n + 1] for n in range(levels - 1)] + [[]])


def function_chain(levels: int) -> bytes:
    return _functions([[n + 1] for n in range(levels - 1)] + [[]])


def _functions(calls: list[list[int]]) -> bytes:
    model = onnx_model([helper.make_node("f0", ["x"], ["y"], domain="acme")], _ROWS, _OUT, domains={"acme": 1})
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    for number, called in enumerate(calls):
        names = [f"v{step}" for step in range(len(called))]
        nodes = [
            helper.make_node(f"f{other}", [(["a", *names])[step]], [names[step]], domain="acme")
            for step, other in enumerate(called)
        ]
        nodes.append(helper.make_node("Neg", [(["a", *names])[-1]], ["b"]))
        model.functions.append(helper.make_function("acme", f"f{number}", ["a"], ["b"], nodes, opsets))
    return bytes(model.SerializeToString())


def custom_operator() -> bytes:
    model = onnx_model([helper.make_node("Evil", ["x"], ["y"], domain="acme")], _ROWS, _OUT, domains={"acme": 1})
    return bytes(model.SerializeToString())


def unknown_operator() -> bytes:
    return of(helper.make_node("RunShellCommand", ["x"], ["y"]))


def of_versions(*, opset: int = 17, ir_version: int = 9) -> bytes:
    model = scorer()
    model.opset_import[0].version = opset
    model.ir_version = ir_version
    return bytes(model.SerializeToString())


def _made(node: onnx.NodeProto, *constants: onnx.TensorProto) -> bytes:
    """What a node makes, summed up and added to the input."""
    total = helper.make_node("ReduceSum", ["made"], ["sum"], keepdims=0)
    return of(node, total, helper.make_node("Add", ["x", "sum"], ["y"]), constants=constants)


def huge_constant_of_shape() -> bytes:
    return _made(helper.make_node("ConstantOfShape", ["shape"], ["made"]), numbers("shape", [25_000_000, 1_000]))


def huge_expand() -> bytes:
    return _made(
        helper.make_node("Expand", ["w", "shape"], ["made"]), _floats("w", 1), numbers("shape", [2**20, 2**20])
    )


def huge_tile() -> bytes:
    return _made(helper.make_node("Tile", ["w", "by"], ["made"]), _floats("w", 2), numbers("by", [2**40]))


def huge_pad() -> bytes:
    return _made(helper.make_node("Pad", ["w", "pads"], ["made"]), _floats("w", 1), numbers("pads", [2**40, 0]))


def huge_range() -> bytes:
    ends = [numbers(name, [value], scalar=True) for name, value in (("a", 0), ("b", 2**45), ("c", 1))]
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["made"], to=Type.FLOAT),
        helper.make_node("ReduceSum", ["made"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return of(*nodes, constants=ends)


def huge_random() -> bytes:
    return _made(helper.make_node("RandomNormal", [], ["made"], shape=[2**20, 2**20]))


def huge_constant_in_a_branch() -> bytes:
    """In a subgraph, where the shape comes from outside of it."""
    branch = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["made"]),
            helper.make_node("ReduceSum", ["made"], ["sum"], keepdims=0),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", Type.FLOAT, [])],
    )
    return of(
        helper.make_node("If", ["go"], ["chosen"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["x", "chosen"], ["y"]),
        constants=[numbers("shape", [2**40]), helper.make_tensor("go", Type.BOOL, [], [True])],
    )


def constant_folded_when_loaded() -> bytes:
    """The shape is computed from constants: nothing in the file shows it, and the runtime folds it as it loads."""
    nodes = [
        helper.make_node("Mul", ["half", "half"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["made"]),
        helper.make_node("ReduceSum", ["made"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return of(*nodes, constants=[numbers("half", [2**20])])


def memory_bomb() -> bytes:
    """What it makes depends on its input, so that it shows when the model runs."""
    nodes = [
        helper.make_node("Shape", ["x"], ["of_x"]),
        helper.make_node("Mul", ["of_x", "by"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["made"]),
        helper.make_node("ReduceSum", ["made"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return of(*nodes, constants=[numbers("by", [1_000_000, 1_000])])


def doubling(times: int = 40) -> bytes:
    """Each node gives twice what it takes."""
    names = ["x", *(f"v{step}" for step in range(times))]
    nodes = [helper.make_node("Concat", [name, name], [after], axis=1) for name, after in pairwise(names)]
    nodes.append(helper.make_node("ReduceMean", [names[-1]], ["mean"], axes=[1]))
    return of(*nodes, helper.make_node("Add", ["x", "mean"], ["y"]))


def long_scan() -> bytes:
    """A scan over a hundred million steps."""
    body = helper.make_graph(
        [helper.make_node("Neg", ["state"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("state", Type.FLOAT, None),
            helper.make_tensor_value_info("step", Type.UINT8, []),
        ],
        [helper.make_tensor_value_info("after", Type.FLOAT, None)],
    )
    nodes = [
        helper.make_node("ConstantOfShape", ["length"], ["steps"], value=helper.make_tensor("v", Type.UINT8, [1], [0])),
        helper.make_node("Scan", ["x", "steps"], ["y"], body=body, num_scan_inputs=1),
    ]
    return of(*nodes, constants=[numbers("length", [100_000_000])])


def sparse_giant() -> bytes:
    """One value in a matrix of a terabyte, which the runtime would unfold."""
    values = tensor(1, name="w")
    indices = tensor(1, kind=Type.INT64, raw=bytes(8), name="")
    return _graph_with(held(15, held(1, values) + held(2, indices) + whole(3, 2**20) + whole(3, 2**18)))


def long_name() -> bytes:
    return of(helper.make_node("Neg", ["x"], ["y"], name="n" * 10_000_000))


def bad_text() -> bytes:
    return _graph_with(b"", held(1, "x") + held(2, "y") + held(3, b"\xff\xfe") + held(4, "Neg"))


def text_of_a_gigabyte() -> bytes:
    """A text tensor whose one element says that it has 2**30 bytes."""
    content = whole(1, 1) + whole(2, Type.STRING) + varint(6 << 3 | 2) + varint(2**30) + b"short"
    return whole(1, 9) + varint(7 << 3 | 2) + varint(len(content) + 2) + held(5, content)[: len(content) + 2]


def two_graphs() -> bytes:
    content: bytes = scorer().SerializeToString()
    return content + held(7, scorer().graph.SerializeToString())


def grouped() -> bytes:
    """A field that opens a group, as the oldest protobuf had."""
    return bytes(scorer().SerializeToString() + varint(100 << 3 | 3) * 1_000)


def huge_input_shape() -> bytes:
    model = onnx_model(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)],
        [("x", Type.FLOAT, ["rows", 2**20, 2**20])],
        [("y", Type.FLOAT, [1, 1, 1])],
    )
    return bytes(model.SerializeToString())


def external(location: str, *, offset: str = "0", length: str = "12") -> bytes:
    """A model whose weights say that they lie elsewhere."""
    weights = _floats("w", 3)
    weights.ClearField("float_data")
    weights.data_location = Type.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weights.external_data.add(key=key, value=value)
    return of(helper.make_node("Add", ["x", "w"], ["y"]), constants=[weights])


def out_of_range() -> bytes:
    """Reads beside its data, by an index that is computed."""
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=Type.INT64),
        helper.make_node("Add", ["whole", "far"], ["at"]),
        helper.make_node("Gather", ["w", "at"], ["y"]),
    ]
    return of(*nodes, constants=[_floats("w", 3), numbers("far", [2**40])])


def endless() -> bytes:
    """A loop without a limit whose condition is always true."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["more_out"]), helper.make_node("Neg", ["value"], ["value_out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", Type.INT64, []),
            helper.make_tensor_value_info("more", Type.BOOL, []),
            helper.make_tensor_value_info("value", Type.FLOAT, ["rows", 3]),
        ],
        [
            helper.make_tensor_value_info("more_out", Type.BOOL, []),
            helper.make_tensor_value_info("value_out", Type.FLOAT, ["rows", 3]),
        ],
    )
    return of(
        helper.make_node("Loop", ["", "go", "x"], ["y"], body=body),
        constants=[helper.make_tensor("go", Type.BOOL, [], [True])],
    )
