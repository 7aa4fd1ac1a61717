"""What a tick concludes from which evidence, and what no sequence of events can do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import ConflictError
from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Strategy
from shared.rollout.decide import FRESH_S, Decision, decide
from shared.rollout.documents import Endpoint, Rollout, Target
from shared.rollout.machine import TRANSITIONS, RolloutEvent, RolloutState, next_state
from shared.routing.plan import Guard
from shared.telemetry.evidence import Evidence, evidence_of
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import VersionCounts, Window

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
STABLE, CANDIDATE = 1, 2
POLICY = RolloutPolicy(
    stages=(Stage(weight_bp=1_000, duration_s=60), Stage(weight_bp=5_000, duration_s=60)), min_requests=100
)


def target(version: int) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


def rollout(**changes: Any) -> Rollout:
    fields: dict[str, Any] = {
        "rollout_id": "rollout-000002-0",
        "command_id": "c",
        "candidate": target(CANDIDATE),
        "stable": target(STABLE),
        "policy": POLICY,
        "started_at": NOW - timedelta(seconds=100),
        "next_tick_at": NOW,
        "requested_by": "test",
    }
    return Rollout(**(fields | changes))


def in_stage(stage: int = 0, lasted_s: float = 30.0, **changes: Any) -> Rollout:
    return rollout(
        state=RolloutState.PROGRESSING, stage=stage, stage_started_at=NOW - timedelta(seconds=lasted_s), **changes
    )


def counts(requests: int, errors: int = 0, ms: float = 5.0) -> VersionCounts:
    answered = requests - errors
    return VersionCounts(requests=requests, errors=errors, latency_ms={bucket_index(ms): answered} if answered else {})


def evidence(candidate: VersionCounts, stable: VersionCounts) -> Evidence:
    return Evidence(generation=3, counts={CANDIDATE: candidate, STABLE: stable}, pods={})


def window(pod: str = "p", age_s: float = 1.0, **changes: Any) -> Window:
    at = NOW - timedelta(seconds=age_s)
    fields: dict[str, Any] = {
        "endpoint": "digits",
        "pod": pod,
        "sequence": 1,
        "generation": 3,
        "started_at": at,
        "ended_at": at,
        "loaded": [STABLE, CANDIDATE],
    }
    return Window(**(fields | changes))


def decided(rollout: Rollout, found: Evidence) -> Decision:
    return decide(rollout, found, NOW)


HEALTHY = evidence(counts(1_000), counts(9_000))


def test_a_stage_that_passes_for_its_duration_leads_to_the_next_one() -> None:
    assert decided(in_stage(lasted_s=60), HEALTHY).event is RolloutEvent.ADVANCE


def test_the_last_stage_leads_to_the_promotion() -> None:
    assert decided(in_stage(stage=1, lasted_s=60), HEALTHY).event is RolloutEvent.COMPLETE


def test_a_stage_holds_until_its_duration_is_over() -> None:
    assert decided(in_stage(lasted_s=59), HEALTHY).event is None


@pytest.mark.parametrize(
    ("candidate", "stable"),
    [(counts(99), counts(9_000)), (counts(1_000), counts(99)), (counts(0), counts(0)), (counts(0), counts(10**6))],
)
def test_too_little_evidence_on_either_side_never_advances(candidate: VersionCounts, stable: VersionCounts) -> None:
    decision = decided(in_stage(lasted_s=600), evidence(candidate, stable))
    assert decision.event is None
    assert {verdict.outcome for verdict in decision.verdicts} == {Outcome.INCONCLUSIVE}
    assert "each needs 100" in decision.reason


def test_a_stage_without_a_conclusion_ends_the_rollout_at_its_maximum_duration() -> None:
    decision = decided(in_stage(lasted_s=POLICY.max_stage_s + 1), evidence(counts(0), counts(0)))
    assert decision.event is RolloutEvent.FAIL
    assert "no conclusion" in decision.reason


def test_an_error_rate_above_stables_by_more_than_the_limit_fails_the_check() -> None:
    decision = decided(in_stage(), evidence(counts(1_000, errors=12), counts(9_000, errors=9)))
    assert decision.failed_checks == 1
    verdict = next(v for v in decision.verdicts if v.check == "error_rate")
    assert verdict.outcome is Outcome.FAIL
    assert verdict.n == 1_000
    assert verdict.value == pytest.approx(0.011)
    assert verdict.limit == 0.01
    assert "12 of 1000 requests (1.20%)" in verdict.sentence


def test_an_error_rate_at_the_limit_passes() -> None:
    policy = POLICY.model_copy(update={"gates": Gates(error_rate=0.25)})
    decision = decided(in_stage(policy=policy), evidence(counts(1_000, errors=250), counts(9_000)))
    assert decision.failed_checks == 0


def test_errors_that_touch_both_versions_alike_fail_nothing() -> None:
    decision = decided(in_stage(lasted_s=60), evidence(counts(1_000, errors=200), counts(9_000, errors=1_800)))
    assert decision.event is RolloutEvent.ADVANCE


def test_the_third_failed_check_in_a_row_takes_the_candidate_back() -> None:
    failing = evidence(counts(1_000, errors=100), counts(9_000))
    assert decided(in_stage(failed_checks=1), failing).event is None
    decision = decided(in_stage(failed_checks=2), failing)
    assert decision.event is RolloutEvent.FAIL
    assert "3 failed checks in a row" in decision.reason


def test_a_passed_check_sets_the_count_of_failed_ones_back() -> None:
    assert decided(in_stage(failed_checks=2), HEALTHY).failed_checks == 0


def test_a_candidate_that_errs_on_every_request_fails_though_it_has_no_latencies() -> None:
    decision = decided(in_stage(failed_checks=2), evidence(counts(1_000, errors=1_000), counts(9_000)))
    assert decision.event is RolloutEvent.FAIL


@pytest.mark.parametrize(
    ("candidate_ms", "stable_ms", "fails"),
    [(190, 5, False), (250, 5, True), (250, 200, False), (400, 200, True), (150, 20, False)],
)
def test_latency_fails_only_above_both_the_fixed_limit_and_the_ratio_to_stables(
    candidate_ms: float, stable_ms: float, *, fails: bool
) -> None:
    decision = decided(in_stage(), evidence(counts(1_000, ms=candidate_ms), counts(9_000, ms=stable_ms)))
    verdict = next(v for v in decision.verdicts if v.check == "p99_ms")
    assert (verdict.outcome is Outcome.FAIL) is fails


def test_loading_ends_when_every_pod_that_reports_has_the_candidate_ready() -> None:
    found = evidence_of([window("a"), window("b")], 3)
    assert decided(rollout(), found).event is RolloutEvent.LOADED


def test_loading_goes_on_while_one_pod_lacks_the_candidate() -> None:
    found = evidence_of([window("a"), window("b", loaded=[STABLE])], 3)
    decision = decided(rollout(), found)
    assert decision.event is None
    assert "1 of 2 pods" in decision.reason


def test_a_pod_that_no_longer_reports_is_not_waited_for() -> None:
    found = evidence_of([window("a"), window("b", age_s=FRESH_S + 1, loaded=[STABLE])], 3)
    assert decided(rollout(), found).event is RolloutEvent.LOADED


def test_no_pod_at_all_is_not_readiness() -> None:
    assert decided(rollout(), evidence_of([], 3)).event is None


def test_a_pod_that_still_reports_an_older_generation_is_waited_for() -> None:
    behind = window("b", generation=2, sequence=9, loaded=[STABLE, CANDIDATE])
    decision = decided(rollout(), evidence_of([window("a"), behind], 3))
    assert decision.event is None
    assert "1 of 2 pods" in decision.reason


def test_a_late_window_of_an_older_generation_does_not_hide_that_a_pod_is_ready() -> None:
    late = window("a", generation=2, sequence=2, loaded=[STABLE])
    assert decided(rollout(), evidence_of([window("a"), late], 3)).event is RolloutEvent.LOADED


def test_loading_that_takes_too_long_takes_the_candidate_back() -> None:
    late = rollout(started_at=NOW - timedelta(seconds=POLICY.load_timeout_s + 1))
    assert decided(late, evidence_of([], 3)).event is RolloutEvent.FAIL


def test_a_pod_that_cannot_load_the_candidate_takes_it_back_with_its_reason() -> None:
    found = evidence_of([window("a"), window("b", loaded=[STABLE], failed={CANDIDATE: "digest differs"})], 3)
    decision = decided(rollout(), found)
    assert decision.event is RolloutEvent.FAIL
    assert decision.reason == "pod b cannot load version 2: digest differs"


@pytest.mark.parametrize("change", [{"stable": None}, {"policy": RolloutPolicy(strategy=Strategy.ALL_AT_ONCE)}])
def test_without_stages_to_go_through_a_loaded_candidate_is_promoted(change: dict[str, Any]) -> None:
    assert decided(rollout(**change), evidence_of([window()], 3)).event is RolloutEvent.COMPLETE


def test_windows_of_another_generation_are_no_evidence() -> None:
    busy = window(generation=2, versions={CANDIDATE: counts(1_000)})
    assert evidence_of([busy], 3).counts == {}


def test_a_window_that_is_read_twice_counts_once() -> None:
    busy = window(versions={CANDIDATE: counts(10)})
    assert evidence_of([busy, busy], 3).of(CANDIDATE).requests == 10


@given(
    st.integers(0, 2_000),
    st.floats(0, 1),
    st.integers(0, 2_000),
    st.floats(0, 1),
    st.floats(0, 4_000),
    st.integers(0, 2),
)
def test_nothing_advances_or_completes_without_every_gate_passing(
    requests: int, error_share: float, stable_requests: int, stable_share: float, lasted_s: float, failed_checks: int
) -> None:
    found = evidence(
        counts(requests, errors=round(requests * error_share)),
        counts(stable_requests, errors=round(stable_requests * stable_share)),
    )
    decision = decided(in_stage(lasted_s=lasted_s, failed_checks=failed_checks), found)
    if decision.event in {RolloutEvent.ADVANCE, RolloutEvent.COMPLETE}:
        assert {verdict.outcome for verdict in decision.verdicts} == {Outcome.PASS}


@given(st.lists(st.sampled_from(RolloutEvent), max_size=12))
def test_no_sequence_of_events_leaves_the_table_or_reopens_what_is_over(events: list[RolloutEvent]) -> None:
    state = RolloutState.LOADING
    for event in events:
        if (state, event) in TRANSITIONS:
            assert not state.is_over
            state = next_state(state, event)
        else:
            with pytest.raises(ConflictError, match=f"{state} cannot {event}"):
                next_state(state, event)


def test_promotion_by_command_needs_a_candidate_that_is_loaded() -> None:
    with pytest.raises(ConflictError, match="loading cannot promote; possible now: loaded, complete, fail, abort"):
        next_state(RolloutState.LOADING, RolloutEvent.PROMOTE)


@pytest.mark.parametrize("active", [rollout(), in_stage(lasted_s=60)])
def test_an_altered_candidate_is_taken_back_whatever_the_evidence(active: Rollout) -> None:
    found = decide(active, HEALTHY, NOW, altered="the ONNX file is gone")
    assert (found.event, found.reason) == (RolloutEvent.FAIL, "version 2 was altered: the ONNX file is gone")


@pytest.mark.parametrize("active", [rollout(), in_stage(lasted_s=60), in_stage(stage=1, lasted_s=1)])
def test_one_pod_whose_guard_tripped_takes_the_candidate_back_at_once(active: Rollout) -> None:
    healthy = [window(f"p{i}", versions={CANDIDATE: counts(1_000), STABLE: counts(9_000)}) for i in range(20)]
    found = evidence_of([*healthy, window("q", tripped={CANDIDATE: "it failed 3 of 3 requests"})], 3)
    decision = decided(active, found)
    assert decision.event is RolloutEvent.FAIL
    assert decision.reason == (
        "version 2 was taken out of traffic by a pod's own guard: pod q: it failed 3 of 3 requests"
    )
    assert [(verdict.check, verdict.outcome) for verdict in decision.verdicts] == [("guard", Outcome.FAIL)]


def test_a_trip_counts_although_its_pod_is_gone_or_says_no_more_of_it() -> None:
    told = window("p", age_s=300, sequence=1, tripped={CANDIDATE: "its run hangs"})
    assert decided(in_stage(), evidence_of([told, window("p", sequence=2)], 3)).event is RolloutEvent.FAIL


def test_the_first_trip_is_the_one_that_is_named_in_whatever_order_windows_are_read() -> None:
    windows = [window("a", age_s=5, tripped={CANDIDATE: "later"}), window("b", age_s=9, tripped={CANDIDATE: "first"})]
    assert [evidence_of(found, 3).tripped for found in (windows, windows[::-1])] == [{CANDIDATE: "pod b: first"}] * 2


@pytest.mark.parametrize("other", [window(tripped={STABLE: "x"}), window(generation=2, tripped={CANDIDATE: "x"})])
def test_a_trip_of_another_version_or_generation_is_not_the_candidates(other: Window) -> None:
    found = evidence_of([other, window("q", versions={CANDIDATE: counts(1_000), STABLE: counts(9_000)})], 3)
    assert decided(in_stage(lasted_s=60), found).event is RolloutEvent.ADVANCE


def test_the_plan_carries_the_guard_of_the_policy_that_the_rollout_began_with() -> None:
    guard = Guard(level=0.01, margin=0.02)
    active = in_stage(policy=POLICY.model_copy(update={"guard": guard}))
    plan = Endpoint(endpoint="digits", generation=3, stable=target(STABLE), rollout=active).plan()
    assert plan is not None
    assert plan.guard == guard
