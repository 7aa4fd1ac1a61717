"""Requests are what they say, answers are read back, and a file of requests holds them whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from aks_serving.grpc.messages import ModelInferRequest, ModelInferResponse

from benchmarks.models import mlp
from benchmarks.serving import wire
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import Workload


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    path = tmp_path / "m.onnx"
    path.write_bytes(mlp((3, 4, 2)).SerializeToString())
    rows = np.random.default_rng(0).normal(size=(64, 3)).round(4).astype(np.float32)
    return Workload(name="m", path=path, input_name="x", output_name="y", rows=rows)


def test_every_form_asks_for_the_same_rows(workload: Workload) -> None:
    asked = {
        form: wire.messages(workload, form, rows=2, path="/p", subjects=True)[3]
        for form in Form  # request 3 of two rows each: rows 6 and 7
        if form is not Form.GRPC
    }
    wanted = workload.rows[6:8]
    plain = json.loads(asked[Form.PLAIN].body)
    v2 = json.loads(asked[Form.V2_JSON].body)
    binary = asked[Form.V2_BINARY]
    (_, head_size), *_ = binary.headers
    head, data = json.loads(binary.body[: int(head_size)]), binary.body[int(head_size) :]
    assert np.array_equal(np.array(plain["features"], dtype=np.float32), wanted)
    assert np.array_equal(np.array(v2["inputs"][0]["data"], dtype=np.float32).reshape(2, 3), wanted)
    assert np.array_equal(np.frombuffer(data, dtype="<f4").reshape(2, 3), wanted)
    assert head["inputs"][0]["parameters"]["binary_data_size"] == len(data)
    assert np.array_equal(np.array(json.loads(asked[Form.V1_JSON].body)["instances"], dtype=np.float32), wanted)
    assert plain["user_id"] == v2["parameters"]["user_id"] == head["parameters"]["user_id"] == "user-3"


def test_a_grpc_message_asks_for_the_same_rows_and_its_answer_is_read(workload: Workload) -> None:
    asked = ModelInferRequest.FromString(wire.messages(workload, Form.GRPC, rows=2, path="m", subjects=True)[3].body)
    assert (asked.model_name, asked.parameters["user_id"].string_param) == ("m", "user-3")
    (tensor,), (raw,) = asked.inputs, asked.raw_input_contents
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [2, 3])
    assert np.array_equal(np.frombuffer(raw, dtype="<f4").reshape(2, 3), workload.rows[6:8])
    answer = ModelInferResponse(raw_output_contents=[b"no", np.array([0.5, 1.5], dtype="<f4").tobytes()])
    for name in ("label", "y"):
        answer.outputs.add(name=name)
    assert wire.answer(Form.GRPC, answer.SerializeToString(), "application/grpc", "y").tolist() == [0.5, 1.5]
    with pytest.raises(ValueError, match="not one 'z'"):
        wire.answer(Form.GRPC, answer.SerializeToString(), "application/grpc", "z")


def test_what_is_expected_is_the_models_own_answer(workload: Workload) -> None:
    found = wire.expected(workload, rows=2, number=3)
    assert found.shape == (4,)
    assert np.array_equal(found, workload.expected(workload.rows[6:8]).ravel())


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (Form.PLAIN, {"predictions": [[0.5, 1.5]], "model": "m"}),
        (Form.PLAIN, [[0.5, 1.5]]),
        (Form.V1_JSON, {"predictions": [[0.5, 1.5]]}),
        (Form.V2_JSON, {"outputs": [{"name": "label", "data": [7]}, {"name": "y", "data": [0.5, 1.5]}]}),
    ],
)
def test_answers_are_read_in_every_form(form: Form, body: object) -> None:
    found = wire.answer(form, json.dumps(body).encode(), "application/json", "y")
    assert found.tolist() == [0.5, 1.5]


def test_a_binary_answer_is_read_behind_its_json() -> None:
    data = np.array([0.5, 1.5], dtype="<f4").tobytes()
    head = json.dumps({"outputs": [{"name": "y", "parameters": {"binary_data_size": len(data)}}]}).encode()
    assert wire.answer(Form.V2_BINARY, head + data, "application/octet-stream", "y").tolist() == [0.5, 1.5]


def test_an_answer_without_the_output_is_refused() -> None:
    body = json.dumps({"outputs": [{"name": "z", "data": [1]}]}).encode()
    with pytest.raises(ValueError, match="not one 'y'"):
        wire.answer(Form.V2_JSON, body, "application/json", "y")


def test_a_file_of_requests_holds_them_whole_and_a_torn_one_is_refused(workload: Workload, tmp_path: Path) -> None:
    asked = wire.messages(workload, Form.V2_BINARY, rows=1, path="/p", subjects=False)
    path = tmp_path / "requests"
    wire.save([request.http1(80) for request in asked], path)
    assert wire.load(path) == [request.http1(80) for request in asked]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends within a request"):
        wire.load(path)


def test_a_request_says_its_length(workload: Workload) -> None:
    request = wire.messages(workload, Form.PLAIN, rows=1, path="/p", subjects=False)[0]
    head, _, body = request.http1(80).partition(b"\r\n\r\n")
    assert body == request.body
    assert b"Content-Length: %d" % len(body) in head.split(b"\r\n")
