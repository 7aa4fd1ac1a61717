"""Aliases in the world: they follow rollouts whatever is lost, late or killed, and people's moves hold."""

import contextlib
import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.core.errors import ChangedMeanwhileError, ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import VersionNumber
from shared.core.messages import MoveAlias, Queue
from shared.registry.aliases import CHALLENGER, CHAMPION, PRODUCTION, STAGING, AliasName
from shared.registry.commands import SetAlias
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Stage, Strategy
from tests.world.fakes import Fuse, Killed
from tests.world.world import ENDPOINT, GRACE, MODEL, World

QUICK = Policy(
    rollout=RolloutPolicy(
        watch_s=0, stages=(Stage(weight_bp=1_000, duration_s=20), Stage(weight_bp=5_000, duration_s=20)), tick_s=5
    )
)


def world_with(versions: int) -> World:
    """A world whose versions are validated and not rolled out."""
    world = World()
    world.put_policy(Policy(rollout=RolloutPolicy(watch_s=0, automatic=False)))
    for number in range(1, versions + 1):
        world.event(world.drop(f"content {number}", name=f"{number}.onnx"))
        world.run(seconds=2)
    return world


def move(world: World, alias: str, version: int | None, command_id: str, **given: Any) -> None:
    world.aliases.set(
        SetAlias(
            model=MODEL,
            alias=AliasName(alias),
            version=None if version is None else VersionNumber(version),
            by="ann",
            reason="by hand",
            command_id=command_id,
            **given,
        )
    )


def named(world: World, alias: str) -> int | None:
    return world.aliases.version(MODEL, AliasName(alias))


def history(world: World, alias: str) -> list[tuple[int, int | None]]:
    moves = world.aliases.history(MODEL, AliasName(alias)).items
    return [(found.sequence, found.version) for found in moves]


def two_promotions(world: World, **delivery: Any) -> None:
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=30, **delivery)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=330, **delivery)


def aliases_of(world: World) -> dict[str, Any]:
    return {
        "named": world.aliases.named(MODEL),
        "champion": history(world, "champion"),
        "production": history(world, "production"),
        "unheard": [call.move.alias for call in world.endpoint().alias_calls],
        "verified": world.audit.verify().verified,
        "undelivered": [key for key, doc in world.documents.held.items() if doc.body.get("outbox_pending")],
    }


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    world = World()
    two_promotions(world)
    return aliases_of(world)


def test_champion_and_production_follow_promotions_and_the_challenger_is_cleared(undisturbed: dict[str, Any]) -> None:
    assert undisturbed == {
        "named": {2: ["champion", "production"]},
        "champion": [(2, 2), (1, 1)],
        "production": [(2, 2), (1, 1)],
        "unheard": [],
        "verified": True,
        "undelivered": [],
    }


def test_the_challenger_is_the_candidate_while_it_rolls_out() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=20)
    world.event(world.drop("two", name="two.onnx"))
    world.run(seconds=10)
    assert (named(world, "champion"), named(world, "challenger")) == (1, 2)
    world.pod.errors = {2: 1.0}
    world.run(seconds=60)
    assert (named(world, "champion"), named(world, "challenger")) == (1, None)
    assert history(world, "challenger") == [(4, None), (3, 2), (2, None), (1, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_calls_that_come_many_times_in_any_order_lead_to_the_same_aliases(
    seed: int, undisturbed: dict[str, Any]
) -> None:
    world = World()
    two_promotions(world, copies=6, rng=random.Random(seed))
    assert aliases_of(world) == undisturbed


def run_losing_calls(world: World, seconds: int) -> None:
    """Let the world go on for a while in which no call for an alias arrives, and no sweep runs."""
    for _ in range(seconds):
        while world.step():
            world.queues.messages = [found for found in world.queues.messages if found[1] != Queue.ALIAS_MOVES]
        world.pod.report(world.blobs, world.clock, MODEL)
        world.clock.pass_s(1)


def test_calls_that_are_lost_are_sent_again_by_the_sweep() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    run_losing_calls(world, 40)
    assert world.stable == 1
    assert named(world, "champion") is None
    world.run(seconds=200)
    assert named(world, "champion") == 1
    assert world.endpoint().alias_calls == []


def test_the_sweep_sends_a_call_once_a_grace() -> None:
    world = World()
    world.put_policy(QUICK)
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=200)
    assert world.stable == 1
    assert world.endpoint().alias_calls == []
    world.event(world.drop("two", name="two.onnx"))
    run_losing_calls(world, 2)
    assert [call.move.alias for call in world.endpoint().alias_calls] == [CHALLENGER]
    sent = []
    for _ in range(4):
        world.clock.pass_s(GRACE.total_seconds() / 2 + 1)
        world.queues.messages = []
        world.sweep.sweep()
        sent.append([queue for _, queue, _ in world.queues.messages].count(Queue.ALIAS_MOVES))
    assert sent == [0, 1, 0, 1]


def test_a_kill_at_any_port_call_of_a_promotions_calls_leaves_the_aliases_as_if_undisturbed(
    undisturbed: dict[str, Any],
) -> None:
    def job(fuse_at: int | None) -> World:
        world = World()
        world.put_policy(QUICK)
        world.event(world.drop("one", name="one.onnx"))
        world.run(seconds=30)
        world.event(world.drop("two", name="two.onnx"))
        world.run(seconds=40)
        world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse = Fuse(at=fuse_at)
        world.run(seconds=16)
        calls.append(fuse.calls)
        world.documents.fuse = world.blobs.fuse = world.queues.fuse = Fuse()
        world.run(seconds=274)
        return world

    calls: list[int] = []
    assert aliases_of(job(None)) == undisturbed
    whole = calls[0]
    assert whole > 40
    for at in random.Random(7).sample(range(1, whole + 1), 8):
        assert aliases_of(job(at)) == undisturbed, at


def test_a_kill_at_every_port_call_of_a_move_by_hand_leaves_it_whole_and_once_when_it_is_tried_again() -> None:
    world = world_with(2)
    move(world, "blue", 1, "first")
    counted = Fuse()
    world.documents.fuse = world.queues.fuse = counted
    move(world, "blue", 2, "second")
    calls = counted.calls
    assert calls >= 6
    for at in range(1, calls + 1):
        world = world_with(2)
        move(world, "blue", 1, "first")
        world.documents.fuse = world.queues.fuse = Fuse(at=at)
        with pytest.raises(Killed):
            move(world, "blue", 2, "second")
        world.documents.fuse = world.queues.fuse = Fuse()
        assert history(world, "blue") in ([(1, 1)], [(2, 2), (1, 1)])
        move(world, "blue", 2, "second")
        world.sweep.sweep()
        assert history(world, "blue") == [(2, 2), (1, 1)]
        assert world.audit.verify().verified
        assert not [key for key, doc in world.documents.held.items() if doc.body.get("outbox_pending")]


def call(world: World, alias: str, version: int | None, generation: int, **given: Any) -> None:
    given = {"at": world.clock.now(), "rollout_id": f"r-{generation}"} | given
    world.aliases.follow(MoveAlias(model=MODEL, alias=alias, version=version, generation=generation, **given))


def test_a_call_that_was_passed_over_is_put_in_its_place_once_and_moves_nothing_that_came_after() -> None:
    world = world_with(3)
    then = world.clock.now()
    world.clock.pass_s(10)
    call(world, "champion", 3, generation=9)
    for _ in range(3):
        call(world, "champion", 2, generation=5, at=then)
    assert named(world, "champion") == 3
    assert history(world, "champion") == [(1, 3), (2, 2)]
    assert [at(world, "champion", then + timedelta(seconds=passed)) for passed in (-1, 0, 9, 10)] == [None, 2, 2, 3]


def test_an_endpoint_whose_clock_goes_slow_does_not_take_the_history_back() -> None:
    world = world_with(3)
    then = world.clock.now()
    world.clock.pass_s(10)
    call(world, "champion", 3, generation=9)
    call(world, "champion", 1, generation=12, at=then)
    assert history(world, "champion") == [(2, 1), (1, 3)]
    moves = world.aliases.history(MODEL, CHAMPION).items
    assert moves[0].at == moves[1].at
    assert at(world, "champion", then + timedelta(seconds=9)) is None


def test_what_somebody_set_after_a_rollouts_step_holds_against_its_late_call() -> None:
    world = world_with(3)
    step = world.clock.now()
    world.clock.pass_s(5)
    move(world, "production", 3, "by-hand")
    call(world, "production", 2, generation=4, at=step)
    assert named(world, "production") == 3
    # Until then it named what the rollout said.
    assert history(world, "production") == [(1, 3), (2, 2)]
    assert [at(world, "production", step + timedelta(seconds=passed)) for passed in (0, 4, 5)] == [2, 2, 3]
    kinds = [event.kind for event in world.audit.events(f"alias:{MODEL}:production")]
    assert kinds == ["alias_moved", "alias_move_overtaken"]
    world.clock.pass_s(5)
    call(world, "production", 1, generation=6)
    assert history(world, "production") == [(3, 1), (1, 3), (2, 2)]


def promoted_unheard(*contents: str) -> tuple[World, list[datetime]]:
    """A world that promoted versions one after the other while no call for an alias arrived, and when it did."""
    world = World()
    world.put_policy(Policy(rollout=RolloutPolicy(watch_s=0, strategy=Strategy.ALL_AT_ONCE, tick_s=5)))
    for content in contents:
        world.event(world.drop(content, name=f"{content}.onnx"))
        run_losing_calls(world, 20)
    ended = [rollout.ended_at for rollout in world.rollouts.rollouts(ENDPOINT)]
    assert len(ended) == len(contents)
    return world, [found for found in ended if found]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_time_that_is_past_is_answered_the_same_before_and_after_the_calls_are_heard_in_any_order(
    order: tuple[int, ...],
) -> None:
    world, ended = promoted_unheard("one", "two", "three")
    instant = timedelta(microseconds=1)
    asked = [time for when in ended for time in (when - instant, when, when + instant)]
    expected = [None, 1, 1, 1, 2, 2, 2, 3, 3]
    assert [at(world, "champion", when) for when in asked] == expected
    assert named(world, "champion") is None
    calls = world.endpoint().calls_for("champion")
    assert [found.version for found in calls] == [1, 2, 3]
    for index in order:
        world.aliases.follow(calls[index])
        assert [at(world, "champion", when) for when in asked] == expected
    assert history(world, "champion") == [(3, 3), (2, 2), (1, 1)]
    world.run(seconds=200)
    assert world.endpoint().alias_calls == []
    assert [at(world, "champion", when) for when in asked] == expected


def test_a_move_by_hand_comes_after_the_promotions_that_no_message_told_of() -> None:
    world, ended = promoted_unheard("one", "two")
    with pytest.raises(ConflictError, match="names version 2, and no version was expected"):
        move(world, "champion", 1, "too sure", expected_version=None)
    move(world, "champion", 1, "back", expected_version=2)
    assert history(world, "champion") == [(3, 1), (2, 2), (1, 1)]
    assert [at(world, "champion", when) for when in ended] == [1, 2]
    world.run(seconds=130)
    assert named(world, "champion") == 1
    assert history(world, "champion") == [(3, 1), (2, 2), (1, 1)]


def test_a_challenger_whose_start_and_end_are_heard_the_wrong_way_round_is_cleared() -> None:
    world, _ = promoted_unheard("one")
    start, end = world.endpoint().calls_for("challenger")
    world.aliases.follow(end)
    world.aliases.follow(start)
    assert named(world, "challenger") is None
    assert history(world, "challenger") == [(2, None), (1, 1)]


def test_a_rollouts_end_clears_only_the_challenger_that_it_made() -> None:
    world = world_with(3)
    call(world, "challenger", 2, generation=1)
    world.clock.pass_s(1)
    move(world, "challenger", 3, "by-hand")
    world.clock.pass_s(1)
    call(world, "challenger", None, generation=2, only_from=2)
    assert named(world, CHALLENGER) == 3
    # Its start, coming late, does not bring it back either.
    call(world, "challenger", 2, generation=1)
    assert named(world, CHALLENGER) == 3


def test_a_command_has_its_effect_once_however_late_it_comes_again() -> None:
    world = world_with(2)
    move(world, "blue", 1, "first")
    for number in range(60):
        move(world, "blue", number % 2 + 1, f"more-{number}")
    before = history(world, "blue")
    move(world, "blue", 1, "first")
    move(world, "blue", 1, "more-2")
    assert history(world, "blue") == before
    assert [sequence for sequence, _ in before] == list(range(61, 0, -1))


def test_history_comes_in_pages_newest_first_also_while_moves_wait_to_be_archived() -> None:
    world = world_with(2)
    for number in range(130):
        move(world, "blue", number % 2 + 1, f"c-{number}")
    held = [key for key in world.documents.held if key[2].startswith("moved-blue-")]
    assert len(held) == 130
    for key in sorted(held)[:3]:
        # As if the newest were still in the outbox: they stand in the alias alone.
        del world.documents.held[key]
    first = world.aliases.history(MODEL, AliasName("blue"))
    second = world.aliases.history(MODEL, AliasName("blue"), first.continuation)
    assert second.continuation is None
    assert [found.sequence for found in first.items + second.items] == list(range(127, 0, -1))


def test_a_move_whose_archive_cannot_be_written_yet_is_in_the_history_all_the_same() -> None:
    world = world_with(1)
    world.documents.fuse = Fuse()
    move(world, "blue", 1, "first")
    calls = world.documents.fuse.calls
    for at in range(1, calls + 1):
        world = world_with(1)
        world.documents.fuse = Fuse(at=at)
        with contextlib.suppress(Killed):
            move(world, "blue", 1, "first")
        world.documents.fuse = Fuse()
        if named(world, "blue") is not None:
            assert history(world, "blue") == [(1, 1)]
            assert world.aliases.at(MODEL, AliasName("blue"), world.clock.now()) is not None


def at(world: World, alias: str, when: datetime) -> int | None:
    found = world.aliases.at(MODEL, AliasName(alias), when)
    return found.version if found else None


def test_which_version_was_champion_at_a_time_is_answered_from_the_promotions() -> None:
    world = World()
    started = world.clock.now()
    two_promotions(world)
    first, second = world.rollouts.rollouts(world.endpoint().endpoint)  # type: ignore[arg-type]
    assert first.ended_at is not None
    assert second.ended_at is not None
    instant = timedelta(microseconds=1)
    assert at(world, "champion", started) is None
    assert at(world, "champion", first.ended_at - instant) is None
    assert at(world, "champion", first.ended_at) == 1
    assert at(world, "champion", second.ended_at - instant) == 1
    assert at(world, "champion", second.ended_at) == 2
    assert at(world, "champion", world.clock.now()) == 2
    with pytest.raises(InvalidInputError, match="still to come"):
        at(world, "champion", world.clock.now() + instant)


def test_a_move_from_another_version_than_was_expected_is_a_conflict_that_says_what_it_names() -> None:
    world = world_with(3)
    move(world, "blue", 1, "a", expected_version=None)
    with pytest.raises(ConflictError, match="blue of digits names version 1, and no version was expected"):
        move(world, "blue", 2, "b", expected_version=None)
    with pytest.raises(ConflictError, match="names version 1, and version 3 was expected"):
        move(world, "blue", 2, "c", expected_version=3)
    move(world, "blue", 2, "d", expected_version=1)
    assert history(world, "blue") == [(2, 2), (1, 1)]


def test_another_hosts_move_between_reading_and_writing_is_seen() -> None:
    world = world_with(3)
    move(world, "blue", 1, "a")
    world.documents.other_writers = [lambda: move(world, "blue", 2, "b", expected_version=1)]
    with pytest.raises(ConflictError, match="names version 2"):
        move(world, "blue", 3, "c", expected_version=1)
    assert history(world, "blue") == [(2, 2), (1, 1)]


def test_an_alias_names_only_what_may_have_it() -> None:
    world = world_with(1)
    world.event(world.drop("worse", name="worse.onnx"))
    world.run(seconds=5)
    for alias in (CHAMPION, PRODUCTION):
        with pytest.raises(ConflictError, match=f"version 2 of digits is rejected: {alias} names a validated version"):
            move(world, alias, 2, "a")
    move(world, STAGING, 2, "b")
    with pytest.raises(NotFoundError, match="version 9"):
        move(world, STAGING, 9, "c")
    with pytest.raises(NotFoundError, match="alias other"):
        move(world, "other", None, "d")
    assert [alias.alias for alias in world.aliases.aliases(MODEL)] == ["staging"]
    with pytest.raises(NotFoundError, match="it comes to be when it is first set"):
        world.aliases.alias(MODEL, AliasName("other"))
    world.rollouts.archive(MODEL, VersionNumber(1), by="ann", reason="old")
    with pytest.raises(ConflictError, match="archived"):
        move(world, "blue", 1, "e")


def test_moves_without_a_condition_that_others_overtake_too_often_are_told_so() -> None:
    world = world_with(2)
    move(world, "blue", 1, "a")
    key = next(key for key in world.documents.held if key[2] == "alias-blue")

    def touch() -> None:
        world.documents.replace(key[0], world.documents.held[key].body, etag=world.documents.held[key].etag)
        world.documents.other_writers.append(touch)

    world.documents.other_writers = [touch]
    with pytest.raises(ChangedMeanwhileError):
        move(world, "blue", 2, "b")
