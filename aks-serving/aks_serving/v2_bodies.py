"""The JSON of the inference protocol's requests and responses, as types. What is not named here is ignored."""

from typing import Annotated, Any

import msgspec

MAX_WHOLE = 2**63 - 1
"""The largest whole number of a request's parameters, over HTTP and gRPC."""

type _NotNegative = Annotated[int, msgspec.Meta(ge=0, le=MAX_WHOLE)]
type _Size = Annotated[int, msgspec.Meta(le=MAX_WHOLE)]

NO_DATA = msgspec.Raw(b"")
"""The `data` of a tensor that has none, by identity."""


class InputParameters(msgspec.Struct):
    """How a tensor of a request is carried."""

    binary_data_size: _NotNegative | None = None
    shared_memory_region: Any = None


class InputTensor(msgspec.Struct):
    """A tensor of a request. `data` is flat or nested."""

    name: str
    datatype: str
    shape: list[_Size]
    data: msgspec.Raw = NO_DATA
    parameters: InputParameters | None = None


class OutputParameters(msgspec.Struct):
    """How an output is wanted: `classification` is how many of its best classes, 0 for all its values."""

    binary_data: bool | None = None
    classification: _NotNegative = 0
    shared_memory_region: Any = None


class RequestedOutput(msgspec.Struct):
    """An output that the caller wants."""

    name: str
    parameters: OutputParameters | None = None


class Parameters(msgspec.Struct):
    """What a request says beside its tensors."""

    user_id: Any = None
    timeout: _NotNegative | None = None
    priority: _NotNegative = 0
    sequence_id: Any = None
    sequence_start: Any = None
    sequence_end: Any = None
    binary_data_output: bool = False


class Body(msgspec.Struct):
    """The JSON of an inference request. Without `outputs`, all are given."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class BinarySize(msgspec.Struct):
    """The length of an output's binary data."""

    binary_data_size: int


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """An output: `data` is flat and row-major, or its binary data follows the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: BinarySize | None = None
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class InferResponse(msgspec.Struct):
    """The JSON of an inference response."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET
