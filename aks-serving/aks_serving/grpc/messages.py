"""The messages of the Open Inference Protocol's gRPC service and of gRPC's health service, as classes of protobuf.

Written as .proto fields are, and made into descriptors here: no generated code, so no version of the generator that
must fit the runtime's, and a descriptor pool of their own, so that a process may hold a client's generated messages of
the same names beside them. Field numbers and types are what the protocol is on the wire: they never change. Of the
model configuration only what this server fills is declared; protobuf skips what it does not know.
"""

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INFERENCE = "inference"
HEALTH = "grpc.health.v1"

_PARAMETERS = "map InferParameter parameters"

_INFERENCE_MESSAGES = {
    "ServerLiveResponse": "bool live = 1;",
    "ServerReadyResponse": "bool ready = 1;",
    "ModelReadyRequest": "string name = 1; string version = 2;",
    "ModelReadyResponse": "bool ready = 1;",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3;",
    "ModelMetadataRequest": "string name = 1; string version = 2;",
    "ModelMetadataResponse": """
        string name = 1; repeated string versions = 2; string platform = 3;
        repeated ModelMetadataResponse.TensorMetadata inputs = 4;
        repeated ModelMetadataResponse.TensorMetadata outputs = 5;""",
    "ModelMetadataResponse.TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3;",
    "InferParameter": """
        oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3;
        oneof double double_param = 4; oneof uint64 uint64_param = 5;""",
    "InferTensorContents": """
        repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3;
        repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6;
        repeated double fp64_contents = 7; repeated bytes bytes_contents = 8;""",
    "ModelInferRequest": f"""
        string model_name = 1; string model_version = 2; string id = 3; {_PARAMETERS} = 4;
        repeated ModelInferRequest.InferInputTensor inputs = 5;
        repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6;
        repeated bytes raw_input_contents = 7;""",
    "ModelInferRequest.InferInputTensor": f"""
        string name = 1; string datatype = 2; repeated int64 shape = 3; {_PARAMETERS} = 4;
        InferTensorContents contents = 5;""",
    "ModelInferRequest.InferRequestedOutputTensor": f"string name = 1; {_PARAMETERS} = 2;",
    "ModelInferResponse": f"""
        string model_name = 1; string model_version = 2; string id = 3; {_PARAMETERS} = 4;
        repeated ModelInferResponse.InferOutputTensor outputs = 5;
        repeated bytes raw_output_contents = 6;""",
    "ModelInferResponse.InferOutputTensor": f"""
        string name = 1; string datatype = 2; repeated int64 shape = 3; {_PARAMETERS} = 4;
        InferTensorContents contents = 5;""",
    "ModelStreamInferResponse": "string error_message = 1; ModelInferResponse infer_response = 2;",
    "ModelConfigRequest": "string name = 1; string version = 2;",
    "ModelConfigResponse": "ModelConfig config = 1;",
    "ModelConfig": """
        string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5;
        repeated ModelOutput output = 6; string backend = 17;""",
    "ModelInput": "string name = 1; DataType data_type = 2; repeated int64 dims = 4;",
    "ModelOutput": "string name = 1; DataType data_type = 2; repeated int64 dims = 3;",
    "ModelStatisticsRequest": "string name = 1; string version = 2;",
    "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1;",
    "ModelStatistics": """
        string name = 1; string version = 2; uint64 inference_count = 4; InferStatistics inference_stats = 6;""",
    "InferStatistics": "StatisticDuration success = 1; StatisticDuration fail = 2;",
    "StatisticDuration": "uint64 count = 1; uint64 ns = 2;",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2;",
    "RepositoryIndexResponse": "repeated RepositoryIndexResponse.ModelIndex models = 1;",
    "RepositoryIndexResponse.ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4;",
}
_INFERENCE_ENUMS = {
    "DataType": (
        "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 "
        "TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16"
    ),
}
_HEALTH_MESSAGES = {
    "HealthCheckRequest": "string service = 1;",
    "HealthCheckResponse": "HealthCheckResponse.ServingStatus status = 1;",
}
_HEALTH_ENUMS = {"HealthCheckResponse.ServingStatus": "UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN"}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}
_FIELD = re.compile(r"\s*(?:(repeated|map|oneof) )?([\w.]+) (\w+) = (\d+);")
_ONEOF = "parameter_choice"


def _pool() -> Any:  # noqa: ANN401 - protobuf has no types
    pool = descriptor_pool.DescriptorPool()
    for package, messages, enums in (
        (INFERENCE, _INFERENCE_MESSAGES, _INFERENCE_ENUMS),
        (HEALTH, _HEALTH_MESSAGES, _HEALTH_ENUMS),
    ):
        file = descriptor_pb2.FileDescriptorProto(name=f"slipway/{package}", package=package, syntax="proto3")
        made: dict[str, Any] = {}
        for name, fields in messages.items():
            parent, _, own = name.rpartition(".")
            made[name] = made[parent].nested_type.add(name=own) if parent else file.message_type.add(name=own)
            for match in _FIELD.finditer(fields):
                _add_field(made[name], f".{package}.{name}", match, package, enums)
        for name, values in enums.items():
            parent, _, own = name.rpartition(".")
            enum = (made[parent] if parent else file).enum_type.add(name=own)
            for number, value in enumerate(values.split()):
                enum.value.add(name=value, number=number)
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(
    message: Any,  # noqa: ANN401 - protobuf has no types
    full_name: str,
    match: re.Match[str],
    package: str,
    enums: dict[str, str],
) -> None:
    label, kind, name, number = match.groups()
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if label == "map":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_MESSAGE)
        value.type_name = f".{package}.{kind}"
        field.type, field.type_name, field.label = (
            _Field.TYPE_MESSAGE,
            f"{full_name}.{entry.name}",
            _Field.LABEL_REPEATED,
        )
        return
    if label == "repeated":
        field.label = _Field.LABEL_REPEATED
    if label == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name=_ONEOF)
        field.oneof_index = 0
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"


_POOL = _pool()


def _class(name: str, package: str = INFERENCE) -> Any:  # noqa: ANN401 - protobuf has no types
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{package}.{name}"))


ServerLiveResponse = _class("ServerLiveResponse")
ServerReadyResponse = _class("ServerReadyResponse")
ModelReadyRequest = _class("ModelReadyRequest")
ModelReadyResponse = _class("ModelReadyResponse")
ServerMetadataResponse = _class("ServerMetadataResponse")
ModelMetadataRequest = _class("ModelMetadataRequest")
ModelMetadataResponse = _class("ModelMetadataResponse")
ModelInferRequest = _class("ModelInferRequest")
ModelInferResponse = _class("ModelInferResponse")
ModelStreamInferResponse = _class("ModelStreamInferResponse")
ModelConfigRequest = _class("ModelConfigRequest")
ModelConfigResponse = _class("ModelConfigResponse")
ModelStatisticsRequest = _class("ModelStatisticsRequest")
ModelStatisticsResponse = _class("ModelStatisticsResponse")
RepositoryIndexRequest = _class("RepositoryIndexRequest")
RepositoryIndexResponse = _class("RepositoryIndexResponse")
HealthCheckRequest = _class("HealthCheckRequest", HEALTH)
HealthCheckResponse = _class("HealthCheckResponse", HEALTH)
