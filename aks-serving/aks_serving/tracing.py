"""The server's spans: a plan being applied, a version being loaded, a prediction. Off, and free, unless asked for.

A plan says which trace led to it, so that what a pod does about it belongs to the story that began with the drop. A
prediction, over HTTP or gRPC (aks_serving.grpc.spans), has a span where its caller sent a `traceparent` that is
sampled: whoever stands at the edge decides, and other requests cost one look at their headers.
`OTEL_EXPORTER_OTLP_ENDPOINT` turns spans on (shared.core.otel); where they are off no request is looked at for them.
"""

import logging
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from aks_serving.exchange import PREDICTION_ID, Exchange, Head, Response
from aks_serving.serving import Serving
from shared.core import tracing
from shared.core.errors import InvalidInputError
from shared.core.otel import open_tracer, otlp_exporters
from shared.core.tracing import TRACEPARENT, About, Span, SpanKind, TraceContext
from shared.routing.plan import Route, RoutePlan

SERVICE = "slipway-server"

_log = logging.getLogger(__name__)

_TRACEPARENT = TRACEPARENT.encode()
_FAILED = 500

type Handle = Callable[[Exchange], None]


def set_up(pod: str, env: Mapping[str, str] | None = None) -> bool:
    """Have this process send spans, where the settings ask for it: whether it does.

    What is wrong with the settings is logged, and the process serves without spans. Starts a thread: call it in the
    process that is to send them, not before it is forked.
    """
    try:
        found = otlp_exporters(os.environ if env is None else env)
        if found:
            tracing.install(open_tracer(SERVICE, found, **{"service.instance.id": pod}))
    except InvalidInputError as error:
        _log.error("no spans are sent: %s", error)
        return False
    except Exception as error:  # noqa: BLE001 - telemetry never fails the work that it tells of
        # What the SDK says may repeat a setting, which may be a secret.
        _log.error("no spans are sent: OpenTelemetry refuses its settings (%s): see OTEL_...", type(error).__name__)
        return False
    return bool(found)


class PlanSpans:
    """The spans of plans, from when one is taken until it is applied. `loading` is called on loaders' threads."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, Span]] = {}

    def taken(self, plan: RoutePlan) -> None:
        """A plan is taken. One that was not applied yet never will be, as it is.

        One that has nothing for this pod is no span's: what lingers would make it last ten minutes.
        """
        self._end(plan.endpoint, overtaken=True)
        parent = TraceContext.parse(plan.trace)
        if parent is not None and plan.routes:
            about: About = {
                "endpoint": plan.endpoint,
                "generation": plan.generation,
                "rollout_id": plan.rollout_id or "",
            }
            span = tracing.tracer().begin("apply plan", kind=SpanKind.CONSUMER, parent=parent, about=about, start_ns=0)
            self._open[plan.endpoint] = plan.generation, span

    def applied(self, serving: Serving) -> None:
        """A plan answers requests."""
        plan = serving.plan
        generation, span = self._open.get(plan.endpoint, (0, None))
        if span is not None and generation == plan.generation:
            span.note(loaded=str(sorted(serving.lanes)), failed=str(sorted(serving.failed)))
            self._end(plan.endpoint)

    @contextmanager
    def loading(self, plan: RoutePlan | None, route: Route) -> Generator[None]:
        """Load a version for a plan within."""
        if plan is None or plan.trace is None:
            yield
            return
        _, span = self._open.get(plan.endpoint, (0, None))
        parent = span.context if span is not None else TraceContext.parse(plan.trace)
        about: About = {"endpoint": plan.endpoint, "version": route.version, "rollout_id": plan.rollout_id or ""}
        with tracing.span("load version", about, parent=parent):
            yield

    def _end(self, endpoint: str, *, overtaken: bool = False) -> None:
        _, span = self._open.pop(endpoint, (0, None))
        if span is not None:
            if overtaken:
                span.note(overtaken=True)
            span.end()


def parent_of(headers: Mapping[bytes, bytes]) -> TraceContext | None:
    """The span in which a request's caller made it; None where there is none, or it is not sampled."""
    header = headers.get(_TRACEPARENT)
    found = None if header is None else TraceContext.parse(header.decode("latin-1"))
    return found if found is not None and found.sampled else None


def begin_prediction(parent: TraceContext, path: str) -> Span:
    """Begin the span of a prediction that was asked for at a path."""
    about = {"path": path[:200]}
    return tracing.tracer().begin("predict", kind=SpanKind.SERVER, parent=parent, about=about, start_ns=0)


def note_answer(span: Span, prediction_id: str) -> None:
    """Say which prediction a span is of, and what answered."""
    model, version, _ = prediction_id.split(".", 2)
    span.note(prediction_id=prediction_id, model=model, version=int(version))


def traced(handle: Handle) -> Handle:
    """Answer exchanges as `handle` does, each prediction whose caller samples its trace as a span."""

    def answer(exchange: Exchange) -> None:
        parent = parent_of(exchange.headers)
        if parent is None or not _is_prediction(exchange):
            handle(exchange)
            return
        handle(_Traced(exchange, begin_prediction(parent, exchange.path)))

    return answer


def _is_prediction(exchange: Exchange) -> bool:
    return exchange.method == "POST" and (exchange.path == "/predict" or exchange.path.endswith("/infer"))


class _Traced(Exchange):
    """An exchange whose span ends when it is answered."""

    __slots__ = ("_inner", "span")

    span: Span

    def __init__(self, inner: Exchange, span: Span) -> None:
        self.method, self.path, self.query = inner.method, inner.path, inner.query
        self.headers, self.body, self.received_s = inner.headers, inner.body, inner.received_s
        self._inner = inner
        self.span = span
        inner.body = b""  # it may be large, and is held here until it was read

    @property
    def gone(self) -> bool:  # type: ignore[override]
        return self._inner.gone

    def reply(self, response: Response) -> None:
        try:
            self._inner.reply(response)
        finally:
            named = next((value for name, value in response.extra if name == PREDICTION_ID), b"")
            self._end(response.head.status, named)

    def reply_named(self, head: Head, body: bytes, prediction_id: bytes) -> None:
        try:
            self._inner.reply_named(head, body, prediction_id)
        finally:
            self._end(head.status, prediction_id)

    def _end(self, status: int, prediction_id: bytes) -> None:
        self.span.note(status=status)
        if prediction_id:
            note_answer(self.span, prediction_id.decode("latin-1"))
        self.span.end(FailedError(status) if status >= _FAILED else None)


class FailedError(Exception):
    """That a prediction failed: what a span tells of it."""
