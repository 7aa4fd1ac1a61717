"""Looks through an ONNX file before any library that would load it, and refuses what is absurd.

The file is walked as what it is on the wire, protobuf fields in a memory map: nothing of it is copied but names, and
nothing is believed that its bytes do not hold. So a model of two gigabytes costs no more memory than one of two
kilobytes, and a file of two kilobytes that declares gigabytes goes no further. Long runs of numbers and short texts, as
tree ensembles have, are passed over by a compiled expression; other fields are counted, and there is a limit to them.

Besides figures the walk gives the model's skeleton: the same model without the values of its large tensors. What the
format of the messages means, whether types agree and operators exist, is left to the ONNX checker.

Field numbers are those of onnx.proto; a tag here is `number << 3 | wire type`.
"""

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.validation.protobuf import (
    Edit,
    Fields,
    MalformedError,
    TooManyFieldsError,
    runs_of,
    signed,
    tag_of,
    without,
)
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.tensorscan import TensorScan, bytes_of

MAX_MODEL_BYTES = 2**31 - 1
"""A protobuf message ends there; tensors in files of their own do not count."""

_MEBI = 1024 * 1024
_IR_VERSION = tag_of(1, wire=0)
_RUNS_OF_ATTRIBUTE = runs_of(tag_of(7, wire=5), tag_of(8, wire=0), tag_of(9))
_NAMES_OF_NODE = frozenset(tag_of(number) for number in (1, 2, 3, 4, 8))
"""Inputs, outputs, the name, the operator, its overload."""
_TYPE_WITHIN = {tag_of(4): tag_of(1), tag_of(5): tag_of(2), tag_of(9): tag_of(1)}
"""Sequence, map and optional, each with the field that holds the type within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """What a model may hold and declare at most. The defaults leave room above the largest models in use."""

    nodes: int = 200_000
    """In the graph, subgraphs and functions together."""
    initializers: int = 200_000
    functions: int = 10_000
    nesting: int = 32
    """Graphs within graphs. Protobuf itself ends at 33."""
    ends: int = 10_000
    """Inputs of the graph, and outputs of it."""
    shape_elements: int = 2**34
    """Elements of any declared shape, of a tensor or a value between nodes."""
    dense_bytes: int = 1024 * _MEBI
    """What a sparse tensor may grow to: the runtime unfolds it when it loads."""
    name_bytes: int = 16 * 1024
    fields: int = 10_000_000
    """Fields that are walked one by one; the runs of numbers that are passed over do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """What a model file holds. Tensors that lie outside of it count as initializers, and their bytes as external."""

    size_bytes: int
    ir_version: int
    opsets: Mapping[str, int]
    nodes: int
    functions: int
    initializers: int
    initializer_bytes: int
    external_bytes: int
    nesting: int
    domains: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A model's figures, and the model without the values of tensors beyond `tensorscan.KEPT_BYTES`."""

    figures: ModelFigures
    skeleton: bytes = field(repr=False)


def scan_model(path: Path, limits: ScanLimits | None = None) -> Scanned:
    """Walk an ONNX file. Raises DropRefusedError: NOT_ONNX where it is none, TOO_LARGE where a limit is passed."""
    limits = limits or ScanLimits()
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if not size_bytes:
            raise _not_onnx("it is empty")
        if size_bytes > MAX_MODEL_BYTES:
            raise DropRefusedError(
                RefusalCode.TOO_LARGE,
                f"the ONNX file has {size_bytes} bytes, and no library reads more than {MAX_MODEL_BYTES}: save its "
                "tensors as external data and drop a folder",
            )
        with mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ) as data:
            walk = _Walk(data, limits)
            try:
                edits = walk.model(size_bytes)
            except MalformedError as error:
                raise _not_onnx(f"it is cut or damaged: {error}") from error
            except TooManyFieldsError as error:
                raise _too_large(f"it has more than {limits.fields} fields") from error
            return Scanned(figures=walk.figures(size_bytes), skeleton=without(data, 0, size_bytes, edits))


class _Walk:
    """One walk through one file. A step walks one message, and returns what is to be left out of it."""

    def __init__(self, data: mmap.mmap, limits: ScanLimits) -> None:
        self._data = data
        self._limits = limits
        self._fields = Fields(data, limits.fields)
        self._tensors = TensorScan(self._fields, self._name_at, limits.shape_elements)
        self._ir_version = 0
        self._opsets: dict[str, int] = {}
        self._domains: set[str] = set()
        self._nodes = self._functions = self._initializers = self._initializer_bytes = self._deepest = 0

    def figures(self, size_bytes: int) -> ModelFigures:
        return ModelFigures(
            size_bytes=size_bytes,
            ir_version=self._ir_version,
            opsets=self._opsets,
            nodes=self._nodes,
            functions=self._functions,
            initializers=self._initializers,
            initializer_bytes=self._initializer_bytes,
            external_bytes=self._tensors.external_bytes,
            nesting=self._deepest,
            domains=frozenset(self._domains),
        )

    def model(self, size_bytes: int) -> list[Edit]:
        graphs = 0
        edits: list[Edit] = []
        for tag, value, at, start, stop in self._fields.of(0, size_bytes):
            below: list[Edit] = []
            if tag == _IR_VERSION:
                self._ir_version = _counted("its IR version", value)
            elif tag == tag_of(7):
                graphs += 1
                below = self._graph(start, stop, 1)
            elif tag == tag_of(8):
                self._opset(start, stop)
            elif tag == tag_of(14):
                self._entry(start, stop)
            elif tag == tag_of(20):
                below = self._training(start, stop)
            elif tag == tag_of(25):
                below = self._function(start, stop)
            if below:
                edits.append(Edit(tag, at, start, stop, below))
        if graphs != 1:
            raise _not_onnx("it holds no graph" if not graphs else f"it holds {graphs} graphs")
        return edits

    def _graph(self, start: int, stop: int, depth: int) -> list[Edit]:
        self._deepest = max(self._deepest, depth)
        if depth > self._limits.nesting:
            raise _too_large(f"its graphs nest more than {self._limits.nesting} deep")
        inputs = outputs = 0
        edits: list[Edit] = []
        for tag, _, at, begin, end in self._fields.of(start, stop):
            below: list[Edit] = []
            if tag == tag_of(1):
                below = self._node(begin, end, depth)
            elif tag == tag_of(5):
                below = self._initializer(begin, end)
            elif tag == tag_of(15):
                below = self._sparse(begin, end)
                self._count_initializers(0)
            elif tag in {tag_of(11), tag_of(12), tag_of(13)}:
                inputs += tag == tag_of(11)
                outputs += tag == tag_of(12)
                self._value(begin, end)
            elif tag == tag_of(2):
                self._name_at(begin, end)
            if below:
                edits.append(Edit(tag, at, begin, end, below))
        if max(inputs, outputs) > self._limits.ends:
            raise _too_large(f"a graph has {inputs} inputs and {outputs} outputs, of which {self._limits.ends} may be")
        return edits

    def _function(self, start: int, stop: int) -> list[Edit]:
        self._functions += 1
        if self._functions > self._limits.functions:
            raise _too_large(f"it has more than {self._limits.functions} functions")
        edits: list[Edit] = []
        for tag, _, at, begin, end in self._fields.of(start, stop):
            below: list[Edit] = []
            if tag == tag_of(7):
                below = self._node(begin, end, 1)
            elif tag == tag_of(9):
                self._opset(begin, end, of_model=False)
            elif tag == tag_of(11):
                below = self._attribute(begin, end, 1)
            elif tag == tag_of(12):
                self._value(begin, end)
            elif tag in {tag_of(1), tag_of(4), tag_of(5), tag_of(6), tag_of(10), tag_of(13)}:
                self._name_at(begin, end)
            if below:
                edits.append(Edit(tag, at, begin, end, below))
        return edits

    def _training(self, start: int, stop: int) -> list[Edit]:
        edits: list[Edit] = []
        for tag, _, at, begin, end in self._fields.of(start, stop):
            if tag in {tag_of(1), tag_of(2)} and (below := self._graph(begin, end, 1)):
                edits.append(Edit(tag, at, begin, end, below))
        return edits

    def _node(self, start: int, stop: int, depth: int) -> list[Edit]:
        self._nodes += 1
        if self._nodes > self._limits.nodes:
            raise _too_large(f"it has more than {self._limits.nodes} nodes")
        domain = ""
        edits: list[Edit] = []
        for tag, _, at, begin, end in self._fields.of(start, stop):
            if tag == tag_of(5):
                if below := self._attribute(begin, end, depth):
                    edits.append(Edit(tag, at, begin, end, below))
            elif tag == tag_of(7):
                domain = self._name_at(begin, end)
            elif tag in _NAMES_OF_NODE:
                self._name_at(begin, end)
        self._domains.add(domain)
        return edits

    def _attribute(self, start: int, stop: int, depth: int) -> list[Edit]:
        edits: list[Edit] = []
        for tag, _, at, begin, end in self._fields.of(start, stop, _RUNS_OF_ATTRIBUTE):
            below: list[Edit] = []
            if tag in {tag_of(5), tag_of(10)}:
                below = self._tensors.tensor(begin, end)[1]
            elif tag in {tag_of(6), tag_of(11)}:
                below = self._graph(begin, end, depth + 1)
            elif tag in {tag_of(22), tag_of(23)}:
                below = self._sparse(begin, end)
            elif tag in {tag_of(14), tag_of(15)}:
                self._type("an attribute", begin, end)
            elif tag in {tag_of(1), tag_of(21)}:
                self._name_at(begin, end)
            if below:
                edits.append(Edit(tag, at, begin, end, below))
        return edits

    def _initializer(self, start: int, stop: int) -> list[Edit]:
        found, edits = self._tensors.tensor(start, stop)
        self._count_initializers(0 if found.external else found.size_bytes)
        return edits

    def _count_initializers(self, size_bytes: int) -> None:
        self._initializers += 1
        self._initializer_bytes += size_bytes
        if self._initializers > self._limits.initializers:
            raise _too_large(f"it has more than {self._limits.initializers} initializers")

    def _sparse(self, start: int, stop: int) -> list[Edit]:
        dims: list[int] = []
        kind = 0
        edits: list[Edit] = []
        for tag, value, at, begin, end in self._fields.of(start, stop):
            if tag in {tag_of(1), tag_of(2)}:
                found, below = self._tensors.tensor(begin, end)
                kind = found.kind if tag == tag_of(1) else kind
                if below:
                    edits.append(Edit(tag, at, begin, end, below))
            elif tag == tag_of(3, wire=0):
                dims.append(signed(value))
            elif tag == tag_of(3):
                dims += self._tensors.packed(begin, end)
        self._tensors.check_shape("a sparse tensor", dims)
        if (dense_bytes := bytes_of(dims, kind)) > self._limits.dense_bytes:
            raise _too_large(f"a sparse tensor of the shape {excerpt(dims, 60)} unfolds to {dense_bytes} bytes")
        return edits

    def _value(self, start: int, stop: int) -> None:
        name = ""
        types = []
        for tag, _, _, begin, end in self._fields.of(start, stop):
            if tag == tag_of(1):
                name = self._name_at(begin, end)
            elif tag == tag_of(2):
                types.append((begin, end))
        for begin, end in types:
            self._type(f"the value {excerpt(name, 100)!r}", begin, end)

    def _type(self, what: str, start: int, stop: int, depth: int = 1) -> None:
        """A tensor, or sequences and the like of another type: the field of that is the first, of a map the second."""
        if depth > self._limits.nesting:
            raise _too_large(f"the type of {what} nests more than {self._limits.nesting} deep")
        for tag, _, _, begin, end in self._fields.of(start, stop):
            if tag in {tag_of(1), tag_of(8)}:
                self._shape(what, begin, end)
            elif tag in _TYPE_WITHIN:
                for inner, _, _, inner_begin, inner_end in self._fields.of(begin, end):
                    if inner == _TYPE_WITHIN[tag]:
                        self._type(what, inner_begin, inner_end, depth + 1)

    def _shape(self, what: str, start: int, stop: int) -> None:
        dims = []
        for tag, _, _, begin, end in self._fields.of(start, stop):
            if tag == tag_of(2):
                dims += [self._side(*dim[3:]) for dim in self._fields.of(begin, end) if dim[0] == tag_of(1)]
        self._tensors.check_shape(what, dims)

    def _side(self, start: int, stop: int) -> int:
        """A dimension; one that is free, by a name or as -1, counts as 1."""
        side = 1
        for tag, value, _, begin, end in self._fields.of(start, stop):
            if tag == tag_of(1, wire=0):
                side = 1 if signed(value) == -1 else signed(value)
            elif tag == tag_of(2):
                self._name_at(begin, end)
        return side

    def _opset(self, start: int, stop: int, *, of_model: bool = True) -> None:
        domain, version = "", 0
        for tag, value, _, begin, end in self._fields.of(start, stop):
            if tag == tag_of(1):
                domain = self._name_at(begin, end)
            elif tag == tag_of(2, wire=0):
                version = _counted(f"the opset of {excerpt(domain, 60)!r}", value)
        if of_model:
            self._opsets[domain] = version

    def _entry(self, start: int, stop: int) -> None:
        for tag, _, _, begin, end in self._fields.of(start, stop):
            if tag == tag_of(1):
                self._name_at(begin, end)

    def _name_at(self, start: int, stop: int) -> str:
        if stop - start > self._limits.name_bytes:
            raise _too_large(f"it has a name of {stop - start} bytes, of which {self._limits.name_bytes} may be")
        try:
            return self._data[start:stop].decode()
        except UnicodeDecodeError as error:
            raise _not_onnx(f"the name at byte {start} is not UTF-8") from error


def _counted(what: str, value: int) -> int:
    if signed(value) < 0:
        raise _not_onnx(f"{what} is {signed(value)}")
    return value


def _not_onnx(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.NOT_ONNX, f"not an ONNX model: {why}")


def _too_large(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.TOO_LARGE, f"the model is absurd: {why}")
