"""The queue messages: their wire form, their queues, and that each fits one message."""

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from shared.core.messages import (
    QUEUE_OF,
    CommandKind,
    Message,
    MoveAlias,
    PublishEvent,
    Queue,
    RegisterDrop,
    RolloutCommand,
    RolloutTick,
    ValidateVersion,
)

WIRE: list[tuple[BaseModel, dict[str, Any]]] = [
    (RegisterDrop(blob="m/model.onnx"), {"blob": "m/model.onnx"}),
    (ValidateVersion(model="m", version=3), {"model": "m", "version": 3}),
    (
        RolloutCommand(command=CommandKind.START, command_id="c1", endpoint="m", version=3, requested_by="ann"),
        {
            "command": "start",
            "command_id": "c1",
            "endpoint": "m",
            "version": 3,
            "rollout_id": None,
            "requested_by": "ann",
            "reason": "",
            "force": False,
            "override": False,
            "shadows": [],
            "weight_bp": None,
            "stage": None,
            "link_id": "",
        },
    ),
    (
        MoveAlias(
            model="m",
            alias="champion",
            version=3,
            generation=7,
            rollout_id="r1",
            at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
        {
            "model": "m",
            "alias": "champion",
            "version": 3,
            "only_from": None,
            "generation": 7,
            "rollout_id": "r1",
            "at": "2026-01-02T03:04:05Z",
            "reason": "",
        },
    ),
    (RolloutTick(endpoint="m", rollout_id="r1", tick=1), {"endpoint": "m", "rollout_id": "r1", "tick": 1}),
    (PublishEvent(stream="model:m", seq=7, sink="ops"), {"stream": "model:m", "seq": 7, "sink": "ops"}),
]
MESSAGES = pytest.mark.parametrize(("message", "wire"), WIRE, ids=lambda value: type(value).__name__)


@MESSAGES
def test_a_message_has_this_wire_form(message: BaseModel, wire: dict[str, Any]) -> None:
    assert json.loads(message.model_dump_json()) == wire
    assert type(message).model_validate_json(json.dumps(wire)) == message


@MESSAGES
def test_an_unknown_field_is_refused(message: BaseModel, wire: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        type(message).model_validate(wire | {"unknown": 1})


@MESSAGES
def test_a_message_without_its_first_field_is_refused(message: BaseModel, wire: dict[str, Any]) -> None:
    first = next(iter(wire))
    with pytest.raises(ValidationError, match=first):
        type(message).model_validate({name: value for name, value in wire.items() if name != first})


def test_every_message_has_a_queue_of_its_own() -> None:
    assert set(QUEUE_OF) == set(get_args(Message.__value__))
    # Event Grid fills that one, with events of its own form.
    assert sorted(QUEUE_OF.values()) == sorted(set(Queue) - {Queue.DROP_EVENTS})


@pytest.mark.parametrize("queue", Queue)
def test_a_queue_and_its_poison_queue_have_names_that_azure_takes(queue: Queue) -> None:
    for name in (queue.value, f"{queue.value}-poison"):
        assert 3 <= len(name) <= 63
        assert name.replace("-", "").isalnum()
        assert name.islower()
        assert "--" not in name


@pytest.mark.parametrize("command_id", ["", "x" * 201])
def test_a_command_id_has_1_to_200_characters(command_id: str) -> None:
    with pytest.raises(ValidationError, match="command_id"):
        RolloutCommand(command=CommandKind.ABORT, command_id=command_id, endpoint="m", requested_by="ann")
