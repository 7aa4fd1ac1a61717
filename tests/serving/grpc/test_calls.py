"""Which version answers, what callers are told, and by which status a call ends that is not answered."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from aks_serving.override import Pinning
from tritonclient.grpc import service_pb2, service_pb2_grpc

from shared.core.slots import Slot
from shared.routing.plan import Role
from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import publish, request, tensor
from tests.serving.grpc.conftest import Reach, refused

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


@pytest.fixture
def canary(storage: MemoryStorage) -> MemoryStorage:
    storage.put(ONE, TWO)
    storage.publish(models.plan(7, *models.canary((1, ONE), (2, TWO), 5_000)))
    return storage


def _stub(reached: Any) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)


def _values(answer: Any) -> list[float]:
    return np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()


@pytest.mark.usefixtures("canary")
async def test_metadata_and_parameters_tell_who_answered(reach: Reach) -> None:
    async with reach() as reached:
        call = _stub(reached).ModelInfer(request(1, 2, model_version="2", id="mine"))
        answer = await call
        told = dict(await call.trailing_metadata())
        assert (answer.model_name, answer.model_version, answer.id) == ("churn", "2", "mine")
        assert told["x-slipway-version"] == "2"
        assert told["x-slipway-role"] == "candidate"
        assert told["x-slipway-generation"] == "7"
        assert told["x-slipway-prediction-id"] == answer.parameters["prediction_id"].string_param
        assert told["x-slipway-prediction-id"].startswith("churn.2.7.cp.")
        assert "x-slipway-fallback" not in told


@pytest.mark.usefixtures("canary")
async def test_a_subject_gets_the_version_that_http_gives_it_by_metadata_and_by_parameter(reach: Reach) -> None:
    async with reach() as reached:
        seen = set()
        for number in range(12):
            user = f"user-{number}"
            http = await reached.running.predict([[1, 2]], user_id=user)
            by_metadata = await reached.client.infer("churn", [tensor([[1, 2]])], headers={"x-slipway-user": user})
            by_parameter = await reached.client.infer("churn", [tensor([[1, 2]])], parameters={"user_id": user})
            versions = {
                str(http.json()["model_version"]),
                by_metadata.get_response().model_version,
                by_parameter.get_response().model_version,
            }
            assert len(versions) == 1, user
            seen |= versions
        assert seen == {"1", "2"}


@pytest.mark.parametrize(
    ("version", "code"),
    [("3", "NOT_FOUND"), ("0", "INVALID_ARGUMENT"), ("-1", "INVALID_ARGUMENT"), ("one", "INVALID_ARGUMENT")],
)
@pytest.mark.usefixtures("canary")
async def test_a_version_that_is_not_there_is_told_so_by_every_method(reach: Reach, version: str, code: str) -> None:
    async with reach() as reached:
        stub = _stub(reached)
        named = {"name": "churn", "version": version}
        for call in (
            stub.ModelInfer(request(1, 2, model_version=version)),
            stub.ModelMetadata(service_pb2.ModelMetadataRequest(**named)),
            stub.ModelConfig(service_pb2.ModelConfigRequest(**named)),
            stub.ModelStatistics(service_pb2.ModelStatisticsRequest(**named)),
        ):
            assert (await refused(call))[0] == code


@pytest.mark.usefixtures("canary")
async def test_the_gateways_metadata_name_the_version_that_answers(reach: Reach) -> None:
    async with reach() as reached:
        for version in ("1", "2"):
            for _ in range(4):
                found = await reached.client.infer("churn", [tensor([[1, 2]])], headers={"x-slipway-version": version})
                assert found.get_response().model_version == version
        call = _stub(reached).ModelInfer(request(1, 2, model_version="1"), metadata=(("x-slipway-version", "2"),))
        code, details = await refused(call)
        assert (code, "names version 1, and its header x-slipway-version version 2" in details) == (
            "INVALID_ARGUMENT",
            True,
        )


async def test_a_pod_of_a_slot_answers_with_its_version_and_says_where_others_are(
    reach: Reach, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    candidate = models.route(2, TWO, role=Role.CANDIDATE, weight=1_000, slot=Slot.BLUE)
    storage.publish(models.plan(7, models.route(1, ONE, weight=9_000), candidate))
    async with reach(endpoints=("churn",), slot=Slot.BLUE) as reached:
        stub = _stub(reached)
        answers = [await stub.ModelInfer(request(1, 2)) for _ in range(10)]
        assert {(answer.model_version, *_values(answer)) for answer in answers} == {("2", 2.0, 4.0)}
        named = {"name": "churn", "version": "1"}
        for call in (
            stub.ModelInfer(request(1, 2, model_version="1")),
            stub.ModelMetadata(service_pb2.ModelMetadataRequest(**named)),
            stub.ModelConfig(service_pb2.ModelConfigRequest(**named)),
        ):
            code, details = await refused(call)
            assert (code, "is served by the shared pods" in details) == ("NOT_FOUND", True)
        assert await reached.client.is_server_ready()
    async with reach(endpoints=("churn",), slot=Slot.GREEN) as idle:
        code, details = await refused(_stub(idle).ModelInfer(request(1, 2)))
        assert (code, "the shared pods and pods of its own (slot blue)" in details) == ("NOT_FOUND", True)
        assert await idle.client.is_server_live()
        assert not await idle.client.is_server_ready()
        assert not await idle.client.is_model_ready("churn")


@pytest.mark.usefixtures("canary")
async def test_a_model_that_is_not_there_is_told_so(reach: Reach) -> None:
    async with reach() as reached:
        stub = _stub(reached)
        for call in (
            stub.ModelInfer(request(1, 2, model="nope")),
            stub.ModelInfer(request(1, 2, model="")),
            stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="nope")),
            stub.ModelConfig(service_pb2.ModelConfigRequest(name="nope")),
            stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="nope")),
            stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(repository_name="nope")),
        ):
            code, details = await refused(call)
            assert code == "NOT_FOUND"
            assert "does not exist" in details
        assert not await reached.client.is_model_ready("nope")
        assert not await reached.client.is_model_ready("churn", "3")
        assert await reached.client.is_model_ready("churn", "2")
        assert await reached.client.is_model_ready("churn")


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("timeout", "string_param", "1"),
        ("timeout", "int64_param", -1),
        ("timeout", "double_param", 1.5),
        ("priority", "bool_param", True),
        ("priority", "int64_param", -1),
        ("sequence_id", "int64_param", 5),
        ("sequence_id", "string_param", "a"),
        ("sequence_start", "bool_param", True),
        ("user_id", "double_param", 1.5),
        ("user_id", "bool_param", True),
        ("user_id", "string_param", "a" * 1025),
    ],
)
@pytest.mark.usefixtures("canary")
async def test_a_parameter_that_cannot_be_heeded_is_refused(reach: Reach, name: str, kind: str, value: Any) -> None:
    async with reach() as reached:
        message = request(1, 2)
        setattr(message.parameters[name], kind, value)
        code, details = await refused(_stub(reached).ModelInfer(message))
        assert code == "INVALID_ARGUMENT"
        assert name in details


@pytest.mark.usefixtures("canary")
async def test_parameters_that_say_nothing_new_are_taken(reach: Reach) -> None:
    async with reach() as reached:
        got = await reached.client.infer(
            "churn",
            [tensor([[1, 2]])],
            model_version="1",
            priority=1,
            timeout=10_000_000,
            parameters={"anything": 1.5, "user_id": 7},
        )
        assert got.as_numpy("y").tolist() == [[1, 2]]


@pytest.mark.usefixtures("canary")
async def test_the_servers_words_on_itself(reach: Reach) -> None:
    async with reach() as reached:
        client = reached.client
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert (await client.get_server_metadata()).name == "slipway"
        metadata = await client.get_model_metadata("churn")
        assert list(metadata.versions) == ["1", "2"]
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1, 2])]
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [("y", "FP32", [-1, 2])]
        config = (await client.get_model_config("churn")).config
        assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("churn", 0, [-1, 2])
        index = (await client.get_model_repository_index()).models
        assert [(m.name, m.version, m.state) for m in index] == [("churn", "1", "READY"), ("churn", "2", "READY")]
        for _ in range(3):
            await client.infer("churn", [tensor([[1, 2]])], model_version="2")
        await asyncio.gather(*(client.infer("churn", [tensor([[1, 2]])]) for _ in range(5)))
        stats = {s.version: s for s in (await client.get_inference_statistics("churn")).model_stats}
        assert sum(s.inference_stats.success.count for s in stats.values()) == 5
        assert sum(s.inference_stats.success.ns for s in stats.values()) > 0
        assert sum(s.inference_count for s in stats.values()) == 8
        assert [s.version for s in (await client.get_inference_statistics("churn", "2")).model_stats] == ["2"]


async def test_a_version_that_cannot_be_loaded_stands_in_the_index_with_its_reason(
    reach: Reach, storage: MemoryStorage
) -> None:
    storage.put(ONE)
    storage.publish(models.plan(7, *models.canary((1, ONE), (2, TWO), 5_000)))
    async with reach() as reached:
        index = (await reached.client.get_model_repository_index()).models
        assert [(m.version, m.state, m.reason.partition(":")[0]) for m in index] == [
            ("1", "READY", ""),
            ("2", "UNAVAILABLE", "missing"),
        ]
        ready = await _stub(reached).RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))
        assert [m.version for m in ready.models] == ["1"]
        got = await reached.client.infer("churn", [tensor([[1, 2]])])
        assert got.as_numpy("y").tolist() == [[1, 2]]


async def test_what_stable_answers_for_a_failing_candidate_is_marked(reach: Reach, storage: MemoryStorage) -> None:
    table, picky = models.table(), models.picky()
    storage.put(table, picky)
    storage.publish(models.plan(1, *models.canary((1, table), (2, picky), 10_000)))
    async with reach() as reached:
        message = service_pb2.ModelInferRequest(model_name="churn")
        message.inputs.add(name="x", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(9)
        call = _stub(reached).ModelInfer(message)
        assert (await call).model_version == "1"
        assert dict(await call.trailing_metadata())["x-slipway-fallback"] == "true"
        message.model_version = "2"
        code, details = await refused(_stub(reached).ModelInfer(message))
        assert (code, "version 2 failed on this request" in details) == ("INTERNAL", True)


async def test_without_a_model_the_server_is_not_ready_and_lives(reach: Reach) -> None:
    async with reach(endpoints=("churn",)) as reached:
        assert await reached.client.is_server_live()
        assert not await reached.client.is_server_ready()


@pytest.mark.parametrize(
    "method",
    [
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "TraceSetting",
        "LogSettings",
    ],
)
async def test_what_the_protocol_has_and_this_server_has_not_says_so(reach: Reach, method: str) -> None:
    async with reach() as reached:
        code, details = await refused(getattr(_stub(reached), method)(getattr(service_pb2, f"{method}Request")()))
        assert code == "UNIMPLEMENTED"
        assert f"{method} is not done here" in details


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady"])
@pytest.mark.usefixtures("canary")
async def test_bytes_that_are_no_message_are_the_callers_error(reach: Reach, method: str) -> None:
    async with reach() as reached:
        call = reached.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        assert (await refused(call(b"\xff\xff\xff")))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
@pytest.mark.usefixtures("canary")
async def test_a_message_is_bounded_as_it_comes_and_as_it_is_unpacked(
    reach: Reach, compression: grpc.Compression
) -> None:
    async with reach(max_message_bytes=100_000) as reached:
        call = reached.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        small = request(1, 2, model_version="1").SerializeToString()
        assert await call(small, compression=compression)
        assert (await refused(call(bytes(100_001), compression=compression)))[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.usefixtures("canary")
async def test_where_tokens_are_asked_for_only_liveness_and_readiness_need_none(reach: Reach) -> None:
    async with reach(authorize=lambda given: given == b"Bearer right") as reached:
        stub = _stub(reached)
        assert await reached.client.is_server_live()
        assert await reached.client.is_server_ready()
        for metadata in (None, (("authorization", "Bearer wrong"),)):
            for call in (
                stub.ModelInfer(request(1, 2), metadata=metadata),
                stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="churn"), metadata=metadata),
                stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), metadata=metadata),
            ):
                assert (await refused(call))[0] == "UNAUTHENTICATED"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.ModelStreamInfer(iter([request(1, 2)]), metadata=metadata):
                    pass
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        right = (("authorization", "Bearer right"),)
        assert (await stub.ModelInfer(request(1, 2, model_version="1"), metadata=right)).model_version == "1"


@pytest.mark.usefixtures("canary")
async def test_where_versions_are_pinned_by_signature_alone_naming_one_is_denied(reach: Reach) -> None:
    async with reach(pinning=Pinning.SIGNED) as reached:
        code, _ = await refused(_stub(reached).ModelInfer(request(1, 2, model_version="1")))
        assert code == "PERMISSION_DENIED"
        assert (await _stub(reached).ModelInfer(request(1, 2))).model_name == "churn"


async def test_two_hundred_callers_at_once_each_get_their_own_answer(reach: Reach, storage: MemoryStorage) -> None:
    publish(storage, models.scaler(2.0, width=None), other=models.scaler(3.0))
    async with reach() as reached:

        async def ask(number: int) -> None:
            model, factor = ("other", 3.0) if number % 3 == 0 else ("churn", 2.0)
            width = 2 if model == "other" else 1 + number % 4
            rows = [[float(number + i)] * width for i in range(1 + number % 5)]
            bad = number % 7 == 0
            values = np.array(rows, np.float32)
            if bad:
                made = tensor(rows, "FP64")
                with pytest.raises(Exception, match="the model takes FP32"):
                    await reached.client.infer(model, [made])
                return
            got = await reached.client.infer(model, [tensor(values)], request_id=str(number))
            assert got.get_response().id == str(number)
            np.testing.assert_array_equal(got.as_numpy("y"), np.multiply(values, factor))

        await asyncio.gather(*(ask(number) for number in range(200)))
