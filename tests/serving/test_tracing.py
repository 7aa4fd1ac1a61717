"""The server's spans: of plans, loads and predictions; and that a request is left alone where they are off."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from aks_serving.exchange import Exchange
from aks_serving.tracing import set_up, traced
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shared.core import tracing
from shared.core.otel import open_tracer
from shared.core.tracing import IDS_ALONE, SpanKind
from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Asked, HandServer, Watched, plain

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
        await running.reload()  # and with it a second load, where the plan's own was under way
        loads = sent.named("load version")
    assert loads
    assert {load.status.status_code for load in loads} == {StatusCode.ERROR}
    assert {tuple(event.name for event in load.events) for load in loads} == {("exception",)}


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
    good, wrong = plain([[1]]), plain("none")
    for asked in (good, wrong):
        asked.headers = {b"traceparent": GIVEN.encode()}
        handle(asked)
    await eventually(lambda: bool(good.replies and wrong.replies))
    server.close()
    assert (good.status, wrong.status) == (200, 400)
    answered, refused = sorted(sent.named("predict"), key=lambda span: span.start_time or 0)
    for span, status in ((answered, 200), (refused, 400)):
        assert span.parent is not None
        assert (trace_of(span), f"{span.parent.span_id:016x}") == (TRACE, SPAN)
        assert span.attributes is not None
        assert span.attributes["slipway.status"] == status
        assert span.status.status_code is not StatusCode.ERROR
    assert answered.attributes is not None
    assert answered.attributes["slipway.prediction_id"] == good.told[b"x-slipway-prediction-id"].decode()


@pytest.mark.parametrize("header", [None, b"\xff nonsense", GIVEN.removesuffix("01").encode() + b"00"])
async def test_a_prediction_whose_caller_samples_no_trace_is_answered_as_without_spans(
    sent: Sent, header: bytes | None
) -> None:
    handled: list[Exchange] = []
    asked = plain([[1]])
    asked.headers = {} if header is None else {b"traceparent": header}
    traced(handled.append)(asked)
    assert handled == [asked]
    assert sent.named("predict") == []


async def test_what_is_no_prediction_has_no_span(sent: Sent) -> None:
    handled: list[Exchange] = []
    asked = Asked("/metrics", headers={b"traceparent": GIVEN.encode()}, method="GET")
    traced(handled.append)(asked)
    assert handled == [asked]
    assert sent.named("predict") == []


def test_spans_are_off_unless_the_settings_ask_for_them() -> None:
    for env in (
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ):
        assert not set_up("pod", env)
        assert tracing.tracer() is IDS_ALONE


def test_a_protocol_that_is_not_spoken_is_named_and_spans_are_off(caplog: pytest.LogCaptureFixture) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert not set_up("pod", env)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': use http/protobuf" in caplog.text
    assert tracing.tracer() is IDS_ALONE


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "s3cret"),
    ],
)
def test_a_setting_that_opentelemetry_refuses_keeps_no_server_from_starting(
    setting: str, value: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value)
    assert not set_up("pod", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert tracing.tracer() is IDS_ALONE
    assert "refuses its settings (ValueError)" in caplog.text
    assert value not in caplog.messages[-1]


class _Stuck(SpanExporter):
    """A collector that takes nothing."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.took: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait(20)
        self.took += [span.name for span in spans]
        return SpanExportResult.SUCCESS


def test_a_collector_that_takes_nothing_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.core.otel._CLOSE_S", 0.05)
    stuck = _Stuck()
    tracer = open_tracer("test", [stuck])
    tracer.begin("load version", kind=SpanKind.INTERNAL, parent=None, about={}, start_ns=0).end()
    tracer.close()
    assert stuck.took == []
    stuck.free.set()
    monkeypatch.setattr("shared.core.otel._CLOSE_S", 20.0)
    tracer.close()
    assert stuck.took == ["load version"]
    tracer.end()
