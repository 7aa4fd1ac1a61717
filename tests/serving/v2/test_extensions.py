"""What Triton's clients ask for beside the protocol: described, counted, listed, refused; and packed responses."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from aks_serving.grpc import describe
from aks_serving.serving import Serving, Servings
from aks_serving.v2_extensions import Totals, answer, index
from tritonclient.utils import InferenceServerException

from tests.serving import models

type Client = triton.InferenceServerClient


def _scaled(client: Client, **more: Any) -> Any:
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    return client.infer("churn", [tensor], **more)


def test_the_index_lists_every_version_and_why_one_is_not_loaded(client: Client) -> None:
    listed = {(one["name"], one["version"]): one for one in client.get_model_repository_index()}
    assert listed["churn", "2"] == {"name": "churn", "version": "2", "state": "READY", "reason": ""}
    assert listed["half-loaded", "7"]["state"] == "UNAVAILABLE"
    assert "ONNX Runtime cannot load the model" in listed["half-loaded", "7"]["reason"]


def test_the_index_can_leave_out_what_is_not_ready(client: Client, plain: httpx.Client) -> None:
    listed = plain.post("/v2/repository/index", json={"ready": True}).json()
    assert {one["state"] for one in listed} == {"READY"}
    assert len(listed) == len(client.get_model_repository_index()) - 1
    assert plain.post("/v2/repository/index", json={"ready": 1}).status_code == 400
    assert plain.get("/v2/repository/index").headers["allow"] == "POST"


def _waiting() -> Serving:
    """A plan of which one version does not load, and another waits for storage."""
    data = models.scaler(2.0)
    return Serving(
        plan=models.plan(1, *models.canary((1, data), (2, data), 100)),
        lanes={},
        failed={1: "golden: no", 2: "storage does not answer"},
        waiting=frozenset({2}),
    )


def test_a_version_that_storage_keeps_waiting_is_loading_over_http_and_grpc() -> None:
    servings = {"churn": _waiting()}
    wanted = [("1", "UNAVAILABLE", "golden: no"), ("2", "LOADING", "storage does not answer")]
    listed = index(servings, ready_only=False)
    assert [(one["version"], one["state"], one["reason"]) for one in listed] == wanted
    message = describe.index(servings, ready_only=False)
    assert [(one.version, one.state, one.reason) for one in message.models] == wanted
    assert index(servings, ready_only=True) == []


def test_all_statistics_are_of_one_count() -> None:
    counts = 0

    def totals() -> Totals:
        nonlocal counts
        counts += 1
        return {}

    servings = Servings({name: _waiting() for name in ("a", "b", "c")})
    assert answer("GET", ["models", "stats"], b"", servings, totals) == {"model_stats": []}
    assert counts == 1


def test_a_models_configuration(client: Client) -> None:
    found = client.get_model_config("several")
    assert (found["name"], found["backend"], found["max_batch_size"]) == ("several", "onnxruntime", 0)
    assert found["input"] == [
        {"name": "age", "data_type": "TYPE_INT64", "dims": [-1, 1]},
        {"name": "income", "data_type": "TYPE_FP32", "dims": [-1, 1]},
        {"name": "plan", "data_type": "TYPE_STRING", "dims": [-1, 1]},
    ]
    assert client.get_model_config("churn", "2")["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 2]}]


def test_statistics_count_what_was_answered(client: Client) -> None:
    def counted() -> Any:
        (one,) = client.get_inference_statistics("churn", "1")["model_stats"]
        return one

    before = counted()
    for _ in range(3):
        _scaled(client)
    after = counted()
    assert after["inference_count"] - before["inference_count"] == 3
    success = after["inference_stats"]["success"]
    assert success["count"] - before["inference_stats"]["success"]["count"] == 3
    assert success["ns"] > before["inference_stats"]["success"]["ns"]
    names = {(one["name"], one["version"]) for one in client.get_inference_statistics()["model_stats"]}
    assert {("churn", "1"), ("churn", "2"), ("several", "1")} <= names


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: c.load_model("churn"), "route plan"),
        (lambda c: c.unload_model("churn"), "route plan"),
        (lambda c: c.get_system_shared_memory_status(), "no memory"),
        (lambda c: c.register_system_shared_memory("a", "/a", 8), "no memory"),
        (lambda c: c.unregister_system_shared_memory(), "no memory"),
        (lambda c: c.get_cuda_shared_memory_status(), "no memory"),
        (lambda c: c.unregister_cuda_shared_memory("a"), "no memory"),
        (lambda c: c.get_trace_settings(), "no settings"),
        (lambda c: c.update_trace_settings("churn", {"trace_rate": "1"}), "no settings"),
        (lambda c: c.get_log_settings(), "no settings"),
        (lambda c: c.update_log_settings({"log_info": True}), "no settings"),
        (lambda c: c.get_model_config("no-such"), "no-such"),
        (lambda c: c.get_model_config("churn", "9"), "version 9"),
        (lambda c: c.get_inference_statistics("no-such"), "no-such"),
        (lambda c: c.get_inference_statistics("churn", "9"), "version 9"),
        (lambda c: c.get_inference_statistics("churn", "x"), "not a version number"),
        (lambda c: _scaled(c, timeout=-1), "timeout"),
    ],
)
def test_what_this_server_does_not_do_is_refused_with_the_reason(
    client: Client, ask: Callable[[Client], Any], said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(client)
    assert caught.value.status() in {"400", "404"}
    assert said in str(caught.value.message())


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_response_is_packed_where_the_client_likes_it(plain: httpx.Client, coding: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [500, 2], "data": [1.5] * 1000}
    wanted = {"accept-encoding": f"{coding}, identity;q=0.5"}
    answer = plain.post("/v2/models/churn/infer", json={"inputs": [tensor]}, headers=wanted)
    assert answer.headers["content-encoding"] == coding
    assert answer.json()["outputs"][0]["data"] == [3.0] * 1000
    as_it_is = plain.post("/v2/models/churn/infer", json={"inputs": [tensor]}, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in as_it_is.headers


def test_a_packed_body_may_be_shorter_than_its_json_part(plain: httpx.Client) -> None:
    import gzip

    header = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}'.ljust(
        4000
    )
    answer = plain.post(
        "/v2/models/churn/infer",
        content=gzip.compress(header + np.ones(2, np.float32).tobytes()),
        headers={"content-encoding": "gzip", "inference-header-content-length": "4000"},
    )
    assert answer.json()["outputs"][0]["data"] == [2.0, 2.0]
