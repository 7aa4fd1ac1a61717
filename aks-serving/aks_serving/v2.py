"""The Open Inference Protocol V2 (REST, JSON tensors): its bodies, read and written. No transport, no model runs here.

Unknown fields of a request are ignored, as the protocol has extensions that a client may offer unasked; the binary
tensor extension is not among those that this server takes.
"""

from typing import Any

import msgspec

from aks_serving.model import Signature, TensorSpec
from aks_serving.predictor import Prediction
from aks_serving.tensors import Feeds, datatype_of, flat, read, shaped
from shared.core.errors import InvalidInputError

PLATFORM = "onnx_onnxv1"


class InputTensor(msgspec.Struct):
    """A tensor of a request. `data` is flat or nested."""

    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct):
    """An output that the caller wants."""

    name: str


class InferRequest(msgspec.Struct):
    """The body of an inference request. Without `outputs`, all are given."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None

    def feeds(self, signature: Signature) -> Feeds:
        """The inputs as a signature wants them. Raises InvalidInputError."""
        given = {tensor.name: tensor for tensor in self.inputs}
        check_names(signature, given, total=len(self.inputs))
        return {spec.name: _array(given[spec.name], spec) for spec in signature.inputs}

    def subject(self) -> str | None:
        """The caller's user id among the parameters, if any. Raises InvalidInputError."""
        return subject_key((self.parameters or {}).get("user_id"))


_REQUEST = msgspec.json.Decoder(InferRequest)


def read_request(body: bytes) -> InferRequest:
    """Read an inference request. Raises InvalidInputError."""
    try:
        return _REQUEST.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"the body is not an inference request: {error}") from error


def response(request: InferRequest, prediction: Prediction, model: str) -> dict[str, Any]:
    """The body of an inference response. Raises InvalidInputError for a requested output that there is not."""
    arrays = dict(zip((spec.name for spec in prediction.signature.outputs), prediction.outputs, strict=True))
    names = list(arrays) if not request.outputs else [output.name for output in request.outputs]
    unknown = [name for name in names if name not in arrays]
    if unknown:
        raise InvalidInputError(f"the model has no output {unknown[0]!r}: it has {', '.join(arrays)}")
    body: dict[str, Any] = {"model_name": model, "model_version": str(prediction.version)}
    if request.id is not None:
        body["id"] = request.id
    body["outputs"] = [
        {
            "name": name,
            "datatype": datatype_of(arrays[name]),
            "shape": list(arrays[name].shape),
            "data": flat(arrays[name]),
        }
        for name in names
    ]
    return body


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
        raise InvalidInputError(f"the model has no input {unknown[0]!r}: it takes {', '.join(wanted) or 'none'}")
    if total != len(given):
        raise InvalidInputError("an input is given twice")


def subject_key(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """A user id as the assignment takes it: text, or a whole number as its digits. Raises InvalidInputError."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidInputError(f"user_id is a {type(value).__name__}: use text or a whole number")


def _array(tensor: InputTensor, spec: TensorSpec) -> Any:  # noqa: ANN401 - an array of the spec's dtype
    if tensor.datatype != spec.datatype:
        raise InvalidInputError(
            f"input {spec.name!r} is sent as {tensor.datatype}, and the model takes {spec.datatype}"
        )
    what = f"input {spec.name!r}"
    if not bytes(tensor.data):
        if tensor.parameters and "binary_data_size" in tensor.parameters:
            raise InvalidInputError(f"{what} is sent as binary data, which this server does not take: send `data`")
        raise InvalidInputError(f"{what} has no `data`")
    array = shaped(read(tensor.data, spec.datatype, what), tensor.shape, what)
    spec.check(array)
    return array


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
