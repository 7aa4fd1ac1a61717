"""Reads an ONNX file and says whether it is a whole, valid ONNX model. Loads onnx: for the sandboxed process."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt

RUNTIME_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""The operator domains that ONNX Runtime's CPU build brings along. `com.microsoft` is what its quantisation emits."""


def read_model(path: Path) -> onnx.ModelProto:
    """Parse and check a model.

    A file cut at the border of two protobuf fields still parses, so the checker has the last word: it wants an opset,
    a graph whose every value is produced, and types that agree. Raises DropRefusedError.
    """
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:  # the protobuf library raises several kinds, not all of them its own
        raise _not_onnx(f"it does not parse ({excerpt(error, 120)})") from error
    if not model.HasField("graph"):
        raise _not_onnx("it holds no graph")
    graph = model.graph
    if not graph.node or not graph.output:
        raise _not_onnx("its graph has no nodes or no outputs")
    external = next((tensor.name for tensor in tensors(model) if is_external(tensor)), None)
    if external is not None:
        raise DropRefusedError(
            RefusalCode.EXTERNAL_DATA,
            f"the tensor {external[:100]!r} lies in a file of its own: save the model with its tensors inside",
        )
    try:
        # By path: the checker reads the file itself, and the model is in memory once.
        onnx.checker.check_model(str(path), full_check=True)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _not_onnx(f"the ONNX checker says: {excerpt(error)}") from error
    return model


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the model holds, in subgraphs and functions too."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                *attribute.sparse_tensors,
            ):
                yield sparse.values
                yield sparse.indices


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's values lie, or claim to lie, outside the model."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of the model, in subgraphs and functions too."""
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def foreign_operator(model: onnx.ModelProto) -> str | None:
    """An operator from a domain that the runtime does not bring along and the model does not define, or None."""
    defined = {(function.domain, function.name) for function in model.functions}
    for node in nodes(model):
        if node.domain not in RUNTIME_DOMAINS and (node.domain, node.op_type) not in defined:
            return f"{node.domain}::{node.op_type}"
    return None


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    waiting = [model.graph]
    waiting += [graph for function in model.functions for graph in _subgraphs(function.node)]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += _subgraphs(graph.node)


def _subgraphs(of: "Iterator[onnx.NodeProto] | list[onnx.NodeProto]") -> list[onnx.GraphProto]:
    found = []
    for node in of:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.append(attribute.g)
            found += attribute.graphs
    return found


def _not_onnx(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.NOT_ONNX, f"not an ONNX model: {why}")
