"""A version that fails is told of in the log: why, and whose; and a thousand failures are not a thousand lines."""

from collections.abc import Iterator
from typing import Any

import pytest
from aks_serving.errors import ModelRunError
from aks_serving.faults import MOST_TRACED, Faults
from aks_serving.tracing import traced

from shared.core import tracing
from shared.core.tracing import SpanKind, TraceContext
from shared.routing.plan import RoutePlan
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.handled import HandServer, Watched, plain
from tests.support.lines import json_lines
from tests.unit.functions.test_tracing import Spans

STABLE, CANDIDATE = models.table(), models.picky(limit=4)
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged of failures, as it is written where the log is JSON."""
    with json_lines("aks_serving.faults") as found:
        yield found


@pytest.fixture
def spans() -> Iterator[Spans]:
    found = Spans()
    tracing.install(found)
    yield found
    tracing.install(tracing.IDS_ALONE)


def canary() -> RoutePlan:
    plan = models.plan(5, *models.canary((1, STABLE), (2, CANDIDATE), 10_000))
    return plan.model_copy(update={"rollout_id": "r-9"})


@pytest.mark.anyio
async def test_a_candidates_failure_is_told_with_its_trace_endpoint_version_and_rollout_though_stable_answers(
    spans: Spans, lines: list[dict[str, Any]]
) -> None:
    server = HandServer(canary(), {1: Watched(STABLE), 2: Watched(CANDIDATE)}, inline=True)
    asked = plain([[7]])
    asked.headers = {b"traceparent": GIVEN.encode()}
    traced(server.api.handle)(asked)
    await eventually(lambda: bool(asked.replies))
    server.close()
    assert asked.status == 200
    (line,) = lines
    (span,) = spans.begun
    about = {"endpoint": "churn", "version": 2, "rollout_id": "r-9", "level": "WARNING"}
    assert line.items() >= about.items()
    assert (line["trace_id"], line["span_id"]) == (span.context.trace_id, span.context.span_id)
    assert span.context.trace_id == GIVEN[3:35]
    assert (span.about["failed_version"], span.about["version"]) == (2, 1)


def test_of_a_versions_failures_the_first_is_told_and_each_that_is_traced_with_how_many_were_not(
    lines: list[dict[str, Any]],
) -> None:
    faults, plan, error = Faults(), canary(), ModelRunError(2, "no")
    for _ in range(1_000):
        faults.tell(plan, 2, error, None)
    faults.tell(plan, 1, ModelRunError(1, "neither"), None)
    parent = TraceContext.parse(GIVEN)
    span = Spans().begin("predict", kind=SpanKind.SERVER, parent=parent, about={}, start_ns=0)
    faults.tell(plan, 2, error, span)
    assert [(line["version"], line["message"]) for line in lines] == [
        (2, "endpoint churn: version 2 failed on this request: no"),
        (1, "endpoint churn: version 1 failed on this request: neither"),
        (2, "endpoint churn: version 2 failed on this request: no (999 more since the last such line)"),
    ]
    assert ["trace_id" in line for line in lines] == [False, False, True]


def test_a_thousand_traced_failures_are_a_few_lines_a_second_and_the_next_line_says_how_many_more(
    lines: list[dict[str, Any]],
) -> None:
    seconds = [0.0]
    faults, plan = Faults(lambda: seconds[0]), canary()
    span = Spans().begin("predict", kind=SpanKind.SERVER, parent=TraceContext.parse(GIVEN), about={}, start_ns=0)
    for _ in range(1_000):
        faults.tell(plan, 2, ModelRunError(2, "no"), span)
    faults.tell(plan, 1, ModelRunError(1, "neither"), span)
    assert [line["version"] for line in lines] == [2] * MOST_TRACED + [1]
    seconds[0] = 1.0
    faults.tell(plan, 2, ModelRunError(2, "no"), span)
    assert lines[-1]["message"].endswith(f"({1_000 - MOST_TRACED} more since the last such line)")
