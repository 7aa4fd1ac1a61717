"""Looks at tensors on the wire: does a tensor hold the values that its shape declares?

What a tensor declares and its bytes do not hold would be allocated by whoever loads it. Values that lie outside the
file are not looked at here, but counted. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (TensorProto)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.validation.protobuf import Edit, Fields, runs_of, signed, tag_of
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt

KEPT_BYTES = 64 * 1024
"""Values up to so many bytes stay in the skeleton: shapes, axes and the like, which inference wants to see."""

_DIMS, _DIMS_PACKED, _TYPE, _LOCATION = 0x08, 0x0A, 0x10, tag_of(14, wire=0)
_STRINGS, _NAME, _RAW = tag_of(6), tag_of(8), tag_of(9)
_PACKED = {tag_of(4): 4, tag_of(5): 1, tag_of(7): 1, tag_of(10): 8, tag_of(11): 1}
"""Fields of packed numbers, and the least bytes that a number takes there."""
_UNPACKED = {tag_of(4, wire=5): 5, tag_of(5, wire=0): 2, tag_of(7, wire=0): 2, tag_of(10, wire=1): 9, 0x58: 2}
"""The same not packed: the least bytes of a number with its tag."""
_RUNS = runs_of(*_UNPACKED)
_EXTERNAL = 1
_STRING = 8
_MAX_SIDES = 64
_NUMBERS_AN_ELEMENT = {14: 2, 15: 2}
"""Complex numbers take two."""
_ELEMENTS_A_NUMBER = 8
"""At most, of types smaller than a byte."""
_BITS = (
    dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8)
    | dict.fromkeys((4, 5, 10, 16), 16)
    | dict.fromkeys((1, 6, 12), 32)
    | dict.fromkeys((7, 11, 13, 14), 64)
    | {15: 128, 21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 27: 6, 28: 6}
)
"""Bits of an element by the number of its type."""


@dataclass(slots=True)
class _Tensor:
    """What the walk saw of a tensor."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    kind: int = 0
    external: bool = False
    strings: int = 0
    raw_bytes: int | None = None
    most_numbers: int = 0
    """How many numbers its other fields may hold at most."""
    large: list[Edit] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What its shape and type take."""
        return bytes_of(self.dims, self.kind)


def bytes_of(dims: Sequence[int], kind: int) -> int:
    """What a tensor of a shape and type takes; of text and of unknown types a byte an element."""
    return (math.prod(dims) * _BITS.get(kind, 8) + 7) // 8


class TensorScan:
    """Walks tensors, and adds up what they take within the file and outside of it."""

    def __init__(self, fields: Fields, name_at: Callable[[int, int], str], most_elements: int) -> None:
        self._fields = fields
        self._name_at = name_at
        self._most_elements = most_elements
        self.external_bytes = 0

    def tensor(self, start: int, stop: int) -> "tuple[_Tensor, list[Edit]]":
        """A tensor, and its values where they are too many for the skeleton. Raises DropRefusedError."""
        found = _Tensor()
        for tag, value, at, begin, end in self._fields.of(start, stop, _RUNS):
            if tag == _DIMS:
                found.dims.append(signed(value))
            elif tag == _DIMS_PACKED:
                found.dims += self.packed(begin, end)
            elif tag == _TYPE:
                found.kind = value
            elif tag == _NAME:
                found.name = self._name_at(begin, end)
            elif tag == _LOCATION:
                found.external = value == _EXTERNAL
            elif tag == _STRINGS:
                found.strings += 1
            else:
                self._values(found, Edit(tag, at, begin, end, None))
        self._check(found)
        if found.external:
            self.external_bytes += found.size_bytes
        return found, found.large

    def packed(self, start: int, stop: int) -> list[int]:
        """Packed numbers. Raises DropRefusedError where there are more than a shape has sides."""
        numbers: list[int] = []
        while start < stop and len(numbers) <= _MAX_SIDES:
            value, start = self._fields.varint(start, stop)
            numbers.append(signed(value))
        return numbers

    def check_shape(self, what: str, dims: Sequence[int]) -> None:
        """Raises DropRefusedError where a shape is none, or has more elements than a model may declare."""
        shown = excerpt(list(dims[:8]), 100)
        if len(dims) > _MAX_SIDES:
            raise _too_large(f"{what} has more than {_MAX_SIDES} dimensions")
        if any(dim < 0 for dim in dims):
            raise DropRefusedError(
                RefusalCode.NOT_ONNX, f"not an ONNX model: {what} has the shape {shown} with a negative side"
            )
        # Empty sides do not make the others harmless: what multiplies them in 64 bits overflows first.
        elements = math.prod(max(dim, 1) for dim in dims)
        if elements > self._most_elements:
            raise _too_large(f"{what} has the shape {shown}, {elements:.3g} elements")

    @staticmethod
    def _values(found: _Tensor, values: Edit) -> None:
        """Fields that hold a tensor's values."""
        size_bytes = values.stop - values.start
        if values.tag == _RAW:
            found.raw_bytes = size_bytes
        elif values.tag in _PACKED:
            found.most_numbers += size_bytes // _PACKED[values.tag]
        elif values.tag in _UNPACKED:
            found.most_numbers += size_bytes // _UNPACKED[values.tag]
            return
        else:
            return
        if size_bytes > KEPT_BYTES:
            found.large.append(values)

    def _check(self, found: _Tensor) -> None:
        what = f"the tensor {excerpt(found.name, 100)!r}"
        self.check_shape(what, found.dims)
        if found.kind not in _BITS and found.kind != _STRING:
            raise DropRefusedError(RefusalCode.NOT_ONNX, f"not an ONNX model: {what} has the unknown type {found.kind}")
        if found.external:
            return
        elements = math.prod(found.dims)
        if found.raw_bytes is not None:
            if found.raw_bytes != found.size_bytes:
                raise _short(what, found, f"{found.raw_bytes} bytes", f"{found.size_bytes}")
        elif found.kind == _STRING:
            if found.strings != elements:
                raise _short(what, found, f"{found.strings} texts", f"{elements}")
        else:
            together = _ELEMENTS_A_NUMBER if _BITS.get(found.kind, 8) < 8 else 1
            wanted = elements * _NUMBERS_AN_ELEMENT.get(found.kind, 1)
            if wanted > found.most_numbers * together:
                raise _short(what, found, f"{found.most_numbers} numbers at most", f"{wanted}")


def _short(what: str, found: _Tensor, holds: str, wanted: str) -> DropRefusedError:
    return DropRefusedError(
        RefusalCode.NOT_ONNX,
        f"not an ONNX model: {what} holds {holds}, and its shape {excerpt(found.dims, 60)} takes {wanted}",
    )


def _too_large(why: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.TOO_LARGE, f"the model is absurd: {why}, more than a model may declare")
