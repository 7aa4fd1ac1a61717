"""Every decision of a rollout can be made again from its tick records; and what another policy would have decided."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from shared.core.errors import IntegrityError, InvalidInputError, NotFoundError
from shared.core.messages import CommandKind, RolloutCommand
from shared.core.verdict import Outcome
from shared.registry.policy import Policy
from shared.registry.rollout_policy import (
    FreezeWindow,
    GateMode,
    Gates,
    Otherwise,
    Provider,
    QueryGate,
    RolloutPolicy,
    Stage,
    Strategy,
)
from shared.rollout.documents import Rollout
from shared.rollout.dryrun import MAX_ROLLOUTS, DryRuns, NotJudged
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.queries import QueryAnswer
from shared.rollout.replay import Replay, replay, without_evidence
from shared.rollout.tickrecord import TickRecord, blob_name
from shared.store.ports import Blob, BlobContainer
from tests.world.world import ENDPOINT, Pod, World

STAGES = (Stage(weight_bp=1_000, duration_s=15), Stage(weight_bp=5_000, duration_s=15))
BASE = RolloutPolicy(stages=STAGES, tick_s=5, watch_s=15, max_stage_s=60, load_timeout_s=60)
FAILING_SLOWLY = BASE.model_copy(update={"gates": Gates(p99_ms=20.0), "failure_limit": 4})


class Scripted:
    """A metrics store that gives its answers in their order, and the last again and again."""

    def __init__(self, *answers: QueryAnswer) -> None:
        self.answers = list(answers)

    def ask(self, query: str) -> QueryAnswer:
        del query
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def rolled_out(
    policy: RolloutPolicy,
    pod: Pod,
    *,
    seconds: int = 110,
    act: Callable[[World], None] | None = None,
    world: World | None = None,
    **delivery: Any,
) -> World:
    """A first version that serves, and a second one rolled out under a policy, until `seconds` later."""
    world = world or World()
    world.pod = pod
    world.put_policy(Policy(rollout=policy))
    world.event(world.drop("one", name="one.onnx"))
    world.run(seconds=40, **delivery)
    world.event(world.drop("two", name="two.onnx"))
    if act:
        act(world)
    world.run(seconds=seconds, **delivery)
    return world


def command(world: World, kind: CommandKind) -> None:
    world.rollouts.handle(
        RolloutCommand(command=kind, command_id=f"{kind}-{world.clock.now()}", endpoint=ENDPOINT, requested_by="ann")
    )


def pause_and_resume(world: World) -> None:
    world.run(seconds=20)
    command(world, CommandKind.PAUSE)
    world.run(seconds=23)
    command(world, CommandKind.RESUME)


def set_weight(world: World) -> None:
    world.run(seconds=20)
    world.rollouts.handle(
        RolloutCommand(
            command=CommandKind.SET_WEIGHT, command_id="w", endpoint=ENDPOINT, requested_by="ann", weight_bp=2_000
        )
    )


def fail_then_skip(world: World) -> None:
    world.run(seconds=15)
    command(world, CommandKind.SKIP)


def slow_pods_of_which_one_goes_away(world: World) -> None:
    world.others.extend(Pod(name=f"pod-{n}", latency_ms={2: 60.0}) for n in (2, 3, 4))
    world.run(seconds=20)
    endpoint = world.endpoint()
    assert endpoint.active is not None
    gone = next(pod for pod in (world.pod, *world.others) if pod.name in endpoint.active.rolled)
    gone.is_silent = True


def abort(world: World) -> None:
    world.run(seconds=20)
    command(world, CommandKind.ABORT)


def dry_runs(world: World) -> DryRuns:
    return DryRuns(rollouts=world.rollouts.rollouts, rollout=world.rollouts.rollout, blobs=world.blobs)


def latest(world: World, policy: RolloutPolicy | None = None) -> Replay:
    """The latest rollout, replayed under its own policy or another."""
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    (found,) = dry_runs(world).dry_run(ENDPOINT, policy or rollout.policy, last=1)
    assert isinstance(found, Replay), found
    return found


@pytest.fixture(scope="module")
def promoted() -> World:
    """A rollout under BASE that was promoted. Tests only read it."""
    return rolled_out(BASE, Pod())


def flips_of(found: Replay) -> list[tuple[int, str | None, str | None]]:
    return [(tick.record.tick, tick.record.decided.event, tick.now.event) for tick in found.flips]


def state_of(world: World) -> RolloutState:
    return world.rollouts.rollouts(ENDPOINT)[-1].state


def check_same(world: World) -> None:
    """Each tick of each rollout, decided again under its own policy, is decided as it was: to the last figure."""
    for rollout in world.rollouts.rollouts(ENDPOINT):
        (found,) = [
            one
            for one in dry_runs(world).dry_run(ENDPOINT, rollout.policy, last=MAX_ROLLOUTS)
            if one.rollout.rollout_id == rollout.rollout_id
        ]
        assert isinstance(found, Replay), found
        assert found.ticks
        for tick in found.ticks:
            assert tick.now == without_evidence(tick.record.decided), tick.record.tick
        assert (found.parted_at, found.flips, found.not_judged) == (None, (), ())
        assert found.would_be is rollout.state


ERRING = Pod(errors={2: 0.2})
LIVES: dict[str, tuple[RolloutPolicy, Pod, RolloutState, Callable[[World], None] | None]] = {
    "healthy and watched": (BASE, Pod(), RolloutState.PROMOTED, None),
    "erring": (BASE, ERRING, RolloutState.ROLLED_BACK, None),
    "slow": (BASE, Pod(latency_ms={2: 400.0}), RolloutState.ROLLED_BACK, None),
    "slow by its p99 alone": (FAILING_SLOWLY, Pod(latency_ms={2: 60.0}), RolloutState.ROLLED_BACK, None),
    "without traffic": (BASE, Pod(requests=0), RolloutState.ROLLED_BACK, None),
    "without traffic, held": (
        BASE.model_copy(update={"on_inconclusive": Otherwise.HOLD}),
        Pod(requests=0),
        RolloutState.HELD,
        None,
    ),
    "unloadable": (BASE, Pod(unloadable={2: "no such operator"}), RolloutState.ROLLED_BACK, None),
    "tripped": (BASE, Pod(tripped={2: "it hangs"}), RolloutState.ROLLED_BACK, None),
    "paused and resumed": (BASE, Pod(), RolloutState.PROMOTED, pause_and_resume),
    "given another weight": (BASE, Pod(), RolloutState.PROMOTED, set_weight),
    "skipped while its checks failed": (
        FAILING_SLOWLY,
        Pod(latency_ms={2: 60.0}),
        RolloutState.ROLLED_BACK,
        fail_then_skip,
    ),
    "given another weight while its checks failed": (
        FAILING_SLOWLY,
        Pod(latency_ms={2: 60.0}),
        RolloutState.ROLLED_BACK,
        set_weight,
    ),
    "rolling, a pod replaced while its checks failed": (
        FAILING_SLOWLY.model_copy(
            update={"strategy": Strategy.ROLLING, "max_unavailable": 1, "failure_limit": 11, "stages": STAGES[:1]}
        ),
        Pod(latency_ms={2: 60.0}),
        RolloutState.ROLLED_BACK,
        slow_pods_of_which_one_goes_away,
    ),
    "failing, beside further pods": (
        BASE.model_copy(update={"quorum": 0.5}),
        Pod(errors={1: 0.002, 2: 0.02}),
        RolloutState.ROLLED_BACK,
        lambda world: world.others.extend([Pod(name="pod-2"), Pod(name="pod-3", is_stuck=True)]),
    ),
    "not worse": (
        BASE.model_copy(update={"gates": Gates(mode=GateMode.NOT_WORSE, error_rate=0.1, slow_rate=0.1)}),
        Pod(errors={1: 0.01, 2: 0.01}),
        RolloutState.PROMOTED,
        None,
    ),
    "not worse by little, which takes a while in each stage": (
        BASE.model_copy(
            update={
                "gates": Gates(mode=GateMode.NOT_WORSE, error_rate=0.03, slow_rate=0.03),
                "stages": (STAGES[0], STAGES[0].model_copy(update={"weight_bp": 1_200})),
                "min_requests": 20,
            }
        ),
        Pod(requests=100, errors={1: 0.002, 2: 0.002}),
        RolloutState.PROMOTED,
        None,
    ),
    "blue-green": (
        BASE.model_copy(update={"strategy": Strategy.BLUE_GREEN, "preview_s": 10.0}),
        Pod(),
        RolloutState.PROMOTED,
        None,
    ),
    "shadow": (
        BASE.model_copy(update={"strategy": Strategy.SHADOW, "shadow_s": 20.0}),
        Pod(disagreements={2: 0.001}),
        RolloutState.CONCLUDED,
        None,
    ),
    "rolling": (
        BASE.model_copy(update={"strategy": Strategy.ROLLING}),
        Pod(requests=2_000),
        RolloutState.PROMOTED,
        None,
    ),
    "rolling, over several pods": (
        BASE.model_copy(
            update={"strategy": Strategy.ROLLING, "stages": (STAGES[1], Stage(weight_bp=9_000, duration_s=15))}
        ),
        Pod(requests=2_000, errors={2: 0.004}),
        RolloutState.PROMOTED,
        lambda world: world.others.extend([Pod(name=f"pod-{n}", requests=2_000) for n in (2, 3, 4)]),
    ),
    "rolling, failing on one of several pods": (
        BASE.model_copy(update={"strategy": Strategy.ROLLING}),
        Pod(requests=2_000, errors={2: 0.03}),
        RolloutState.ROLLED_BACK,
        lambda world: world.others.extend([Pod(name=f"pod-{n}", errors={2: 0.03}) for n in (2, 3, 4)]),
    ),
    "split, held open": (
        BASE.model_copy(update={"strategy": Strategy.SPLIT}),
        Pod(),
        RolloutState.PROGRESSING,
        None,
    ),
    "split, failing": (
        BASE.model_copy(update={"strategy": Strategy.SPLIT}),
        Pod(errors={2: 0.05}),
        RolloutState.ROLLED_BACK,
        None,
    ),
    "shadow, then canary": (
        BASE.model_copy(
            update={"strategy": Strategy.SHADOW, "shadow_s": 20.0, "shadow_then": Strategy.CANARY, "max_stage_s": 90.0}
        ),
        Pod(disagreements={2: 0.001}),
        RolloutState.PROMOTED,
        None,
    ),
    "stages of their own gates": (
        BASE.model_copy(
            update={
                "stages": (
                    STAGES[0].model_copy(update={"gates": Gates(error_harm=0.01, slow_ms=50.0)}),
                    STAGES[1].model_copy(update={"gates": Gates(mode=GateMode.NOT_WORSE, error_rate=0.05)}),
                )
            }
        ),
        Pod(errors={1: 0.002, 2: 0.004}),
        RolloutState.PROMOTED,
        None,
    ),
    "awaiting an approval that does not come": (
        BASE.model_copy(update={"switch_approval": True}),
        Pod(),
        RolloutState.AWAITING,
        None,
    ),
    "aborted": (BASE, Pod(), RolloutState.ABORTED, abort),
    "all at once": (
        BASE.model_copy(update={"strategy": Strategy.ALL_AT_ONCE}),
        Pod(errors={2: 0.3}),
        RolloutState.ROLLED_BACK,
        None,
    ),
}


@pytest.mark.parametrize("name", LIVES)
def test_a_replay_under_its_own_policy_decides_every_tick_as_it_was_decided(name: str) -> None:
    policy, pod, end, act = LIVES[name]
    world = rolled_out(policy, Pod(**{**vars(pod), "sequence": 0, "plan": None}), act=act)
    assert state_of(world) is end
    check_same(world)


@pytest.mark.parametrize("seed", range(6))
def test_so_does_one_whose_messages_came_twice_and_shuffled_and_whose_host_was_killed(seed: int) -> None:
    rng = random.Random(seed)
    policy, pod, _, _ = LIVES[rng.choice(sorted(LIVES))]
    world = World()
    world.fuse.at = rng.randrange(100, 1_200)
    rolled_out(
        policy,
        Pod(**{**vars(pod), "sequence": 0, "plan": None}),
        world=world,
        copies=2,
        rng=rng,
        seconds=150,
    )
    check_same(world)


def test_queries_are_answered_as_they_were() -> None:
    gates = Gates(queries=(QueryGate(name="load", query="load", at_most=0.5),))
    world = World()
    answers = [QueryAnswer(value=0.1), QueryAnswer(error="it is down"), QueryAnswer(), QueryAnswer(value=0.9)]
    world.stores[Provider.PROMETHEUS] = Scripted(*answers)
    rolled_out(BASE.model_copy(update={"gates": gates}), Pod(), world=world)
    assert state_of(world) is RolloutState.ROLLED_BACK
    check_same(world)

    looser = Gates(queries=(QueryGate(name="busy", query="load", at_most=1.0),))
    found = latest(world, BASE.model_copy(update={"gates": looser}))
    assert found.not_judged == ()
    assert flips_of(found) == [(5, None, "advance"), (6, None, "advance"), (7, "fail", "advance")]
    assert [tick.is_after_parting for tick in found.flips] == [False, True, True]


def test_a_query_that_nobody_asked_then_is_left_out_and_named(promoted: World) -> None:
    gates = Gates(queries=(QueryGate(name="load", query="load", at_most=0.5),))
    found = latest(promoted, BASE.model_copy(update={"gates": gates}))
    assert found.not_judged == ("query load",)
    assert found.flips == ()
    assert found.would_be is RolloutState.PROMOTED


def test_a_stricter_limit_would_have_taken_it_back_and_says_at_which_tick_and_why() -> None:
    world = rolled_out(BASE, Pod(latency_ms={2: 60.0}))
    assert state_of(world) is RolloutState.PROMOTED
    found = latest(world, FAILING_SLOWLY)
    assert (found.would_be, found.parted_at) == (RolloutState.ROLLED_BACK, 5)
    assert flips_of(found) == [(5, "advance", "fail"), (9, "switch", "fail")]
    assert "4 failed checks without a pass between" in found.why
    assert "p99 is above the limit of 20.0 ms" in found.why


def test_a_looser_limit_would_have_let_it_go_on_and_what_then_is_unknown() -> None:
    world = rolled_out(FAILING_SLOWLY, Pod(latency_ms={2: 60.0}))
    assert state_of(world) is RolloutState.ROLLED_BACK
    found = latest(world, BASE)
    assert (found.would_be, found.parted_at) == (None, 5)
    assert flips_of(found) == [(5, "fail", None)]
    assert "no fail, it would have stayed where it was" in found.why


def test_a_longer_stage_would_have_stayed_and_a_shorter_one_gone_on_before(promoted: World) -> None:
    longer = BASE.model_copy(update={"stages": (STAGES[0].model_copy(update={"duration_s": 40.0}), STAGES[1])})
    found = latest(promoted, longer)
    first = found.flips[0]
    assert (first.record.decided.event, first.now.event, found.would_be) == (RolloutEvent.ADVANCE, None, None)
    shorter = BASE.model_copy(update={"stages": (STAGES[0].model_copy(update={"duration_s": 5.0}), STAGES[1])})
    found = latest(promoted, shorter)
    first = found.flips[0]
    assert (first.record.decided.event, first.now.event, found.would_be) == (None, RolloutEvent.ADVANCE, None)


def test_other_weights_part_at_the_stage_that_has_them_and_nothing_is_made_up_of_it(promoted: World) -> None:
    other = BASE.model_copy(update={"stages": (STAGES[0], STAGES[1].model_copy(update={"weight_bp": 2_500}))})
    found = latest(promoted, other)
    (second, *_) = [tick.record.tick for tick in found.ticks if tick.record.stage == 1]
    assert found.parted_at == second
    assert found.would_be is None
    assert "25 % in stage 1, which had 50 %" in found.why
    assert not any(tick.is_flip for tick in found.ticks if tick.record.stage == 1)


def test_an_approval_that_the_other_policy_wants_would_have_been_waited_for(promoted: World) -> None:
    found = latest(promoted, BASE.model_copy(update={"switch_approval": True}))
    assert found.flips[0].now.event is RolloutEvent.WAIT
    assert found.would_be is RolloutState.AWAITING


def test_a_freeze_window_of_the_other_policy_would_have_blocked_it(promoted: World) -> None:
    at = promoted.clock.now()
    freeze = FreezeWindow(name="sale", since=at.replace(year=at.year - 1), until=at.replace(year=at.year + 1))
    found = latest(promoted, BASE.model_copy(update={"freezes": (freeze,), "tick_s": 7.0}))
    assert found.flips[0].record.state is RolloutState.LOADING
    assert "freeze window sale is on" in found.flips[0].now.reason
    assert found.not_judged == ("tick_s",)


def test_a_verdict_names_the_record_that_holds_its_evidence(promoted: World) -> None:
    records = dry_runs(promoted).ticks(ENDPOINT, promoted.rollouts.rollouts(ENDPOINT)[-1].rollout_id).items
    judged = [(record, verdict) for record in records for verdict in record.decided.verdicts]
    assert judged
    for record, verdict in judged:
        container, _, name = (verdict.evidence or "").partition("/")
        held = promoted.blobs.held[BlobContainer(container), name]
        assert TickRecord.model_validate_json(held.data) == record
        assert verdict.outcome in Outcome


def test_a_record_tells_what_the_tick_took_in_and_the_pods(promoted: World) -> None:
    records = dry_runs(promoted).ticks(ENDPOINT, promoted.rollouts.rollouts(ENDPOINT)[-1].rollout_id).items
    assert [record.tick for record in records] == list(range(1, len(records) + 1))
    staged = [
        record for record in records if record.state is RolloutState.PROGRESSING and record.stage == 1 and record.block
    ]
    assert staged
    assert all(record.block[2].requests and record.weight_bp == 5_000 for record in staged)
    assert {(record.pods.reporting, record.pods.silent) for record in records} == {(1, 0)}
    assert records[-1].decided.event is RolloutEvent.COMPLETE


def lost(world: World, tick: int) -> str:
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    name = blob_name(ENDPOINT, rollout.rollout_id, tick)
    del world.blobs.held[BlobContainer.REPORTS, name]
    return name


def test_a_rollout_of_which_a_record_is_gone_is_not_judged_and_the_tick_is_named() -> None:
    world = rolled_out(BASE, Pod())
    lost(world, 3)
    (found,) = dry_runs(world).dry_run(ENDPOINT, BASE, last=1)
    assert isinstance(found, NotJudged)
    assert "tick 3" in found.why


def test_nor_is_one_whose_last_record_is_gone() -> None:
    world = rolled_out(BASE, Pod())
    lost(world, world.rollouts.rollouts(ENDPOINT)[-1].tick)
    (found,) = dry_runs(world).dry_run(ENDPOINT, BASE, last=1)
    assert isinstance(found, NotJudged)
    assert "that ended it" in found.why


def test_a_record_that_is_none_is_an_error_of_integrity() -> None:
    world = rolled_out(BASE, Pod())
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    key = (BlobContainer.REPORTS, blob_name(ENDPOINT, rollout.rollout_id, 2))
    world.blobs.held[key] = Blob(info=world.blobs.held[key].info, data=b"{}")
    with pytest.raises(IntegrityError, match="does not hold a tick's record"):
        dry_runs(world).dry_run(ENDPOINT, BASE, last=1)


def test_what_is_not_there_is_not_found_and_too_much_is_refused(promoted: World) -> None:
    found = dry_runs(promoted)
    rollout_id = promoted.rollouts.rollouts(ENDPOINT)[-1].rollout_id
    for missing in (lambda: found.ticks(ENDPOINT, "rollout-9"), lambda: found.tick(ENDPOINT, rollout_id, 999)):
        with pytest.raises(NotFoundError):
            missing()
    for last in (0, MAX_ROLLOUTS + 1):
        with pytest.raises(InvalidInputError, match="ask for 1 to 20"):
            found.dry_run(ENDPOINT, BASE, last=last)


def test_the_records_of_one_rollout_are_read_without_the_history_of_all(promoted: World) -> None:
    def never(endpoint: str) -> list[Rollout]:
        raise AssertionError(f"the whole history of {endpoint} was read")

    found = DryRuns(rollouts=never, rollout=promoted.rollouts.rollout, blobs=promoted.blobs)
    rollout_id = promoted.rollouts.rollouts(ENDPOINT)[-1].rollout_id
    assert found.tick(ENDPOINT, rollout_id, 2) == found.ticks(ENDPOINT, rollout_id, 2).items[0]


def test_a_replay_is_pure(promoted: World) -> None:
    rollout: Rollout = promoted.rollouts.rollouts(ENDPOINT)[-1]
    records = dry_runs(promoted).ticks(ENDPOINT, rollout.rollout_id).items
    before = [record.model_dump_json() for record in records], rollout.model_dump_json()
    assert replay(rollout, records, BASE) == replay(rollout, records, BASE)
    assert before == ([record.model_dump_json() for record in records], rollout.model_dump_json())
