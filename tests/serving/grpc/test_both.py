"""What holds over HTTP and gRPC alike: which parameters are taken, and which extensions there are."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import publish, request
from tests.serving.grpc.conftest import Reach, refused

pytestmark = pytest.mark.anyio

TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
USERS = [f"user-{number}" for number in range(16)]


def _stub(reached: Any) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)


def _with(name: str, kind: str, value: Any) -> Any:
    message = request(1, 2)
    setattr(message.parameters[name], kind, value)
    return message


@pytest.mark.parametrize("name", ["timeout", "priority"])
async def test_a_parameter_takes_the_same_numbers_over_both(reach: Reach, storage: MemoryStorage, name: str) -> None:
    publish(storage, models.scaler(2.0))
    async with reach() as reached:
        for value in (0, 60_000_000, 2**62, 2**63 - 1):
            assert (await reached.running.infer(TENSOR, parameters={name: value})).status_code == 200, value
            for kind in ("int64_param", "uint64_param"):
                answer = await _stub(reached).ModelInfer(_with(name, kind, value))
                assert answer.model_name == "churn", value


@pytest.mark.parametrize("name", ["timeout", "priority"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint64_param", 2**63),
        ("uint64_param", 2**64 - 1),
        ("int64_param", -1),
        ("bool_param", True),
        ("double_param", 1.5),
        ("string_param", "5"),
    ],
)
async def test_what_a_parameter_does_not_take_is_refused_over_both(
    reach: Reach, storage: MemoryStorage, name: str, kind: str, value: Any
) -> None:
    publish(storage, models.scaler(2.0))
    async with reach() as reached:
        by_http = await reached.running.infer(TENSOR, parameters={name: value})
        code, details = await refused(_stub(reached).ModelInfer(_with(name, kind, value)))
        assert (by_http.status_code, code) == (400, "INVALID_ARGUMENT")
        assert f"parameter {name!r} is" in details
        if kind == "uint64_param":
            assert str(2**63 - 1) in by_http.json()["error"]
            assert str(2**63 - 1) in details


async def _classification(reached: Any) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 1}}]
    by_http = (await reached.running.infer(TENSOR, outputs=outputs)).json()["outputs"][0]
    message = request(1, 2)
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    by_grpc = (await _stub(reached).ModelInfer(message)).outputs[0]
    assert by_http["datatype"] == by_grpc.datatype == "BYTES"


async def _model_configuration(reached: Any) -> None:
    by_http = (await reached.running.client.get("/v2/models/churn/config")).json()
    by_grpc = await _stub(reached).ModelConfig(service_pb2.ModelConfigRequest(name="churn"))
    assert by_http["backend"] == by_grpc.config.backend == "onnxruntime"


async def _parameters(reached: Any) -> None:
    seen = set()
    for user in USERS:
        by_http = (await reached.running.infer(TENSOR, parameters={"user_id": user})).json()["model_version"]
        by_grpc = (await _stub(reached).ModelInfer(_with("user_id", "string_param", user))).model_version
        assert by_http == by_grpc
        seen.add(by_http)
    assert seen == {"1", "2"}


async def _schedule_policy(reached: Any) -> None:
    late = await reached.running.infer(TENSOR, parameters={"timeout": 1})
    code, _ = await refused(_stub(reached).ModelInfer(_with("timeout", "int64_param", 1)))
    assert (late.status_code, code) == (504, "DEADLINE_EXCEEDED")
    assert (await reached.running.infer(TENSOR, parameters={"priority": 1})).status_code == 200
    assert (await _stub(reached).ModelInfer(_with("priority", "uint64_param", 1))).model_name == "churn"


async def _statistics(reached: Any) -> None:
    by_http = (await reached.running.client.get("/v2/models/churn/stats")).json()["model_stats"]
    by_grpc = (await _stub(reached).ModelStatistics(service_pb2.ModelStatisticsRequest(name="churn"))).model_stats
    assert [one["inference_count"] for one in by_http] == [one.inference_count for one in by_grpc]
    assert len(by_http) == 2


async def _binary_tensor_data(reached: Any) -> None:
    answer: httpx.Response = await reached.running.infer(TENSOR, parameters={"binary_data_output": True})
    assert int(answer.headers["inference-header-content-length"]) == len(answer.content) - 8


USES: dict[str, Callable[[Any], Awaitable[None]]] = {
    "binary_tensor_data": _binary_tensor_data,
    "classification": _classification,
    "model_configuration": _model_configuration,
    "parameters": _parameters,
    "schedule_policy": _schedule_policy,
    "statistics": _statistics,
}
"""Uses of extensions, each over all protocols that name it."""


async def test_every_extension_that_is_named_can_be_used_over_the_protocol_that_names_it(
    reach: Reach, storage: MemoryStorage
) -> None:
    one, two = models.scaler(1.0), models.scaler(2.0)
    storage.put(one, two)
    storage.publish(models.plan(1, *models.canary((1, one), (2, two), 5_000)))
    async with reach() as reached:
        by_http = (await reached.running.client.get("/v2")).json()["extensions"]
        by_grpc = (await reached.client.get_server_metadata()).extensions
        assert set(by_http) == set(USES)
        assert set(by_grpc) == set(USES) - {"binary_tensor_data"}
        for name in by_http:
            await USES[name](reached)


async def test_an_unknown_model_is_answered_by_a_few_names_and_how_many_there_are(
    reach: Reach, storage: MemoryStorage
) -> None:
    data = models.scaler(2.0)
    storage.put(data)
    for number in range(7):
        storage.publish(models.plan(1, models.route(1, data), endpoint=f"m{number}"))
    served = "served: m0, m1, m2, m3, m4 and 2 more"
    async with reach() as reached:
        client: httpx.AsyncClient = reached.running.client
        answers = [
            await reached.running.predict([[1, 2]], model="nope"),
            await reached.running.infer(TENSOR, path="nope"),
            await client.get("/v2/models/nope/config"),
            await client.get("/v2/models/nope"),
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]) == (404, f"model 'nope' does not exist: {served}")
        unnamed = await reached.running.predict([[1, 2]])
        assert (unnamed.status_code, "m4 and 2 more" in unnamed.json()["error"]) == (400, True)
        call = _stub(reached).ModelInfer(request(1, 2, model="nope"))
        assert await refused(call) == ("NOT_FOUND", f"model 'nope' does not exist: {served}")
