"""The Open Inference Protocol V2 over REST: its bodies, read and written. No transport, no model runs here.

    request = read_request(body, header_length)                # bytes in
    request.feeds(signature)                                   # arrays, as a version of the model wants them
    request.user(), request.timeout_s(), request.priority()    # what its parameters say
    response(request, prediction, model)                       # arrays in, Encoded(body, header_length) out

`header_length` is the value of Inference-Header-Content-Length, or None where there is no such header: the body is then
JSON alone. Taken are the protocol and HTTP_EXTENSIONS: tensors as JSON or as binary data, mixed as the caller likes,
both ways; a body that is the data of the only input (a header length of 0); the best classes of an output
(`classification`); `timeout` in microseconds and `priority`, where 1 is the highest and 0 the default. What needs
memory that is shared with the caller, or a sequence of requests, is refused; other unknown fields and parameters are
ignored, since a client may offer extensions unasked.

A request may ask for an output once: a short body never calls for an answer larger than the model's outputs.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aks_serving.calls import LOW, NORMAL
from aks_serving.classification import best_classes, check_classes
from aks_serving.escapes import why
from aks_serving.model import Signature, TensorSpec
from aks_serving.tensors import Feeds, flat, to_bytes
from aks_serving.v2_bodies import (
    BinarySize,
    Body,
    InferResponse,
    OutputParameters,
    OutputTensor,
    RequestedOutput,
)
from aks_serving.v2_inputs import array_of, parts_of, raw_feeds
from shared.core.errors import InvalidInputError

if TYPE_CHECKING:
    from aks_serving.awaited import Prediction

SERVER_NAME = "slipway"
SERVER_VERSION = "0.1.0"
PLATFORM = "onnx_onnxv1"
EXTENSIONS = ("classification", "model_configuration", "parameters", "schedule_policy", "statistics")
"""The protocol's extensions that this server has, whole, over HTTP and gRPC."""
HTTP_EXTENSIONS = ("binary_tensor_data", *EXTENSIONS)
"""Those that it has over HTTP."""

SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
"""Parameters of requests that belong to a sequence."""

_MAX_SHOWN = 80


class Encoded(NamedTuple):
    """A body, and the length of its JSON part where binary data follows (Inference-Header-Content-Length)."""

    body: bytes
    header_length: int | None = None


class InferRequest:
    """An inference request that was read."""

    __slots__ = ("_asked", "_binary", "_raw")

    def __init__(self, asked: Body, binary: Sequence[memoryview | None] | None, raw: memoryview | None = None) -> None:
        """`binary` are the inputs' binary data; `raw` is that of the only input of a request without JSON.

        Raises InvalidInputError for parameters of which nothing will come.
        """
        if (said := asked.parameters) is not None:
            check_sequences({name: getattr(said, name) for name in SEQUENCES})
        self._asked = asked
        self._binary = binary
        self._raw = raw

    @property
    def id(self) -> str | None:
        """The caller's name for the request."""
        return self._asked.id

    def user(self) -> Any:  # noqa: ANN401 - any JSON value
        """The caller's user id among the parameters, if any."""
        return None if self._asked.parameters is None else self._asked.parameters.user_id

    def timeout_s(self) -> float | None:
        """How long the caller waits, where it says so."""
        timeout_us = None if self._asked.parameters is None else self._asked.parameters.timeout
        return timeout_us / 1e6 if timeout_us else None

    def priority(self) -> int:
        """The priority, as the engine has it: 0 runs first."""
        level = 0 if self._asked.parameters is None else self._asked.parameters.priority
        return min(level - 1, LOW) if level else NORMAL

    def feeds(self, signature: Signature) -> Feeds:
        """The inputs as a signature wants them, in its order; the outputs that are asked for are checked with them.

        Raises InvalidInputError.
        """
        if self._asked.outputs:
            _check_outputs(self._asked.outputs, signature)
        if self._raw is not None:
            return raw_feeds(self._raw, signature)
        inputs, specs, binary = self._asked.inputs, signature.inputs, self._binary
        if len(inputs) == len(specs) == 1 and inputs[0].name == specs[0].name:
            spec = specs[0]
            return {spec.name: array_of(inputs[0], None if binary is None else binary[0], spec)}
        given = {tensor.name: place for place, tensor in enumerate(inputs)}
        check_names(signature, given, total=len(inputs))
        feeds: Feeds = {}
        for spec in specs:
            place = given[spec.name]
            feeds[spec.name] = array_of(inputs[place], None if binary is None else binary[place], spec)
        return feeds

    def wanted(self, signature: Signature) -> list[tuple[int, bool, int]]:
        """The outputs to give, each as its place in the signature, whether as binary data, and how many classes.

        `feeds` has found the names to be the signature's.
        """
        asked = self._asked
        binary = self._raw is not None or (asked.parameters is not None and asked.parameters.binary_data_output)
        if not asked.outputs:
            return [(place, binary, 0) for place in range(len(signature.outputs))]
        places = {spec.name: place for place, spec in enumerate(signature.outputs)}
        chosen = []
        for output in asked.outputs:
            said = output.parameters or _NOTHING_SAID
            as_binary = binary if said.binary_data is None else said.binary_data
            chosen.append((places[output.name], as_binary, said.classification))
        return chosen


_NOTHING_SAID = OutputParameters()
_EMPTY = Body(inputs=[])
_REQUEST = msgspec.json.Decoder(Body)
_encode = msgspec.json.Encoder().encode


def read_request(body: bytes, header_length: int | None = None) -> InferRequest:
    """Read an inference request. `header_length` is at most the body's. Raises InvalidInputError."""
    if header_length is None:
        return InferRequest(_decoded(body), None)
    view = memoryview(body)
    if header_length == 0:
        return InferRequest(_EMPTY, None, raw=view)
    asked = _decoded(view[:header_length])
    return InferRequest(asked, parts_of(asked.inputs, view[header_length:]))


def response(request: InferRequest, prediction: "Prediction", model: str) -> Encoded:
    """The body of an inference response, to a request whose feeds the prediction was made from."""
    outputs: list[OutputTensor] = []
    data: list[bytes] = []
    specs, arrays = prediction.signature.outputs, prediction.outputs
    for place, binary, classes in request.wanted(prediction.signature):
        spec, array, datatype = specs[place], arrays[place], specs[place].datatype
        if classes:
            array, datatype = best_classes(array, classes), "BYTES"
        if binary:
            raw = to_bytes(array)
            data.append(raw)
            outputs.append(OutputTensor(spec.name, datatype, array.shape, BinarySize(len(raw))))
        else:
            outputs.append(OutputTensor(spec.name, datatype, array.shape, data=flat(array)))
    request_id = msgspec.UNSET if request.id is None else request.id
    header = _encode(InferResponse(model, str(prediction.version), outputs, request_id))
    return Encoded(b"".join((header, *data)), len(header)) if data else Encoded(header)


def metadata(model: str, versions: list[int], signature: Signature) -> dict[str, Any]:
    """The body that describes a model."""
    return {
        "name": model,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [_described(spec) for spec in signature.inputs],
        "outputs": [_described(spec) for spec in signature.outputs],
    }


def check_names(signature: Signature, given: dict[str, Any], *, total: int) -> None:
    """Raises InvalidInputError unless exactly the signature's inputs are given, each once."""
    wanted = [spec.name for spec in signature.inputs]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise InvalidInputError(f"input {missing[0]!r} is missing: the model takes {', '.join(wanted)}")
    unknown = [name for name in given if name not in wanted]
    if unknown:
        name = unknown[0][:_MAX_SHOWN]
        raise InvalidInputError(f"the model has no input {name!r}: it takes {', '.join(wanted) or 'none'}")
    if total != len(given):
        raise InvalidInputError("an input is given twice")


def check_sequences(parameters: Mapping[str, object]) -> None:
    """Raises InvalidInputError for a request that says that it belongs to a sequence."""
    for name in SEQUENCES:
        if parameters.get(name):
            raise InvalidInputError(f"parameter {name!r} is set, and this server keeps no sequences: leave it")


def _decoded(text: bytes | memoryview) -> Body:
    try:
        return _REQUEST.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the body is not an inference request: {why(error, text)}") from error
    except RecursionError as error:
        raise InvalidInputError("the body is not an inference request: it is nested too deep") from error


def _check_outputs(outputs: list[RequestedOutput], signature: Signature) -> None:
    known = {spec.name: spec for spec in signature.outputs}
    for output in outputs:
        name = output.name[:_MAX_SHOWN]
        if output.name not in known:
            raise InvalidInputError(f"the model has no output {name!r}: it has {', '.join(known)}")
        said = output.parameters or _NOTHING_SAID
        if said.shared_memory_region is not None:
            raise InvalidInputError(f"output {name!r} is wanted in shared memory, and this server shares none")
        if said.classification:
            check_classes(known[output.name])
    if len({output.name for output in outputs}) != len(outputs):
        raise InvalidInputError("an output is asked for twice")


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
