"""Invocations: a message's goes on in the trace that it carries, and is the same message with or without it."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

from functions._http import answering
from functions._messages import handle_body
from functions._tracing import _set_up, exporters, timed
from shared.core import tracing
from shared.core.errors import NotFoundError, UnavailableError
from shared.core.messages import Queue, RolloutTick, ValidateVersion
from shared.core.tracing import About, Span, SpanKind, TraceContext, Value, current
from shared.deadletters.documents import DeadLetter, LetterBody, letter_id
from shared.store.aggregate import MessageEntry
from tests.unit.observing.test_metrics import NOW, report

FUNCTIONS = Path(__file__).parents[3] / "functions"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"
BODY = {"model": "m", "version": 3}


class Letters:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.failed: list[bytes] = []
        self.done: list[bytes] = []

    def keep(self, queue: str, body: bytes, *, message_id: str, error: BaseException) -> DeadLetter:
        self.kept.append(body)
        return DeadLetter(
            id=f"letter-{message_id}",
            queue=queue,
            body=LetterBody.of(body),
            reason=str(error),
            first_seen_at=NOW,
            last_seen_at=NOW,
        )

    def note_failure(self, queue: str, body: bytes, error: BaseException) -> DeadLetter:
        self.failed.append(body)
        return self.keep(queue, body, message_id="1", error=error)

    def succeeded(self, queue: str, body: bytes) -> None:  # noqa: ARG002 - the port's
        self.done.append(body)


class Begun:
    """A span that remembers how it ended."""

    def __init__(self, name: str, kind: SpanKind, parent: TraceContext | None, about: About) -> None:
        self.name, self.kind, self.parent = name, kind, parent
        self.about: dict[str, Value] = dict(about)
        self.context = TraceContext.under(parent)
        self.ends: list[BaseException | None] = []

    def note(self, **about: Value) -> None:
        self.about |= about

    def end(self, error: BaseException | None = None) -> None:
        self.ends.append(error)


class Spans:
    """A tracer that keeps what was begun."""

    def __init__(self) -> None:
        self.begun: list[Begun] = []

    def begin(self, name: str, *, kind: SpanKind, parent: TraceContext | None, about: About, start_ns: int) -> Span:  # noqa: ARG002 - the port's
        self.begun.append(Begun(name, kind, parent, about))
        return self.begun[-1]

    def close(self) -> None:
        pass


@pytest.fixture
def spans() -> Iterator[Spans]:
    found = Spans()
    tracing.install(found)
    yield found
    tracing.install(tracing.IDS_ALONE)


def handle(letters: Letters, body: dict[str, Any] | bytes, do: Any = lambda _: None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handle_body(letters, Queue.VALIDATIONS, data, ValidateVersion, do, message_id="7")


def test_a_message_is_handled_in_the_trace_that_it_carries(spans: Spans) -> None:
    letters, seen = Letters(), []
    handle(letters, BODY | {"traceparent": GIVEN}, lambda message: seen.append((message, current())))
    (span,) = spans.begun
    assert seen == [(ValidateVersion(model="m", version=3), span.context)]
    assert span.parent == TraceContext(trace_id=TRACE, span_id=SPAN)
    assert (span.name, span.kind, span.ends) == ("process validations", SpanKind.CONSUMER, [None])
    assert span.about == {"queue": "validations", "message_id": "7", "model": "m", "version": 3}
    assert len(letters.done) == 1


@pytest.mark.parametrize("given", [{}, {"traceparent": "nonsense"}])
def test_one_without_a_trace_begins_one(spans: Spans, given: dict[str, str]) -> None:
    handle(Letters(), BODY | given)
    assert [span.parent for span in spans.begun] == [None]


@pytest.mark.parametrize(
    "body", [b'{"traceparent": 1, "model": "m"}', b'["traceparent"]', b'"traceparent', b"\xff traceparent"]
)
def test_one_that_cannot_be_read_is_kept_as_it_came(spans: Spans, body: bytes) -> None:
    letters = Letters()
    handle(letters, body)
    assert letters.kept == [body]
    assert len(spans.begun) == 1


def test_one_that_fails_ends_its_span_with_the_error_and_is_noted_with_its_trace(spans: Spans) -> None:
    letters = Letters()

    def fail(_: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        handle(letters, BODY | {"traceparent": GIVEN}, fail)
    assert isinstance(spans.begun[0].ends[0], LookupError)
    assert json.loads(letters.failed[0])["traceparent"] == GIVEN, "put back, it goes on in its trace"


def test_one_that_is_tried_again_is_another_span_of_the_same_trace(spans: Spans) -> None:
    letters, tries = Letters(), iter((LookupError(), None))

    def fails_once(_: object) -> None:
        if error := next(tries):
            raise error

    body = BODY | {"traceparent": GIVEN}
    with pytest.raises(LookupError):
        handle(letters, body, fails_once)
    handle(letters, body, fails_once)
    first, second = spans.begun
    assert {first.context.trace_id, second.context.trace_id} == {TRACE}
    assert first.context.span_id != second.context.span_id
    assert [type(error) for span in spans.begun for error in span.ends] == [LookupError, type(None)]


def test_a_message_is_one_letter_whatever_its_trace() -> None:
    plain, traced = (LetterBody(content=json.dumps(BODY | more)) for more in ({}, {"traceparent": GIVEN}))
    other = LetterBody(content=json.dumps(BODY | {"version": 4}))
    assert letter_id("validations", plain) == letter_id("validations", traced) != letter_id("validations", other)


@pytest.mark.usefixtures("spans")
def test_what_a_document_calls_for_carries_the_trace_it_changed_under() -> None:
    one = report()
    tick = RolloutTick(endpoint="m", rollout_id="r", tick=1)
    one.send(tick)
    with tracing.span("here") as span:
        one.send(tick)
    bodies = [entry.body for entry in one.outbox if isinstance(entry, MessageEntry)]
    assert bodies == [tick.model_dump(), tick.model_dump() | {"traceparent": span.context.traceparent}]


def test_a_request_goes_on_from_its_callers_trace_and_tells_its_status(spans: Spans) -> None:
    @answering
    def get_model(req: func.HttpRequest) -> dict[str, Any]:
        assert current() == spans.begun[0].context
        return {"model": req.route_params["model"]}

    request = func.HttpRequest(
        method="GET",
        url="/api/models/m?code=c2VjcmV0",
        route_params={"model": "m"},
        headers={"traceparent": GIVEN},
        body=b"",
    )
    assert get_model(request).status_code == 200
    (span,) = spans.begun
    assert (span.name, span.kind) == ("http get_model", SpanKind.SERVER)
    assert span.parent == TraceContext.parse(GIVEN)
    assert span.about == {"method": "GET", "model": "m", "status": 200}


@pytest.mark.parametrize(
    ("raised", "status", "ends"),
    [
        (NotFoundError("no such model"), 404, None),
        (UnavailableError("storage", "it does not answer"), 503, "FailedError: answered with 503"),
        (RuntimeError("a secret"), 500, "FailedError: answered with 500"),
    ],
)
def test_the_span_of_a_request_that_the_app_failed_to_answer_has_failed(
    spans: Spans, raised: Exception, status: int, ends: str | None
) -> None:
    @answering
    def list_models(req: func.HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - the binding's
        raise raised

    request = func.HttpRequest(method="GET", url="/api/models", body=b"")
    assert list_models(request).status_code == status
    (span,) = spans.begun
    assert [error and f"{type(error).__name__}: {error}" for error in span.ends] == [ends]
    assert span.about["status"] == status


def test_a_scrape_is_no_span(spans: Spans) -> None:
    @answering
    def metrics(req: func.HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - the binding's
        return {}

    assert metrics(func.HttpRequest(method="GET", url="/api/metrics", body=b"")).status_code == 200
    assert spans.begun == []


def test_a_timers_run_is_a_span_and_its_annotations_are_the_workers(spans: Spans) -> None:
    ran = []

    @timed
    def sweep(timer: func.TimerRequest) -> None:
        ran.append(timer)

    sweep(None)  # type: ignore[arg-type]
    assert ran == [None]
    assert [span.name for span in spans.begun] == ["timer sweep"]
    assert sweep.__annotations__ == {"timer": func.TimerRequest, "return": None}


def test_the_log_tells_of_each_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="functions._tracing"):
        handle(Letters(), BODY)
    (record,) = [record for record in caplog.records if record.name == "functions._tracing"]
    assert record.getMessage().startswith("process validations: done in ")


def test_every_timer_of_the_app_is_a_span() -> None:
    timers = [
        (path.name, follows)
        for path in sorted(FUNCTIONS.glob("*.py"))
        for follows in re.findall(r"@bp\.timer_trigger\([^\n]*\)\n([^\n]*)\n", path.read_text())
    ]
    assert len(timers) > 5
    assert {follows for _, follows in timers} == {"@timed"}, timers


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "s3cret"),
    ],
)
def test_a_setting_that_opentelemetry_refuses_fails_no_invocation_and_is_told_once(
    setting: str, value: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(setting, value)
    _set_up.cache_clear()
    try:
        letters = Letters()
        handle(letters, BODY)
        handle(letters, BODY)
    finally:
        _set_up.cache_clear()
    assert len(letters.done) == 2
    assert tracing.tracer() is tracing.IDS_ALONE
    (told,) = [one for one in caplog.messages if "refuses its settings (ValueError)" in one]
    assert value not in told


def test_where_opentelemetry_is_disabled_nothing_is_sent_to_insights_either() -> None:
    connection = "InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint=http://127.0.0.1:1/"
    asked = {"APPLICATIONINSIGHTS_CONNECTION_STRING": connection, "SLIPWAY_TRACE_TO_INSIGHTS": "true"}
    assert exporters(asked | {"OTEL_SDK_DISABLED": "True"}) == []
