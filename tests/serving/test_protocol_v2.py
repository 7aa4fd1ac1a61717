"""The bodies of the inference protocol, without a server."""

import json
from typing import Any

import numpy as np
import pytest
from aks_serving import v2
from aks_serving.awaited import Prediction
from aks_serving.calls import LOW, NORMAL, URGENT
from aks_serving.errors import LoadError
from aks_serving.model import Model, Signature, TensorSpec
from aks_serving.tensors import DATATYPES, DTYPES, Array, from_bytes, nested, read, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from shared.core.errors import InvalidInputError
from shared.routing.plan import Role
from tests.serving import models


def _signature(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> Signature:
    spec = {"datatype": datatype, "shape": shape}
    return Signature(inputs=(TensorSpec(name="x", **spec),), outputs=(TensorSpec(name="y", **spec),))  # type: ignore[arg-type]


def _body(*tensors: dict[str, Any], binary: bytes = b"", **fields: Any) -> tuple[bytes, int]:
    header = json.dumps({"inputs": list(tensors), **fields}).encode()
    return header + binary, len(header)


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2]} | changes


def _binary(size: int) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": size}}


def _refusal(body: bytes, length: int | None, signature: Signature) -> str:
    with pytest.raises(InvalidInputError) as caught:
        v2.read_request(body, length).feeds(signature)
    return str(caught.value)


@pytest.mark.parametrize("padding", range(8))
def test_binary_data_is_aligned_wherever_it_begins(padding: int) -> None:
    body, length = _body(_tensor(**_binary(8)), id="a" * padding, binary=np.array([1, 2], np.float32).tobytes())
    array = v2.read_request(body, length).feeds(_signature())["x"]
    assert array.flags.aligned
    assert array.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("tensor", "binary", "length", "said"),
    [
        (_tensor(**_binary(8)), bytes(8), None, "not an inference request"),
        (_tensor(**_binary(8)), b"", None, "no header Inference-Header-Content-Length"),
        (_tensor(**_binary(8)), bytes(7), ..., "has 8 bytes of binary data, and 7 are left"),
        (_tensor(**_binary(8)), bytes(9), ..., "1 bytes more than"),
        (_tensor(data=[1, 2]), bytes(1), ..., "1 bytes more than"),
        (_tensor(**_binary(4)), bytes(4), ..., "holds 4 bytes, and its shape [1, 2] of FP32 wants 8"),
        (_tensor(data=[1, 2], **_binary(8)), bytes(8), ..., "both `data` and binary data"),
        (_tensor(**_binary(-1)), b"", ..., "binary_data_size"),
        (_tensor(**_binary(2**63)), b"", ..., "binary_data_size"),
        (_tensor(parameters={"shared_memory_region": "r"}), b"", ..., "shares none"),
        (_tensor(), b"", ..., "has no `data`"),
        (_tensor(shape=[-1, -2], **_binary(8)), bytes(8), ..., "sizes are whole numbers"),
        (_tensor(shape=[1] * 33, **_binary(4)), bytes(4), ..., "33 dimensions"),
        (_tensor(shape=[2**62] * 400_000, data=[1]), b"", ..., "400000 dimensions"),
        (_tensor(datatype="x" * 5000, data=[1, 2]), b"", ..., "and the model takes FP32"),
    ],
)
def test_binary_data_that_is_not_what_it_is_said_to_be(
    tensor: dict[str, Any],
    binary: bytes,
    length: Any,
    said: str,
) -> None:
    body, whole = _body(tensor, binary=binary)
    found = _refusal(body, whole if length is ... else length, _signature())
    assert said in found
    assert len(found) < 600


@pytest.mark.parametrize(
    ("shape", "size", "found"),
    [((-1, 2), 24, [3, 2]), ((2, 2), 16, [2, 2]), ((), 4, []), ((3, -1), 12, [3, 1]), ((-1, 2), 0, [0, 2])],
)
def test_a_body_without_json_gives_its_shape_by_its_length(shape: tuple[int, ...], size: int, found: list[int]) -> None:
    array = v2.read_request(bytes(size), 0).feeds(_signature(shape=shape))["x"]
    assert list(array.shape) == found


@pytest.mark.parametrize(("shape", "size"), [((-1, 2), 12), ((-1, -1), 8), ((2, 2), 8), ((), 8), ((0, -1), 8)])
def test_a_body_without_json_whose_shape_does_not_follow_is_refused(shape: tuple[int, ...], size: int) -> None:
    assert "'x'" in _refusal(bytes(size), 0, _signature(shape=shape))


@pytest.mark.parametrize(
    ("parameters", "timeout_s", "priority"),
    [
        (None, None, NORMAL),
        ({}, None, NORMAL),
        ({"timeout": 0, "priority": 0}, None, NORMAL),
        ({"timeout": 1_500_000, "priority": 1}, 1.5, URGENT),
        ({"priority": 2}, None, NORMAL),
        ({"priority": 3}, None, LOW),
        ({"priority": 2**62, "other": [1]}, None, LOW),
    ],
)
def test_parameters_say_how_long_and_how_urgent(parameters: Any, timeout_s: float | None, priority: int) -> None:
    request = v2.read_request(_body(_tensor(data=[1, 2]), parameters=parameters)[0])
    assert (request.timeout_s(), request.priority(), request.user()) == (timeout_s, priority, None)


def test_a_response_mixes_binary_data_and_json_in_the_order_asked() -> None:
    specs = tuple(TensorSpec(name=name, datatype="FP32", shape=(-1,)) for name in "abc")
    signature = Signature(inputs=_signature().inputs, outputs=specs)
    outputs = [np.array([number, np.nan], np.float32) for number in range(3)]
    wanted = [{"name": "c", "parameters": {"binary_data": True}}, {"name": "a"}]
    request = v2.read_request(_body(_tensor(data=[1, 2]), outputs=wanted, id="7")[0])
    request.feeds(signature)
    prediction = Prediction(
        version=3,
        role=Role.STABLE,
        generation=1,
        fallback=False,
        prediction_id="",
        signature=signature,
        outputs=outputs,
    )
    answer = v2.response(request, prediction, "m")
    assert json.loads(answer.body[: answer.header_length]) == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "c", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "a", "datatype": "FP32", "shape": [2], "data": [0.0, "NaN"]},
        ],
    }
    assert answer.body[answer.header_length :] == outputs[2].tobytes()


BF16 = DTYPES["BF16"]
_ARRAYS = st.sampled_from(sorted(set(DATATYPES) - {"BYTES", "BOOL"})).flatmap(
    lambda name: st.tuples(st.just(name), st.lists(st.integers(0, 3), max_size=4), st.randoms(use_true_random=False))
)


@settings(deadline=None)
@given(made=_ARRAYS)
def test_any_bytes_of_numbers_are_read_and_written_as_they_are(made: tuple[str, list[int], Any]) -> None:
    datatype, shape, chance = made
    size = int(np.prod(shape)) * DTYPES[datatype].itemsize
    data = bytes(chance.randrange(256) for _ in range(size))
    array = from_bytes(memoryview(data), datatype, shape, "x")
    assert (list(array.shape), array.dtype, to_bytes(array)) == (shape, DTYPES[datatype], data)


@settings(deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), max_size=5))
def test_any_texts_are_read_and_written_as_they_are(texts: list[str]) -> None:
    array = np.array(texts, np.object_)
    assert from_bytes(memoryview(to_bytes(array)), "BYTES", [len(texts)], "x").tolist() == texts


@pytest.mark.parametrize(
    ("data", "shape", "said"),
    [
        (b"", [1], "wants 1 elements"),
        (b"", [2**62], "wants"),
        (b"\x05\0\0\0abc", [1], "end within"),
        (b"\x01\0\0\0abc", [1], "go on after"),
        (b"\xff\xff\xff\xffabc", [1], "end within"),
        (b"\x03\0\0\0ab\xff", [1], "not UTF-8 in element 0"),
        (b"\0\0\0\0", [2], "wants 2 elements"),
        (bytes(4), [-1], "sizes are whole numbers"),
    ],
)
def test_texts_that_do_not_fit_their_lengths_are_refused(data: bytes, shape: list[int], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        from_bytes(memoryview(data), "BYTES", shape, "x")


def test_bfloat16_as_json_is_rounded_and_never_becomes_infinite() -> None:
    array = read(b'[[1.0, 3.14159], ["NaN", "-Infinity"]]', "BF16", "x")
    assert (array.dtype, array.shape) == (BF16, (2, 2))
    assert nested(array) == [[1.0, 3.140625], ["NaN", "-Infinity"]]
    for text in (b"[3.4e38]", b"[1e300]"):
        with pytest.raises(InvalidInputError, match="too large for BF16"):
            read(text, "BF16", "x")


def _bfloat16(texts: bool) -> bytes:  # noqa: FBT001
    kind = TensorProto.BFLOAT16
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    inputs: list[Any] = [("x", kind, ["n", 2])]
    outputs: list[Any] = [("y", kind, ["n", 2])]
    if texts:
        nodes.append(helper.make_node("Identity", ["s"], ["t"]))
        inputs.append(("s", TensorProto.STRING, ["n"]))
        outputs.append(("t", TensorProto.STRING, ["n"]))
    return models.graph(nodes, inputs, outputs)


@pytest.mark.parametrize(
    "array", [np.ones((3, 2)).astype(BF16), np.empty((0, 2), BF16), np.ones((2, 4)).astype(BF16)[:, ::2]]
)
def test_a_model_of_bfloat16_runs_and_gives_memory_of_its_own(array: Array) -> None:
    model = Model(version=1, digest="0" * 64, data=_bfloat16(texts=False))
    (found,) = model.run({"x": array})
    del model
    assert (found.dtype, found.shape, found.tobytes()) == (BF16, array.shape, array.tobytes())


def test_a_model_of_bfloat16_and_text_is_refused_with_the_way_out() -> None:
    with pytest.raises(LoadError, match=r"'s' is text in a model .* cast the BF16 tensors to FP32"):
        Model(version=1, digest="0" * 64, data=_bfloat16(texts=True))


@pytest.mark.parametrize("datatype", ["BOOL", "BYTES"])
def test_classes_of_what_is_no_number_are_refused_before_the_model_runs(datatype: str) -> None:
    tensor = {"name": "x", "datatype": datatype, "shape": [1, 2], "data": [True, False]}
    if datatype == "BYTES":
        tensor["data"] = ["a", "b"]
    body, _ = _body(tensor, outputs=[{"name": "y", "parameters": {"classification": 1}}])
    with pytest.raises(InvalidInputError, match=f"output 'y' is {datatype}: classes are the places of its largest"):
        v2.read_request(body).feeds(_signature(datatype))


@pytest.mark.parametrize("name", v2.SEQUENCES)
def test_a_request_of_a_sequence_is_refused(name: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    assert v2.read_request(_body(tensor, parameters={name: 0})[0]).user() is None
    with pytest.raises(InvalidInputError, match=f"parameter '{name}' is set, and this server keeps no sequences"):
        v2.read_request(_body(tensor, parameters={name: 5})[0])
