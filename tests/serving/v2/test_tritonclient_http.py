"""tritonclient's HTTP client, as it is published, against every part of the protocol."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from aks_serving.tensors import DATATYPES, DTYPES, Array
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor

from tests.serving.v2 import zoo

type Client = triton.InferenceServerClient

_TEXTS = ["", "a", "\0b\0", "žluť 模型 😀"]


def _edges(datatype: str) -> Array:
    """Values of a datatype, its extremes among them, of shape (2, 2)."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return np.array(_TEXTS, np.object_).reshape(2, 2)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max], [0, 1]], dtype)
    return np.array([[0.1, -2.5], [np.inf, np.nan]]).astype(dtype)


def _texts(array: Array) -> Array:
    """What tritonclient gives for BYTES (bytes in binary data, text in JSON), as text."""
    decoded = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    return np.array(decoded, np.object_).reshape(array.shape)


def _tensor(name: str, array: Array, datatype: str = "FP32", *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def _output(name: str, *, binary: bool = True, classes: int = 0) -> Any:
    return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)


def _floats(*shape: int) -> Array:
    return np.arange(0.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def _refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status()), str(caught.value.message())


def _same(found: Array, sent: Array, datatype: str) -> bool:
    if datatype == "BYTES":
        found = _texts(found)
    wide = sent.astype(np.float32) if datatype == "BF16" else sent
    close = found.astype(wide.dtype)
    return found.shape == sent.shape and np.array_equal(close, wide, equal_nan=wide.dtype.kind == "f")


@pytest.mark.parametrize("binary_out", [True, False], ids=["out-binary", "out-json"])
@pytest.mark.parametrize(
    ("datatype", "binary_in"),
    # The client does not send BF16 as JSON: test_bodies.py does.
    [(datatype, binary) for datatype in DTYPES for binary in (True, False) if binary or datatype != "BF16"],
)
def test_every_datatype_makes_the_round_trip(client: Client, datatype: str, binary_in: bool, binary_out: bool) -> None:  # noqa: FBT001
    sent = _edges(datatype)
    if datatype == "BF16" or (not binary_in and datatype.startswith("FP")):
        # The client's JSON has no infinity, and it does not read BF16's.
        sent = np.array([[0.1, -2.5], [0.0, 7.0]]).astype(sent.dtype)
    tensor = _tensor("x", sent, datatype, binary=binary_in)
    result = client.infer(zoo.identity_of(datatype), [tensor], outputs=[_output("y", binary=binary_out)])
    assert result.get_output("y")["datatype"] == datatype
    assert ("data" in result.get_output("y")) is not binary_out
    assert _same(result.as_numpy("y"), sent, datatype)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_without_requested_outputs_all_come_as_binary_data(client: Client, datatype: str) -> None:
    sent = _edges(datatype)
    result = client.infer(zoo.identity_of(datatype), [_tensor("x", sent, datatype)])
    assert set(result.get_output("y")) == {"name", "datatype", "shape", "parameters"}
    assert _same(result.as_numpy("y"), sent, datatype)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_empty_tensors_keep_their_shape(client: Client, datatype: str, shape: tuple[int, int]) -> None:
    sent = np.empty(shape, DTYPES[datatype])
    result = client.infer(zoo.identity_of(datatype), [_tensor("x", sent, datatype)])
    assert result.as_numpy("y").shape == shape


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("endpoint", "shape"),
    [("rank-0", ()), ("rank-1", (5,)), ("rank-3", (4, 2, 3)), ("rank-4", (3, 4, 1, 2)), ("fixed", (2, 2))],
)
def test_tensors_of_every_rank(client: Client, endpoint: str, shape: tuple[int, ...], binary: bool) -> None:  # noqa: FBT001
    sent = _floats(*shape)
    result = client.infer(
        endpoint, [_tensor("x", sent, binary=binary)], outputs=[_output("y", binary=binary)]
    ).as_numpy("y")
    assert (result.shape, result.tolist()) == (sent.shape, sent.tolist())


@pytest.mark.parametrize("rows", [1, 16, 256, 2000])
@pytest.mark.parametrize("binary", [True, False])
def test_many_rows(client: Client, rows: int, binary: bool) -> None:  # noqa: FBT001
    sent = _floats(rows, 2)
    result = client.infer("churn", [_tensor("x", sent, binary=binary)], outputs=[_output("y", binary=binary)])
    assert np.array_equal(result.as_numpy("y"), sent * 2)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("text", [*_TEXTS, "x" * 100_000, '"\\\n\t\u2028'])
def test_texts_of_every_kind(client: Client, text: str, binary: bool) -> None:  # noqa: FBT001
    sent = np.array([[text, "other"]], np.object_)
    result = client.infer(
        "identity-bytes", [_tensor("x", sent, "BYTES", binary=binary)], outputs=[_output("y", binary=binary)]
    )
    assert _texts(result.as_numpy("y")).tolist() == sent.tolist()


def test_bytes_that_are_not_text_are_refused(client: Client) -> None:
    sent = np.array([[b"ok", b"\xff\xfe"]], np.object_)
    status, said = _refused(lambda: client.infer("identity-bytes", [_tensor("x", sent, "BYTES")]))
    assert (status, "not UTF-8 in element 1" in said) == ("400", True)


def _person(ages: Sequence[int], *, binary: tuple[bool, bool, bool] = (True, True, True)) -> list[Any]:
    age = np.array(ages, np.int64).reshape(-1, 1)
    income = np.full(age.shape, 0.5, np.float32)
    plan = np.array([f"plan {number}" for number in ages], np.object_).reshape(-1, 1)
    return [
        _tensor("age", age, "INT64", binary=binary[0]),
        _tensor("income", income, binary=binary[1]),
        _tensor("plan", plan, "BYTES", binary=binary[2]),
    ]


@pytest.mark.parametrize("binary", [(a, b, c) for a in (True, False) for b in (True, False) for c in (True, False)])
def test_several_inputs_and_outputs_binary_and_json_mixed(client: Client, binary: tuple[bool, bool, bool]) -> None:
    outputs = [_output(name, binary=one) for name, one in zip(("adult", "label", "sum"), binary, strict=True)]
    result = client.infer("several", _person([3, 40], binary=binary), outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["adult", "label", "sum"]
    assert result.as_numpy("adult").tolist() == [[False], [True]]
    assert result.as_numpy("sum").tolist() == [[3.5], [40.5]]
    assert _texts(result.as_numpy("label")).tolist() == [["plan 3"], ["plan 40"]]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_inputs_may_come_in_any_order(client: Client, order: tuple[int, ...]) -> None:
    person = _person([7])
    result = client.infer("several", [person[place] for place in order])
    assert result.as_numpy("sum").tolist() == [[7.5]]


@pytest.mark.parametrize("wanted", [["sum"], ["label"], ["adult", "sum"], ["label", "sum", "adult"]])
def test_only_requested_outputs_are_given(client: Client, wanted: list[str]) -> None:
    result = client.infer("several", _person([7]), outputs=[_output(name) for name in wanted])
    assert [output["name"] for output in result.get_response()["outputs"]] == wanted
    assert result.as_numpy("income") is None


def test_sixteen_bits_in_and_out_of_a_model_that_computes_in_more(client: Client) -> None:
    bfloat16 = np.array([[1.5, -3.0]]).astype(DTYPES["BF16"])
    half = np.array([[0.25, 1.0]], np.float16)
    result = client.infer("halves", [_tensor("x", bfloat16, "BF16"), _tensor("h", half, "FP16")])
    assert result.as_numpy("sum").astype(np.float32).tolist() == [[1.75, -2.0]]
    assert result.as_numpy("sum_h").tolist() == [[1.75, -2.0]]
    assert _texts(result.as_numpy("text")).tolist() == [["1.75", "-2"]]


@pytest.mark.parametrize(("version", "factor"), [("", 2), ("1", 2), ("2", 3)])
def test_a_version_is_named_in_the_path(client: Client, version: str, factor: int) -> None:
    result = client.infer("churn", [_tensor("x", _floats(1, 2))], model_version=version)
    assert result.as_numpy("y").tolist() == (_floats(1, 2) * factor).tolist()
    assert result.get_response()["model_version"] == (version or "1")
    assert client.is_model_ready("churn", version)


@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_both_ways_compressed(
    client: Client,
    binary: bool,  # noqa: FBT001
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    sent = _floats(600, 2)
    result = client.infer(
        "churn",
        [_tensor("x", sent, binary=binary)],
        outputs=[_output("y", binary=binary)],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    assert np.array_equal(result.as_numpy("y"), sent * 2)


def test_many_requests_at_once_each_get_their_own(client: Client) -> None:
    handles = [client.async_infer("churn", [_tensor("x", _floats(1, 2) + n)], request_id=str(n)) for n in range(64)]
    for number, handle in enumerate(handles):
        result = handle.get_result()
        assert result.get_response()["id"] == str(number)
        assert result.as_numpy("y").tolist() == ((_floats(1, 2) + number) * 2).tolist()


@pytest.mark.parametrize(
    "more",
    [
        {"priority": 1},
        {"priority": 2},
        {"priority": 2**40},
        {"timeout": 0},
        {"timeout": 60_000_000},
        {"parameters": {"user_id": "ada"}},
        {"parameters": {"user_id": 7, "note": "any", "flag": True}},
        {"query_params": {"a": "b"}},
        {"headers": {"X-Slipway-User": "ada"}},
    ],
    ids=str,
)
def test_what_a_request_says_beside_its_tensors_is_taken(client: Client, more: dict[str, Any]) -> None:
    result = client.infer("churn", [_tensor("x", _floats(1, 2))], **more)
    assert result.as_numpy("y").tolist() == (_floats(1, 2) * 2).tolist()


def test_a_request_whose_time_is_over_does_not_run(client: Client) -> None:
    def counted() -> int:
        return len(client.infer("churn", [_tensor("x", _floats(1, 2))]).get_response())

    status, said = _refused(lambda: client.infer("churn", [_tensor("x", _floats(1, 2))], timeout=1))
    assert (status, "deadline" in said) == ("504", True)
    assert counted()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("classes", [1, 3, 9])
def test_the_best_classes_of_each_row(client: Client, classes: int, binary: bool) -> None:  # noqa: FBT001
    scores = np.array([[0.25, 0.5, 0.125, 0.5], [np.nan, -1.0, np.inf, 3.0]], np.float32)
    result = client.infer(
        "identity-fp32", [_tensor("x", scores)], outputs=[_output("y", binary=binary, classes=classes)]
    )
    best = [["0.5:1", "0.5:3", "0.25:0", "0.125:2"], ["inf:2", "3.0:3", "-1.0:1", "nan:0"]]
    assert result.get_output("y")["datatype"] == "BYTES"
    assert _texts(result.as_numpy("y")).tolist() == [row[:classes] for row in best]


@pytest.mark.parametrize("datatype", ["INT8", "UINT64", "INT64", "FP16", "BF16", "FP64"])
def test_classes_of_every_kind_of_number(client: Client, datatype: str) -> None:
    scores = np.array([[3, 1, 7]]).astype(DTYPES[datatype])
    result = client.infer(
        zoo.identity_of(datatype), [_tensor("x", scores, datatype)], outputs=[_output("y", classes=2)]
    )
    found = [text.split(":") for text in _texts(result.as_numpy("y")).ravel().tolist()]
    assert [(float(value), place) for value, place in found] == [(7.0, "2"), (3.0, "0")]


@pytest.mark.parametrize(
    ("endpoint", "tensors", "more", "status", "said"),
    [
        ("churn", [("z", _floats(1, 2), "FP32")], {}, "400", "input 'x' is missing"),
        ("churn", [("x", np.array([[1, 2]]), "INT64")], {}, "400", "sent as INT64, and the model takes FP32"),
        ("churn", [("x", _floats(1, 3), "FP32")], {}, "400", "[1, 3], wanted [-1, 2]"),
        ("churn", [("x", _floats(2), "FP32")], {}, "400", "a list of its own"),
        ("churn", [("x", _floats(1, 2), "FP32")] * 2, {}, "400", "twice"),
        ("churn", [("x", _floats(1, 2), "FP32"), ("z", _floats(1), "FP32")], {}, "400", "no input 'z'"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"outputs": [_output("z")]}, "400", "no output 'z'"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"outputs": [_output("y")] * 2}, "400", "twice"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"model_version": "9"}, "404", "loaded: 1, 2"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"model_version": "x"}, "400", "not a version number"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"priority": -1}, "400", "priority"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"timeout": 0.5}, "400", "timeout"),
        ("no-such", [("x", _floats(1, 2), "FP32")], {}, "404", "no-such"),
        ("half-loaded", [("x", _floats(1, 2), "FP32")], {"model_version": "7"}, "503", "version 7"),
        ("picky", [("x", np.array([[9]]), "INT64")], {}, "500", "version 1 failed on this request"),
        ("several", [("age", np.array([[9]]), "INT64")], {}, "400", "input 'income' is missing"),
        ("identity-bool", [("x", np.array([[2]], np.uint8).view(np.bool_), "BOOL")], {}, "400", "no BOOL"),
        ("churn", [("x", _floats(1, 2), "FP32")], {"sequence_id": 9, "sequence_start": True}, "400",
         "parameter 'sequence_id' is set, and this server keeps no sequences: leave it"),
        ("identity-bool", [("x", np.array([[True]]), "BOOL")], {"outputs": [_output("y", classes=1)]},
         "400", "output 'y' is BOOL: classes are the places of its largest numbers"),
        ("identity-bytes", [("x", np.array([["a"]], np.object_), "BYTES")], {"outputs": [_output("y", classes=1)]},
         "400", "largest numbers"),
        ("fixed", [("x", _floats(3, 2), "FP32")], {}, "400", "[3, 2], wanted [2, 2]"),
        ("churn", [("x", _floats(200_000, 2), "FP32")], {}, "413", "larger than"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_and_explained(
    client: Client,
    endpoint: str,
    tensors: list[tuple[str, Array, str]],
    more: dict[str, Any],
    status: str,
    said: str,
) -> None:
    inputs = [_tensor(*tensor) for tensor in tensors]
    found, message = _refused(lambda: client.infer(endpoint, inputs, **more))
    assert (found, said in message) == (status, True), message
    assert client.is_server_ready()


def test_shared_memory_is_refused(client: Client) -> None:
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_shared_memory("region", 8)
    assert "shares none" in _refused(lambda: client.infer("churn", [tensor]))[1]
    output = _output("y")
    output.set_shared_memory("region", 8)
    said = _refused(lambda: client.infer("churn", [_tensor("x", _floats(1, 2))], outputs=[output]))[1]
    assert "shares none" in said


def test_the_server_describes_itself(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    described = client.get_server_metadata()
    assert set(described) == {"name", "version", "extensions"}
    assert {"binary_tensor_data", "classification", "parameters", "schedule_policy"} <= set(described["extensions"])
    assert not {"system_shared_memory", "sequence", "trace"} & set(described["extensions"])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_model_describes_itself(client: Client, datatype: str) -> None:
    name = zoo.identity_of(datatype)
    assert client.is_model_ready(name)
    described = client.get_model_metadata(name)
    assert (described["name"], described["versions"]) == (name, ["1"])
    assert described["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, -1]}]
    assert described["outputs"] == [{"name": "y", "datatype": datatype, "shape": [-1, -1]}]


def test_a_version_that_is_not_loaded_is_not_ready(client: Client) -> None:
    assert not client.is_model_ready("churn", "9")
    assert not client.is_model_ready("half-loaded", "7")
    assert not client.is_model_ready("no-such")
    assert client.get_model_metadata("churn", "2")["versions"] == ["1", "2"]


def test_bodies_made_and_read_apart_from_the_client(client: Client) -> None:
    body, header_length = triton.InferenceServerClient.generate_request_body([_tensor("x", _floats(1, 2))])
    assert header_length is not None
    answer = client._post(
        request_uri="v2/models/churn/infer",
        request_body=body,
        headers={"Inference-Header-Content-Length": header_length},
        query_params=None,
    )
    length = int(answer.get("Inference-Header-Content-Length"))
    result = triton.InferenceServerClient.parse_response_body(answer.read(), header_length=length)
    assert result.as_numpy("y").tolist() == (_floats(1, 2) * 2).tolist()


def test_a_body_that_is_the_data_of_the_only_input(client: Client) -> None:
    for endpoint, body, shape, wanted in (
        ("churn", _floats(3, 2).tobytes(), [3, 2], (_floats(3, 2) * 2).tobytes()),
        ("rank-0", _floats(1).tobytes(), [], _floats(1).tobytes()),
        ("identity-bytes", "žluť".encode(), [1, 1], len("žluť".encode()).to_bytes(4, "little") + "žluť".encode()),
    ):
        answer = client._post(
            request_uri=f"v2/models/{endpoint}/infer",
            request_body=body,
            headers={"Inference-Header-Content-Length": 0},
            query_params=None,
        )
        length = int(answer.get("Inference-Header-Content-Length"))
        result = triton.InferResult.from_response_body(answer.read(), header_length=length)
        assert result.get_output("y")["shape"] == shape
        assert result._buffer == wanted
        if endpoint == "identity-bytes":
            assert deserialize_bytes_tensor(result._buffer).tolist() == ["žluť".encode()]
