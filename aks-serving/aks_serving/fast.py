"""Reads the usual request at once: a table of numbers for a model's only input, as JSON or as binary data.

What comes out is packed rows, in the layout that the model is fed with (aks_serving.batches.Layout). A request that is
not quite of this form (another field, a text among the numbers, a ragged row, a number that does not fit) gives None:
the general readers (aks_serving.plain, aks_serving.v2) then read it, or say what is wrong with it. Nothing here answers
a request with an error, and nothing is read that they would read otherwise.
"""

import struct
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import msgspec

from aks_serving.batches import Layout, layout_of
from aks_serving.model import Signature
from aks_serving.v2_bodies import MAX_WHOLE
from aks_serving.wide import LONG_BYTES, Cutter

type _Row = list[float] | list[int]

_FORMATS = {
    "float32": "f",
    "float64": "d",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
}
_NOT_USUAL = (msgspec.DecodeError, UnicodeDecodeError, struct.error, OverflowError)
"""What the decoder and the packing raise for a body that is for the general readers, or for none."""


class Read(msgspec.Struct, gc=False):
    """A request that was read: packed rows, how many, and what it says beside them."""

    packed: bytes
    rows: int
    user: str | int | None = None
    version: int | str | None = None
    timeout_s: float | None = None
    id: str | None = None
    binary: bool = False
    """Whether the outputs are wanted as binary data."""


class FastReader:
    """Reads requests for one layout. Its `layout` is that of every version of a snapshot."""

    __slots__ = (
        "_cut_data",
        "_cut_features",
        "_datatype",
        "_decode_plain",
        "_long_bytes",
        "_outputs",
        "_pack",
        "_v2",
        "_v2_binary",
        "layout",
    )

    def __init__(self, layout: Layout, datatype: str, outputs: Sequence[str]) -> None:
        """`outputs` are the names of what every version gives, in order; empty where they do not give the same."""
        self.layout = layout
        self._outputs = list(outputs)
        self._datatype = datatype
        element: Any = float if layout.dtype.kind == "f" else int
        self._pack = struct.Struct(f"<{layout.width}{_FORMATS[layout.dtype.name]}").pack
        self._decode_plain = _plain_decoder(element).decode
        self._v2 = _v2_decoder(element)
        self._v2_binary = _v2_decoder(None)
        self._cut_features = Cutter(layout, "features", flat=False).cut
        self._cut_data = Cutter(layout, "data", flat=True).cut
        self._long_bytes = LONG_BYTES if element is float else float("inf")

    def plain(self, body: bytes, endpoint: str) -> Read | None:
        """Read a body of the plain API that is meant for the endpoint."""
        try:
            cut = None if len(body) < self._long_bytes else self._cut_features(body)
            if cut is None:
                asked = self._decode_plain(body)
                features = asked.features
                rows = len(features)
                packed = self._pack(*features[0]) if rows == 1 else self._rows(features)
            else:
                packed, rows, rest = cut
                asked = self._decode_plain(rest)
        except _NOT_USUAL:
            return None
        if asked.model is not None and asked.model != endpoint:
            return None
        timeout_s = None if asked.timeout_ms is None else asked.timeout_ms / 1e3
        return Read(packed, rows, asked.user_id, asked.model_version, timeout_s)

    def v2(self, body: bytes, header_length: int | None) -> Read | None:
        """Read an inference request, with binary data where its JSON part's length is given."""
        if header_length is None:
            return self._v2_json(body)
        if not 0 < header_length < len(body):
            return None
        try:
            asked = self._v2_binary.decode(memoryview(body)[:header_length])
        except _NOT_USUAL:
            return None
        packed = body[header_length:]
        tensor = self._tensor(asked)
        if tensor is None or tensor.parameters is None:
            return None
        size = tensor.parameters.binary_data_size
        if size != len(packed) or size != tensor.shape[0] * self.layout.row_bytes:
            return None
        return self._read(asked, packed, tensor.shape[0])

    def _v2_json(self, body: bytes) -> Read | None:
        try:
            cut = None if len(body) < self._long_bytes else self._cut_data(body)
            asked = self._v2.decode(body if cut is None else cut.rest)
            tensor = self._tensor(asked)
            if tensor is None or tensor.parameters is not None:
                return None
            rows, data, width = tensor.shape[0], tensor.data, self.layout.width
            if cut is not None:
                return self._read(asked, cut.packed, rows) if cut.rows == rows else None
            if len(data) != rows * width:
                return None
            if rows == 1:
                packed = self._pack(*data)
            else:
                packed = self._rows([data[i : i + width] for i in range(0, len(data), width)])
        except _NOT_USUAL:
            return None
        return self._read(asked, packed, rows)

    def _rows(self, rows: Sequence[_Row]) -> bytes:
        pack = self._pack
        if len(rows) == 1:
            return pack(*rows[0])
        if not rows:
            raise OverflowError  # no row: the general reader says what becomes of it
        return b"".join([pack(*row) for row in rows])

    def _tensor(self, asked: Any) -> Any:  # noqa: ANN401 - of the types that are made below
        if len(asked.inputs) != 1:
            return None
        tensor = asked.inputs[0]
        shape = tensor.shape
        if (
            tensor.name != self.layout.name
            or tensor.datatype != self._datatype
            or len(shape) != 2
            or shape[1] != self.layout.width
            or shape[0] < 1
        ):
            return None
        return tensor

    def _read(self, asked: Any, packed: bytes, rows: int) -> Read | None:  # noqa: ANN401 - as above
        parameters = asked.parameters
        binary = parameters is not None and parameters.binary_data_output
        if asked.outputs:
            # All outputs, in their order, all in one form: as tritonclient asks for them where it names them.
            forms = {binary if o.parameters is None else o.parameters.binary_data for o in asked.outputs}
            if len(forms) != 1 or [output.name for output in asked.outputs] != self._outputs:
                return None
            binary = forms.pop()
        if parameters is None:
            return Read(packed, rows, id=asked.id, binary=binary)
        timeout_us = parameters.timeout
        return Read(
            packed,
            rows,
            user=parameters.user_id,
            timeout_s=timeout_us / 1e6 if timeout_us else None,
            id=asked.id,
            binary=binary,
        )


def fast_reader(signatures: Sequence[Signature]) -> FastReader | None:
    """A reader for versions that all take the same table of numbers, or None where they do not."""
    layouts = {(layout_of(signature), signature.inputs[0].datatype) for signature in signatures if signature.inputs}
    if len(layouts) != 1:
        return None
    layout, datatype = layouts.pop()
    if layout is None or layout.dtype.name not in _FORMATS:
        return None
    outputs = {tuple(spec.name for spec in signature.outputs) for signature in signatures}
    return FastReader(layout, datatype, outputs.pop() if len(outputs) == 1 else ())


def model_of(body: bytes) -> str:
    """The endpoint that a body of the plain API names, whatever else it says; empty where it names none, or is none."""
    try:
        return _decode_named(body).model or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


class _Named(msgspec.Struct):
    model: str | None = None


_decode_named = msgspec.json.Decoder(_Named).decode


class _BinaryInput(msgspec.Struct, forbid_unknown_fields=True):
    binary_data_size: int


class _OutputForm(msgspec.Struct, forbid_unknown_fields=True):
    binary_data: bool


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: _OutputForm | None = None


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    user_id: str | int | None = None
    timeout: Annotated[int, msgspec.Meta(ge=0, le=MAX_WHOLE)] = 0
    binary_data_output: bool = False


@cache
def _plain_decoder(element: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    """Kept, as the other ones are: a reader is made for each snapshot, while requests wait, and code that has met the
    types of the last one runs faster.
    """
    asked = msgspec.defstruct(
        "PlainRequest",
        [
            ("features", list[list[element]]),
            ("model", str | None, None),
            ("model_version", int | str | None, None),
            ("user_id", str | int | None, None),
            ("timeout_ms", Annotated[float, msgspec.Meta(gt=0)] | None, None),
        ],
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(asked)


@cache
def _v2_decoder(element: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - as above
    """Of requests with binary data where `element` is None."""
    fields: list[Any] = [("name", str), ("datatype", str), ("shape", list[int])]
    if element is None:
        fields.append(("parameters", _BinaryInput | None, None))
    else:
        fields += [("data", list[element]), ("parameters", None, None)]
    tensor = msgspec.defstruct("InputTensor", fields, forbid_unknown_fields=True)
    asked = msgspec.defstruct(
        "InferRequest",
        [
            ("inputs", list[tensor]),  # type: ignore[valid-type]
            ("id", str | None, None),
            ("parameters", _Parameters | None, None),
            ("outputs", list[_Output] | None, None),
        ],
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(asked)
