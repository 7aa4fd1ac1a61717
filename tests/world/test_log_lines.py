"""Lines of ticks, looks at drift and alerts, as they are written: each says in which trace, and what it is about."""

import pytest

from functions._messages import handle_body
from shared.alerts.documents import AlertRule
from shared.core import tracing
from shared.core.messages import Queue, RolloutTick
from shared.core.tracing import TraceContext
from tests.support.lines import json_lines
from tests.unit.functions.test_tracing import Letters
from tests.world.strategies import policy
from tests.world.world import ENDPOINT, MODEL, World


class Ticked(World):
    """A world whose ticks are handled as the functions app handles them."""

    def handle(self, queue: str, body: str) -> None:
        if queue != Queue.ROLLOUT_TICKS:
            super().handle(queue, body)
            return
        data = body.encode()
        handle_body(Letters(), Queue.ROLLOUT_TICKS, data, RolloutTick, self.rollouts.tick, message_id="m-1")


def test_the_line_of_a_tick_says_which_trace_rollout_and_version() -> None:
    world = Ticked()
    world.put_policy(policy(automatic=True))
    with json_lines("functions") as lines:
        world.event(world.drop("content"))
        world.run(seconds=60)
    rollout = world.endpoint().rollout
    assert rollout is not None
    ticks = [line for line in lines if line["message"].startswith("process rollout-ticks: done")]
    about = {"queue": "rollout-ticks", "endpoint": ENDPOINT, "rollout_id": rollout.rollout_id, "version": 1}
    assert any(line.items() >= about.items() for line in ticks)
    assert all(line.keys() >= {"trace_id", "span_id", "tick", "message_id"} for line in ticks)


def test_the_line_of_a_look_at_drift_that_fails_says_which_trace_and_endpoint() -> None:
    world = World()
    world.put_policy(policy(automatic=True))
    world.event(world.drop("content"))
    world.run(seconds=200)
    assert world.stable == 1
    for key in [key for key, held in world.documents.held.items() if held.body.get("kind") == "model"]:
        del world.documents.held[key]
    with json_lines("shared.watching") as lines, tracing.span("timer watch_drift") as span:  # noqa: SIM117 - the span's
        with pytest.raises(ExceptionGroup):
            world.watching.watch()
    (line,) = [line for line in lines if line["level"] == "ERROR"]
    assert line["message"] == f"endpoint {ENDPOINT} is not watched"
    assert (line["trace_id"], line["endpoint"]) == (span.context.trace_id, ENDPOINT)
    assert "NotFoundError" in line["exception"]


def test_an_alert_is_told_of_where_it_changes_and_says_what_it_is_about() -> None:
    world = World()
    given = TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    evidence = {"version": 3, "rollout_id": "r-1", "report_id": "d-1", "hours": [1]}
    with json_lines("shared.alerts") as lines, tracing.span("process rollout-ticks", parent=given):
        for _ in range(2):
            world.alerts.fire(AlertRule.DATA_DRIFT, "version:m:3:stable", "it drifted", model=MODEL, evidence=evidence)
            world.clock.pass_s(60)
        for _ in range(2):
            world.alerts.resolve(AlertRule.DATA_DRIFT, "version:m:3:stable", "it is over", model=MODEL)
            world.clock.pass_s(60)
    assert [line["message"] for line in lines] == [
        "alert data_drift about version:m:3:stable is firing: it drifted",
        "alert data_drift about version:m:3:stable is resolved: it is over",
    ]
    about = {"model": MODEL, "rule": "data_drift", "version": 3, "rollout_id": "r-1", "report_id": "d-1"}
    assert all(line.items() >= about.items() for line in lines)
    assert {line["trace_id"] for line in lines} == {"0af7651916cd43dd8448eb211c80319c"}
    assert all("hours" not in line for line in lines)
