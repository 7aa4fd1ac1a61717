"""Spans sent by OpenTelemetry's SDK: over OTLP (Jaeger, any collector), and to what a caller adds.

Settings are OpenTelemetry's own (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/):
`OTEL_EXPORTER_OTLP_ENDPOINT` or its kin for traces turns it on, `OTEL_SDK_DISABLED` off; sampler, headers, batches and
timeouts are as the SDK reads them. The SDK is imported where it is on, and nowhere else. Spans wait in a bounded queue
for a thread that sends them: where the collector is slow or gone they are dropped, and the work goes on.
"""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.core.errors import InvalidInputError
from shared.core.logs import scrubbed
from shared.core.tracing import About, Span, SpanKind, TraceContext, Tracer, Value

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_CLOSE_S = 3.0


def is_wanted(env: Mapping[str, str]) -> bool:
    """Whether the settings ask for spans over OTLP."""
    elsewhere = env.get("OTEL_TRACES_EXPORTER", "").strip().lower() not in {"", "otlp"}
    return not is_disabled(env) and not elsewhere and any(env.get(name, "").strip() for name in ENDPOINTS)


def is_disabled(env: Mapping[str, str]) -> bool:
    """Whether the settings forbid spans, wherever they would go."""
    return env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def otlp_exporters(env: Mapping[str, str]) -> list["SpanExporter"]:
    """What sends spans over OTLP, where the settings ask for it. Raises InvalidInputError for another protocol."""
    if not is_wanted(env):
        return []
    asked = next((env[name].strip() for name in PROTOCOLS if env.get(name, "").strip()), _PROTOCOL)
    if asked != _PROTOCOL:
        raise InvalidInputError(f"the setting {PROTOCOLS[1]} is {asked[:40]!r}: use {_PROTOCOL}, the only one spoken")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - heavy
    except ImportError:
        raise InvalidInputError(
            f"the setting {ENDPOINTS[1]} is set, and OpenTelemetry is not installed: add the model server's extra "
            "`tracing`, or unset it"
        ) from None
    return [OTLPSpanExporter()]


def open_tracer(service: str, exporters: Sequence["SpanExporter"], **resource: str) -> "OtelTracer":
    """A tracer of a service, named so unless OTEL_SERVICE_NAME does, that sends by each of the exporters."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - heavy
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - heavy
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - heavy

    named = Resource.create(resource)
    if str(named.attributes.get("service.name", "")).startswith("unknown_service"):
        named = named.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=named)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracer(provider)


class OtelTracer(Tracer):
    """The tracing port on an SDK's provider."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - heavy
        from opentelemetry.context import Context  # noqa: PLC0415 - heavy

        self.provider = provider
        self._trace, self._context = trace, Context
        self._tracer = provider.get_tracer("slipway")

    def begin(self, name: str, *, kind: SpanKind, parent: TraceContext | None, about: About, start_ns: int) -> Span:
        """See Tracer.begin."""
        trace, context = self._trace, self._context()
        if parent is not None:
            place = trace.SpanContext(
                trace_id=int(parent.trace_id, 16),
                span_id=int(parent.span_id, 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.sampled else trace.TraceFlags.DEFAULT),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(place), context)
        begun = self._tracer.start_span(
            name,
            context=context,
            kind=trace.SpanKind[kind.name],
            attributes={f"slipway.{key}": value for key, value in about.items()},
            start_time=start_ns or None,
        )
        return _OtelSpan(begun)

    def close(self) -> None:
        """See Tracer.close."""
        # The SDK does not keep to the time that it is given: where nobody takes the spans it tries on.
        flushing = threading.Thread(target=self._flush, name="spans", daemon=True)
        flushing.start()
        flushing.join(_CLOSE_S)

    def end(self) -> None:
        """Send what is left, and let its threads go."""
        self.provider.shutdown()

    def _flush(self) -> None:
        with contextlib.suppress(Exception):
            self.provider.force_flush()


@dataclass(frozen=True, slots=True)
class _OtelSpan:
    span: "trace.Span"

    @property
    def context(self) -> TraceContext:
        found = self.span.get_span_context()
        return TraceContext(
            trace_id=f"{found.trace_id:032x}", span_id=f"{found.span_id:016x}", sampled=found.trace_flags.sampled
        )

    def note(self, **about: Value) -> None:
        for key, value in about.items():
            self.span.set_attribute(f"slipway.{key}", value)

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - imported by now

            # Not the SDK's own way, which sends the traceback as well, and all as it is.
            told = {"exception.type": type(error).__qualname__, "exception.message": scrubbed(str(error))}
            self.span.add_event("exception", told)
            self.span.set_status(StatusCode.ERROR, type(error).__name__)
        self.span.end()
