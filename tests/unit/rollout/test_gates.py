"""The gates of each kind of stage: what passes, what fails, and what is too little to say."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import GateName, Gates, QueryGate, Stage, Triggers
from shared.rollout.gates import EVIDENCE, judge
from shared.rollout.machine import RolloutState
from shared.rollout.queries import QueryAnswer
from shared.telemetry.window import VersionCounts
from tests.unit.rollout.evidence import (
    CANDIDATE,
    NOW,
    OTHER,
    STABLE,
    binding,
    counted,
    judged,
    outcome,
    previewing,
    rollout,
    shadow,
    shadowing,
    target,
    verdict,
    watching,
)

UNCHECKED = Triggers(error_rate=None, p99_ms=None, memory_share=None, healthy_share=None, prediction_psi=None)
LABELS = {"a": 600, "b": 300, "c": 100}
GOOD = {CANDIDATE: counted(1_000, predictions=LABELS), STABLE: counted(9_000, predictions=LABELS)}


def test_a_healthy_candidate_passes_every_gate_and_each_verdict_has_its_numbers() -> None:
    good = {CANDIDATE: counted(1_000, predictions=LABELS), STABLE: counted(1_000, predictions=LABELS)}
    found = [one.verdict for one in judge(rollout(good), {}, NOW)]
    assert {one.outcome for one in found if not one.advisory} == {Outcome.PASS}
    for one in found:
        assert one.sentence
        assert one.n is not None
        assert one.limit is not None
        Verdict.model_validate_json(one.model_dump_json())
    # An upper bound of a p99 needs more answers than these.
    sampled = {GateName.ERROR_RATE, GateName.SLOW_RATE, GateName.PREDICTION_PSI, "trigger_error_rate"}
    assert all(one.interval for one in found if one.check in sampled)


@pytest.mark.parametrize("state", [RolloutState.PROGRESSING, RolloutState.WATCHING])
@pytest.mark.parametrize("unchecked", [True, False])
@pytest.mark.parametrize("least", [0, 100])
def test_no_data_never_passes_whatever_is_left_unchecked(state: RolloutState, unchecked: bool, least: int) -> None:  # noqa: FBT001
    gates = Gates(dry_run=tuple(GateName), prediction_psi=None) if unchecked else Gates()
    triggers = UNCHECKED if unchecked else Triggers()
    stages = (Stage(weight_bp=1_000, duration_s=60, min_requests=least),)
    found = rollout({}, state=state, gates=gates, triggers=triggers, policy={"stages": stages, "min_requests": 1})
    assert Outcome.INCONCLUSIVE in binding(found)


@pytest.mark.parametrize("state", [RolloutState.PROGRESSING, RolloutState.WATCHING])
def test_with_everything_unchecked_enough_requests_pass(state: RolloutState) -> None:
    found = rollout({CANDIDATE: counted(100)}, state=state, gates=Gates(dry_run=tuple(GateName)), triggers=UNCHECKED)
    assert binding(found) == {Outcome.PASS}
    assert verdict(found, EVIDENCE).sentence == "100 requests of the candidate, 100 are needed"


def test_before_its_first_stage_nothing_is_asked() -> None:
    assert judge(rollout({}, state=RolloutState.LOADING, stage=None), {}, NOW) == []


def test_a_stage_with_all_traffic_is_held_to_the_limits_alone() -> None:
    stages = (Stage(weight_bp=10_000, duration_s=60),)
    found = rollout({CANDIDATE: counted(1_000, predictions=LABELS)}, both=GOOD, policy={"stages": stages})
    assert binding(found) == {Outcome.PASS}
    assert GateName.ERROR_RATE not in {one.verdict.check for one in judge(found, {}, NOW)}


def test_gates_in_dry_run_are_recorded_and_neither_hold_nor_end_anything() -> None:
    bad = {CANDIDATE: counted(1_000, errors=400), STABLE: counted(9_000)}
    strict = rollout(bad, triggers=UNCHECKED)
    assert judged(strict, GateName.ERROR_RATE).is_proof
    dry = judged(rollout(bad, triggers=UNCHECKED, gates=Gates(dry_run=(GateName.ERROR_RATE,))), GateName.ERROR_RATE)
    assert (dry.verdict.outcome, dry.verdict.advisory, dry.is_proof) == (Outcome.FAIL, True, False)


def test_a_query_that_cannot_be_asked_is_an_error_and_one_in_dry_run_is_none() -> None:
    queries = tuple(QueryGate(name=name, query="up", at_most=1, dry_run=name == "dry") for name in ("kept", "dry"))
    found = rollout(GOOD, gates=Gates(queries=queries))
    answers = {name: QueryAnswer(error="no route to host") for name in ("kept", "dry")}
    told = {one.verdict.check: one.verdict for one in judge(found, answers, NOW)}
    assert told["kept"].outcome is Outcome.ERROR
    assert not told["kept"].advisory
    assert told["dry"].advisory


@pytest.mark.parametrize("name", [EVIDENCE, "trigger_error_rate", "error_rate", "guard", "disagreement_v3"])
def test_no_query_takes_the_name_of_another_check(name: str) -> None:
    with pytest.raises(ValidationError, match="name each query differently"):
        Gates(queries=(QueryGate(name=name, query="up", at_most=1, dry_run=True),))


def test_a_dry_run_query_whose_name_is_that_of_a_check_disarms_nothing_but_itself() -> None:
    # As a policy might hold it that was stored before such names were refused.
    query = QueryGate(name=EVIDENCE, query="up", at_most=1, dry_run=True)
    found = rollout({}, gates=Gates(dry_run=tuple(GateName)), triggers=UNCHECKED)
    policy = found.policy.model_copy(update={"gates": found.gates.model_copy(update={"queries": (query,)})})
    decided = judge(found.model_copy(update={"policy": policy}), {}, NOW)
    assert [one.verdict.outcome for one in decided if not one.verdict.advisory] == [Outcome.INCONCLUSIVE]
    assert [one.verdict.check for one in decided if one.verdict.advisory].count(EVIDENCE) == 1


# The p99.


def slow(requests: int, share: float, ms: float = 900.0) -> VersionCounts:
    return counted(requests, ms={5.0: 1 - share, ms: share})


def test_the_verdict_on_the_p99_tells_the_quantiles_of_both() -> None:
    candidate = counted(10_000, ms={10.0: 0.6, 50.0: 0.37, 90.0: 0.03})
    stable = counted(20_000, ms={20.0: 0.6, 60.0: 0.37, 80.0: 0.03})
    found = verdict(rollout({CANDIDATE: candidate, STABLE: stable}), GateName.P99_MS)
    assert found.sentence == (
        "p50, p95 and p99 are 10.0, 49.9, 90.5 ms over 10000 answers of the candidate, 20.1, 59.7, 80.3 ms over 20000 "
        "of stable: the candidate's p99 is within the limit of 200.0 ms"
    )
    assert found.interval is not None
    assert found.interval[0] <= (found.value or 0.0) <= found.interval[1]


def test_a_p99_above_both_limits_fails_once_that_is_no_chance() -> None:
    stable = counted(9_000)
    # Of 100 answers 3 are slow: more than 1 %, but perhaps by chance.
    assert outcome(rollout({CANDIDATE: slow(100, 0.03), STABLE: stable}), GateName.P99_MS) is Outcome.INCONCLUSIVE
    found = judged(rollout({CANDIDATE: slow(3_000, 0.03), STABLE: stable}), GateName.P99_MS)
    assert found.verdict.outcome is Outcome.FAIL
    assert not found.is_proof
    assert "above the limit of 200.0 ms, which is no chance" in found.verdict.sentence


def test_a_p99_above_one_limit_alone_passes() -> None:
    assert (
        outcome(rollout({CANDIDATE: slow(3_000, 0.03, 190), STABLE: counted(9_000)}), GateName.P99_MS) is Outcome.PASS
    )
    both_slow = {CANDIDATE: slow(3_000, 0.03, 900), STABLE: slow(9_000, 0.03, 800)}
    assert outcome(rollout(both_slow), GateName.P99_MS) is Outcome.PASS
    slower = {CANDIDATE: slow(3_000, 0.03, 900), STABLE: slow(9_000, 0.03, 400)}
    assert outcome(rollout(slower), GateName.P99_MS) is Outcome.FAIL


@pytest.mark.parametrize("counts", [(99, 9_000), (1_000, 99), (0, 9_000)])
def test_a_p99_of_too_few_answers_is_inconclusive(counts: tuple[int, int]) -> None:
    found = rollout({CANDIDATE: slow(counts[0], 1.0), STABLE: counted(counts[1])})
    assert outcome(found, GateName.P99_MS) is Outcome.INCONCLUSIVE


# What is predicted.


@pytest.mark.parametrize("requests", [200, 1_000, 50_000])
def test_a_candidate_that_predicts_otherwise_fails(requests: int) -> None:
    candidate = counted(requests, predictions={"a": requests // 10, "b": requests - requests // 10})
    stable = counted(9_000, predictions={"a": 8_000, "b": 1_000})
    found = verdict(rollout({CANDIDATE: candidate, STABLE: stable}), GateName.PREDICTION_PSI)
    assert found.outcome is Outcome.FAIL
    assert found.interval is not None
    assert 0.1 < found.interval[0] < (found.value or 0.0) < found.interval[1]
    assert "no chance (chi-square" in found.sentence


def test_a_season_that_moves_the_predictions_of_both_raises_nothing() -> None:
    quiet, season = {"a": 800, "b": 200}, {"a": 200, "b": 800}
    both = {CANDIDATE: counted(1_000, predictions=season), STABLE: counted(1_000, predictions=season)}
    alone = {CANDIDATE: counted(1_000, predictions=season), STABLE: counted(1_000, predictions=quiet)}
    for check in (GateName.PREDICTION_PSI, "trigger_prediction_psi"):
        assert outcome(rollout(both), check) is Outcome.PASS
        assert outcome(rollout(alone), check) is Outcome.FAIL


def test_a_psi_of_few_requests_that_chance_explains_is_inconclusive_and_nothing_fails_below_the_least() -> None:
    labels = {str(label): 1 for label in range(10)}
    stable = counted(1_000, predictions=dict.fromkeys(labels, 100))
    skewed = {"0": 25, "1": 20, "2": 5, "3": 5, "4": 15, "5": 10, "6": 5, "7": 5, "8": 5, "9": 5}
    few = rollout({CANDIDATE: counted(100, predictions=skewed), STABLE: stable})
    assert outcome(few, GateName.PREDICTION_PSI) is Outcome.FAIL
    mild = {"0": 16, "1": 14, "2": 5, "3": 5, "4": 13, "5": 12, "6": 14, "7": 5, "8": 8, "9": 8}
    found = verdict(rollout({CANDIDATE: counted(100, predictions=mild), STABLE: stable}), GateName.PREDICTION_PSI)
    assert found.outcome is not Outcome.FAIL
    none = rollout({CANDIDATE: counted(99, predictions={"0": 99}), STABLE: stable})
    assert outcome(none, GateName.PREDICTION_PSI) is Outcome.INCONCLUSIVE


def test_what_chance_adds_to_a_psi_is_taken_off() -> None:
    draw, found = np.random.default_rng(6), []
    for _ in range(40):
        labels = [{str(n): int(rows) for n, rows in enumerate(draw.multinomial(100, [0.1] * 10))} for _ in range(2)]
        counts = {
            version: counted(100, predictions=rows) for version, rows in zip((CANDIDATE, STABLE), labels, strict=True)
        }
        found.append(verdict(rollout(counts), GateName.PREDICTION_PSI))
    # By chance alone it is 9 (1/100 + 1/100) = 0.18 in the mean.
    assert np.mean([one.value or 0.0 for one in found]) < 0.05
    assert sum(one.outcome is Outcome.FAIL for one in found) <= 1


def test_rows_of_one_request_go_together() -> None:
    # 20 requests of 100 rows each are 20 observations, not 2,000.
    candidate = counted(20, predictions={"a": 1_000, "b": 1_000})
    stable = counted(9_000, predictions={"a": 8_000, "b": 1_000})
    found = verdict(rollout({CANDIDATE: candidate, STABLE: stable}), GateName.PREDICTION_PSI)
    assert (found.outcome, found.n) == (Outcome.INCONCLUSIVE, 20)


def test_where_servers_count_no_predictions_nothing_waits_for_them() -> None:
    found = rollout({CANDIDATE: counted(1_000), STABLE: counted(9_000)})
    for check in (GateName.PREDICTION_PSI, "trigger_prediction_psi"):
        assert verdict(found, check).advisory
    assert binding(found) == {Outcome.PASS}


def test_predictions_of_one_side_alone_pass_nothing() -> None:
    found = verdict(rollout({CANDIDATE: counted(1_000), STABLE: counted(9_000, predictions=LABELS)}), "prediction_psi")
    assert (found.outcome, found.advisory) == (Outcome.INCONCLUSIVE, False)


def test_a_watched_candidate_is_held_against_what_stable_predicted_when_both_had_traffic() -> None:
    before = {CANDIDATE: counted(1_000, predictions=LABELS), STABLE: counted(9_000, predictions=LABELS)}
    same, moved = counted(5_000, predictions=LABELS), counted(5_000, predictions={"c": 5_000})
    check = "trigger_prediction_psi"
    assert outcome(watching(same, before), check) is Outcome.PASS
    found = verdict(watching(moved, before), check)
    assert found.outcome is Outcome.FAIL
    assert "stable's when it last had traffic" in found.sentence


def test_a_watched_candidate_whose_stable_was_never_counted_waits_for_nothing() -> None:
    found = watching(counted(5_000, predictions=LABELS), {})
    assert verdict(found, "trigger_prediction_psi").advisory
    assert binding(found) == {Outcome.PASS}


# Before there is traffic.


def test_a_preview_passes_once_enough_requests_named_the_candidate_and_none_failed() -> None:
    gates = Gates(smoke_requests=10)
    assert outcome(previewing(VersionCounts(pinned=9), gates=gates), GateName.SMOKE) is Outcome.INCONCLUSIVE
    assert outcome(previewing(VersionCounts(pinned=10), gates=gates), GateName.SMOKE) is Outcome.PASS
    signed = VersionCounts(pinned=50, pinned_errors=1, overrides={"ann": 30, "bob": 20})
    found = verdict(previewing(signed, gates=gates), GateName.SMOKE)
    assert (found.outcome, found.n, found.value, found.limit) == (Outcome.FAIL, 50, 1.0, 0.0)
    assert found.sentence == "the candidate answered 49 of 50 requests that named it: none may fail"


@pytest.mark.parametrize(("failed", "expected"), [(20, Outcome.INCONCLUSIVE), (21, Outcome.FAIL)])
def test_failures_that_may_all_be_of_requests_that_nobody_signed_are_for_somebody_to_look_at(
    failed: int, expected: Outcome
) -> None:
    counts = VersionCounts(pinned=50, pinned_errors=failed, overrides={"ann": 30})
    found = verdict(previewing(counts, gates=Gates(smoke_requests=10)), GateName.SMOKE)
    assert found.outcome is expected
    assert ("the overrides of 20 were not signed" in found.sentence) is (expected is Outcome.INCONCLUSIVE)


def test_a_preview_that_wants_no_requests_says_what_stands_in_for_them() -> None:
    plain, proven = previewing(VersionCounts()), previewing(VersionCounts(), candidate=target(CANDIDATE, "b" * 64))
    assert binding(plain) == binding(proven) == {Outcome.PASS}
    assert "no golden rows" in verdict(plain, GateName.SMOKE).sentence
    assert "replayed its golden rows" in verdict(proven, GateName.SMOKE).sentence


def test_a_preview_without_a_pod_that_is_ready_passes_nothing() -> None:
    found = previewing(VersionCounts(), pods={}, gates=Gates(dry_run=(GateName.SMOKE,)), triggers=UNCHECKED)
    assert binding(found) == {Outcome.INCONCLUSIVE}


def test_a_stage_that_mirrors_asks_for_agreement_and_for_no_traffic() -> None:
    counts = {CANDIDATE: shadow(mirrored=1_000, compared=1_000), STABLE: counted(1_000)}
    found = shadowing(counts, shadows=(target(OTHER),))
    assert binding(found) == {Outcome.PASS}
    checks = [one.verdict.check for one in judge(found, {}, NOW)]
    assert checks == ["disagreement", "disagreement_v3", EVIDENCE, "trigger_memory", "trigger_health"]


def test_every_verdict_of_every_kind_of_stage_can_be_stored() -> None:
    kinds = [
        rollout(GOOD),
        rollout({}),
        watching(counted(5), GOOD),
        previewing(VersionCounts()),
        shadowing({}),
        shadowing({CANDIDATE: shadow(mirrored=10, compared=10, numbers=10)}),
    ]
    for found in kinds:
        for one in judge(found, {}, NOW):
            assert Verdict.model_validate(json.loads(one.verdict.model_dump_json())) == one.verdict
