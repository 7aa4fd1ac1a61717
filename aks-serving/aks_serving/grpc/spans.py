"""Spans of inferences over gRPC, as HTTP's are (aks_serving.tracing): of each whose caller samples its trace.

A stream's requests have a span each, under the span that the stream was opened in. Where spans are off, no call's
metadata is looked at for them.
"""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import grpc

from aks_serving.errors import WRONG
from aks_serving.grpc.caller import Caller
from aks_serving.grpc.calls import status_for
from aks_serving.grpc.status import status_of
from aks_serving.tracing import FailedError, begin_prediction, parent_of
from shared.core import tracing
from shared.core.errors import SlipwayError
from shared.core.tracing import Span

type Spans = Callable[[Caller, str], AbstractContextManager[Span | None]]
"""Answer a caller's request to a method, named by its path, within: as which span, if any."""

_FAULTS = frozenset(
    (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
"""The statuses of a server's errors, by OpenTelemetry's conventions."""

_NONE: nullcontext[None] = nullcontext()


def no_spans(_: Caller, __: str) -> AbstractContextManager[None]:
    """Answer as without spans."""
    return _NONE


@contextmanager
def sampled_spans(caller: Caller, path: str) -> Generator[Span | None]:
    """Answer as a span, where the caller samples its trace. Raises what is raised within.

    But an error that nobody foresaw, which is logged as a part of the span, and becomes a SlipwayError.
    """
    parent = parent_of(caller.headers)
    if parent is None:
        yield None
        return
    # Not the current span within: what is scheduled there answers others too.
    span, code = begin_prediction(parent, path), grpc.StatusCode.OK
    try:
        yield span
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
        raise
    except SlipwayError as error:
        code = status_of(error).code
        raise
    except Exception as error:
        with tracing.within(span.context, {}):
            code = status_for(error).code
        raise SlipwayError(WRONG) from error
    finally:
        span.note(grpc_status=code.name)
        span.end(FailedError(code.name) if code in _FAULTS else None)
