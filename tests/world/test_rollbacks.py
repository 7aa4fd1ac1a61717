"""Rollbacks: how soon a fault takes the candidate back, to which version, for whom, and what is on record of it."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.messages import CommandKind
from shared.registry.aliases import CHAMPION
from shared.registry.rollout_policy import Strategy
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Trigger
from tests.world.strategies import (
    SLOW_STAGES,
    alter,
    give,
    policy,
    published,
    rollout,
    run_until,
    start,
    state,
    weight_bp,
    world_with,
)
from tests.world.twins import twin
from tests.world.world import ENDPOINT, MODEL, Pod, World

ROLLBACK = CommandKind.ROLLBACK
TICK_S = 5


def promoted(*versions: int, count: int = 0) -> World:
    """A world in which versions were promoted one after the other, version 1 first."""
    world = world_with(versions=max(*versions, count), strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    for version in versions:
        start(world, version)
        run_until(world, RolloutState.PROMOTED)
    return world


# From the fault to no traffic.


def errs(pod: Pod) -> None:
    pod.errors = {2: 0.5}


def is_slow(pod: Pod) -> None:
    pod.latency_ms = {2: 2_000.0}


def fills_its_memory(pod: Pod) -> None:
    pod.memory_share = 0.95


def loses_it(pod: Pod) -> None:
    pod.unloadable = {2: "its file is gone"}


def trips(pod: Pod) -> None:
    pod.tripped = {2: "it failed 9 of 9 requests"}


@pytest.fixture(scope="module")
def in_stage() -> World:
    world = world_with(tick_s=TICK_S, stages=SLOW_STAGES)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    return world


@pytest.fixture(scope="module")
def watched() -> World:
    world = world_with(tick_s=TICK_S, watch_s=120)
    start(world)
    run_until(world, RolloutState.WATCHING)
    return world


@pytest.mark.parametrize("fixture", ["in_stage", "watched"])
@pytest.mark.parametrize(
    ("befall", "trigger", "within"),
    [
        (errs, Trigger.ERROR_RATE, 2),
        (is_slow, Trigger.LATENCY, 2),
        (loses_it, Trigger.HEALTH, 2),
        (trips, Trigger.GUARD, 2),
        (fills_its_memory, Trigger.MEMORY, 3),
    ],
)
def test_two_ticks_after_a_fault_at_the_most_the_candidate_has_no_traffic(
    befall: Callable[[Pod], None], trigger: Trigger, within: int, fixture: str, request: pytest.FixtureRequest
) -> None:
    """Under the default failure limit of three, whenever between two ticks the fault begins, and though the first of
    them is just too early to see it. A full memory must be seen twice.
    """
    for second in range(TICK_S):
        world = twin(request.getfixturevalue(fixture))
        world.run(seconds=10 + second)
        assert weight_bp(world) > 0
        ticks = rollout(world).tick
        befall(world.pod)
        while rollout(world).tick < ticks + within and weight_bp(world):
            world.run(seconds=1)
        assert (weight_bp(world), state(world)) == (0, RolloutState.ROLLED_BACK)
        assert world.rollouts.rollbacks(ENDPOINT)[0].trigger is trigger


# To which version.


@pytest.mark.parametrize("by", ["slipway", "bob"])
def test_where_stable_itself_was_altered_the_candidate_gives_way_to_the_last_known_good_version(by: str) -> None:
    world = promoted(2, 3, count=4)
    world.put_policy(policy())
    start(world, 4)
    run_until(world, RolloutState.PROGRESSING)
    alter(world, 3)
    if by == "slipway":
        world.pod.errors[4] = 0.5
    else:
        give(world, ROLLBACK, by=by)
    run_until(world, RolloutState.ROLLED_BACK, within_s=5)
    assert [(route.version, route.weight_bp) for route in published(world).routes] == [(2, 10_000)]
    assert {found.version for found in world.endpoint().quarantined} == {3, 4}
    found = world.rollouts.rollbacks(ENDPOINT)[0]
    assert (found.from_version, found.to_version, found.by) == (4, 2, by)


def test_an_altered_stable_version_without_a_better_one_goes_on_serving() -> None:
    world = world_with()
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    alter(world, 1)
    give(world, ROLLBACK)
    assert (world.stable, state(world)) == (1, RolloutState.ROLLED_BACK)
    assert not world.endpoint().is_quarantined(1)


def test_what_is_taken_back_is_nothing_to_go_back_to_though_it_was_good_once() -> None:
    world = promoted(2, 3)
    world.put_policy(policy())
    start(world, 2, "again")
    run_until(world, RolloutState.PROGRESSING)
    alter(world, 3)
    with pytest.raises(ConflictError, match="version 2 is what is taken back: name another version"):
        give(world, ROLLBACK, version=2)
    assert state(world) is RolloutState.PROGRESSING
    give(world, ROLLBACK)
    assert world.stable == 1
    assert {found.version for found in world.endpoint().quarantined} == {2, 3}


@pytest.mark.parametrize(("reason", "said"), [("customers wait", "customers wait"), ("", "rollback by ann")])
def test_the_champion_s_history_says_why_a_promoted_version_was_taken_back(reason: str, said: str) -> None:
    world = promoted(2, 3)
    give(world, ROLLBACK, by="ann", reason=reason)
    world.run(seconds=10)
    latest = world.aliases.history(MODEL, CHAMPION).items[0]
    assert (latest.version, latest.reason) == (2, said)


# For whom: two people who see the same fault.


def test_of_two_rollbacks_of_a_promoted_version_the_second_does_not_take_the_good_one_back() -> None:
    world = promoted(2, 3)
    give(world, ROLLBACK, "ann's", by="ann")
    with pytest.raises(ConflictError, match="and version 2 serves"):
        give(world, ROLLBACK, "bob's", by="bob")
    assert (world.stable, world.endpoint().is_quarantined(2)) == (2, False)
    world.run(seconds=10)
    with pytest.raises(ConflictError, match=r"name the version to go back to \(1\)"):
        give(world, ROLLBACK, "bob's later", by="bob")
    give(world, ROLLBACK, "meant", version=1)
    assert world.stable == 1


def test_a_rollback_after_an_abort_names_the_version_lest_it_takes_a_good_one_back() -> None:
    world = promoted(2, 3, count=4)
    world.put_policy(policy())
    start(world, 4)
    give(world, CommandKind.ABORT)
    with pytest.raises(ConflictError, match="and version 3 serves"):
        give(world, ROLLBACK, "one")
    assert world.stable == 3
    give(world, ROLLBACK, "meant", version=2)
    assert world.stable == 2


def test_a_version_in_quarantine_stays_there_until_somebody_who_gives_a_name_and_a_reason_clears_it() -> None:
    world = world_with()
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    give(world, ROLLBACK)
    world.put_policy(policy(automatic=True))
    before = world.endpoint().quarantined
    for by, reason in ((" ", "it is fit"), ("ann", "")):
        with pytest.raises(InvalidInputError, match="needs a name and a reason"):
            world.rollouts.clear_quarantine(ENDPOINT, 2, by=by, reason=reason)
    world.clock.pass_s(timedelta(days=100).total_seconds())
    world.run(seconds=130)
    assert world.endpoint().quarantined == before
    with pytest.raises(ConflictError, match="version 2 of digits is quarantined"):
        start(world, 2, "again")
    world.rollouts.clear_quarantine(ENDPOINT, 2, by="ann", reason="the network was down")
    (event,) = [found for found in world.audit.events(f"endpoint:{MODEL}") if found.kind == "quarantine_cleared"]
    assert (event.data["version"], event.data["by"], event.data["reason"]) == (2, "ann", "the network was down")
    with pytest.raises(NotFoundError, match="version 2 in quarantine"):
        world.rollouts.clear_quarantine(ENDPOINT, 2, by="ann", reason="again")
    start(world, 2, "again")
    run_until(world, RolloutState.PROMOTED)


# On record.


def test_a_rollback_long_after_the_promotion_is_confirmed_from_what_the_pods_wrote_since() -> None:
    world = promoted(2)
    for minutes in (60,) * 60 + (1,) * 100:
        world.clock.pass_s(timedelta(minutes=minutes).total_seconds())
        world.pod.report(world.blobs, world.clock, ENDPOINT)
    world.blobs.reads.clear()
    give(world, ROLLBACK)
    world.run(seconds=5)
    (found,) = world.rollouts.rollbacks(ENDPOINT)
    assert found.zero_traffic_at is not None
    assert len([name for name in world.blobs.reads if name.startswith(f"{ENDPOINT}/")]) < 20


def test_a_tick_after_a_long_outage_of_the_hosts_reads_an_hour_of_windows_and_no_more() -> None:
    world = world_with(strategy=Strategy.SPLIT)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    for _ in range(48):
        world.clock.pass_s(timedelta(minutes=30).total_seconds())
        world.pod.report(world.blobs, world.clock, ENDPOINT)
    world.blobs.reads.clear()
    world.step()
    assert len([name for name in world.blobs.reads if name.startswith(f"{ENDPOINT}/")]) == 3
    assert state(world) is RolloutState.PROGRESSING


def test_a_rollback_is_not_confirmed_by_the_pods_that_the_next_rollout_happens_to_see_first() -> None:
    world = world_with(versions=3, pods=2)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    late = world.others[0]
    late.is_stuck = late.is_silent = True
    world.run(seconds=3)
    give(world, ROLLBACK)
    start(world, 3)
    world.run(seconds=4)
    late.is_silent = False
    world.run(seconds=36)
    assert [(found.from_version, found.zero_traffic_at) for found in world.rollouts.rollbacks(ENDPOINT)] == [(2, None)]
    late.is_stuck = False
    world.run(seconds=5)
    (found,) = world.rollouts.rollbacks(ENDPOINT)
    assert found.zero_traffic_at is not None
    assert world.endpoint().rollback is None


@pytest.mark.parametrize("command", [ROLLBACK, CommandKind.ABORT])
def test_pods_that_applied_it_and_then_fell_silent_have_applied_it(command: CommandKind) -> None:
    world = world_with()
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    give(world, command)
    world.pod.report(world.blobs, world.clock, ENDPOINT)
    world.pod.is_silent = True
    # No tick runs until the pod's word is old.
    world.clock.pass_s(60)
    world.run(seconds=3)
    endpoint = world.endpoint()
    assert (endpoint.rollback, endpoint.unapplied) == (None, None)
    assert all(found.zero_traffic_at is not None for found in world.rollouts.rollbacks(ENDPOINT))


def test_the_rollbacks_of_all_endpoints_are_those_of_each_whether_or_not_they_are_delivered() -> None:
    world = promoted(2, 3)
    give(world, ROLLBACK, "one")
    give(world, ROLLBACK, "two", version=1)
    for _ in range(2):
        endpoint = world.endpoint()
        found = world.rollouts.rollbacks_of_all([endpoint, Endpoint(endpoint="other")], [])
        assert [(one.from_version, one.to_version) for one in found[ENDPOINT]] == [(3, 2), (2, 1)]
        assert found["other"] == []
        world.run(seconds=5)
