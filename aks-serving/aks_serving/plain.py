"""The plain API's bodies: features in, predictions out. No transport, no model runs here.

`features` is the data of the only input, or an object of data by input name; nesting gives the shape. A column of
single values ([1, 2]) serves for an input of shape [-1, 1]. `predictions` is the model's first output (a classifier's
labels); a model with several outputs also gives all of them by name in `outputs`.
"""

from typing import Any

import msgspec

from aks_serving.model import Signature, TensorSpec
from aks_serving.predictor import Prediction
from aks_serving.tensors import Array, Feeds, nested, read
from aks_serving.v2 import check_names, subject_key
from shared.core.errors import InvalidInputError
from shared.core.ids import version_number


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request. `model` names the endpoint, and may be left out where the server serves exactly one."""

    features: msgspec.Raw
    model: str | None = None
    model_version: int | str | None = None
    user_id: str | int | None = None

    def feeds(self, signature: Signature) -> Feeds:
        """The features as a signature wants them. Raises InvalidInputError."""
        by_name = self._by_name(signature)
        check_names(signature, by_name, total=len(by_name))
        return {spec.name: _array(by_name[spec.name], spec) for spec in signature.inputs}

    def version(self) -> int | None:
        """The version that the caller names, if any. Raises InvalidInputError."""
        return None if self.model_version is None else version_number(str(self.model_version))

    def subject(self) -> str | None:
        """The caller's user id, if any."""
        return subject_key(self.user_id)

    def _by_name(self, signature: Signature) -> dict[str, msgspec.Raw]:
        if bytes(self.features[:1] if isinstance(self.features, bytes) else memoryview(self.features)[:1]) == b"{":
            return _BY_NAME.decode(self.features)
        if len(signature.inputs) != 1:
            names = ", ".join(spec.name for spec in signature.inputs)
            raise InvalidInputError(f"the model takes {len(signature.inputs)} inputs: give features by name: {names}")
        return {signature.inputs[0].name: self.features}


_REQUEST = msgspec.json.Decoder(PredictRequest)
_BY_NAME = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_request(body: bytes) -> PredictRequest:
    """Read a request. Raises InvalidInputError."""
    try:
        return _REQUEST.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidInputError(f'the body is not a request like {{"features": [[1, 2]]}}: {error}') from error


def response(prediction: Prediction, model: str, latency_ms: float) -> dict[str, Any]:
    """The body of an answer."""
    body: dict[str, Any] = {
        "predictions": nested(prediction.outputs[0]),
        "model": model,
        "model_version": prediction.version,
        "role": prediction.role,
        "generation": prediction.generation,
        "fallback": prediction.fallback,
        "latency_ms": round(latency_ms, 3),
    }
    if len(prediction.outputs) > 1:
        names = (spec.name for spec in prediction.signature.outputs)
        body["outputs"] = {name: nested(array) for name, array in zip(names, prediction.outputs, strict=True)}
    return body


def _array(raw: msgspec.Raw, spec: TensorSpec) -> Array:
    array = read(raw, spec.datatype, f"input {spec.name!r}")
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
        array = array.reshape(-1, 1)
    spec.check(array)
    return array
