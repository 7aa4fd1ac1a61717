"""The gate over feedback, end to end: a candidate that converts worse is taken back, one that does not goes through."""

import random
from typing import Any

import pytest

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import FeedbackGate, GateMode, GateName, Gates, Otherwise, Strategy
from shared.rollout import progress
from shared.rollout.dryrun import DryRuns
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.replay import Replay, without_evidence
from shared.rollout.rollbacks import Trigger
from shared.rollout.standing import Waiting, standing
from shared.sequential.excess import ExcessTest
from tests.world.strategies import rollout, run_until, start, state, world_with
from tests.world.world import ENDPOINT, GRACE, World

GATES = Gates(feedback=FeedbackGate(), prediction_psi=None)
WORSE = {1: 0.30, 2: 0.20}


def world_of(
    feedback: dict[int, float], *, gates: Gates = GATES, after: int = 0, requests: int = 2_000, **policy: Any
) -> World:
    """A world whose version 2 is to be rolled out under the gate, and what comes of each version's answers."""
    world = world_with(gates=gates, **({"max_stage_s": 30, "watch_s": 10} | policy))
    world.pod.feedback, world.pod.feedback_after, world.pod.requests = feedback, after, requests
    return world


def to_the_end(world: World, *, seconds: int = 120, **delivery: Any) -> RolloutState:
    start(world)
    for _ in range(seconds):
        if state(world).is_over or state(world) is RolloutState.HELD:
            break
        world.run(seconds=1, **delivery)
    return state(world)


def triggers(world: World) -> list[Trigger]:
    world.run(seconds=5)
    return [rollback.trigger for rollback in world.rollouts.rollbacks(ENDPOINT)]


def told(world: World) -> Verdict:
    return next(one for one in rollout(world).verdicts if one.check == GateName.FEEDBACK)


def fed(world: World) -> tuple[int, int]:
    """How much feedback on the candidate and on stable the test has had."""
    total = ExcessTest.of(rollout(world).progress.tests[progress.TestName.FEEDBACK_WORSE]).total
    return total.candidate, total.stable


@pytest.mark.parametrize("feedback", [{1: 0.30, 2: 0.30}, {1: 0.30, 2: 0.35}])
def test_a_candidate_that_converts_no_worse_takes_over(feedback: dict[int, float]) -> None:
    world = world_of(feedback)
    assert to_the_end(world) is RolloutState.PROMOTED
    assert world.stable == 2


def test_a_candidate_that_converts_worse_is_taken_back_at_once_and_the_report_says_by_what() -> None:
    world = world_of(WORSE)
    assert to_the_end(world) is RolloutState.ROLLED_BACK
    assert world.stable == 1
    assert triggers(world) == [Trigger.FEEDBACK]
    assert "worse than stable is proven at level 0.017" in told(world).sentence
    assert "mean feedback 20.00% of" in told(world).sentence
    assert rollout(world).stage == 0


def test_by_policy_it_must_be_worse_by_so_much() -> None:
    gates = GATES.model_copy(update={"feedback": FeedbackGate(harm=0.15)})
    assert to_the_end(world_of(WORSE, gates=gates)) is RolloutState.PROMOTED


def test_of_what_is_recorded_only_nothing_follows() -> None:
    world = world_of(WORSE, gates=GATES.model_copy(update={"dry_run": (GateName.FEEDBACK,)}))
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    assert (told(world).outcome, told(world).advisory) == (Outcome.FAIL, True)


@pytest.mark.parametrize(
    ("feedback", "otherwise", "ends"),
    [
        ({}, Otherwise.ABORT, RolloutState.ROLLED_BACK),
        ({1: 0.3}, Otherwise.HOLD, RolloutState.HELD),
        ({2: 0.3}, Otherwise.ABORT, RolloutState.ROLLED_BACK),
    ],
)
def test_without_feedback_on_both_nothing_is_promoted(
    feedback: dict[int, float], otherwise: Otherwise, ends: RolloutState
) -> None:
    world = world_of(feedback, on_inconclusive=otherwise)
    assert to_the_end(world) is ends
    assert told(world).outcome is Outcome.INCONCLUSIVE
    assert "each needs 100" in told(world).sentence
    assert world.stable == 1


def test_that_it_is_not_worse_must_be_proven_where_policy_says_so() -> None:
    gates = GATES.model_copy(
        update={"mode": GateMode.NOT_WORSE, "error_rate": 0.05, "slow_rate": 0.05, "feedback": FeedbackGate(margin=0.1)}
    )
    assert to_the_end(world_of({1: 0.30, 2: 0.30}, gates=gates)) is RolloutState.PROMOTED
    worse = world_of({1: 0.30, 2: 0.28}, gates=gates.model_copy(update={"feedback": FeedbackGate(margin=0.01)}))
    assert to_the_end(worse) is RolloutState.ROLLED_BACK


def test_a_mean_below_the_least_is_a_failed_check_unless_stable_s_is_too() -> None:
    gates = GATES.model_copy(update={"feedback": FeedbackGate(harm=0.5, at_least=0.25)})
    world = world_of(WORSE, gates=gates)
    assert to_the_end(world) is RolloutState.ROLLED_BACK
    assert "3 failed checks" in rollout(world).reason
    assert "below the least of 25.00%" in told(world).sentence
    both = world_of({1: 0.20, 2: 0.20}, gates=gates, watch_s=0)
    assert to_the_end(both) is RolloutState.PROMOTED


def test_a_season_that_lowers_what_comes_of_both_raises_nothing() -> None:
    world = world_of({1: 0.30, 2: 0.30})
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.pod.feedback = {1: 0.05, 2: 0.05}
    run_until(world, RolloutState.PROMOTED)


def test_late_feedback_counts_for_the_plan_of_its_prediction_and_mixes_nothing() -> None:
    """A day that gets better while the candidate's share grows: by sums over plans the candidate would look better."""
    world = world_of({1: 0.30, 2: 0.30}, after=6)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.pod.feedback = {1: 0.60, 2: 0.60}
    run_until(world, RolloutState.PROMOTED)
    state_of = ExcessTest.of(rollout(world).progress.tests[progress.TestName.FEEDBACK_WORSE])
    assert state_of.p_value == 1.0
    by_sums = [1 - failed / n for n, failed in _arms(state_of)]
    assert by_sums[0] > by_sums[1] + 0.05


def _arms(test: ExcessTest) -> list[tuple[int, int]]:
    total = test.total
    return [(total.candidate, total.candidate_failed), (total.stable, total.stable_failed)]


def test_feedback_that_comes_while_the_candidate_is_watched_takes_it_back() -> None:
    """What came of the stages' answers is heard only when the candidate has all traffic."""
    gates = GATES.model_copy(update={"feedback": FeedbackGate(min_feedback=1)})
    world = world_of({1: 0.30, 2: 0.30}, gates=gates, watch_s=40)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=4)  # some has come, and it is good
    world.pod.feedback, world.pod.feedback_after = WORSE, 12
    run_until(world, RolloutState.WATCHING)
    assert told(world).outcome is Outcome.PASS
    run_until(world, RolloutState.ROLLED_BACK)
    assert triggers(world) == [Trigger.FEEDBACK]
    assert world.stable == 1


def test_feedback_on_what_earlier_plans_gave_is_none_of_the_rollouts() -> None:
    world = world_of({1: 0.30, 2: 0.30}, after=12)
    start(world)
    world.pod.feedback = {1: 0.9, 2: 0.9}
    run_until(world, RolloutState.PROGRESSING, stage=0)
    first = rollout(world).progress.first_generation
    assert first > 1
    assert {row.generation for row in rollout(world).progress.feedback_waiting} <= set(range(first, first + 9))
    assert progress.TestName.FEEDBACK_WORSE not in rollout(world).progress.tests


def test_ticks_twice_late_and_in_any_order_count_each_window_once() -> None:
    world = world_of({1: 0.30, 2: 0.30})
    assert to_the_end(world, copies=2, rng=random.Random(1)) is RolloutState.PROMOTED
    candidate, stable = fed(world)
    windows = world.pod.sequence
    assert 0 < candidate <= windows * 2_000
    assert candidate + stable <= windows * 2_000


@pytest.mark.parametrize("kill_at", [1, 4, 7, 10, 13, 16])
def test_a_tick_that_is_killed_anywhere_ends_as_one_that_is_not(kill_at: int) -> None:
    world = world_of(WORSE)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=0)
    world.fuse.at = world.fuse.calls + kill_at
    world.run(seconds=12)
    assert world.fuse.calls > world.fuse.at
    if not state(world).is_over:
        world.clock.pass_s(GRACE.total_seconds())
        world.sweep.sweep()  # the tick that was to follow was not sent
        world.run(seconds=12)
    assert state(world) is RolloutState.ROLLED_BACK
    assert triggers(world) == [Trigger.FEEDBACK]
    candidate, stable = fed(world)
    assert candidate + stable <= world.pod.sequence * world.pod.requests


def dry_run(world: World, gates: Gates | None = None) -> Replay:
    runs = DryRuns(rollouts=world.rollouts.rollouts, rollout=world.rollouts.rollout, blobs=world.blobs)
    policy = rollout(world).policy
    (found,) = runs.dry_run(ENDPOINT, policy.model_copy(update={"gates": gates}) if gates else policy, last=1)
    assert isinstance(found, Replay), found
    return found


@pytest.mark.parametrize(("feedback", "after"), [(WORSE, 0), (WORSE, 5), ({1: 0.30, 2: 0.30}, 5)])
def test_every_decision_can_be_made_again_from_its_records(feedback: dict[int, float], after: int) -> None:
    world = world_of(feedback, after=after)
    to_the_end(world)
    found = dry_run(world)
    assert found.flips == ()
    for tick in found.ticks:
        assert tick.now == without_evidence(tick.record.decided)


def test_a_dry_run_shows_what_the_gate_would_have_decided() -> None:
    without = GATES.model_copy(update={"feedback": None})
    world = world_of(WORSE, gates=without)
    assert to_the_end(world) is RolloutState.PROMOTED
    found = dry_run(world, GATES)
    assert found.would_be is RolloutState.ROLLED_BACK
    assert found.flips[0].now.event is RolloutEvent.FAIL


def test_a_rollout_pod_by_pod_is_judged_too() -> None:
    world = world_with(gates=GATES, strategy=Strategy.ROLLING, pods=4, max_stage_s=30)
    for pod in (world.pod, *world.others):
        pod.feedback = WORSE
    assert to_the_end(world) is RolloutState.ROLLED_BACK
    assert triggers(world) == [Trigger.FEEDBACK]


def promoted_before_its_feedback(*, late_s: float, **policy: Any) -> World:
    """A world whose candidate was promoted on little feedback, what comes of the rest being still to come."""
    gates = GATES.model_copy(update={"feedback": FeedbackGate(min_feedback=1)})
    world = world_of({1: 0.30, 2: 0.30}, gates=gates, late_feedback_s=late_s, watch_s=1, **policy)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=4)
    world.pod.feedback, world.pod.feedback_after = WORSE, 40
    run_until(world, RolloutState.PROMOTED)
    return world


def test_late_feedback_takes_back_what_was_promoted_once() -> None:
    world = promoted_before_its_feedback(late_s=600)
    assert world.stable == 2
    stands = standing(world.endpoint(), rollout(world), world.clock.now())
    assert stands.waiting is Waiting.NOTHING
    assert "late feedback may take it back until 2026-11-21" in stands.sentence
    world.run(seconds=75)
    assert world.stable == 1
    assert triggers(world) == [Trigger.LATE_FEEDBACK]
    found = rollout(world)
    assert (found.state, found.feedback_until) == (RolloutState.PROMOTED, None)
    assert found.reverted is not None
    assert "late feedback: worse than stable is proven" in found.reverted.reason
    assert world.endpoint().is_quarantined(2)
    world.run(seconds=70)
    assert triggers(world) == [Trigger.LATE_FEEDBACK]


def test_late_feedback_is_heard_for_as_long_as_policy_says() -> None:
    assert promoted_before_its_feedback(late_s=0).endpoint().ticking is None
    world = promoted_before_its_feedback(late_s=20)
    assert world.endpoint().ticking is not None
    world.run(seconds=70)
    assert (world.stable, rollout(world).feedback_until, triggers(world)) == (2, None, [])
    assert world.endpoint().ticking is None


def test_what_comes_shortly_before_the_end_of_that_time_is_judged_too() -> None:
    world = promoted_before_its_feedback(late_s=50)
    world.run(seconds=55)
    assert (world.stable, rollout(world).feedback_until, triggers(world)) == (1, None, [Trigger.LATE_FEEDBACK])


def test_good_late_feedback_leaves_what_was_promoted_and_the_ticks_end() -> None:
    world = world_of({1: 0.30, 2: 0.30}, late_feedback_s=100, after=8, watch_s=1)
    start(world)
    run_until(world, RolloutState.PROMOTED)
    heard = fed(world)
    world.run(seconds=70)
    assert fed(world) > heard
    world.run(seconds=70)
    assert (world.stable, world.endpoint().ticking) == (2, None)


def test_another_rollout_ends_the_hearing_of_late_feedback() -> None:
    world = promoted_before_its_feedback(late_s=600, versions=3)
    world.pod.feedback[3] = 0.2
    start(world, 3)
    world.run(seconds=70)
    assert Trigger.LATE_FEEDBACK not in triggers(world)
    assert rollout(world).candidate.version == 3
