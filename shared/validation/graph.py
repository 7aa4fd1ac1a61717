"""Reads an ONNX file and says whether it is a whole, valid ONNX model. Loads onnx: for the sandboxed process.

Three look at it in turn: the scan at the bytes, before anything is loaded; then, at the model without the values of its
large tensors, what a small file would grow to; and the ONNX checker. So a model of any size is in memory at most once.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from shared.validation.external import check_external
from shared.validation.growth import check_growth
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.scan import scan_model
from shared.validation.wire import CHECKED_FILE, CHECKED_VALUES_FILE

RUNTIME_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""The operator domains that ONNX Runtime's CPU build brings along. `com.microsoft` is what its quantisation emits."""

RUNTIME_OPSETS: Mapping[str, range] = {"": range(7, 27), "ai.onnx.ml": range(1, 6), "com.microsoft": range(1, 2)}
"""The operator sets that the server's ONNX Runtime, 1.31, takes. From opset 7 on it has every operator's kernel."""
RUNTIME_IR_VERSIONS = range(3, 14)
"""The IR versions that it takes. Before 3 a model names no operator sets."""

_TERM = r"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(f"{_TERM}(?:,{_TERM})*(?:->{_TERM})?")
_ADVICE = "convert the model with onnx.version_converter, or export it anew"


def read_model(path: Path, *, workdir: Path, external: Mapping[str, Path] | None = None) -> onnx.ModelProto:
    """Check a model, and parse it without the values of its large tensors.

    `external` are the files that may hold tensors of it, by the names that the model knows them by. What the checker
    reads is left in `workdir`. A file cut at the
    border of two protobuf fields still parses, so the checker has the last word: it wants an opset, a graph whose every
    value is produced, and types that agree. Raises DropRefusedError, or MemoryError.
    """
    model = _parsed(scan_model(path).skeleton)
    if not model.graph.node or not model.graph.output:
        raise _not_onnx("its graph has no nodes or no outputs")
    check_external(model, {name: file.stat().st_size for name, file in (external or {}).items()})
    check_growth(model)
    _check_equations(model)
    _run_checker(model, workdir)
    _check_servable(model.graph)
    return model


def unsupported_version(model: onnx.ModelProto) -> str | None:
    """Which operator set or IR version of a model the server's runtime does not take, in a sentence, or None."""
    if model.ir_version not in RUNTIME_IR_VERSIONS:
        return f"the IR version {model.ir_version} is not among {_listed(RUNTIME_IR_VERSIONS)}: {_ADVICE}"
    imported = [model.opset_import, *(function.opset_import for function in model.functions)]
    for entry in (entry for entries in imported for entry in entries):
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if domain in RUNTIME_OPSETS and entry.version not in RUNTIME_OPSETS[domain]:
            known = _listed(RUNTIME_OPSETS[domain])
            return f"the opset {entry.version} of {domain or 'ai.onnx'} is not among {known}: {_ADVICE}"
    return None


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


def _parsed(skeleton: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(skeleton)
    except MemoryError:
        raise
    except Exception as error:  # the protobuf library raises several kinds, not all of them its own
        raise _not_onnx(f"it does not parse ({excerpt(error, 120)})") from error
    return model


def _check_servable(graph: onnx.GraphProto) -> None:
    """A value of the graph's own that stands among the inputs too is none that a request gives."""
    own = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    if all(value.name in own for value in graph.input):
        raise _unservable("has no input, so that its answers are of nothing: export it with the features as an input")
    names = Counter(value.name for value in graph.output)
    name, count = max(names.items(), key=lambda item: item[1])
    if count > 1:
        raise _unservable(
            f"has {count} outputs named {excerpt(name, 60)!r}: give each a name of its own, or drop all but one"
        )


def _check_equations(model: onnx.ModelProto) -> None:
    """The checker, and the runtime too, never come to an end of some equations of Einsum that are none."""
    for node in nodes(model):
        for attribute in node.attribute:
            equation = attribute.s.decode(errors="replace")
            if attribute.name == "equation" and not (
                attribute.ref_attr_name or _EQUATION.fullmatch(equation.replace(" ", ""))
            ):
                raise _not_onnx(f"the {excerpt(node.op_type, 60)} equation {excerpt(equation, 60)!r} is none")


def _run_checker(model: onnx.ModelProto, workdir: Path) -> None:
    """Run the ONNX checker, shape inference included, on a copy whose large tensors all lie in a file of their own.

    By path: the checker looks whether that file is there, and not into it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in tensors(copy):
        if _has_values_elsewhere(tensor):
            tensor.data_location = onnx.TensorProto.EXTERNAL
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value=CHECKED_VALUES_FILE)
    try:
        if any(_lacks_shape(output) for output in copy.graph.output):
            copy = onnx.shape_inference.infer_shapes(copy)
        (workdir / CHECKED_VALUES_FILE).write_bytes(b"")
        (workdir / CHECKED_FILE).write_bytes(copy.SerializeToString())
        del copy
        onnx.checker.check_model(str(workdir / CHECKED_FILE), full_check=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # as above
        raise _not_onnx(f"the ONNX checker says: {excerpt(str(error).replace(f'{workdir}/', ''))}") from error


def _has_values_elsewhere(tensor: onnx.TensorProto) -> bool:
    """Whether its values lie outside the model, or were left out of what was parsed, where the scan has seen them."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return True
    held = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return not (tensor.HasField("raw_data") or tensor.string_data or any(held) or 0 in tensor.dims)


def _lacks_shape(output: onnx.ValueInfoProto) -> bool:
    """The checker wants a shape, which the runtime works out by itself."""
    return bool(output.type.HasField("tensor_type") and not output.type.tensor_type.HasField("shape"))


def _listed(versions: range) -> str:
    return f"{versions[0]} to {versions[-1]}"


def _unservable(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.UNSERVABLE, f"the model's graph {why}")


def _not_onnx(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.NOT_ONNX, f"not an ONNX model: {why}")
