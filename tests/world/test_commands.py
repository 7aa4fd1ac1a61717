"""Commands to rollouts through the service: once each, in their states, one rollout at a time; and rollbacks."""

import random
from dataclasses import replace
from typing import Any

import pytest

from shared.core.errors import ChangedMeanwhileError, ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, Queue, RolloutCommand, RolloutTick
from shared.registry.aliases import CHAMPION
from shared.registry.rollout_policy import Otherwise, Strategy, WhenBusy
from shared.rollout import reverts
from shared.rollout.endpoint import ENDPOINT_ID
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Trigger
from shared.rollout.standing import standing
from shared.store.ports import Container
from tests.world.strategies import (
    STAGES,
    alter,
    change,
    give,
    policy,
    published,
    quarantine,
    rollout,
    run_until,
    start,
    state,
    weight_bp,
    weights_of,
    world_with,
)
from tests.world.world import ENDPOINT, GRACE, MODEL, World

START, ABORT, PROMOTE = CommandKind.START, CommandKind.ABORT, CommandKind.PROMOTE


def under_way(**rollout: Any) -> World:
    world = world_with(**rollout)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    return world


def promoted(*versions: int, count: int = 0) -> World:
    """A world in which versions were promoted one after the other, version 1 first."""
    world = world_with(versions=max(*versions, count, 2), strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    for version in versions:
        start(world, version)
        run_until(world, RolloutState.PROMOTED)
    return world


def test_pausing_holds_the_weight_and_resuming_has_the_stage_last_as_long_again() -> None:
    world = under_way()
    world.run(seconds=9)
    give(world, CommandKind.PAUSE)
    world.run(seconds=60)
    assert (state(world), weight_bp(world)) == (RolloutState.PAUSED, 1_000)
    give(world, CommandKind.RESUME)
    world.run(seconds=8)
    assert rollout(world).stage == 0
    assert weights_of(world) == [1_000, 5_000, 10_000, 0]


@pytest.mark.parametrize("halted", [RolloutState.PAUSED, RolloutState.HELD])
def test_a_halted_rollout_is_taken_back_when_it_fails(halted: RolloutState) -> None:
    world = under_way(on_inconclusive=Otherwise.HOLD, max_stage_s=10)
    if halted is RolloutState.PAUSED:
        give(world, CommandKind.PAUSE)
    else:
        world.pod.requests = 0
        run_until(world, RolloutState.HELD)
        world.pod.requests = 1_000
    world.pod.errors[2] = 0.5
    run_until(world, RolloutState.ROLLED_BACK, within_s=5)


def test_a_skipped_stage_leads_to_the_next_and_past_the_last_to_the_switch_by_a_named_person() -> None:
    world = under_way()
    give(world, CommandKind.SKIP)
    assert (rollout(world).stage, weight_bp(world)) == (1, 5_000)
    give(world, CommandKind.SKIP, "again", by="cy")
    assert (state(world), rollout(world).promoted_by) == (RolloutState.WATCHING, "cy")


def test_a_set_weight_ramps_within_the_stage_and_keeps_who_has_the_candidate() -> None:
    world = under_way()
    salt = published(world).salt
    give(world, CommandKind.SET_WEIGHT, weight_bp=2_000)
    assert (weight_bp(world), published(world).salt) == (2_000, salt)
    assert weights_of(world) == [2_000, 5_000, 10_000, 0]


def test_a_weight_is_less_than_all_traffic_which_a_named_person_gives_by_a_promotion() -> None:
    world = under_way()
    with pytest.raises(InvalidInputError, match="promote it"):
        give(world, CommandKind.SET_WEIGHT, weight_bp=10_000)
    assert weight_bp(world) == 1_000


def test_a_later_stage_takes_back_nothing_of_a_weight_that_was_set() -> None:
    world = under_way()
    give(world, CommandKind.SET_WEIGHT, weight_bp=8_000)
    assert weights_of(world) == [8_000, 10_000, 0]


def test_who_skips_to_an_approval_of_the_switch_promotes_whoever_approves() -> None:
    world = under_way(switch_approval=True)
    give(world, CommandKind.SKIP, "one", by="cy")
    give(world, CommandKind.SKIP, "two", by="cy")
    give(world, CommandKind.APPROVE, by="dee")
    assert (state(world), rollout(world).promoted_by) == (RolloutState.WATCHING, "cy")


@pytest.mark.parametrize("command", [CommandKind.REJECT, CommandKind.ABORT])
def test_who_skipped_to_an_approval_that_was_refused_promoted_nothing(command: CommandKind) -> None:
    world = under_way(switch_approval=True)
    give(world, CommandKind.SKIP, "one", by="cy")
    give(world, CommandKind.SKIP, "two", by="cy")
    assert rollout(world).promoted_by == "cy"
    give(world, command, by="dee")
    assert (state(world), rollout(world).promoted_by) == (RolloutState.ABORTED, "")


def test_somebody_who_sets_the_weight_again_and_again_does_not_keep_a_slow_candidate_alive() -> None:
    world = under_way(failure_limit=3)
    world.pod.latency_ms = {2: 900.0}
    for n in range(30):
        world.run(seconds=2)
        if state(world) is not RolloutState.PROGRESSING:
            break
        give(world, CommandKind.SET_WEIGHT, f"step {n}", weight_bp=1_000 + n)
    assert state(world) is RolloutState.ROLLED_BACK


def test_a_command_that_comes_again_after_another_rollout_began_does_nothing_to_it() -> None:
    world = under_way(versions=3)
    give(world, CommandKind.ABORT, "abort-2")
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING)
    before = world.endpoint().model_dump_json()
    give(world, CommandKind.ABORT, "abort-2")
    start(world, 2)
    assert world.endpoint().model_dump_json() == before
    with pytest.raises(NotFoundError, match="only the latest one hears"):
        give(world, CommandKind.ABORT, "new", rollout_id="rollout-000002-xxx")


def test_commands_that_come_twice_late_and_shuffled_end_as_when_they_came_once() -> None:
    def lived(seed: int | None) -> tuple[list[tuple[str, str]], int | None, list[int]]:
        world = world_with(versions=3)
        rng = random.Random(seed)
        copies = 1 if seed is None else 3
        sent = [(0, START, "a", 2), (8, ABORT, "b", None), (10, START, "c", 3), (16, PROMOTE, "d", None)]
        for at, kind, command_id, version in sent:
            command = RolloutCommand(
                command=kind, command_id=command_id, endpoint=ENDPOINT, version=version, requested_by="ann"
            )
            for copy in range(copies):
                delay_s = at if copy == 0 else at + rng.randint(0, 40)
                world.queues.send(Queue.ROLLOUT_COMMANDS, command.model_dump_json(), delay_s=delay_s)
        world.run(seconds=70)
        return (
            sorted((one.rollout_id, one.state.value) for one in world.rollouts.rollouts(ENDPOINT)),
            world.stable,
            [found.version for found in world.endpoint().quarantined],
        )

    expected = lived(None)
    assert expected[1] == 3
    assert [lived(seed) for seed in range(3)] == [expected] * 3


# One rollout at a time.


def test_a_second_rollout_is_refused_by_default() -> None:
    world = under_way(versions=3)
    with pytest.raises(ConflictError, match="of version 2 is under way on endpoint digits: promote or abort it first"):
        start(world, 3)
    assert world.endpoint().queued_version is None


def test_a_second_rollout_supersedes_the_first_which_is_aborted_without_blame() -> None:
    world = under_way(versions=3, when_busy=WhenBusy.SUPERSEDE)
    start(world, 3)
    assert [one.state for one in world.rollouts.rollouts(ENDPOINT)[-2:]] == [RolloutState.ABORTED, RolloutState.LOADING]
    assert not world.endpoint().is_quarantined(2)
    with pytest.raises(ConflictError, match="of version 3 is under way"):
        start(world, 3, "again")
    run_until(world, RolloutState.PROMOTED)
    assert world.stable == 3


def test_a_queued_rollout_starts_when_the_active_one_ends_though_its_message_is_lost() -> None:
    world = under_way(versions=3, when_busy=WhenBusy.QUEUE)
    assert start(world, 3, "third") is None
    assert start(world, 3, "third") is None
    assert world.endpoint().queued_version == 3
    world.queues.loses = lambda: True
    give(world, CommandKind.ABORT)
    world.queues.loses = lambda: False
    world.queues.messages.clear()
    assert world.endpoint().active is None
    world.clock.pass_s(GRACE.total_seconds() + 1)
    world.sweep.sweep()
    world.run(seconds=2)
    found = rollout(world)
    assert (found.candidate.version, found.requested_by, world.endpoint().queued_version) == (3, "ann", None)
    assert start(world, 3, "third") is not None


def test_the_latest_command_waits_in_place_of_the_one_before_and_that_one_does_not_come_back() -> None:
    world = under_way(versions=4, when_busy=WhenBusy.QUEUE)
    start(world, 3, "third")
    start(world, 4, "fourth")
    start(world, 3, "third")
    assert world.endpoint().queued_version == 4
    events = [e.data for e in world.audit.events("endpoint:digits") if e.kind == "rollout_queued"]
    assert [(e["version"], e["instead_of"]) for e in events] == [(3, None), (4, 3)]


def test_what_policy_asks_for_does_not_take_the_place_of_what_somebody_asked_for() -> None:
    world = under_way(versions=3, when_busy=WhenBusy.QUEUE)
    start(world, 3, "third")
    world.put_policy(policy(automatic=True, when_busy=WhenBusy.QUEUE))
    world.event(world.drop("content 4", name="4.onnx"))
    while world.step():
        pass
    assert world.endpoint().queued_command is not None
    assert world.endpoint().queued_version == 3
    world.run(seconds=400)
    assert world.stable == 4


@pytest.mark.parametrize("why", ["quarantined", "altered", "stable"])
def test_what_waits_and_cannot_begin_any_more_waits_no_longer(why: str) -> None:
    world = under_way(versions=3, when_busy=WhenBusy.QUEUE)
    start(world, 3, "third")
    if why == "altered":
        alter(world, 3)
    elif why == "quarantined":
        quarantine(world, 3)
    else:
        target = rollout(world).candidate.model_copy(update={"version": 3})
        change(world, lambda endpoint: reverts.make_stable(endpoint, target))
    give(world, CommandKind.ABORT)
    while world.step():
        pass
    endpoint = world.endpoint()
    assert (endpoint.active, endpoint.queued_version) == (None, None)
    assert endpoint.refused is not None
    assert endpoint.refused.version == 3


def test_what_waits_waits_on_when_other_writers_were_first_each_time_it_was_to_begin() -> None:
    world = under_way(versions=3, when_busy=WhenBusy.QUEUE)
    start(world, 3, "third")
    world.queues.loses = lambda: True
    give(world, CommandKind.ABORT)
    world.queues.loses = lambda: False
    world.documents.other_writers = [lambda: _write(world)] * 20
    with pytest.raises(ChangedMeanwhileError):
        start(world, 3, "third")
    assert (world.endpoint().queued_version, world.endpoint().refused) == (3, None)
    assert start(world, 3, "third") is not None


def _write(world: World) -> None:
    """Write the endpoint as it stands, as another process might."""
    key = (Container.ENDPOINTS, ENDPOINT, ENDPOINT_ID)
    world.documents.held[key] = replace(world.documents.held[key], etag=str(next(world.documents.etags)))


def test_what_waits_cannot_be_archived_and_one_in_quarantine_is_not_queued() -> None:
    world = under_way(versions=4, when_busy=WhenBusy.QUEUE)
    start(world, 3)
    with pytest.raises(ConflictError, match="version 3 of digits waits for its rollout"):
        world.rollouts.archive(MODEL, VersionNumber(3), by="ann", reason="old")
    quarantine(world, 4)
    with pytest.raises(ConflictError, match="version 4 of digits is quarantined"):
        start(world, 4)


# Rollbacks.


@pytest.mark.parametrize("wanted", [s for s in RolloutState if not s.is_over])
def test_a_rollback_from_every_active_state_is_published_at_once(wanted: RolloutState) -> None:
    world = under_way(on_inconclusive=Otherwise.HOLD, max_stage_s=10)
    bring_to(world, wanted)
    assert state(world) is wanted
    at = world.clock.now()
    give(world, CommandKind.ROLLBACK, "back")
    assert world.clock.now() == at
    assert [(route.version, route.weight_bp) for route in published(world).routes] == [(1, 10_000)]
    assert world.endpoint().is_quarantined(2)
    world.run(seconds=5)
    (found,) = world.rollouts.rollbacks(ENDPOINT)
    assert (found.trigger, found.from_version, found.to_version, found.by) == (Trigger.MANUAL, 2, 1, "bob")
    assert found.zero_traffic_at is not None
    assert (found.zero_traffic_at - found.detected_at).total_seconds() <= 1


def test_a_promoted_version_is_taken_back_to_the_last_known_good_one_and_a_second_rollback_must_name_it() -> None:
    world = promoted(2, 3)
    give(world, CommandKind.ROLLBACK, "one")
    assert (world.stable, world.endpoint().is_quarantined(3)) == (2, True)
    assert published(world).stable is not None
    give(world, CommandKind.ROLLBACK, "one")
    assert world.stable == 2
    world.run(seconds=5)
    assert [(r.from_version, r.to_version, r.rollout_id) for r in world.rollouts.rollbacks(ENDPOINT)] == [(3, 2, None)]
    assert world.aliases.named(MODEL)[2] == ["champion", "production"]


def test_the_rollout_of_a_promoted_version_says_that_it_was_taken_back_since_and_no_other_does() -> None:
    world = promoted(2, 3)
    give(world, CommandKind.ROLLBACK, "one", by="bob", reason="it forgets")
    latest = world.endpoint().rollout
    assert latest is not None and latest.reverted is not None  # noqa: PT018 - for the type
    back = latest.reverted
    assert (latest.state, back.to_version, back.by, back.reason) == (RolloutState.PROMOTED, 2, "bob", "it forgets")
    world.run(seconds=5)
    said = standing(world.endpoint(), latest, world.clock.now()).sentence
    assert said == "nothing: it is promoted, and was taken back since for version 2: it forgets"
    # Version 1, which serves then, was not made stable by the rollout that is the latest.
    give(world, CommandKind.ROLLBACK, "two", version=1)
    latest = world.endpoint().rollout
    assert latest is not None
    assert latest.reverted == back


def test_that_a_promoted_version_was_taken_back_is_told_after_other_rollouts_began_and_of_its_latest_alone() -> None:
    world = promoted(1, 2, count=3)
    give(world, CommandKind.ROLLBACK, "one", by="bob", reason="it forgets")
    back = rollout(world).reverted
    world.rollouts.clear_quarantine(ENDPOINT, 2, by="ann", reason="it is fit")
    start(world, 3)
    run_until(world, RolloutState.PROMOTED)
    start(world, 2, "again")
    run_until(world, RolloutState.PROMOTED)
    found = world.rollouts.rollouts(ENDPOINT)
    assert [(one.candidate.version, one.reverted) for one in found] == [(1, None), (2, back), (3, None), (2, None)]
    assert [world.rollouts.rollout(ENDPOINT, one.rollout_id) for one in found] == found
    give(world, CommandKind.ROLLBACK, "two", by="bob", reason="it forgets again")
    start(world, 1, "one again")
    reasons = [one.reverted.reason if one.reverted else "" for one in world.rollouts.rollouts(ENDPOINT)]
    assert reasons == ["", "it forgets", "", "it forgets again", ""]


def test_a_rollback_just_after_slipway_s_own_does_not_take_the_good_version_back() -> None:
    world = promoted(2, 3, count=4)
    world.put_policy(policy())
    world.pod.errors[4] = 0.5
    start(world, 4)
    run_until(world, RolloutState.ROLLED_BACK)
    with pytest.raises(ConflictError, match=r"of version 4, is rolled_back, and version 3 serves.*1, 2"):
        give(world, CommandKind.ROLLBACK, "late")
    assert world.stable == 3
    give(world, CommandKind.ROLLBACK, "meant", version=1)
    assert world.stable == 1
    assert {found.version for found in world.endpoint().quarantined} == {3, 4}


def test_a_rollback_that_names_a_version_takes_a_bad_stable_back_with_the_candidate() -> None:
    world = promoted(2, count=3)
    world.put_policy(policy())
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING)
    with pytest.raises(ConflictError, match="version 9 is no known good version of digits; these are: 1"):
        give(world, CommandKind.ROLLBACK, "nine", version=9)
    assert state(world) is RolloutState.PROGRESSING
    give(world, CommandKind.ROLLBACK, version=1)
    assert (world.stable, state(world)) == (1, RolloutState.ROLLED_BACK)
    assert {found.version for found in world.endpoint().quarantined} == {2, 3}
    while world.step():
        pass
    assert CHAMPION in world.aliases.named(MODEL)[1]


def test_without_another_good_version_a_rollback_is_refused_and_the_one_there_is_goes_on_serving() -> None:
    world = world_with()
    before = world.endpoint().model_dump_json()
    with pytest.raises(ConflictError, match="no known good version besides 1: roll a version out"):
        give(world, CommandKind.ROLLBACK)
    assert world.endpoint().model_dump_json() == before


def test_nothing_goes_back_to_an_altered_version() -> None:
    world = promoted(2, 3)
    alter(world, 2)
    give(world, CommandKind.ROLLBACK)
    assert world.stable == 1


def test_what_a_rollback_would_go_back_to_is_not_archived_and_what_is_archived_is_not_gone_back_to() -> None:
    world = promoted(2, 3)
    with pytest.raises(ConflictError, match="version 2 of digits is what a rollback would go back to"):
        world.rollouts.archive(MODEL, VersionNumber(2), by="ann", reason="old")
    world.rollouts.archive(MODEL, VersionNumber(1), by="ann", reason="old")
    with pytest.raises(ConflictError, match="version 1 is no known good version of digits; these are: 2"):
        give(world, CommandKind.ROLLBACK, version=1)


def test_an_automatic_rollback_tells_when_the_fault_began_when_it_was_seen_and_when_the_pods_had_applied_it() -> None:
    world = under_way(pods=2, tick_s=5)
    world.pod.errors[2] = world.others[0].errors[2] = 0.5
    began = world.clock.now()
    world.others[0].is_stuck = True
    run_until(world, RolloutState.ROLLED_BACK, within_s=11)
    (found,) = world.rollouts.rollbacks(ENDPOINT)
    assert (found.trigger, found.zero_traffic_at) == (Trigger.ERROR_RATE, None)
    assert abs((found.fault_at - began).total_seconds()) <= 5
    assert found.fault_at < found.detected_at
    world.run(seconds=10)
    assert world.rollouts.rollbacks(ENDPOINT)[0].zero_traffic_at is None
    world.others[0].is_stuck = False
    freed = world.clock.now()
    world.run(seconds=10)
    (on_record,) = world.rollouts.rollbacks(ENDPOINT)
    assert on_record.zero_traffic_at == freed
    assert world.endpoint().rollback is None


def test_a_rollback_that_another_one_overtakes_stays_on_record() -> None:
    world = promoted(2, 3)
    give(world, CommandKind.ROLLBACK, "one")
    give(world, CommandKind.ROLLBACK, "two", version=1)
    world.run(seconds=5)
    assert [(r.from_version, r.to_version) for r in world.rollouts.rollbacks(ENDPOINT)] == [(3, 2), (2, 1)]


# Two hosts, one endpoint.


def test_of_two_hosts_that_tick_at_once_one_moves_the_rollout_and_a_command_between_is_not_lost() -> None:
    world = under_way()
    world.run(seconds=5)
    found = rollout(world)
    tick = RolloutTick(endpoint=ENDPOINT, rollout_id=found.rollout_id, tick=found.tick + 1)
    world.documents.other_writers = [lambda: world.rollouts.tick(tick)]
    world.rollouts.tick(tick)
    once = rollout(world)
    assert once.tick == found.tick + 1
    assert once.progress.of(2).requests == found.progress.of(2).requests + 100
    after = world.endpoint().model_dump_json()
    world.rollouts.tick(tick)
    assert world.endpoint().model_dump_json() == after

    tick = tick.model_copy(update={"tick": once.tick + 1})
    world.pod.report(world.blobs, world.clock, ENDPOINT)
    world.documents.other_writers = [lambda: give(world, CommandKind.SET_WEIGHT, weight_bp=3_000)]
    world.rollouts.tick(tick)
    moved = rollout(world)
    assert (weight_bp(world), moved.tick) == (3_000, tick.tick)
    # The window is of the plan before: it counts for its pod, not for the stage that begins anew.
    assert moved.progress.of(2).requests == 0
    assert moved.progress.pods["pod-1"].sequence == world.pod.sequence - 1


def test_a_command_s_id_used_for_another_command_is_refused_and_lost_on_nobody() -> None:
    world = under_way()
    give(world, CommandKind.PAUSE, "same")
    refused = "the command id 'same' was used for another command"
    with pytest.raises(ConflictError, match=refused):
        give(world, CommandKind.ABORT, "same")
    with pytest.raises(ConflictError, match=refused):
        give(world, CommandKind.SET_WEIGHT, "same", weight_bp=1)
    with pytest.raises(ConflictError, match=refused):
        start(world, 2, "same")
    assert state(world) is RolloutState.PAUSED
    give(world, CommandKind.PAUSE, "same", by="cy")
    give(world, CommandKind.RESUME, "another")
    give(world, CommandKind.PAUSE, "same")
    assert state(world) is RolloutState.PROGRESSING


def test_a_command_that_an_older_document_remembers_by_its_id_alone_is_heard() -> None:
    world = under_way()
    give(world, CommandKind.PAUSE, "old")
    change(world, lambda endpoint: setattr(endpoint, "heard", [known.split(":")[0] for known in endpoint.heard]))
    give(world, CommandKind.RESUME, "new")
    give(world, CommandKind.PAUSE, "old")
    give(world, CommandKind.ABORT, "old")
    assert state(world) is RolloutState.PROGRESSING
    assert rollout(world) == start(world)


@pytest.mark.parametrize("since", ["altered", "another strategy"])
def test_a_start_that_comes_again_is_answered_with_its_rollout_whatever_was_changed_since(since: str) -> None:
    world = world_with(versions=3, strategy=Strategy.SHADOW, shadow_s=100)
    begun = start(world, shadows=[3])
    assert begun is not None
    if since == "altered":
        alter(world, 2)
        alter(world, 3)
    else:
        world.put_policy(policy(strategy=Strategy.CANARY))
    again = start(world, shadows=[3])
    assert again is not None
    assert again.rollout_id == begun.rollout_id
    # Another start is refused as before.
    give(world, ABORT)
    with pytest.raises(
        (ConflictError, InvalidInputError), match="put the right bytes back" if since == "altered" else "go with"
    ):
        start(world, 2, "another", shadows=[3])


def bring_to(world: World, wanted: RolloutState) -> None:
    """Bring a rollout that has just begun its first stage to another state."""
    match wanted:
        case RolloutState.LOADING:
            give(world, CommandKind.ABORT)
            start(world, 2, "again")
        case RolloutState.PAUSED:
            give(world, CommandKind.PAUSE)
        case RolloutState.HELD:
            world.pod.requests = 0
            run_until(world, RolloutState.HELD)
        case RolloutState.WATCHING:
            give(world, CommandKind.PROMOTE)
        case RolloutState.AWAITING:
            give(world, CommandKind.ABORT)
            waiting = STAGES[0].model_copy(update={"approval": True})
            world.put_policy(policy(stages=(waiting,)))
            start(world, 2, "again")
            run_until(world, RolloutState.AWAITING)
        case _:
            pass
