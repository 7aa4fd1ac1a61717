"""An inference request as gRPC carries it: its bytes read, its inputs as a model's signature wants them.

What the protocol lets a client say and this server does not do (shared memory, sequences) is refused with a sentence,
never ignored, since ignoring it would answer another question. Parameters that the protocol does not name are ignored.
The messages' fields are read as seldom as can be: each time costs more than parsing the whole message.
"""

from typing import Any

from google.protobuf.message import DecodeError

from aks_serving.calls import LOW, NORMAL
from aks_serving.classification import check_classes
from aks_serving.grpc.contents import read_typed
from aks_serving.grpc.messages import ModelInferRequest
from aks_serving.model import Signature, TensorSpec
from aks_serving.tensors import Array, Feeds, from_bytes
from aks_serving.v2 import check_names, check_sequences
from aks_serving.v2_bodies import MAX_WHOLE
from shared.core.errors import InvalidInputError
from shared.core.ids import VersionNumber, version_number

type Parameter = bool | int | float | str

CLASSIFICATION = "classification"
_SHARED_MEMORY = "shared_memory_region"
_COPIES = 3
"""What came, the message, and its contents as Python has them."""


class InferRequest:
    """A request. `raw` are its raw contents, by place; `message` is a ModelInferRequest, and not to be changed.
    `held_bytes` is what it holds while it waits.
    """

    __slots__ = ("_inputs", "held_bytes", "message", "outputs", "parameters", "raw")

    def __init__(self, message: Any, size_bytes: int) -> None:  # noqa: ANN401 - a message
        """`size_bytes` is the size of what the message was read from. Raises InvalidInputError for parameters of which
        nothing will come.
        """
        self.message = message
        self.held_bytes = _COPIES * size_bytes
        self.raw: list[bytes] = message.raw_input_contents[:]
        self._inputs: list[Any] = message.inputs[:]
        self.parameters = _parameters(message.parameters)
        outputs = message.outputs[:]
        self.outputs = {output.name: _classes(output) for output in outputs} if outputs else {}
        """The outputs that are wanted, empty for all: their names, and how many classes of each, 0 for its values."""
        if self.parameters:
            check_sequences(self.parameters)
        if len(self.outputs) != len(outputs):
            raise InvalidInputError("an output is requested twice")
        if self.raw and len(self.raw) != len(self._inputs):
            raise InvalidInputError(
                f"the request has {len(self._inputs)} inputs and {len(self.raw)} raw_input_contents: "
                "give each input its own, in their order"
            )

    @property
    def wants_raw(self) -> bool:
        """Whether the outputs are wanted as raw contents: as the inputs came."""
        return bool(self.raw) or not self._inputs

    def version(self) -> VersionNumber | None:
        """The version that the caller names, if any. Raises InvalidInputError."""
        text = self.message.model_version
        return version_number(text) if text else None

    def user(self) -> Parameter | None:
        """The caller's user id among the parameters, if any."""
        return self.parameters.get("user_id")

    def timeout_s(self) -> float | None:
        """How long the caller waits, from the parameter `timeout` in microseconds. Raises InvalidInputError."""
        timeout_us = _whole(self.parameters, "timeout")
        return timeout_us / 1e6 if timeout_us else None

    def priority(self) -> int:
        """The priority as the engine has it; the caller's 1 is the highest. Raises InvalidInputError."""
        level = _whole(self.parameters, "priority")
        return min(level - 1, LOW) if level else NORMAL

    def feeds(self, signature: Signature) -> Feeds:
        """The inputs as a signature wants them, in its order.

        Raises InvalidInputError, also for a requested output that the signature does not have: before the model runs.
        """
        inputs, specs = self._inputs, signature.inputs
        if self.outputs:
            _check_outputs(self.outputs, signature)
        if len(inputs) == 1 == len(specs) and inputs[0].name == specs[0].name:
            return {specs[0].name: self._array(0, specs[0])}
        places = {tensor.name: place for place, tensor in enumerate(inputs)}
        check_names(signature, places, total=len(inputs))
        return {spec.name: self._array(places[spec.name], spec) for spec in specs}

    def _array(self, place: int, spec: TensorSpec) -> Array:
        tensor = self._inputs[place]
        what = f"input {spec.name!r}"
        datatype = spec.datatype
        if tensor.datatype != datatype:
            raise InvalidInputError(f"{what} is sent as {tensor.datatype[:20]!r}, and the model takes {datatype}")
        if tensor.parameters and _SHARED_MEMORY in tensor.parameters:
            raise InvalidInputError(f"{what} lies in shared memory, which this server does not read: send its contents")
        if not self.raw:
            array = read_typed(tensor.contents, datatype, tensor.shape[:], what)
        elif tensor.HasField("contents") and tensor.contents.ByteSize():
            raise InvalidInputError(f"{what} has typed contents beside raw_input_contents: send one of the two")
        else:
            array = from_bytes(memoryview(self.raw[place]), datatype, tensor.shape[:], what)
        spec.check(array)
        return array


def read_request(data: bytes) -> InferRequest:
    """Read an inference request. Raises InvalidInputError."""
    return InferRequest(parsed(ModelInferRequest, data), len(data))


def parsed(kind: Any, data: bytes) -> Any:  # noqa: ANN401 - a class of messages, and one of it
    """A message from its bytes. Raises InvalidInputError."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInputError(f"these bytes are not a message of type {kind.DESCRIPTOR.full_name}") from error


def _check_outputs(outputs: dict[str, int], signature: Signature) -> None:
    known = {spec.name: spec for spec in signature.outputs}
    for name, classes in outputs.items():
        if name not in known:
            raise InvalidInputError(f"the model has no output {name[:200]!r}: it has {', '.join(known)}")
        if classes:
            check_classes(known[name])


def _classes(output: Any) -> int:  # noqa: ANN401 - a message
    """How many classes are wanted of an output, in place of its values; 0 for its values."""
    parameters = _parameters(output.parameters)
    if _SHARED_MEMORY in parameters:
        raise InvalidInputError(
            f"output {output.name[:200]!r} is to go to shared memory, to which this server does not write: leave it"
        )
    return _whole(parameters, CLASSIFICATION)


def _whole(parameters: dict[str, Parameter], name: str) -> int:
    """A parameter as HTTP takes it too; 0 where it is not given."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_WHOLE:
        raise InvalidInputError(f"parameter {name!r} is {str(value)[:40]!r}: use a whole number from 0 to {MAX_WHOLE}")
    return value


def _parameters(given: Any) -> dict[str, Parameter]:  # noqa: ANN401 - a map of messages
    parameters: dict[str, Parameter] = {}
    if given:
        for name, value in given.items():
            choice = value.WhichOneof("parameter_choice")
            if choice is not None:
                parameters[name] = getattr(value, choice)
    return parameters
