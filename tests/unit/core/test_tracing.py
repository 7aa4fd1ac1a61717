"""Trace context: its wire form, what belongs to what, and how messages carry it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import tracing
from shared.core.tracing import (
    About,
    Span,
    SpanKind,
    TraceContext,
    current,
    current_traceparent,
    span,
    stamped,
    unstamped,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def test_a_traceparent_is_read_and_written_as_the_standard_has_it() -> None:
    found = TraceContext.parse(GIVEN)
    assert found == TraceContext(trace_id=TRACE, span_id=SPAN, sampled=True)
    assert found.traceparent == GIVEN
    unsampled = TraceContext.parse(f"00-{TRACE}-{SPAN}-00")
    assert unsampled is not None
    assert not unsampled.sampled
    later = TraceContext.parse(f"cc-{TRACE}-{SPAN}-01-what-a-later-version-has")
    assert later is not None
    assert later.trace_id == TRACE


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}x-{SPAN}-01",
    ],
)
def test_what_is_malformed_is_none(text: str | None) -> None:
    assert TraceContext.parse(text) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    found = TraceContext.parse(text)
    assert found is None or TraceContext.parse(found.traceparent) == found


def test_spans_nest_and_say_what_they_are_about() -> None:
    assert current() is None
    with span("outer", {"model": "m", "version": None}, parent=TraceContext.parse(GIVEN)) as outer:
        assert (outer.context.trace_id, current()) == (TRACE, outer.context)
        with span("inner", {"version": 2}) as inner:
            assert inner.context.trace_id == TRACE
            assert inner.context.span_id not in {SPAN, outer.context.span_id}
            assert tracing.about() == {"model": "m", "version": 2}
        assert current() == outer.context
        assert tracing.about() == {"model": "m"}
    assert (current(), tracing.about()) == (None, {})


def test_an_error_passes_and_leaves_nothing_behind() -> None:
    with pytest.raises(LookupError), span("fails"):
        raise LookupError
    assert current() is None


def test_what_is_not_sampled_stays_so() -> None:
    with span("unsampled", parent=TraceContext.parse(f"00-{TRACE}-{SPAN}-00")) as found:
        assert not found.context.sampled


def test_spans_without_parents_are_of_different_traces() -> None:
    with span("one") as one:
        pass
    with span("other") as other:
        pass
    assert one.context.trace_id != other.context.trace_id


def test_a_message_carries_the_trace_and_is_the_same_without() -> None:
    body = {"model": "m", "version": 1}
    assert stamped(body) == body
    tracing.install(_Collects())
    try:
        with span("here") as here:
            assert current_traceparent() == here.context.traceparent
            assert stamped(body) == body | {"traceparent": current_traceparent()}
            assert stamped(body, GIVEN) == body | {"traceparent": GIVEN}
            assert unstamped(stamped(body)) == body
    finally:
        tracing.install(tracing.IDS_ALONE)


def test_where_nobody_collects_spans_nothing_carries_a_trace() -> None:
    with span("here"):
        assert current() is not None
        assert current_traceparent() is None
        assert stamped({"model": "m"}, GIVEN) == {"model": "m"}


class _Collects:
    """A tracer that is not the one where nobody collects."""

    def begin(self, name: str, *, kind: SpanKind, parent: TraceContext | None, about: About, start_ns: int) -> Span:
        return tracing.IDS_ALONE.begin(name, kind=kind, parent=parent, about=about, start_ns=start_ns)

    def close(self) -> None:
        pass


def test_what_is_learned_of_a_span_is_said_until_it_ends_and_nowhere_else() -> None:
    tracing.learn(version=1)
    assert tracing.about() == {}
    with span("outer", {"model": "m"}):
        with span("inner"):
            tracing.learn(version=2)
            assert tracing.about() == {"model": "m", "version": 2}
        assert tracing.about() == {"model": "m"}
    assert tracing.about() == {}


def test_lines_within_say_which_span_it_was_though_none_is_begun() -> None:
    elsewhere = TraceContext.parse(GIVEN)
    with span("outer", {"model": "m"}) as outer:
        with tracing.within(elsewhere, {"version": 2}):
            assert (current(), tracing.about()) == (elsewhere, {"model": "m", "version": 2})
        with tracing.within(None, {"endpoint": "e"}):
            assert (current(), tracing.about()) == (outer.context, {"model": "m", "endpoint": "e"})
        assert (current(), tracing.about()) == (outer.context, {"model": "m"})
