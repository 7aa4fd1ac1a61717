"""Finds what a small model would make large: tensors by fixed shapes, and functions that call functions.

Only what stands in the file is looked at: a shape that is computed shows when the model runs, within the sandbox's
memory. Loads onnx: for the sandboxed process.
"""

import math
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

import onnx
from onnx import numpy_helper

from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.tensorscan import bytes_of

MAX_MADE_BYTES = 1024 * 1024 * 1024
"""What one node may make by fixed numbers."""
MAX_EXPANDED_NODES = 1_000_000
"""Nodes when each call of a function is replaced with the function's nodes, as the runtime does."""
MAX_CALL_DEPTH = 64
_MAX_NUMBERS = 64
_FLOAT = onnx.TensorProto.FLOAT
_NUMBERS = frozenset({_FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT32, onnx.TensorProto.INT64})

type _Numbers = Mapping[str, Sequence[float]]
"""Small tensors of numbers that stand in the file, by name."""
type _Call = tuple[str, str, str]
"""A function by domain, name and overload."""


def check_growth(model: onnx.ModelProto) -> None:
    """Raises DropRefusedError, TOO_LARGE: for a node that makes a huge tensor, or functions that unfold without end."""
    for function in model.functions:
        _check_nodes(function.node, ChainMap())
    known: MutableMapping[str, Sequence[float]] = {}
    _check_graph(model.graph, ChainMap(known))
    _check_calls(model)


def _check_graph(graph: onnx.GraphProto, outer: "ChainMap[str, Sequence[float]]") -> None:
    known = outer.new_child({tensor.name: numbers for tensor in graph.initializer if (numbers := _small(tensor))})
    _check_nodes(graph.node, known)


def _check_nodes(nodes: Sequence[onnx.NodeProto], known: "ChainMap[str, Sequence[float]]") -> None:
    for node in nodes:
        if node.op_type == "Constant" and node.output:
            if numbers := _constant(node):
                known[node.output[0]] = numbers
        elif (made := _made_bytes(node, known)) > MAX_MADE_BYTES:
            shown = excerpt(node.name or next(iter(node.output), ""), 60)
            raise _too_large(
                f"the node {shown!r} ({node.op_type}) makes {made} bytes, of which {MAX_MADE_BYTES} may be made"
            )
        for attribute in node.attribute:
            for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                _check_graph(graph, known)


def _made_bytes(node: onnx.NodeProto, known: _Numbers) -> int:
    """What a node's output takes at least, as far as numbers in the file tell; 0 where they do not."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    given = [known.get(name) for name in node.input]
    made = 0
    match node.op_type, given:
        case "ConstantOfShape", [[*shape]]:
            kind = attributes["value"].t.data_type if "value" in attributes else _FLOAT
            made = bytes_of([_product(shape)], kind)
        case "Expand", [_, [*shape]]:
            made = _product(shape)
        case "Tile", [what, [*repeats]]:
            made = _product(repeats) * (len(what) if what else 1)
        case "Range", [[start], [limit], [delta]] if delta:
            made = 4 * max(0, math.ceil(min((limit - start) / delta, 2**62)))
        case "Pad", [_, [*pads], *_]:
            half = len(pads) // 2
            made = _product([max(before + after, 1) for before, after in zip(pads[:half], pads[half:], strict=False)])
        case "OneHot", [_, [depth], *_]:
            made = _product([depth])
        case (("Resize" | "Upsample"), [_, _, _, [*sizes]]):
            made = _product(sizes)
        case (("RandomNormal" | "RandomUniform"), _) if "shape" in attributes:
            made = _product(attributes["shape"].ints) * 4
    return made


def _constant(node: onnx.NodeProto) -> Sequence[float]:
    for attribute in node.attribute:
        match attribute.name:
            case "value" if attribute.HasField("t"):
                return _small(attribute.t)
            case "value_int":
                return [attribute.i]
            case "value_float":
                return _finite([attribute.f])
            case "value_ints":
                return list(attribute.ints[:_MAX_NUMBERS])
            case "value_floats":
                return _finite(attribute.floats[:_MAX_NUMBERS])
    return []


def _small(tensor: onnx.TensorProto) -> Sequence[float]:
    """The numbers of a small tensor; none where it is large, empty, lies elsewhere, or holds something else."""
    if (
        tensor.data_type not in _NUMBERS
        or tensor.data_location == onnx.TensorProto.EXTERNAL
        or not 0 < math.prod(tensor.dims) <= _MAX_NUMBERS
    ):
        return []
    try:
        array = numpy_helper.to_array(tensor)
    except (TypeError, ValueError):
        # The checker has the word for what does not fit together.
        return []
    return _finite(array.ravel().tolist())


def _finite(values: Sequence[float]) -> Sequence[float]:
    """Numbers, where they may be sizes at all."""
    return values if all(math.isfinite(value) for value in values) else []


def _product(sides: Sequence[float]) -> int:
    return math.prod(max(int(side), 0) for side in sides)


def _check_calls(model: onnx.ModelProto) -> None:
    """Functions from those that call none upwards: how many nodes each unfolds to, and how deep its calls go."""
    calls = {_key(function): [*_calls(function.node)] for function in model.functions}
    sizes: dict[_Call, int] = {}
    left = dict(calls)
    depth = 0
    while ready := [name for name, called in left.items() if all(other not in left for other in called)]:
        depth += 1
        for name in ready:
            # A function may carry the name of one that the runtime has: then the runtime's own is no call.
            sizes[name] = min(
                sum(sizes.get(other, 1) if other != name else 1 for other in left[name]), MAX_EXPANDED_NODES + 1
            )
        for name in ready:
            del left[name]
        if depth > MAX_CALL_DEPTH and left:
            raise _too_large(f"its functions call each other more than {MAX_CALL_DEPTH} deep")
    if left:
        shown = ", ".join(repr(excerpt(name[1], 60)) for name in list(left)[:3])
        raise DropRefusedError(
            RefusalCode.NOT_ONNX, f"not an ONNX model: functions call each other in a circle: {shown}"
        )
    expanded = sum(sizes.get(called, 1) for called in _calls(model.graph.node))
    if max(expanded, *sizes.values(), 0) > MAX_EXPANDED_NODES:
        raise _too_large(f"its functions unfold to more than {MAX_EXPANDED_NODES} nodes")


def _key(function: onnx.FunctionProto) -> _Call:
    return function.domain, function.name, function.overload


def _calls(nodes: Sequence[onnx.NodeProto]) -> Iterator[_Call]:
    """What each node calls, those of subgraphs too."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node.domain, node.op_type, node.overload
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g.node)
                waiting += [graph.node for graph in attribute.graphs]


def _too_large(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.TOO_LARGE, f"the model is absurd: {why}")
