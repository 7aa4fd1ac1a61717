"""The triggers: limits on the candidate alone, but for what stable breaks too."""

from typing import Any

import pytest

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Strategy, Triggers
from shared.rollout.decide import decide
from shared.rollout.gates import judge
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.rollbacks import Trigger
from shared.rollout.ticks import took_in
from shared.telemetry.window import VersionCounts
from tests.unit.rollout.evidence import (
    CANDIDATE,
    NOW,
    STABLE,
    counted,
    judged,
    outcome,
    pod,
    previewing,
    rollout,
    verdict,
    watching,
    window,
)

ERRORS, P99, MEMORY, HEALTH, PSI = (
    "trigger_error_rate",
    "trigger_p99_ms",
    "trigger_memory",
    "trigger_health",
    "trigger_prediction_psi",
)
LABELS = {"a": 500, "b": 500}


def failing(requests: int, rate: float) -> VersionCounts:
    return counted(requests, errors=round(requests * rate))


def slow(requests: int, share: float) -> VersionCounts:
    return counted(requests, ms={5.0: 1 - share, 900.0: share})


BREAKING = [(ERRORS, failing, 0.2), (P99, slow, 0.1)]


@pytest.mark.parametrize(("check", "make", "share"), BREAKING)
def test_a_limit_that_the_candidate_alone_breaks_fails_and_one_that_stable_breaks_too_does_not(
    check: str, make: Any, share: float
) -> None:
    bad, good = make(1_000, share), make(9_000, 0.0)
    assert outcome(rollout({CANDIDATE: bad, STABLE: good}), check) is Outcome.FAIL
    found = verdict(rollout({CANDIDATE: bad, STABLE: make(9_000, share)}), check)
    assert found.outcome is Outcome.PASS
    assert "stable is too at the same time" in found.sentence


@pytest.mark.parametrize(("check", "make", "share"), BREAKING)
def test_a_watched_candidate_is_excused_by_what_stable_did_when_both_had_traffic(
    check: str, make: Any, share: float
) -> None:
    bad = make(1_000, share)
    calm = {CANDIDATE: make(1_000, 0.0), STABLE: make(9_000, 0.0)}
    assert judged(watching(bad, calm), check).is_proof
    assert judged(watching(bad, {}), check).is_proof
    assert outcome(watching(bad, {STABLE: make(9_000, share)}), check) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("check", "make", "share"), BREAKING)
def test_a_time_that_is_worse_than_when_stable_had_traffic_concludes_nothing_up_to_three_times_and_then_is_a_fault(
    check: str, make: Any, share: float
) -> None:
    before = {STABLE: make(9_000, share)}
    assert outcome(watching(make(1_000, 3 * share), before), check) is Outcome.INCONCLUSIVE
    assert judged(watching(make(1_000, 4.5 * share), before), check).is_proof
    alone = {CANDIDATE: make(1_000, 3 * share), STABLE: make(9_000, share)}
    assert judged(rollout(alone), check).is_proof


@pytest.mark.parametrize(("check", "make", "share"), BREAKING)
def test_a_fault_after_a_long_good_time_is_found_in_the_latest_tick(check: str, make: Any, share: float) -> None:
    total, latest = make(1_000_000, 0.001), make(1_000, share)
    assert outcome(watching(total, {}), check) is Outcome.PASS
    found = judged(watching(total, {}, block={CANDIDATE: latest}), check)
    assert (found.verdict.outcome, found.is_proof) == (Outcome.FAIL, True)
    assert "since the last tick" in found.verdict.sentence


@pytest.mark.parametrize(("check", "make", "share"), BREAKING)
def test_a_stable_that_breaks_the_limit_too_excuses_no_more_than_what_it_does_itself(
    check: str, make: Any, share: float
) -> None:
    stable = make(9_000, share)
    far = judged(rollout({CANDIDATE: make(1_000, 4 * share), STABLE: stable}), check)
    assert (far.verdict.outcome, far.is_proof) == (Outcome.FAIL, True)
    assert "more than stable's" in far.verdict.sentence
    total = judged(rollout({CANDIDATE: make(1_000, 1.0), STABLE: make(1, 1.0)}), check)
    assert (total.verdict.outcome, total.is_proof) == (Outcome.FAIL, True)


@pytest.mark.parametrize(("check", "make", "share"), BREAKING)
def test_a_short_outage_of_both_after_a_long_good_time_raises_nothing(check: str, make: Any, share: float) -> None:
    totals = {CANDIDATE: make(100_000, 0.001), STABLE: make(900_000, 0.001)}
    latest = {CANDIDATE: make(1_000, share), STABLE: make(9_000, share)}
    assert outcome(rollout(totals, block=latest), check) is Outcome.PASS
    alone = {CANDIDATE: make(1_000, share), STABLE: make(9_000, 0.0)}
    assert outcome(rollout(totals, block=alone), check) is Outcome.FAIL


def test_a_few_failures_by_chance_are_no_proof_and_many_need_no_least_number() -> None:
    stable = counted(9_000)
    few = verdict(rollout({CANDIDATE: failing(100, 0.07), STABLE: stable}), ERRORS)
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "perhaps by chance" in few.sentence
    assert judged(rollout({CANDIDATE: failing(20, 1.0), STABLE: stable}), ERRORS).is_proof
    some = judged(rollout({CANDIDATE: failing(300, 0.11), STABLE: stable}), ERRORS)
    assert (some.verdict.outcome, some.is_proof) == (Outcome.FAIL, False)


def test_versions_that_both_stand_at_the_limit_pass() -> None:
    counts = {CANDIDATE: counted(1_000, errors=52), STABLE: counted(9_000, errors=448)}
    found = verdict(rollout(counts), ERRORS)
    assert found.outcome is Outcome.PASS
    assert "stable may be too" in found.sentence


def test_a_rate_within_its_limit_passes_with_its_interval() -> None:
    found = verdict(rollout({CANDIDATE: counted(1_000, errors=10), STABLE: counted(9_000)}), ERRORS)
    assert (found.outcome, found.n, found.value, found.limit) == (Outcome.PASS, 1_000, 0.01, 0.05)
    assert found.interval is not None
    assert found.interval[0] < 0.01 < found.interval[1] < 0.05
    assert found.sentence == "the candidate failed 10 of 1000 requests (1.00%), the limit is 5.00%: within it"


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.BLUE_GREEN, Strategy.ALL_AT_ONCE])
def test_what_stable_did_last_stands_for_it_once_the_candidate_has_all_traffic(strategy: Strategy) -> None:
    bad = failing(1_000, 0.2)
    stage: dict[str, Any] = {"stage": None, "state": RolloutState.LOADING} if strategy is Strategy.ALL_AT_ONCE else {}
    found = rollout(policy={"strategy": strategy}, **stage)
    found.progress = took_in(found, [window(1, 3, {STABLE: bad})], 3)
    found.state = RolloutState.WATCHING
    found.progress = took_in(found, [window(2, 4, {CANDIDATE: bad})], 4)
    assert outcome(found, ERRORS) is Outcome.INCONCLUSIVE
    found.progress = found.progress.model_copy(update={"both": {STABLE: failing(1_000, 0.0)}})
    assert outcome(found, ERRORS) is Outcome.FAIL


# Pods.


@pytest.mark.parametrize(
    "make", [lambda pods: rollout({}, pods=pods), lambda pods: previewing(VersionCounts(), pods=pods)]
)
def test_the_fullest_pod_that_reports_and_holds_the_candidate_is_held_to_the_memory_limit(make: Any) -> None:
    calm = {"a": pod(memory_share=0.5), "b": pod(memory_share=0.9)}
    assert outcome(make(calm), MEMORY) is Outcome.PASS
    full = {**calm, "c": pod(memory_share=0.91)}
    found = judged(make(full), MEMORY)
    assert (found.verdict.outcome, found.verdict.value, found.verdict.n) == (Outcome.FAIL, 0.91, 3)
    assert "c has the fullest memory" in found.verdict.sentence
    assert not found.is_proof
    silent = {**calm, "c": pod(age_s=60, memory_share=0.99), "d": pod(memory_share=0.99, loaded=(STABLE,))}
    assert outcome(make(silent), MEMORY) is Outcome.PASS


def test_pods_without_a_memory_limit_hold_nothing_up() -> None:
    found = verdict(rollout({}, pods={"a": pod()}), MEMORY)
    assert (found.outcome, found.advisory) == (Outcome.INCONCLUSIVE, True)


def test_pods_that_lose_the_candidate_break_the_health_limit_and_those_that_still_load_it_do_not() -> None:
    ready = {f"p{number}": pod() for number in range(9)}
    loading = {**ready, "new": pod(loaded=(STABLE,), generation=2), "silent": pod(age_s=60, failed={CANDIDATE: "gone"})}
    assert outcome(rollout({}, pods=loading), HEALTH) is Outcome.PASS
    lost = {**ready, "bad": pod(loaded=(STABLE,), failed={CANDIDATE: "out of memory"})}
    found = verdict(rollout({}, pods=lost), HEALTH)
    assert (found.outcome, found.n, found.value, found.limit) == (Outcome.FAIL, 10, 0.9, 0.95)
    assert found.sentence.endswith("; pod bad has not: out of memory")


def test_a_pod_that_cannot_load_stable_either_is_no_fault_of_the_candidates() -> None:
    failed = {CANDIDATE: "no disk", STABLE: "no disk"}
    pods = {"good": pod(), "bad": pod(loaded=(), failed=failed)}
    assert outcome(rollout({}, pods=pods), HEALTH) is Outcome.PASS


def test_without_a_pod_that_has_it_the_health_of_the_candidate_is_unknown() -> None:
    assert outcome(rollout({}, pods={}), HEALTH) is Outcome.INCONCLUSIVE


# What they lead to.


@pytest.mark.parametrize(
    "state", [RolloutState.PROGRESSING, RolloutState.PAUSED, RolloutState.HELD, RolloutState.WATCHING]
)
@pytest.mark.parametrize(("check", "trigger"), [(ERRORS, Trigger.ERROR_RATE), (P99, Trigger.LATENCY)])
def test_a_proof_takes_the_candidate_back_in_the_tick_that_sees_it_from_every_state_with_traffic(
    state: RolloutState, check: str, trigger: Trigger
) -> None:
    bad = failing(1_000, 0.5) if check == ERRORS else slow(1_000, 0.5)
    decision = decide(rollout({CANDIDATE: bad, STABLE: counted(9_000)}, state=state), NOW)
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, trigger)


@pytest.mark.parametrize(("limit", "ticks"), [(1, 1), (2, 2), (3, 2), (10, 2)])
def test_a_full_memory_takes_the_candidate_back_after_two_ticks_or_sooner_where_the_policy_says_so(
    limit: int, ticks: int
) -> None:
    found = watching(counted(1_000), {}, pods={"a": pod(memory_share=0.99)}, policy={"failure_limit": limit})
    for failed in range(ticks - 1):
        decision = decide(found.model_copy(update={"failed_checks": failed}), NOW)
        assert (decision.event, decision.failed_checks) == (None, failed + 1)
    decision = decide(found.model_copy(update={"failed_checks": ticks - 1}), NOW)
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.MEMORY)


def test_pods_that_lost_the_candidate_take_it_back_in_the_tick_that_sees_it() -> None:
    found = watching(counted(1_000), {}, pods={"a": pod(), "b": pod(loaded=(), failed={CANDIDATE: "gone"})})
    decision = decide(found, NOW)
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.HEALTH)


def test_predictions_that_drift_while_it_is_watched_take_it_back_after_as_many_ticks() -> None:
    both = {CANDIDATE: counted(1_000, predictions=LABELS), STABLE: counted(9_000, predictions=LABELS)}
    found = watching(counted(1_000, predictions={"a": 1_000}), both, failed_checks=2)
    decision = decide(found, NOW)
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.PREDICTION_DRIFT)


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.SPLIT])
def test_a_trigger_that_is_unchecked_says_nothing(strategy: Strategy) -> None:
    none = Triggers(error_rate=None, p99_ms=None, memory_share=None, healthy_share=None, prediction_psi=None)
    found = rollout({CANDIDATE: failing(1_000, 1.0)}, triggers=none, policy={"strategy": strategy})
    assert not [one for one in judge(found, {}, NOW) if one.verdict.check.startswith("trigger_")]
