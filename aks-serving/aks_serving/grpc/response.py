"""An inference response as gRPC carries it: a prediction's outputs in the form in which the inputs came.

Raw contents answer raw contents, and typed typed; where an output's datatype has no typed contents (FP16, BF16), all
outputs are raw, since the protocol has no mixture. The parameter `prediction_id` names the prediction for clients that
see no metadata.
"""

from collections.abc import Sequence
from typing import Any

from aks_serving.awaited import Prediction
from aks_serving.classification import best_classes
from aks_serving.grpc.contents import fill_typed, has_typed
from aks_serving.grpc.messages import ModelInferResponse
from aks_serving.grpc.request import InferRequest
from aks_serving.tensors import Array, to_bytes

type Output = tuple[str, str, Array]
"""An output's name, datatype and values."""


def response(request: InferRequest, prediction: Prediction, model: str) -> Any:  # noqa: ANN401 - a message
    """A ModelInferResponse to a request whose `feeds` for the prediction's signature were read."""
    outputs = _outputs(request, prediction)
    message = ModelInferResponse()
    message.model_name = model
    message.model_version = str(prediction.version)
    message.parameters["prediction_id"].string_param = prediction.prediction_id
    if request.message.id:
        message.id = request.message.id
    raw = request.wants_raw or not all(has_typed(datatype) for _, datatype, _ in outputs)
    for name, datatype, array in outputs:
        tensor = message.outputs.add()
        tensor.name = name
        tensor.datatype = datatype
        tensor.shape.extend(array.shape)
        if raw:
            message.raw_output_contents.append(to_bytes(array))
        else:
            fill_typed(tensor.contents, array, datatype)
    return message


def _outputs(request: InferRequest, prediction: Prediction) -> Sequence[Output]:
    specs, arrays = prediction.signature.outputs, prediction.outputs
    found = [(spec.name, spec.datatype, array) for spec, array in zip(specs, arrays, strict=True)]
    if not request.outputs:
        return found
    by_name = {output[0]: output for output in found}
    wanted: list[Output] = []
    for name, classes in request.outputs.items():
        _, datatype, array = by_name[name]
        wanted.append((name, "BYTES", best_classes(array, classes)) if classes else (name, datatype, array))
    return wanted
