"""Trace context: which story a piece of work belongs to, across queues, documents, plans and processes.

The wire form is W3C Trace Context's `traceparent` (https://www.w3.org/TR/trace-context/, version 00). Ids are made
whether or not anybody collects spans, so that log lines of one invocation always share a trace id. What is sent or
stored carries one only where a tracer (shared.core.otel) was installed: whoever does not trace sends what a release
that knows of no traces takes. Telemetry never fails the work it tells of.
"""

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, Self

TRACEPARENT = "traceparent"
"""The header, and the key of a queue message's body beside the message's own fields."""

type Value = str | int | float | bool
type About = Mapping[str, Value]

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


class SpanKind(StrEnum):
    """What a span is to its parent, as OpenTelemetry has it."""

    INTERNAL = "internal"
    SERVER = "server"
    """It answers a request."""
    CONSUMER = "consumer"
    """It handles a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """A span's place: its trace's id, 32 hexadecimal digits, and its own, 16."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """What a `traceparent` says; None for none, and for one that is malformed, which the standard has ignored."""
        found = _FORM.fullmatch(text.strip()) if text else None
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id=trace_id, span_id=span_id, sampled=bool(int(flags, 16) & _SAMPLED))

    @classmethod
    def under(cls, parent: "TraceContext | None") -> Self:
        """A new span's: of its parent's trace, or of a new one, which whoever collects spans may have."""
        trace_id = os.urandom(16).hex() if parent is None else parent.trace_id
        return cls(trace_id=trace_id, span_id=os.urandom(8).hex(), sampled=parent is None or parent.sampled)

    @property
    def traceparent(self) -> str:
        """The wire form."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


class Span(Protocol):
    """A span that was begun."""

    @property
    def context(self) -> TraceContext:
        """Its place."""
        ...

    def note(self, **about: Value) -> None:
        """Add attributes, named as in `span`."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """End it, once; with the error that it ended in, if any."""
        ...


class Tracer(Protocol):
    """Makes spans, and sends them somewhere. Never raises, never blocks on the network."""

    def begin(self, name: str, *, kind: SpanKind, parent: TraceContext | None, about: About, start_ns: int) -> Span:
        """Begin a span; `start_ns` since 1970, or 0 for now."""
        ...

    def close(self) -> None:
        """Send what is left, within seconds."""
        ...


@dataclass(frozen=True, slots=True)
class _Unsent:
    context: TraceContext

    def note(self, **about: Value) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass


class _Ids:
    """The tracer where nobody collects: it only hands ids on."""

    def begin(
        self,
        name: str,  # noqa: ARG002 - the port's
        *,
        kind: SpanKind,  # noqa: ARG002 - the port's
        parent: TraceContext | None,
        about: About,  # noqa: ARG002 - the port's
        start_ns: int,  # noqa: ARG002 - the port's
    ) -> Span:
        return _Unsent(TraceContext.under(parent))

    def close(self) -> None:
        pass


IDS_ALONE: Tracer = _Ids()


@dataclass(slots=True)
class _Process:
    tracer: Tracer = field(default_factory=lambda: IDS_ALONE)


_PROCESS = _Process()
_CURRENT: ContextVar[TraceContext | None] = ContextVar("slipway_trace", default=None)
_ABOUT: ContextVar[About | None] = ContextVar("slipway_about", default=None)
_SPAN: ContextVar[Span | None] = ContextVar("slipway_span", default=None)


def install(tracer: Tracer) -> None:
    """Have a tracer make this process's spans. Called where a process starts, by its entry point alone."""
    _PROCESS.tracer = tracer


def tracer() -> Tracer:
    """What makes this process's spans."""
    return _PROCESS.tracer


def current() -> TraceContext | None:
    """The span that this work is done in; None outside any."""
    return _CURRENT.get()


def current_traceparent() -> str | None:
    """Its wire form, for what is sent or stored; None outside any, and where nobody collects spans."""
    found = current()
    return None if found is None or _PROCESS.tracer is IDS_ALONE else found.traceparent


def about() -> About:
    """What this work is about: model, version and their kin, as the spans around it say."""
    return _ABOUT.get() or {}


@contextmanager
def span(
    name: str,
    of: Mapping[str, Value | None] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: TraceContext | None = None,
) -> Generator[Span]:
    """Do what is within as a span: under `parent`, else under the current one, else in a new trace.

    `of` says what it is about. It becomes the span's attributes, prefixed with `slipway.`, and stands in every log line
    that is written within. None is left out.
    """
    told = {key: value for key, value in (of or {}).items() if value is not None}
    begun = _PROCESS.tracer.begin(name, kind=kind, parent=parent or current(), about=told, start_ns=0)
    before, before_about, before_span = _CURRENT.set(begun.context), _ABOUT.set({**about(), **told}), _SPAN.set(begun)
    error: BaseException | None = None
    try:
        yield begun
    except BaseException as raised:
        error = raised
        raise
    finally:
        _SPAN.reset(before_span)
        _ABOUT.reset(before_about)
        _CURRENT.reset(before)
        begun.end(error)


def learn(**of: Value) -> None:
    """Say what else the current span is about: until it ends, log lines say so too. Outside any, nothing."""
    begun = _SPAN.get()
    if begun is not None:
        _ABOUT.set({**about(), **of})
        begun.note(**of)


@contextmanager
def within(context: TraceContext | None, of: About) -> Generator[None]:
    """Have the log lines that are written within say in which span that was, and what it was about. Begins none.

    For work that is not done as one block, as where one call answers many requests.
    """
    before, before_about = _CURRENT.set(context or current()), _ABOUT.set({**about(), **of})
    try:
        yield
    finally:
        _ABOUT.reset(before_about)
        _CURRENT.reset(before)


def stamped(body: Mapping[str, Any], traceparent: str | None = None) -> dict[str, Any]:
    """A message's body with the trace that it belongs to: a given one, or the current one.

    As it is without any, and where nobody collects spans.
    """
    found = None if _PROCESS.tracer is IDS_ALONE else traceparent or current_traceparent()
    return dict(body) if found is None else {**body, TRACEPARENT: found}


def unstamped(body: Mapping[str, Any]) -> dict[str, Any]:
    """A message's body without its trace: what two messages must share to be the same."""
    return {key: value for key, value in body.items() if key != TRACEPARENT}
