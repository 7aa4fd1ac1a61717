"""What becomes of a rollout command's message that cannot be carried out."""

import logging

import pytest

from functions.rollouts import carry_out
from shared.core.errors import ChangedMeanwhileError
from shared.core.messages import CommandKind, RolloutCommand
from shared.rollout.machine import RolloutState
from shared.store.ports import Container
from tests.world.world import ENDPOINT, MODEL, World

ABORT = RolloutCommand(command=CommandKind.ABORT, command_id="abort", endpoint=MODEL, requested_by="somebody")


def loading() -> World:
    """A world whose first rollout has just begun."""
    world = World()
    world.event(world.drop("one"))
    while not world.documents.query(Container.ENDPOINTS).items:
        world.step()
    return world


def touch(world: World) -> None:
    """Write the endpoint as another host would, changing nothing that it says."""
    key = (Container.ENDPOINTS, MODEL, "endpoint")
    world.documents.replace(key[0], world.documents.held[key].body, etag=world.documents.held[key].etag)


def test_a_command_that_other_writers_overtook_is_left_to_come_again() -> None:
    world = loading()

    def overtake() -> None:
        touch(world)
        world.documents.other_writers.append(overtake)

    world.documents.other_writers = [overtake]
    with pytest.raises(ChangedMeanwhileError):
        carry_out(world.rollouts.handle, ABORT)
    world.documents.other_writers = []
    assert world.endpoint().active is not None
    carry_out(world.rollouts.handle, ABORT)
    (rollout,) = world.rollouts.rollouts(ENDPOINT)
    assert rollout.state is RolloutState.ABORTED


def test_a_command_that_the_state_does_not_allow_is_told_to_the_log_and_does_not_come_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = loading()
    carry_out(world.rollouts.handle, ABORT)
    before = world.endpoint()
    with caplog.at_level(logging.WARNING):
        carry_out(world.rollouts.handle, ABORT.model_copy(update={"command_id": "again"}))
        carry_out(world.rollouts.handle, ABORT.model_copy(update={"endpoint": "nothing"}))
        nameless = {"command_id": "nameless", "command": CommandKind.ROLLBACK, "requested_by": " "}
        carry_out(world.rollouts.handle, ABORT.model_copy(update=nameless))
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "command again is refused",
        "command abort is refused",
        "command nameless is refused",
    ]
    assert world.endpoint() == before
