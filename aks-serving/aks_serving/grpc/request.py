"""An inference request as gRPC carries it: its bytes read, its inputs as a model's signature wants them.

What the protocol lets a client say and this server does not do (shared memory, sequences, classification) is refused
with a sentence, never ignored, since ignoring it would answer another question. Parameters that the protocol does not
name are ignored.
"""

from typing import Any

from google.protobuf.message import DecodeError

from aks_serving.grpc.contents import read_raw, read_typed
from aks_serving.grpc.messages import ModelInferRequest
from aks_serving.model import Signature, TensorSpec
from aks_serving.tensors import Array, Feeds
from aks_serving.v2 import check_names
from shared.core.errors import InvalidInputError
from shared.core.ids import VersionNumber, version_number

type Parameter = bool | int | float | str

_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
_OUTPUTS = {
    "classification": "this server gives values, not labels",
    "shared_memory_region": "this server does not write to shared memory",
}
_MAX_WHOLE = 2**53


class InferRequest:
    """A request. `message` is a ModelInferRequest, and not to be changed."""

    __slots__ = ("message", "parameters", "raw")

    def __init__(self, data: bytes) -> None:
        """Read the message's bytes. Raises InvalidInputError."""
        self.message = parsed(ModelInferRequest, data)
        self.parameters = _parameters(self.message.parameters) if self.message.parameters else {}
        for name in _SEQUENCES:
            if self.parameters.get(name):
                raise InvalidInputError(f"parameter {name!r} is set: this server keeps no sequences, and serves rows")
        self.raw: list[bytes] = list(self.message.raw_input_contents)

    def version(self) -> VersionNumber | None:
        """The version that the caller names, if any. Raises InvalidInputError."""
        text = self.message.model_version
        return version_number(text) if text else None

    def user_id(self) -> Parameter | None:
        """The caller's user id among the parameters, if any."""
        return self.parameters.get("user_id")

    def timeout_s(self) -> float | None:
        """How long the caller waits, from the parameter `timeout` in microseconds. Raises InvalidInputError."""
        timeout_us = self._whole("timeout")
        return timeout_us / 1e6 if timeout_us else None

    def priority(self) -> int:
        """The parameter `priority`: 1 is the highest, 0 the server's choice. Raises InvalidInputError."""
        return self._whole("priority")

    def flag(self, name: str) -> bool:
        """A parameter that is true or false, false where it is absent."""
        return self.parameters.get(name) is True

    def requested(self) -> list[str]:
        """The outputs that the caller wants; empty for all."""
        return [output.name for output in self.message.outputs]

    def feeds(self, signature: Signature) -> Feeds:
        """The inputs as a signature wants them, in its order.

        Raises InvalidInputError, also for a requested output that the signature does not have: before the model runs.
        """
        if self.message.outputs:
            self._check_outputs([spec.name for spec in signature.outputs])
        tensors = self.message.inputs
        raw = self.raw
        if raw and len(raw) != len(tensors):
            raise InvalidInputError(
                f"the request has {len(tensors)} inputs and {len(raw)} raw_input_contents: give each input its own"
            )
        given = {tensor.name: (tensor, index) for index, tensor in enumerate(tensors)}
        check_names(signature, given, total=len(tensors))
        feeds: Feeds = {}
        for spec in signature.inputs:
            tensor, index = given[spec.name]
            feeds[spec.name] = _array(tensor, raw[index] if raw else None, spec)
        return feeds

    def _check_outputs(self, names: list[str]) -> None:
        wanted = self.requested()
        for output in self.message.outputs:
            if output.name not in names:
                raise InvalidInputError(f"the model has no output {output.name[:200]!r}: it has {', '.join(names)}")
            for parameter, why in _OUTPUTS.items():
                if output.parameters and parameter in output.parameters:
                    raise InvalidInputError(f"output {output.name!r} asks for {parameter}: {why}, so leave it out")
        if len(set(wanted)) != len(wanted):
            raise InvalidInputError("an output is requested twice")

    def _whole(self, name: str) -> int:
        value = self.parameters.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_WHOLE:
            raise InvalidInputError(f"parameter {name!r} is {str(value)[:40]!r}: use a whole number from 0")
        return value


def parsed(kind: Any, data: bytes) -> Any:  # noqa: ANN401 - a class of messages, and one of it
    """A message from its bytes. Raises InvalidInputError."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInputError(
            f"the message is not a {kind.DESCRIPTOR.full_name}: its bytes cannot be read"
        ) from error


def _array(tensor: Any, raw: bytes | None, spec: TensorSpec) -> Array:  # noqa: ANN401 - a message
    what = f"input {spec.name!r}"
    if tensor.datatype != spec.datatype:
        raise InvalidInputError(f"{what} is sent as {tensor.datatype[:20]}, and the model takes {spec.datatype}")
    if tensor.parameters and "shared_memory_region" in tensor.parameters:
        raise InvalidInputError(f"{what} lies in shared memory, which this server does not read: send its contents")
    if raw is None:
        array = read_typed(tensor.contents, spec.datatype, tensor.shape, what)
    elif tensor.HasField("contents") and tensor.contents.ListFields():
        raise InvalidInputError(f"{what} has typed contents beside raw_input_contents: send one of the two")
    else:
        array = read_raw(raw, spec.datatype, tensor.shape, what)
    spec.check(array)
    return array


def _parameters(given: Any) -> dict[str, Parameter]:  # noqa: ANN401 - a map of messages
    parameters: dict[str, Parameter] = {}
    for name, value in given.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            parameters[name] = getattr(value, choice)
    return parameters
