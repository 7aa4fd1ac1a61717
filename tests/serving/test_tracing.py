"""The server's spans: of plans, loads and predictions; and that a request is left alone where they are off."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from aks_serving.tracing import set_up, traced
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shared.core import tracing
from shared.core.errors import InvalidInputError
from shared.core.otel import open_tracer
from shared.core.tracing import IDS_ALONE
from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import HandServer, Watched, plain

pytestmark = pytest.mark.anyio

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"
STABLE, CANDIDATE = models.table(), models.picky(limit=4)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the process's tracer sent."""

    exporter: InMemorySpanExporter

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of a name."""
        tracing.tracer().close()
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def sent() -> Iterator[Sent]:
    exporter = InMemorySpanExporter()
    tracer = open_tracer("test", [exporter])
    tracing.install(tracer)
    yield Sent(exporter)
    tracing.install(IDS_ALONE)
    tracer.end()


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


async def test_a_plan_and_its_loads_belong_to_the_trace_that_led_to_it(
    sent: Sent, start: Start, storage: MemoryStorage
) -> None:
    storage.put(STABLE, CANDIDATE)
    plan = models.plan(1, *models.canary((1, STABLE), (2, CANDIDATE), 100)).model_copy(update={"trace": GIVEN})
    storage.publish(plan)
    async with start() as running:
        await running.reload()
        (applied,) = sent.named("apply plan")
        loads = sent.named("load version")
    assert applied.parent is not None
    assert (trace_of(applied), f"{applied.parent.span_id:016x}") == (TRACE, SPAN)
    assert applied.attributes is not None
    assert applied.attributes["slipway.generation"] == 1
    assert applied.attributes["slipway.loaded"] == "[1, 2]"
    assert applied.context is not None
    for load in loads:
        assert load.parent is not None
        assert (trace_of(load), load.parent.span_id) == (TRACE, applied.context.span_id)
    assert {load.attributes["slipway.version"] for load in loads if load.attributes} == {1, 2}


async def test_a_load_that_fails_ends_its_span_as_an_error(sent: Sent, start: Start, storage: MemoryStorage) -> None:
    storage.put(b"no model")
    storage.publish(models.plan(1, models.route(1, b"no model")).model_copy(update={"trace": GIVEN}))
    async with start() as running:
        await running.reload()
        (load,) = sent.named("load version")
    assert load.status.status_code is StatusCode.ERROR
    assert [event.name for event in load.events] == ["exception"]


async def test_a_plan_without_a_trace_or_with_a_malformed_one_has_no_spans(
    sent: Sent, start: Start, storage: MemoryStorage
) -> None:
    storage.put(STABLE)
    storage.publish(models.plan(1, models.route(1, STABLE)))
    storage.publish(models.plan(1, models.route(1, STABLE), endpoint="other").model_copy(update={"trace": "nonsense"}))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1]], model="churn")).status_code == 200
        assert sent.named("apply plan") == []


async def test_a_plan_that_another_overtakes_ends_its_span(sent: Sent, start: Start, storage: MemoryStorage) -> None:
    storage.put(STABLE)
    route = models.route(1, STABLE)
    async with start() as running:
        for generation in (1, 2):
            storage.publish(models.plan(generation, route).model_copy(update={"trace": GIVEN}))
            await running.reload()
        spans = sent.named("apply plan")
    assert [span.attributes["slipway.generation"] for span in spans if span.attributes] == [1, 2]


async def test_a_prediction_goes_on_from_its_callers_trace_and_says_what_answered(sent: Sent) -> None:
    server = HandServer(models.plan(1, models.route(1, STABLE)), {1: Watched(STABLE)}, inline=True)
    handle = traced(server.api.handle)
    good = [plain([[1]]) for _ in range(3)]
    good[0].headers = {b"traceparent": GIVEN.encode()}
    good[2].headers = {b"traceparent": b"\xff nonsense"}
    wrong = plain("none")
    for asked in (*good, wrong):
        handle(asked)
    await eventually(lambda: all(asked.replies for asked in (*good, wrong)))
    assert [asked.status for asked in (*good, wrong)] == [200, 200, 200, 400]
    server.engine.close()
    first, *others, refused = sorted(sent.named("predict"), key=lambda span: span.start_time or 0)
    assert first.parent is not None
    assert trace_of(first) == TRACE
    assert first.attributes is not None
    assert first.attributes["slipway.status"] == 200
    assert first.attributes["slipway.prediction_id"]
    assert all(span.parent is None for span in others)
    assert refused.attributes is not None
    assert refused.attributes["slipway.status"] == 400
    assert refused.status.status_code is not StatusCode.ERROR


def test_spans_are_off_unless_the_settings_ask_for_them() -> None:
    for env in (
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ):
        assert not set_up("pod", env)
        assert tracing.tracer() is IDS_ALONE


def test_a_protocol_that_is_not_spoken_is_named() -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(InvalidInputError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': use http/protobuf"):
        set_up("pod", env)
