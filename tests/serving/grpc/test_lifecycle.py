"""Deadlines, callers that go away, health, stopping, and TLS."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from aks_serving.grpc.caller import Caller
from aks_serving.grpc.health import MAX_WATCHES
from aks_serving.grpc.messages import HealthCheckRequest, HealthCheckResponse
from aks_serving.grpc.server import TlsFiles, serve_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from shared.core.errors import InvalidInputError
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import publish, request
from tests.serving.grpc.conftest import Reach, refused
from tests.serving.handled import HandServer, Watched
from tests.serving.http.conftest import certificate

pytestmark = pytest.mark.anyio

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_SERVICE = "inference.GRPCInferenceService"
_HEALTH = "grpc.health.v1.Health"


@pytest.fixture
def doubling(storage: MemoryStorage) -> MemoryStorage:
    publish(storage, models.scaler(2.0))
    return storage


def _stub(reached: Any) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)


def _requests_run(reached: Any) -> int:
    return sum(tally.requests for tally in reached.running.server.totals()["churn"].values())


class _Context:
    """A call's context with some time left."""

    def __init__(self, remaining_s: float | None) -> None:
        self.remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self.remaining_s

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (("x-slipway-user", "ada"), ("x-key-bin", b"\1\2"))


def test_a_caller_waits_until_its_deadline_or_for_ever() -> None:
    early, late = Caller(_Context(1.5)), Caller(_Context(None))
    assert early.deadline_s == early.started_s + 1.5
    assert late.deadline_s == float("inf")
    assert early.headers == {b"x-slipway-user": b"ada", b"x-key-bin": b"\1\2"}


@pytest.mark.usefixtures("doubling")
async def test_what_expired_before_it_could_run_never_runs(reach: Reach) -> None:
    async with reach() as reached:
        message = request(1, 2)
        message.parameters["timeout"].int64_param = 1
        code, details = await refused(_stub(reached).ModelInfer(message))
        assert (code, "the deadline passed" in details) == ("DEADLINE_EXCEEDED", True)
        assert _requests_run(reached) == 0
        message.parameters["timeout"].int64_param = 60_000_000
        await _stub(reached).ModelInfer(message)
        assert _requests_run(reached) == 1


@pytest.mark.usefixtures("doubling")
async def test_connections_beyond_the_bound_are_closed_and_places_come_back(reach: Reach) -> None:
    async def until_closed(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async with reach(max_connections=4) as reached:
        opened = [await asyncio.open_connection("127.0.0.1", reached.served.port) for _ in range(10)]
        waits = [asyncio.create_task(until_closed(reader)) for reader, _ in opened]
        await eventually(lambda: sum(wait.done() for wait in waits) >= 6)
        await asyncio.sleep(0.1)
        assert sum(wait.done() for wait in waits) == 6
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*waits)
        # The server may hear of the closed ones a moment later: until then it takes no other.
        live = await _stub(reached).ServerLive(service_pb2.ServerLiveRequest(), wait_for_ready=True, timeout=20)
        assert live.live


@pytest.mark.usefixtures("doubling")
async def test_a_server_that_waits_for_nobody_says_so_to_who_names_no_time(reach: Reach) -> None:
    async with reach(timeout_s=1e-6) as reached:
        code, _ = await refused(_stub(reached).ModelInfer(request(1, 2)))
        assert code == "DEADLINE_EXCEEDED"
        message = request(1, 2)
        message.parameters["timeout"].int64_param = 60_000_000
        assert (await _stub(reached).ModelInfer(message)).model_name == "churn"


@pytest.mark.usefixtures("doubling")
async def test_callers_that_go_away_harm_no_others(reach: Reach) -> None:
    async with reach() as reached:
        calls = [_stub(reached).ModelInfer(request(number, 0, id=str(number))) for number in range(60)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls[1::2])
        assert [answer.id for answer in answers] == [str(number) for number in range(1, 60, 2)]
        server = reached.running.server
        await eventually(lambda: not server.engine.waiting and not server.servings["churn"].tally.in_flight)


def _health(reached: Any, service: str = "") -> Any:
    check = reached.channel.unary_unary(
        "/grpc.health.v1.Health/Check", response_deserializer=HealthCheckResponse.FromString
    )
    return check(HealthCheckRequest(service=service).SerializeToString())


def _watch(reached: Any, service: str = "") -> Any:
    watch = reached.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", response_deserializer=HealthCheckResponse.FromString
    )
    return watch(HealthCheckRequest(service=service).SerializeToString())


@pytest.mark.usefixtures("doubling")
async def test_health_follows_readiness_and_a_watch_ends_with_the_server(reach: Reach) -> None:
    async with reach(authorize=lambda _: False) as reached:
        for service in ("", _SERVICE):
            assert (await _health(reached, service)).status == _SERVING
        assert (await refused(_health(reached, "other")))[0] == "NOT_FOUND"
        watch, strange = _watch(reached), _watch(reached, "other")
        assert (await watch.read()).status == _SERVING
        assert (await strange.read()).status == _SERVICE_UNKNOWN
        reached.running.server.stop_soon()
        assert (await _health(reached)).status == _NOT_SERVING
        await reached.served.drain(within_s=5)
        assert (await watch.read()).status == _NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert await strange.read() is grpc.aio.EOF


@pytest.mark.usefixtures("doubling")
async def test_watches_take_no_calls_places_and_all_of_them_hear_of_a_change(reach: Reach) -> None:
    async with reach(authorize=lambda _: False, max_calls=MAX_WATCHES + 1) as reached:
        watches = [_watch(reached, service) for service in ("", _SERVICE) * (MAX_WATCHES // 2)]
        for watch in watches:
            assert (await watch.read()).status == _SERVING
        code, details = await refused(_watch(reached).read())
        assert (code, f"{MAX_WATCHES} watches" in details) == ("RESOURCE_EXHAUSTED", True)
        assert (await _health(reached)).status == _SERVING
        watches.pop().cancel()

        async def there_is_room() -> bool:
            watch = _watch(reached)
            try:
                return bool((await watch.read()).status == _SERVING)
            except grpc.aio.AioRpcError:
                return False
            finally:
                watch.cancel()

        await eventually(there_is_room)
        reached.running.server.stop_soon()
        for watch in watches:
            assert (await watch.read()).status == _NOT_SERVING


@pytest.mark.usefixtures("doubling")
async def test_a_drain_ends_open_streams_at_once_and_takes_no_more_calls(reach: Reach) -> None:
    async with reach() as reached:
        stream = _stub(reached).ModelStreamInfer()
        await stream.write(request(1, 2, id="a"))
        assert (await stream.read()).infer_response.id == "a"
        watch = _watch(reached)
        assert (await watch.read()).status == _SERVING
        async with asyncio.timeout(10):
            await reached.served.drain(within_s=60)
        assert (await watch.read()).status == _NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert (caught.value.code(), "it is stopping" in str(caught.value.details())) == (
            grpc.StatusCode.UNAVAILABLE,
            True,
        )
        assert (await refused(_stub(reached).ModelInfer(request(1, 2))))[0] == "UNAVAILABLE"


@pytest.mark.usefixtures("doubling")
async def test_more_calls_at_once_than_allowed_are_told_to_come_later(reach: Reach) -> None:
    async with reach(max_calls=3) as reached:
        open_streams = [_stub(reached).ModelStreamInfer() for _ in range(3)]
        for stream in open_streams:
            await stream.write(request(1, 2))
            await stream.read()
        assert (await refused(_stub(reached).ModelInfer(request(1, 2))))[0] == "RESOURCE_EXHAUSTED"
        for stream in open_streams:
            stream.cancel()


def _opened(reached: Any, method: str = "ModelInfer", service: str = _SERVICE) -> Any:
    """A call that is open, and sends nothing."""
    return reached.channel.stream_unary(f"/{service}/{method}")()


@pytest.mark.usefixtures("doubling")
@pytest.mark.parametrize(
    ("service", "method"), [(_SERVICE, "ModelInfer"), (_SERVICE, "ServerLive"), (_HEALTH, "Check"), (_HEALTH, "Watch")]
)
async def test_a_call_that_sends_no_message_gives_its_place_back(reach: Reach, service: str, method: str) -> None:
    async with reach(max_calls=1, message_s=0.05) as reached:
        for _ in range(2):
            call = _opened(reached, method, service)
            await call.wait_for_connection()
            async with asyncio.timeout(20):
                code, details = await refused(call)
            assert (code, details.startswith("no message came within 0.05 s")) == ("DEADLINE_EXCEEDED", True)


@pytest.mark.usefixtures("doubling")
async def test_a_call_without_access_is_refused_before_it_sends_anything(reach: Reach) -> None:
    async with reach(authorize=lambda _: False) as reached:
        for method, code in (("ModelInfer", "UNAUTHENTICATED"), ("LogSettings", "UNIMPLEMENTED")):
            async with asyncio.timeout(20):
                assert (await refused(_opened(reached, method)))[0] == code


@pytest.mark.usefixtures("doubling")
async def test_a_call_that_ends_without_a_message_is_told_so(reach: Reach) -> None:
    async with reach() as reached:
        call = _opened(reached)
        await call.done_writing()
        assert await refused(call) == ("INVALID_ARGUMENT", "the call ended without a message: send one")


@pytest.mark.usefixtures("doubling")
@pytest.mark.parametrize(("limits", "asked"), [({"message_s": 0.05}, 0), ({"idle_s": 0.05}, 1)])
async def test_a_stream_that_stays_silent_is_answered_what_it_asked_and_ends(
    reach: Reach, limits: dict[str, float], asked: int
) -> None:
    async with reach(max_calls=1, **limits) as reached:
        for _ in range(2):  # the first gives its place back
            stream = _stub(reached).ModelStreamInfer()
            for number in range(asked):
                await stream.write(request(1, 2, id=str(number)))
                assert (await stream.read()).infer_response.id == str(number)
            async with asyncio.timeout(20):
                code, details = await refused(stream.read())
            assert (code, details.startswith("no message came within 0.05 s")) == ("DEADLINE_EXCEEDED", True)


async def test_what_a_request_holds_counts_in_the_bound_of_the_queue() -> None:
    scaler = models.scaler(2.0)
    model = Watched(scaler)
    server = HandServer(models.plan(1, models.route(1, scaler)), {1: model}, max_queue_bytes=20_000)
    served = await serve_grpc(server, address="127.0.0.1", port=0, max_message_bytes=2**20)
    large = request(1, 2)
    large.parameters["unread"].string_param = "x" * 5_000
    model.open.clear()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            first = asyncio.ensure_future(stub.ModelInfer(large))
            assert await asyncio.to_thread(model.began.wait, 30)
            assert server.engine.waiting_bytes > len(large.SerializeToString())
            assert (await refused(stub.ModelInfer(large)))[0] == "RESOURCE_EXHAUSTED"
            model.open.set()
            assert (await first).model_name == "churn"
            assert server.engine.waiting_bytes == 0
            assert (await stub.ModelInfer(large)).model_name == "churn"
    finally:
        model.open.set()
        await served.drain(within_s=1)
        server.close()


@pytest.mark.usefixtures("doubling")
async def test_a_port_that_is_taken_is_refused(reach: Reach) -> None:
    async with reach() as reached:
        with pytest.raises(InvalidInputError, match="gRPC cannot listen on 127"):
            async with reach(port=reached.served.port):
                pass


def _tls(directory: Path, name: str) -> TlsFiles:
    """A new certificate and its key, in place of those of that name."""
    cert, key = certificate(directory, name)
    return TlsFiles(certificate=cert, key=key)


async def _ask_trusting(root: bytes, port: int) -> Any:
    options = (("grpc.use_local_subchannel_pool", 1),)
    credentials = grpc.ssl_channel_credentials(root)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        return await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request(1, 2))


@pytest.mark.usefixtures("doubling")
async def test_tls_follows_its_files(reach: Reach, tmp_path: Path) -> None:
    tls = _tls(tmp_path, "one")
    first = tls.certificate.read_bytes()
    async with reach(tls=tls) as reached:
        assert (await _ask_trusting(first, reached.served.port)).model_name == "churn"
        assert (await refused(_stub(reached).ModelInfer(request(1, 2))))[0] == "UNAVAILABLE"
        second = _tls(tmp_path, "one").certificate.read_bytes()
        assert (await _ask_trusting(second, reached.served.port)).model_name == "churn"
        key = tls.key.read_bytes()
        _tls(tmp_path, "one")
        tls.key.write_bytes(key)  # replaced by halves: the pair that fits goes on
        assert (await _ask_trusting(second, reached.served.port)).model_name == "churn"


@pytest.mark.usefixtures("doubling")
async def test_tls_files_that_cannot_be_used_are_refused(reach: Reach, tmp_path: Path) -> None:
    tls, other = _tls(tmp_path, "one"), _tls(tmp_path, "other")
    for wrong in (
        TlsFiles(certificate=tmp_path / "none.crt", key=tls.key),
        TlsFiles(certificate=tls.key, key=tls.key),
        TlsFiles(certificate=tls.certificate, key=other.key),
    ):
        with pytest.raises(InvalidInputError, match="cannot be used"):
            async with reach(tls=wrong):
                pass
