"""The messages are on the wire what the clients of the protocol send and read: compared with tritonclient's own."""

from typing import Any

import pytest
from aks_serving.grpc import messages
from tritonclient.grpc import model_config_pb2, service_pb2

_DECLARED = messages._INFERENCE_MESSAGES


def _ours(name: str) -> Any:
    return messages._POOL.FindMessageTypeByName(f"inference.{name}")


def _theirs(name: str) -> Any:
    first, *rest = name.split(".")
    file = service_pb2 if first in service_pb2.DESCRIPTOR.message_types_by_name else model_config_pb2
    found = file.DESCRIPTOR.message_types_by_name[first]
    for part in rest:
        found = found.nested_types_by_name[part]
    return found


def _form(field: Any) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        kind and kind.full_name,
        oneof and oneof.name,
        bool(field.message_type and field.message_type.GetOptions().map_entry),
    )


@pytest.mark.parametrize("name", sorted(_DECLARED))
def test_every_field_is_the_protocols(name: str) -> None:
    theirs = {field.name: _form(field) for field in _theirs(name).fields}
    ours = [_form(field) for field in _ours(name).fields]
    assert len(ours) == _DECLARED[name].count(";")
    assert ours == [theirs.get(form[0]) for form in ours]


def test_requests_and_responses_of_inference_lack_no_field() -> None:
    for name in ("ModelInferRequest", "ModelInferResponse", "InferTensorContents", "InferParameter"):
        for part in (name, *(f"{name}.{nested.name}" for nested in _theirs(name).nested_types)):
            assert {f.number for f in _ours(part).fields} == {f.number for f in _theirs(part).fields}, part


def test_the_data_types_are_the_protocols() -> None:
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values
    ours = messages.ModelConfigResponse.DESCRIPTOR.file.enum_types_by_name["DataType"].values
    assert [(value.name, value.number) for value in ours] == [(value.name, value.number) for value in theirs]


def test_the_health_service_is_on_the_wire_what_its_document_says() -> None:
    # Field 1 as text, and field 1 as a number: grpc/doc/health-checking.md.
    assert messages.HealthCheckRequest(service="a").SerializeToString() == b"\x0a\x01a"
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        answer = messages.HealthCheckResponse(status=name)
        assert answer.SerializeToString() == (b"\x08" + bytes([number]) if number else b"")


def test_a_message_crosses_from_the_clients_classes_to_ours_and_back() -> None:
    theirs = service_pb2.ModelInferRequest(model_name="churn", model_version="3", id="7", raw_input_contents=[b"\0\1"])
    theirs.parameters["timeout"].int64_param = 5
    theirs.parameters["user_id"].string_param = "ada"
    theirs.inputs.add(name="x", datatype="FP32", shape=[1, -2]).contents.fp32_contents.extend([1.5, 2.5])
    theirs.outputs.add(name="y").parameters["classification"].int64_param = 2
    ours = messages.ModelInferRequest.FromString(theirs.SerializeToString())
    assert service_pb2.ModelInferRequest.FromString(ours.SerializeToString()) == theirs
    assert ours.inputs[0].contents.fp32_contents[:] == [1.5, 2.5]
