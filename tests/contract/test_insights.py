"""Spans to Application Insights: Microsoft's own exporter, and an ingestion endpoint of this test's.

What Azure makes of them is not seen here. What is: that they are sent, under the trace that they belong to, as requests
and dependencies with the properties that the queries of infra/observability ask for.
"""

import gzip
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

from functions._http import answering
from functions._tracing import exporters, invocation, timed
from shared.core import tracing
from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.otel import open_tracer
from shared.core.tracing import IDS_ALONE, About, SpanKind, TraceContext, span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONNECTION = "InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint=http://127.0.0.1:{port}/"


@pytest.fixture
def ingestion() -> Generator[tuple[int, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            found = json.loads(gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data)
            got.extend(found)
            answer = json.dumps({"itemsReceived": len(found), "itemsAccepted": len(found), "errors": []}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], got
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def sending(port: int, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Spans within go to the ingestion endpoint, all of them by the end."""
    # What the exporter tells of itself would go to Microsoft.
    for name in ("STATSBEAT_DISABLED_ALL", "SDKSTATS_DISABLED", "CONTROLPLANE_DISABLED"):
        monkeypatch.setenv(f"APPLICATIONINSIGHTS_{name}", "true")
    env = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION.format(port=port),
        "SLIPWAY_TRACE_TO_INSIGHTS": "true",
    }
    tracer = open_tracer("slipway-functions", exporters(env))
    tracing.install(tracer)
    try:
        yield
    finally:
        tracing.install(IDS_ALONE)
        tracer.end()


def test_spans_are_requests_and_dependencies_under_their_trace(
    ingestion: tuple[int, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, got = ingestion
    with sending(port, monkeypatch):
        parent = TraceContext.parse(f"00-{TRACE}-{SPAN}-01")
        about: About = {"model": "m", "version": 3}
        with span("process validations", about, kind=SpanKind.CONSUMER, parent=parent), span("inner"):
            pass
        with pytest.raises(LookupError), span("http start", kind=SpanKind.SERVER):
            raise LookupError
    sent = {one["data"]["baseData"].get("name"): one for one in got}
    handled, inner, failed = (sent[name] for name in ("process validations", "inner", "http start"))
    assert handled["data"]["baseType"] == "RequestData"
    assert inner["data"]["baseType"] == "RemoteDependencyData"
    assert handled["tags"]["ai.operation.id"] == inner["tags"]["ai.operation.id"] == TRACE
    assert handled["tags"]["ai.operation.parentId"] == SPAN
    assert inner["tags"]["ai.operation.parentId"] == handled["data"]["baseData"]["id"]
    assert handled["tags"]["ai.cloud.role"] == "slipway-functions"
    assert handled["data"]["baseData"]["properties"] == {"slipway.model": "m", "slipway.version": "3"}
    assert failed["data"]["baseData"]["success"] is False


FAILED = '| where Success == false or toint(Properties["slipway.status"]) >= 500\n'
"""How the queries of failed invocations know them."""


def is_failed(data: dict[str, Any]) -> bool:
    """As FAILED says: where there is no status, the comparison is of null, and false."""
    return not data["success"] or int(data["properties"].get("slipway.status", 0)) >= 500


@pytest.mark.parametrize("query", ["queries/failed-invocations.kql", "log-alerts/invocations-fail.kql"])
def test_a_query_of_failed_invocations_sees_each_kind_that_fails_and_none_that_does_not(
    query: str, ingestion: tuple[int, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(error: Exception) -> None:
        @answering
        def asked(req: func.HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - as every function
            raise error

        asked(func.HttpRequest(method="GET", url="/api/models", body=b""))

    @timed
    def look(timer: func.TimerRequest) -> None:  # noqa: ARG001 - likewise
        raise UnavailableError("the database", "it does not answer")

    port, got = ingestion
    with sending(port, monkeypatch):
        for error in (
            NotFoundError("no such model"),
            UnavailableError("storage", "it does not answer"),
            RuntimeError("a fault"),
        ):
            answer(error)
        with pytest.raises(UnavailableError):
            look(func.TimerRequest())
        with (
            pytest.raises(LookupError),
            invocation("process validations", {"queue": "validations"}, kind=SpanKind.CONSUMER),
        ):
            raise LookupError
        with invocation("timer sweep"):
            pass
    text = (Path(__file__).parents[2] / "infra" / "observability" / query).read_text()
    spans = [
        one["data"]["baseData"] for one in got if one["data"]["baseType"] in {"RequestData", "RemoteDependencyData"}
    ]
    found = [(one["name"], is_failed(one)) for one in spans]

    assert "union AppRequests, AppDependencies\n" in text
    assert text.count(FAILED) == 1
    assert found == [
        ("http asked", False),
        ("http asked", True),
        ("http asked", True),
        ("timer look", True),
        ("process validations", True),
        ("timer sweep", False),
    ]


@pytest.mark.parametrize(
    ("connection", "said"), [("", "APPLICATIONINSIGHTS_CONNECTION_STRING is absent"), ("c2VjcmV0", "is no connection")]
)
def test_a_connection_string_that_is_none_is_named_and_not_shown(connection: str, said: str) -> None:
    env = {"APPLICATIONINSIGHTS_CONNECTION_STRING": connection, "SLIPWAY_TRACE_TO_INSIGHTS": "true"}
    with pytest.raises(InvalidInputError, match=said) as error:
        exporters(env)
    assert "c2VjcmV0" not in str(error.value)


def test_without_the_setting_nothing_goes_there() -> None:
    assert exporters({"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION.format(port=1)}) == []
