"""Tensors of every datatype and shape go in and come out as they are, as raw and as typed contents."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from tritonclient import grpc as triton
from tritonclient.grpc import InferResult, service_pb2, service_pb2_grpc

from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import FIELDS, VALUES, array, publish, request, tensor, typed
from tests.serving.grpc.conftest import Reach, refused

pytestmark = pytest.mark.anyio

_SHAPES = [(6,), (1, 6), (3, 2), (1, 2, 3), (), (0, 2), (1, 1, 1, 1, 6)]


@pytest.mark.parametrize("datatype", sorted(VALUES))
async def test_every_datatype_and_shape_comes_back_raw(reach: Reach, storage: MemoryStorage, datatype: str) -> None:
    publish(storage, models.identity(datatype, None))
    async with reach() as reached:
        for shape in _SHAPES:
            given = array(datatype, *shape)
            got = await reached.client.infer("churn", [tensor(given, datatype)])
            found = got.as_numpy("y")
            wanted = np.array([text.encode() for text in given.ravel()], object) if datatype == "BYTES" else given
            np.testing.assert_array_equal(found.reshape(-1), wanted.reshape(-1))
            assert found.shape == given.shape
            assert got.get_output("y").datatype == datatype
            assert len(got.get_response().raw_output_contents) == 1


async def test_bfloat16_goes_in_and_out_raw(reach: Reach, storage: MemoryStorage) -> None:
    kind = TensorProto.BFLOAT16
    node = helper.make_node("Identity", ["x"], ["y"])
    publish(storage, models.graph([node], [("x", kind, ["n", 2])], [("y", kind, ["n", 2])]))
    given = np.array([[0.5, -2.0], [3e38, float("inf")]], ml_dtypes.bfloat16)
    made = triton.InferInput("x", [2, 2], "BF16")
    made.set_data_from_numpy(given)
    async with reach() as reached:
        got = await reached.client.infer("churn", [made])
        assert got.get_output("y").datatype == "BF16"
        assert got.get_response().raw_output_contents[0] == given.tobytes()


@pytest.mark.parametrize("datatype", sorted(FIELDS))
async def test_every_datatype_comes_back_typed(reach: Reach, storage: MemoryStorage, datatype: str) -> None:
    publish(storage, models.identity(datatype, None))
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        for shape in ((6,), (2, 3), (0, 3)):
            given = array(datatype, *shape).ravel().tolist()
            answer = await stub.ModelInfer(typed(datatype, given, *shape))
            output = answer.outputs[0]
            asked = typed(datatype, given, *shape).inputs[0]
            assert list(output.shape) == list(shape)
            assert not answer.raw_output_contents
            assert list(getattr(output.contents, FIELDS[datatype])) == list(getattr(asked.contents, FIELDS[datatype]))
            assert len(output.contents.ListFields()) == (1 if given else 0)


async def test_a_typed_request_gets_raw_contents_where_an_output_has_no_typed_ones(
    reach: Reach, storage: MemoryStorage
) -> None:
    publish(storage, _cast("FP32", "FP16"))
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        answer = await stub.ModelInfer(typed("FP32", [1.5, 2.5], 1, 2))
        assert InferResult(answer).as_numpy("y").tolist() == [[1.5, 2.5]]
        assert answer.outputs[0].datatype == "FP16"


async def test_several_inputs_and_outputs_find_their_names_in_any_order(reach: Reach, storage: MemoryStorage) -> None:
    publish(storage, _sums())
    async with reach() as reached:
        a, b = tensor([[1, 2]], name="a"), tensor([[10, 20]], name="b")
        for inputs in ([a, b], [b, a]):
            got = await reached.client.infer("churn", inputs)
            assert [output.name for output in got.get_response().outputs] == ["sum", "difference"]
            assert got.as_numpy("sum").tolist() == [[11, 22]]
            assert got.as_numpy("difference").tolist() == [[-9, -18]]


async def test_wanted_outputs_come_in_the_order_in_which_they_are_wanted(reach: Reach, storage: MemoryStorage) -> None:
    publish(storage, _sums())
    async with reach() as reached:
        inputs = [tensor([[1, 2]], name="a"), tensor([[10, 20]], name="b")]
        for names in (["difference"], ["difference", "sum"], ["sum"]):
            wanted = [triton.InferRequestedOutput(name) for name in names]
            got = await reached.client.infer("churn", inputs, outputs=wanted)
            assert [output.name for output in got.get_response().outputs] == names
            assert got.as_numpy(names[0]) is not None


async def test_the_best_classes_of_an_output_come_in_place_of_its_values(reach: Reach, storage: MemoryStorage) -> None:
    publish(storage, models.scaler(2.0, width=3))
    async with reach() as reached:
        wanted = [triton.InferRequestedOutput("y", class_count=2)]
        got = await reached.client.infer("churn", [tensor([[1, 3, 2], [0, 0, 5]])], outputs=wanted)
        assert got.as_numpy("y").tolist() == [[b"6.0:1", b"4.0:2"], [b"10.0:2", b"0.0:0"]]


def _tampered(**changes: Any) -> Any:
    made = request(1, 2)
    for name, value in changes.items():
        field = getattr(made.inputs[0], name)
        if isinstance(value, list):
            del field[:]
            field.extend(value)
        else:
            setattr(made.inputs[0], name, value)
    return made


def _raw(shape: list[int], *contents: bytes) -> Any:
    made = _tampered(shape=shape)
    del made.raw_input_contents[:]
    made.raw_input_contents.extend(contents)
    return made


def _more_inputs(name: str) -> Any:
    made = request(1, 2)
    made.inputs.add(name=name, datatype="FP32", shape=[0])
    made.raw_input_contents.append(b"")
    return made


def _wanting(*names: str, **parameters: Any) -> Any:
    """A request that wants outputs, with parameters such as `classification=(kind, value)`."""
    made = request(1, 2)
    for name in names:
        output = made.outputs.add(name=name)
        for parameter, (kind, value) in parameters.items():
            setattr(output.parameters[parameter], kind, value)
    return made


def _both_contents() -> Any:
    made = request(1, 2)
    made.inputs[0].contents.fp32_contents.append(1)
    return made


def _in_shared_memory() -> Any:
    made = request(1, 2)
    made.inputs[0].parameters["shared_memory_region"].string_param = "a"
    return made


_BAD: dict[str, tuple[Any, str]] = {
    "too few raw bytes": (_raw([1, 2], b"1234567"), "7 bytes"),
    "no raw bytes": (_raw([1, 2], b""), "0 bytes"),
    "too many raw contents": (_raw([1, 2], b"12345678", b""), "1 inputs and 2 raw_input_contents"),
    "another datatype": (_tampered(datatype="FP64"), "sent as 'FP64', and the model takes FP32"),
    "a datatype that is none": (_tampered(datatype="FP31"), "sent as 'FP31'"),
    "no datatype": (_tampered(datatype=""), "sent as ''"),
    "another name": (_tampered(name="z"), "input 'x' is missing"),
    "another width": (_raw([1, 1], b"1234"), "wanted [-1, 2]"),
    "another rank": (_tampered(shape=[2]), "wanted [-1, 2]"),
    "a negative size": (_tampered(shape=[-1, -2]), "sizes are whole numbers from 0"),
    "a huge size": (_tampered(shape=[2**40, 2]), "8 bytes"),
    "sizes beyond all numbers": (_tampered(shape=[2**62, 2**62, 2**62]), "8 bytes"),
    "many dimensions": (_tampered(shape=[1] * 33), "at most 32"),
    "no inputs": (service_pb2.ModelInferRequest(model_name="churn"), "input 'x' is missing"),
    "an input twice": (_more_inputs("x"), "an input is given twice"),
    "an unknown input": (_more_inputs("z"), "no input 'z'"),
    "typed and raw contents": (_both_contents(), "one of the two"),
    "shared memory": (_in_shared_memory(), "shared memory"),
    "an output to shared memory": (_wanting("y", shared_memory_region=("string_param", "a")), "shared memory"),
    "an unknown output": (_wanting("z"), "no output 'z': it has y"),
    "an output twice": (_wanting("y", "y"), "requested twice"),
    "classes as text": (_wanting("y", classification=("string_param", "2")), "classification"),
    "fewer than no classes": (_wanting("y", classification=("int64_param", -1)), "classification"),
    "values in the wrong field": (typed("FP32", [1, 2], 1, 2, field="fp64_contents"), "stand in fp32_contents"),
    "too few typed values": (typed("FP32", [1], 1, 2), "1 values"),
    "no typed values": (typed("FP32", [], 1, 2), "0 values"),
}


@pytest.mark.parametrize("case", sorted(_BAD))
async def test_what_is_no_such_tensor_is_refused_and_says_why(reach: Reach, storage: MemoryStorage, case: str) -> None:
    publish(storage, models.scaler(2.0))
    message, says = _BAD[case]
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        code, details = await refused(stub.ModelInfer(message))
        assert code == "INVALID_ARGUMENT", details
        assert says in details


@pytest.mark.parametrize(
    ("datatype", "values"),
    [("INT8", [128]), ("INT8", [-129]), ("UINT8", [256]), ("INT16", [2**15]), ("UINT16", [2**16])],
)
async def test_a_value_out_of_its_types_range_is_refused(
    reach: Reach, storage: MemoryStorage, datatype: str, values: list[int]
) -> None:
    publish(storage, models.identity(datatype, None))
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        code, details = await refused(stub.ModelInfer(typed(datatype, values, 1)))
        assert (code, "holds a value that" in details) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("raw", [b"\1", b"\2\0\0\0a", b"\1\0\0\0\xff", b"\1\0\0\0ab", b"\1\0\0\0a\1\0\0\0b"])
async def test_bytes_that_are_no_text_are_refused(reach: Reach, storage: MemoryStorage, raw: bytes) -> None:
    publish(storage, models.identity("BYTES", None))
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        message = typed("BYTES", [], 1)
        message.raw_input_contents.append(raw)
        code, _ = await refused(stub.ModelInfer(message))
        assert code == "INVALID_ARGUMENT"
        code, _ = await refused(stub.ModelInfer(typed("BYTES", [b"\xff"], 1)))
        assert code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("datatype", ["FP16"])
async def test_a_datatype_without_typed_contents_is_refused_typed(
    reach: Reach, storage: MemoryStorage, datatype: str
) -> None:
    publish(storage, models.identity(datatype, None))
    async with reach() as reached:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)
        code, details = await refused(stub.ModelInfer(typed(datatype, [1.0], 1, field="fp32_contents")))
        assert (code, "send raw_input_contents" in details) == ("INVALID_ARGUMENT", True)


def _cast(of: str, to: str) -> bytes:
    given, made = models.ONNX_TYPE[of], models.ONNX_TYPE[to]
    node = helper.make_node("Cast", ["x"], ["y"], to=made)
    return models.graph([node], [("x", given, ["n", 2])], [("y", made, ["n", 2])])


def _sums() -> bytes:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    pair: list[models.Size] = ["n", 2]
    return models.graph(
        nodes,
        [("a", models.FLOAT, pair), ("b", models.FLOAT, pair)],
        [("sum", models.FLOAT, pair), ("difference", models.FLOAT, pair)],
    )
