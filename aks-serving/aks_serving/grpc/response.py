"""An inference response as gRPC carries it: a prediction's outputs in the form in which the inputs came.

Raw contents answer raw contents, and typed typed; where an output's datatype has no typed contents (FP16, BF16), all
outputs are raw, since the protocol has no mixture.
"""

from typing import Any

from aks_serving.grpc.contents import fill_typed, has_typed, raw_of
from aks_serving.grpc.messages import ModelInferResponse
from aks_serving.grpc.request import InferRequest
from aks_serving.predictor import Prediction
from aks_serving.tensors import datatype_of


def response(request: InferRequest, prediction: Prediction, model: str) -> Any:  # noqa: ANN401 - a message
    """A ModelInferResponse to a request whose `feeds` for the prediction's signature were read."""
    arrays = dict(zip((spec.name for spec in prediction.signature.outputs), prediction.outputs, strict=True))
    datatypes = {name: datatype_of(arrays[name]) for name in request.requested() or arrays}
    message = ModelInferResponse(model_name=model, model_version=str(prediction.version), id=request.message.id)
    raw = bool(request.raw) or not request.message.inputs or not all(map(has_typed, datatypes.values()))
    outputs, contents = message.outputs, message.raw_output_contents
    for name, datatype in datatypes.items():
        array = arrays[name]
        output = outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            contents.append(raw_of(array))
        else:
            fill_typed(output.contents, array, datatype)
    return message
