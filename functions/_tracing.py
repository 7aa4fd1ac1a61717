"""Each invocation of a function is a span, and its log lines say which: the functions app's end of shared.core.tracing.

The story goes on from where it was: of a message, from the trace that its body carries; of an HTTP request, from its
`traceparent`. Spans go out over OTLP where OpenTelemetry's settings say so, and to Application Insights where
`APPLICATIONINSIGHTS_CONNECTION_STRING` is set, SLIPWAY_TRACE_TO_INSIGHTS is `true` and the exporter is installed. What
is wrong with these settings is logged, and no invocation fails for it.
"""

import functools
import logging
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING

import azure.functions as func

from shared.core import tracing
from shared.core.errors import InvalidInputError
from shared.core.logs import use_json, wants_json
from shared.core.otel import is_disabled, open_tracer, otlp_exporters
from shared.core.tracing import Span, SpanKind, TraceContext, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

INSIGHTS = "APPLICATIONINSIGHTS_CONNECTION_STRING"
TO_INSIGHTS = "SLIPWAY_TRACE_TO_INSIGHTS"
SERVICE = "slipway-functions"

_log = logging.getLogger(__name__)


@contextmanager
def invocation(
    name: str,
    of: Mapping[str, Value | None] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: TraceContext | None = None,
) -> Generator[Span]:
    """Do what is within as one invocation: see shared.core.tracing.span. A message's is told of in the log."""
    _set_up()
    level = logging.INFO if kind is SpanKind.CONSUMER else logging.DEBUG
    started_s = perf_counter()
    with tracing.span(name, of, kind=kind, parent=parent) as span:
        try:
            yield span
        except BaseException as error:
            _log.log(level, "%s: %s after %d ms", name, type(error).__name__, (perf_counter() - started_s) * 1e3)
            raise
        _log.log(level, "%s: done in %d ms", name, (perf_counter() - started_s) * 1e3)


def timed(run: Callable[[func.TimerRequest], None]) -> Callable[[func.TimerRequest], None]:
    """Make each run of a timer's function a span."""

    @functools.wraps(run)
    def traced(timer: func.TimerRequest) -> None:
        with invocation(f"timer {run.__name__}"):
            run(timer)

    # The worker resolves a wrapped function's own annotations.
    traced.__annotations__ = {"timer": func.TimerRequest, "return": None}
    return traced


def exporters(env: Mapping[str, str]) -> "list[SpanExporter]":
    """What spans are sent by. Raises InvalidInputError naming the setting that cannot be used."""
    if is_disabled(env):
        return []
    found = otlp_exporters(env)
    connection = env.get(INSIGHTS, "").strip()
    if env.get(TO_INSIGHTS, "").strip().lower() == "true":
        if not connection:
            raise InvalidInputError(f"the setting {INSIGHTS} is absent, and {TO_INSIGHTS} is true: set both, or none")
        try:
            from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter  # noqa: PLC0415 - heavy, optional
        except ImportError:
            raise InvalidInputError(
                f"the setting {TO_INSIGHTS} is true, and azure-monitor-opentelemetry-exporter is not installed: add it "
                "to what is deployed"
            ) from None
        try:
            found.append(AzureMonitorTraceExporter(connection_string=connection))
        except ValueError as error:
            # The value is a secret: the error must not repeat it.
            raise InvalidInputError(f"the setting {INSIGHTS} is no connection string: copy it anew") from error
    return found


@cache
def _set_up() -> None:
    """Once a process, at its first invocation, so that importing the app does nothing."""
    try:
        if wants_json(os.environ):
            use_json()
        found = exporters(os.environ)
        if found:
            tracer = open_tracer(SERVICE, found)
            tracing.install(tracer)
            from opentelemetry import trace  # noqa: PLC0415 - imported by now

            # Application Insights' exporter asks it who sends.
            trace.set_tracer_provider(tracer.provider)
    except InvalidInputError as error:
        _log.error("telemetry is not as it should be: %s", error)
    except Exception as error:  # noqa: BLE001 - telemetry never fails the work that it tells of
        # What the SDK says may repeat a setting, which may be a secret.
        _log.error("no spans are sent: OpenTelemetry refuses its settings (%s): see OTEL_...", type(error).__name__)
