"""Whatever two hosts do to an endpoint at once, it stands as if one had come after the other, and holds together."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from itertools import product

import pytest

from shared.core.errors import SlipwayError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, Queue, RolloutTick
from shared.registry.aliases import alias_name
from shared.registry.commands import SetAlias
from shared.registry.documents import VersionState
from shared.registry.policy import RetentionPolicy
from shared.registry.rollout_policy import WhenBusy
from shared.retention.uses import Uses
from shared.rollout.machine import RolloutState
from shared.rollout.stored_plans import StoredPlans
from tests.world.interleaving import LATER_S, interleaved
from tests.world.strategies import give, policy, published, run_until, start, world_with
from tests.world.twins import twin
from tests.world.world import ENDPOINT, MODEL, World

type Operation = Callable[[World], object]
NEXT = 3


@cache
def rolling() -> World:
    """A world that rolls version 2 out, of which a tick is due, and that has a third version, long validated."""
    world = world_with(versions=3, tick_s=5, when_busy=WhenBusy.SUPERSEDE)
    world.clock.pass_s(30 * 24 * 3_600)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING)
    world.clock.pass_s(5)
    world.pod.report(world.blobs, world.clock, ENDPOINT)
    return world


def tick(world: World) -> None:
    due = [body for _, queue, body in world.queues.messages if queue is Queue.ROLLOUT_TICKS]
    world.rollouts.tick(RolloutTick.model_validate_json(due[0]))


def republish(world: World) -> None:
    StoredPlans(endpoints=world.rollouts._endpoints, blobs=world.blobs, clock=world.clock).republish(
        ENDPOINT, by="ann", reason="to be sure"
    )


def archive(world: World, version: int) -> None:
    world.rollouts.archive(MODEL, VersionNumber(version), by="ann", reason="old")


def name_it(world: World) -> None:
    world.aliases.set(
        SetAlias(
            model=MODEL,
            alias=alias_name("favourite"),
            version=VersionNumber(NEXT),
            expected_version="any",
            by="ann",
            reason="it is good",
            command_id="name",
        )
    )


def retain(world: World) -> None:
    """Retention that keeps the latest version alone, which is not the one that is asked for here."""
    kept = policy().model_copy(update={"retention": RetentionPolicy(keep_latest=1, keep_days=7)})
    world.put_policy(kept)
    world.retention.run(MODEL, world.retention.plan(MODEL).plan_id, by="ann")


OPERATIONS: dict[str, Operation] = {
    "tick": tick,
    "abort": partial(give, command=CommandKind.ABORT),
    "promote": partial(give, command=CommandKind.PROMOTE),
    "roll back": partial(give, command=CommandKind.ROLLBACK),
    "start": lambda world: start(world, NEXT),
    "archive": partial(archive, version=NEXT),
    "archive stable": partial(archive, version=1),
    "alias": name_it,
    "retain": retain,
    "republish": republish,
    "sweep": lambda world: world.sweep.sweep(),
}


SHORT = [("tick", "abort"), ("start", "archive"), ("archive", "start"), ("archive", "alias"), ("alias", "archive")]


def come_to_rest(world: World) -> None:
    """What is due is delivered, and the sweep runs."""
    for _ in range(2):
        while world.step():
            pass
        world.sweep.sweep()


def standing(world: World) -> tuple[object, ...]:
    """Who serves, what is rolled out, what aliases name, and what is archived."""
    endpoint = world.endpoint()
    states = {number: world.registry.version(MODEL, VersionNumber(number)).state for number in (1, 2, NEXT)}
    rollouts = [(one.candidate.version, one.state) for one in world.rollouts.rollouts(ENDPOINT)]
    return world.stable, rollouts, endpoint.queued_version, world.aliases.named(MODEL), states


def check_whole(world: World) -> None:
    """Nothing is lost or half done, and nothing that is in use is archived."""
    assert world.audit.verify().problems == []
    assert not [key for key, held in world.documents.held.items() if held.body.get("outbox_pending")]
    assert published(world) == world.endpoint().plan()
    used = Uses(endpoints=world.rollouts._endpoints, aliases=world.aliases._aliases).of(MODEL)
    states = {number: world.registry.version(MODEL, VersionNumber(number)).state for number in used}
    assert VersionState.ARCHIVED not in states.values(), used


def in_turn(one: Operation, other: Operation) -> tuple[object, ...]:
    """How the world stands where one came after the other."""
    world = twin(rolling())
    for operation in (one, other):
        with suppress(SlipwayError):
            operation(world)
        world.clock.pass_s(LATER_S)
    come_to_rest(world)
    return standing(world)


def check(one: Operation, other: Operation) -> None:
    ends = in_turn(one, other), in_turn(other, one)
    for world in interleaved(lambda: twin(rolling()), one, other):
        come_to_rest(world)
        check_whole(world)
        assert standing(world) in ends


@pytest.mark.parametrize(("one", "other"), SHORT)
def test_an_endpoint_stands_as_if_one_had_come_after_the_other(one: str, other: str) -> None:
    check(OPERATIONS[one], OPERATIONS[other])


@pytest.mark.long
@pytest.mark.parametrize(("one", "other"), [pair for pair in product(OPERATIONS, OPERATIONS) if pair not in SHORT])
def test_an_endpoint_stands_as_if_one_of_any_two_had_come_after_the_other(one: str, other: str) -> None:
    check(OPERATIONS[one], OPERATIONS[other])
