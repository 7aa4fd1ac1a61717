"""What the HTTP API answers to good, odd and bad requests."""

import contextlib
import json
from typing import Any

import pytest
from aks_serving.model import Signature, TensorSpec
from aks_serving.plain import read_request as read_plain
from aks_serving.v2 import read_request as read_v2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.routing.prediction import PredictionId, Reason
from tests.serving import models
from tests.serving.conftest import Start
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes


@pytest.fixture
def serving(storage: MemoryStorage) -> MemoryStorage:
    one, two = models.scaler(2.0), models.scaler(3.0)
    storage.put(one, two)
    storage.publish(models.plan(4, *models.canary((1, one), (2, two), 0)))
    return storage


@pytest.mark.usefixtures("serving")
async def test_the_plain_api_tells_who_answered(start: Start) -> None:
    async with start() as running:
        await running.reload()
        answer = await running.predict([[1, 2]], user_id="ada")
        body = answer.json()
        assert body.pop("latency_ms") >= 0
        prediction = PredictionId.parse(body.pop("prediction_id"))
        assert (prediction.version, prediction.generation, prediction.reason) == (1, 4, Reason.ASSIGNED)
        assert answer.headers["x-slipway-prediction-id"] == str(prediction)
        assert body == {
            "predictions": [[2.0, 4.0]],
            "model": "churn",
            "model_version": 1,
            "role": "stable",
            "generation": 4,
            "fallback": False,
        }
        assert answer.headers["x-slipway-version"] == "1"
        assert answer.headers["x-slipway-generation"] == "4"
        assert answer.headers["x-slipway-role"] == "stable"
        assert "x-slipway-fallback" not in answer.headers


@pytest.mark.usefixtures("serving")
async def test_a_named_version_answers_although_it_has_no_traffic(start: Start) -> None:
    async with start() as running:
        await running.reload()
        for version in (2, "2"):
            assert (await running.predict([[1, 2]], model_version=version)).json()["predictions"] == [[3.0, 6.0]]
        answer = await running.infer(_tensor(), path="churn/versions/2")
        assert (answer.json()["model_version"], answer.headers["x-slipway-role"]) == ("2", "candidate")
        missing = await running.infer(_tensor(), path="churn/versions/9")
        assert missing.status_code == 404
        assert "version 9" in missing.json()["error"]
        assert "loaded: 1, 2" in missing.json()["error"]


@pytest.mark.usefixtures("serving")
async def test_the_v2_metadata_and_health(start: Start) -> None:
    async with start() as running:
        await running.reload()
        get = running.client.get
        assert (await get("/v2")).json() == (await get("/v2/")).json()
        assert set((await get("/v2")).json()) == {"name", "version", "extensions"}
        assert (await get("/v2/health/live")).json() == {"live": True}
        assert (await get("/v2/health/ready")).json() == {"ready": True}
        described = (await get("/v2/models/churn/versions/2")).json()
        assert described == {
            "name": "churn",
            "versions": ["1", "2"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        }
        assert (await get("/v2/models/churn/ready")).json() == {"name": "churn", "ready": True}
        assert (await get("/v2/models/churn/versions/2/ready")).status_code == 200
        assert (await get("/v2/models/churn/versions/3/ready")).status_code == 404
        assert (await running.infer(_tensor(), id="a7")).json()["id"] == "a7"
        assert "id" not in (await running.infer(_tensor())).json()
        head = await running.client.head("/health")
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (_tensor(name="z"), "input 'x' is missing"),
        (_tensor(datatype="INT64"), "sent as INT64, and the model takes FP32"),
        (_tensor(datatype="FLOAT"), "sent as FLOAT"),
        (_tensor(shape=[1, 3], data=[1, 2, 3]), r"has the shape [1, 3], wanted [-1, 2]"),
        (_tensor(shape=[2], data=[1, 2]), "a single row stands in a list of its own"),
        (_tensor(shape=[2, 2]), "holds 2 values"),
        (_tensor(shape=[-1, 2]), "sizes are whole numbers"),
        (_tensor(shape=[1e9]), "not an inference request"),
        (_tensor(shape=[2**62, 2]), "holds 2 values"),
        (_tensor(data=[[1], [2, 3]]), "is ragged"),
        (_tensor(data=["a", 2]), "not FP32 data"),
        (_tensor(data=[1e39, 2]), "too large for FP32"),
        (_tensor(data=None), "not FP32 data"),
        ({"name": "x", "datatype": "FP32", "shape": [1, 2]}, "has no `data`"),
        ({"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}, "binary"),
        ({"name": "x"}, "missing required field"),
    ],
)
async def test_a_bad_tensor_is_refused_and_explained(start: Start, tensor: dict[str, Any], said: str) -> None:
    async with start() as running:
        await running.reload()
        answer = await running.infer(tensor)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert (await running.infer(_tensor())).status_code == 200


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", b"", 400, "not a request like"),
        ("/predict", b"not json", 400, "not a request like"),
        ("/predict", b'{"features": [[NaN, 1]]}', 400, "malformed"),
        ("/predict", b"[]", 400, "got `array`"),
        ("/predict", b"{}", 400, "missing required field `features`"),
        ("/predict", b'{"features": []}', 400, "has the shape [0], wanted [-1, 2] (-1 varies): there is no row in it"),
        ("/predict", b'{"features": [[1, 2]], "modelversion": 1}', 400, "unknown field `modelversion`"),
        ("/predict", b'{"features": {"z": [[1, 2]]}}', 400, "'x' is missing"),
        ("/predict", b'{"features": {"x": [[1, 2]], "z": 1}}', 400, "no input 'z'"),
        ("/predict", b'{"features": [[1, 2]], "model_version": 0}', 400, "'0' is not a version number"),
        ("/predict", b'{"features": [[1, 2]], "model_version": 1.5}', 400, "model_version"),
        ("/predict", b'{"features": [[1, 2]], "model_version": 9}', 404, "loaded: 1, 2"),
        ("/predict", b'{"features": [[1, 2]], "model": "x"}', 404, "served: churn"),
        ("/predict", b'{"features": [[1, 2]], "user_id": [1]}', 400, "user_id"),
        ("/v2/models/none/infer", b'{"inputs": []}', 404, "served: churn"),
        ("/v2/models/churn/infer", b'{"inputs": []}', 400, "'x' is missing"),
        ("/v2/models/churn/infer", b'{"inputs": [], "id": 7}', 400, "$.id"),
        ("/v2/models/churn/infer", b"{", 400, "truncated"),
        ("/v2/models/churn/infer", b"\xff\xfe", 400, "not an inference request"),
        ("/v2/models/churn/versions/x/infer", b"{}", 400, "'x' is not a version number"),
        ("/v2/models/churn/infer/more", b"{}", 404, "path"),
        ("/nowhere", b"{}", 404, "path"),
        ("/v2/models", b"{}", 404, "path"),
    ],
)
async def test_a_bad_request_is_refused_and_explained(
    start: Start, path: str, body: bytes, status: int, said: str
) -> None:
    async with start() as running:
        await running.reload()
        answer = await running.client.post(path, content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
        assert said in answer.json()["error"]


@pytest.mark.usefixtures("serving")
async def test_inputs_given_twice_unknown_outputs_and_odd_users_are_refused(start: Start) -> None:
    async with start() as running:
        await running.reload()
        assert "twice" in (await running.infer(_tensor(), _tensor())).json()["error"]
        unknown = await running.infer(_tensor(), outputs=[{"name": "z"}])
        assert (unknown.status_code, "has no output 'z'" in unknown.json()["error"]) == (400, True)
        assert (await running.infer(_tensor(), parameters={"user_id": True})).status_code == 400
        odd = await running.client.post("/predict", json={"features": [[1, 2]]}, headers={"x-slipway-user": b"\xff"})
        assert odd.status_code == 400
        packed = await running.client.post("/predict", content=b"x", headers={"content-encoding": "gzip"})
        assert (packed.status_code, "gzip" in packed.json()["error"]) == (400, True)


@pytest.mark.usefixtures("serving")
async def test_a_refused_method_names_the_one_to_use(start: Start) -> None:
    async with start() as running:
        for method, path, allowed in (
            ("GET", "/predict", "POST"),
            ("POST", "/ready", "GET"),
            ("GET", "/v2/models/churn/infer", "POST"),
            ("DELETE", "/v2", "GET"),
        ):
            await running.reload()
            answer = await running.client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.usefixtures("serving")
async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(start: Start) -> None:
    async with start(max_body_bytes=1000) as running:
        await running.reload()

        async def pieces() -> Any:
            for _ in range(20):
                yield b" " * 100

        for content in (b" " * 1001, pieces()):
            answer = await running.client.post("/predict", content=content)
            assert (answer.status_code, "1000 bytes" in answer.json()["error"]) == (413, True)
        fitting = json.dumps({"features": [[1, 2]]}).encode().ljust(1000)
        assert (await running.client.post("/predict", content=fitting)).status_code == 200


async def test_a_server_without_models_says_so(start: Start) -> None:
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1]])).status_code == 503
        assert (await running.infer(_tensor())).status_code == 404
        assert (await running.client.get("/ab-test/stats")).json() == {"endpoints": {}}


async def test_the_model_must_be_named_where_there_are_several(start: Start, serving: MemoryStorage) -> None:
    data = models.scaler(5.0)
    serving.put(data)
    serving.publish(models.plan(1, models.route(1, data), endpoint="fraud"))
    async with start() as running:
        await running.reload()
        unnamed = await running.predict([[1, 2]])
        assert (unnamed.status_code, "churn, fraud" in unnamed.json()["error"]) == (400, True)
        assert (await running.predict([[1, 2]], model="fraud")).json()["predictions"] == [[5.0, 10.0]]


_SIGNATURE = Signature(inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),), outputs=())
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_fields = st.sampled_from(["inputs", "features", "name", "shape", "data", "datatype", "model_version", "id", "user_id"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.binary(max_size=60)
    | _json.map(json.dumps).map(str.encode)
    | st.dictionaries(_fields, _json).map(json.dumps).map(str.encode)
)
def test_no_body_raises_anything_but_a_clear_refusal(body: bytes) -> None:
    for read in (read_v2, read_plain):
        with contextlib.suppress(InvalidInputError):
            read(body).feeds(_SIGNATURE)
