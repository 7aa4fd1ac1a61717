"""Lifecycle events on their way to sinks: each transition is told, through any kill, and twice under one id at most."""

import json
from typing import Any

import pytest

from shared.core.errors import NotFoundError, UnavailableError
from shared.core.messages import CommandKind, PublishEvent, Queue, RolloutCommand
from shared.events.cloudevents import is_lifecycle
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Stage
from shared.store.ports import Container
from tests.world.fakes import Fuse
from tests.world.world import ENDPOINT, MODEL, World

POLICY = Policy(rollout=RolloutPolicy(stages=(Stage(weight_bp=5_000, duration_s=5),), tick_s=5, watch_s=0))


def lived(*sinks: str) -> World:
    """A world in which version 1 serves, a drop was refused, version 2 rejected, and version 3 rolled back."""
    world = World(sinks=sinks)
    world.put_policy(POLICY)
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=20)
    for name, content in {"bad": "bad", "worse": "worse takes:x", "three": "three takes:x"}.items():
        world.event(world.drop(content, name=f"{name}.onnx"))
    world.pod.errors[3] = 1.0
    world.run(seconds=60)
    return world


def audited(world: World) -> dict[str, dict[str, Any]]:
    """The audit events that are to be told, by hash."""
    found = {}
    for (container, _, _), stored in world.documents.held.items():
        if container is Container.AUDIT:
            (event,) = (e for e in world.audit.events(stored.body["stream"]) if e.hash == stored.body["hash"])
            if is_lifecycle(event):
                found[event.hash] = event.model_dump(mode="json")
    return found


def test_every_transition_is_told_to_every_sink_once() -> None:
    world = lived("ops", "audit")
    clear(world)
    world.run(seconds=5)
    wanted = audited(world)
    for sink in world.sinks.values():
        assert sorted(event["id"] for event in sink.told) == sorted(wanted)
        for event in sink.told:
            assert event["data"] == wanted[event["id"]]["data"]
    told = {event["type"].removeprefix("com.slipway.") for event in world.sinks["ops"].told}
    assert told >= {
        "model.policy_set",
        "drop.drop_registered",
        "drop.drop_refused",
        "version.version_registered",
        "version.version_validated",
        "version.version_rejected",
        "endpoint.rollout_started",
        "endpoint.stage_started",
        "endpoint.rollout_promoted",
        "endpoint.rollout_rolled_back",
        "endpoint.version_quarantined",
        "endpoint.quarantine_cleared",
        "alias.alias_moved",
    }


def clear(world: World) -> None:
    world.rollouts.clear_quarantine(ENDPOINT, 3, by="ann", reason="it was the network")


def test_events_of_one_source_can_be_put_in_their_order() -> None:
    world = lived("ops")
    of_endpoint = [event for event in world.sinks["ops"].told if event["source"] == f"/slipway/endpoint/{MODEL}"]
    in_order = sorted(of_endpoint, key=lambda event: str(event["sequence"]))
    assert [event["time"] for event in in_order] == sorted(event["time"] for event in of_endpoint)
    assert len({event["sequence"] for event in of_endpoint}) == len(of_endpoint) > 4


def test_without_sinks_no_message_is_sent() -> None:
    world = lived()
    assert not [message for message in world.queues.messages if message[1] == Queue.LIFECYCLE_EVENTS]


def arm(world: World, fuse: Fuse) -> None:
    """Have every port's calls counted by this fuse."""
    world.documents.fuse = world.queues.fuse = world.blobs.fuse = fuse
    for sink in world.sinks.values():
        sink.fuse = fuse


# Every call in the long form.
@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_anywhere_from_drop_to_promotion_loses_no_event_and_tells_none_that_did_not_happen(stride: int) -> None:
    at, died = 0, True
    while died:
        at += stride
        world = World(sinks=["ops"])
        world.put_policy(POLICY)
        world.event(world.drop("one takes:x", name="one.onnx"))
        fuse = Fuse(at=at)
        arm(world, fuse)
        world.run(seconds=20)
        died = fuse.calls >= at
        arm(world, Fuse())
        world.run(seconds=150)
        assert {event["id"] for event in world.sinks["ops"].told} == set(audited(world)), at
        assert world.stable == 1
    assert at > 50


def test_a_kill_at_any_port_call_of_one_command_loses_no_event() -> None:
    at, died = 0, True
    while died:
        at += 1
        world = World(sinks=["ops"])
        world.put_policy(POLICY)
        world.event(world.drop("one takes:x", name="one.onnx"))
        world.run(seconds=2)
        abort = RolloutCommand(command=CommandKind.ABORT, command_id="stop", endpoint=MODEL, requested_by="ann")
        world.queues.send(Queue.ROLLOUT_COMMANDS, abort.model_dump_json())
        fuse = Fuse(at=at)
        arm(world, fuse)
        world.step()
        died = fuse.calls >= at
        arm(world, Fuse())
        world.run(seconds=61)
        told = [event["type"] for event in world.sinks["ops"].told]
        assert "com.slipway.endpoint.rollout_aborted" in told, at
        assert {event["id"] for event in world.sinks["ops"].told} == set(audited(world)), at
    assert at > 5


def test_an_event_that_cannot_be_announced_now_is_announced_by_the_sweep() -> None:
    world = World(sinks=["ops"])
    world.put_policy(POLICY)
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=2)

    def down() -> bool:
        raise UnavailableError("queue storage", "it is down")

    world.queues.loses = down
    # The plan goes out, and the record, while the events of the same write wait.
    world.rollouts.handle(
        RolloutCommand(command=CommandKind.ABORT, command_id="stop", endpoint=MODEL, requested_by="ann")
    )
    assert world.endpoint().outbox_pending
    world.queues.loses = lambda: False
    world.run(seconds=65)
    told = [event["type"] for event in world.sinks["ops"].told]
    assert told.count("com.slipway.endpoint.rollout_aborted") == 1
    assert {event["id"] for event in world.sinks["ops"].told} == set(audited(world))


def test_the_same_event_sent_twice_has_one_id() -> None:
    world = lived("ops")
    message = PublishEvent(stream=f"endpoint:{MODEL}", seq=1, sink="ops")
    before = len(world.sinks["ops"].told)
    world.events.publish(message)
    world.events.publish(message)
    one, two = world.sinks["ops"].told[before:]
    assert one == two
    assert one["id"] in {event["id"] for event in world.sinks["ops"].told[:before]}


def test_a_sink_that_is_down_has_the_message_tried_again_and_one_that_is_gone_is_left_out() -> None:
    world = lived("ops", "audit")
    message = PublishEvent(stream=f"endpoint:{MODEL}", seq=1, sink="ops")
    world.sinks["ops"].is_down = True
    with pytest.raises(UnavailableError):
        world.events.publish(message)
    before = {name: len(sink.told) for name, sink in world.sinks.items()}
    world.events.publish(message.model_copy(update={"sink": "long-gone"}))
    assert {name: len(sink.told) for name, sink in world.sinks.items()} == before


def test_an_event_that_the_audit_does_not_hold_is_not_told() -> None:
    world = lived("ops")
    before = len(world.sinks["ops"].told)
    with pytest.raises(NotFoundError, match="event 99 of audit stream"):
        world.events.publish(PublishEvent(stream=f"endpoint:{MODEL}", seq=99, sink="ops"))
    assert len(world.sinks["ops"].told) == before


def test_a_message_is_small_whatever_the_event_holds() -> None:
    world = World(sinks=["ops"])
    world.put_policy(
        Policy(rollout=RolloutPolicy(stages=tuple(Stage(weight_bp=n, duration_s=1) for n in range(1, 101))))
    )
    (sent,) = [body for _, queue, body in world.queues.messages if queue == Queue.LIFECYCLE_EVENTS]
    assert json.loads(sent).keys() == {"stream", "seq", "sink"}
    assert len(sent) < 200
