"""Inferences over gRPC have the spans that HTTP's have, and none where their callers ask for none."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from aks_serving.grpc import service as grpc_service
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import typed
from tests.serving.grpc.conftest import Reach, Reached
from tests.serving.test_tracing import GIVEN, SPAN, TRACE, Sent, sent, trace_of
from tests.support.lines import json_lines

__all__ = ["sent"]
pytestmark = pytest.mark.anyio

STABLE = models.picky(limit=4)
TOO_MUCH = 5
FROM = (("traceparent", GIVEN),)


@pytest.fixture
def picky(storage: MemoryStorage) -> MemoryStorage:
    """A model that fails on what is above its limit."""
    storage.put(STABLE)
    plan = models.plan(3, models.route(1, STABLE)).model_copy(update={"rollout_id": "r-1"})
    storage.publish(plan)
    return storage


def stub(reached: Reached) -> service_pb2_grpc.GRPCInferenceServiceStub:
    return service_pb2_grpc.GRPCInferenceServiceStub(reached.channel)


def ask(index: int, *, model: str = "churn") -> service_pb2.ModelInferRequest:
    return typed("INT64", [index], 1, 1, model=model)


def facts(span: ReadableSpan) -> dict[str, object]:
    return {name.removeprefix("slipway."): value for name, value in (span.attributes or {}).items()}


@pytest.mark.usefixtures("picky")
async def test_an_inference_goes_on_from_its_callers_trace_and_says_what_answered(sent: Sent, reach: Reach) -> None:
    async with reach(traced=True) as reached:
        answer = await stub(reached).ModelInfer(ask(1), metadata=FROM)
        (span,) = sent.named("predict")
    assert span.parent is not None
    assert (trace_of(span), f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert facts(span) == {
        "path": f"/{grpc_service.SERVICE}/ModelInfer",
        "grpc_status": "OK",
        "prediction_id": answer.parameters["prediction_id"].string_param,
        "model": "churn",
        "version": 1,
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.usefixtures("picky")
async def test_each_request_of_a_stream_is_a_span_under_the_streams(sent: Sent, reach: Reach) -> None:
    async def two() -> AsyncIterator[service_pb2.ModelInferRequest]:
        yield ask(1)
        yield ask(1, model="none")

    async with reach(traced=True) as reached:
        answers = [answer async for answer in stub(reached).ModelStreamInfer(two(), metadata=FROM)]
        spans = sent.named("predict")
    assert [bool(answer.error_message) for answer in answers] == [False, True]
    assert {facts(span)["path"] for span in spans} == {f"/{grpc_service.SERVICE}/ModelStreamInfer"}
    assert sorted(str(facts(span)["grpc_status"]) for span in spans) == ["NOT_FOUND", "OK"]
    assert {trace_of(span) for span in spans} == {TRACE}
    assert len({span.context.span_id for span in spans if span.context}) == 2


@pytest.mark.usefixtures("picky")
async def test_the_callers_errors_are_none_of_the_spans_and_the_servers_are(sent: Sent, reach: Reach) -> None:
    async with reach(traced=True) as reached:
        for asked in (ask(1, model="none"), ask(TOO_MUCH)):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(reached).ModelInfer(asked, metadata=FROM)
        refused, failed = sent.named("predict")
    assert (facts(refused)["grpc_status"], refused.status.status_code) == ("NOT_FOUND", StatusCode.UNSET)
    assert (facts(failed)["grpc_status"], failed.status.status_code) == ("INTERNAL", StatusCode.ERROR)
    assert (facts(failed)["endpoint"], facts(failed)["failed_version"]) == ("churn", 1)


@pytest.mark.usefixtures("picky")
@pytest.mark.parametrize("metadata", [(), (("traceparent", "nonsense"),), (("traceparent", GIVEN[:-1] + "0"),)])
async def test_one_whose_caller_samples_no_trace_has_no_span(
    sent: Sent, reach: Reach, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with reach(traced=True) as reached:
        await stub(reached).ModelInfer(ask(1), metadata=metadata)
        assert sent.named("predict") == []


@pytest.mark.usefixtures("picky")
async def test_where_spans_are_off_there_are_none(sent: Sent, reach: Reach) -> None:
    async with reach() as reached:
        await stub(reached).ModelInfer(ask(1), metadata=FROM)
        assert sent.named("predict") == []


@pytest.mark.usefixtures("picky")
async def test_the_log_line_of_a_failed_inference_says_which_trace_endpoint_version_and_rollout(
    sent: Sent, reach: Reach
) -> None:
    with json_lines("aks_serving.faults") as lines:
        async with reach(traced=True) as reached:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(reached).ModelInfer(ask(TOO_MUCH), metadata=FROM)
            (span,) = sent.named("predict")
    (line,) = lines
    assert span.context is not None
    told = {"trace_id": TRACE, "span_id": f"{span.context.span_id:016x}", "endpoint": "churn", "version": 1}
    assert line.items() >= (told | {"rollout_id": "r-1"}).items()
