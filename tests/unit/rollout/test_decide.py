"""What a tick concludes from which evidence, in which state."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.verdict import Outcome, joined
from shared.registry.drift_policy import Following
from shared.registry.rollout_policy import Gates, Otherwise, QueryGate, Stage, Strategy
from shared.rollout.decide import Decision, decide
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.findings import DriftEvidence
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.publishing import publish
from shared.rollout.queries import QueryAnswer
from shared.rollout.rollbacks import Trigger
from shared.routing.plan import Guard
from shared.telemetry.window import VersionCounts
from tests.unit.rollout.evidence import CANDIDATE, NOW, OTHER, STABLE, counted, pod, rollout, target

STAGES = (Stage(weight_bp=1_000, duration_s=60), Stage(weight_bp=5_000, duration_s=60))
ONWARD = {
    RolloutEvent.LOADED,
    RolloutEvent.ADVANCE,
    RolloutEvent.WAIT,
    RolloutEvent.SWITCH,
    RolloutEvent.COMPLETE,
    RolloutEvent.CONCLUDE,
}
HEALTHY = {CANDIDATE: counted(1_000), STABLE: counted(9_000)}
QUERY = QueryGate(name="revenue", query="x", at_least=1.0)
ASKED = Gates(queries=(QUERY,))


def in_stage(
    counts: dict[int, VersionCounts] | None = None, *, lasted_s: float = 60, stage: int | None = 0, **changes: Any
) -> Rollout:
    policy = {"stages": STAGES, **changes.pop("policy", {})}
    started = NOW - timedelta(seconds=lasted_s)
    fields = {"stage": stage, "stage_started_at": started, "published_at": started, **changes}
    return rollout(HEALTHY if counts is None else counts, policy=policy, **fields)


def loading(pods: dict[str, PodSeen] | None = None, **changes: Any) -> Rollout:
    return in_stage({}, state=RolloutState.LOADING, stage=None, pods=pods, **changes).model_copy(
        update={"stage_started_at": None}
    )


def unapplied(counts: dict[int, VersionCounts] | None = None, **changes: Any) -> Rollout:
    """In a stage whose plan the quorum has not applied."""
    pods = {"p": pod(), "q": pod(generation=2)}
    return in_stage(counts, **{"pods": pods, **changes}).model_copy(update={"stage_started_at": None})


def decided(found: Rollout, **told: Any) -> Decision:
    return decide(found, NOW, **told)


@pytest.mark.parametrize(
    ("stage", "policy", "event"),
    [
        (0, {}, RolloutEvent.ADVANCE),
        (1, {}, RolloutEvent.SWITCH),
        (1, {"watch_s": 0}, RolloutEvent.COMPLETE),
        (0, {"stages": (STAGES[0], STAGES[1].model_copy(update={"approval": True}))}, RolloutEvent.WAIT),
        (1, {"switch_approval": True}, RolloutEvent.WAIT),
    ],
)
def test_a_stage_that_passes_for_its_duration_leads_on(stage: int, policy: dict[str, Any], event: RolloutEvent) -> None:
    assert decided(in_stage(stage=stage, policy=policy)).event is event


def test_a_stage_holds_until_its_duration_is_over() -> None:
    assert decided(in_stage(lasted_s=59)).event is None


@pytest.mark.parametrize("counts", [{}, {CANDIDATE: counted(99), STABLE: counted(9_000)}, {STABLE: counted(10**6)}])
def test_too_little_evidence_never_advances_and_ends_the_rollout_at_the_stage_s_longest(
    counts: dict[int, VersionCounts],
) -> None:
    assert decided(in_stage(counts, lasted_s=600)).event is None
    late = decided(in_stage(counts, lasted_s=3_601))
    assert (late.event, late.trigger) == (RolloutEvent.FAIL, Trigger.NO_CONCLUSION)
    assert "no conclusion after 3601 s" in late.reason


def test_a_stage_without_a_conclusion_is_held_where_policy_says_so_and_a_watched_candidate_stays_watched() -> None:
    hold = {"on_inconclusive": Otherwise.HOLD}
    assert decided(in_stage({}, lasted_s=3_601, policy=hold)).event is RolloutEvent.HOLD
    watched = in_stage({}, lasted_s=3_601, policy=hold, state=RolloutState.WATCHING)
    assert decided(watched).event is None


def test_a_stage_of_its_own_most_and_least_goes_by_them() -> None:
    own = Stage(weight_bp=1_000, duration_s=10, max_duration_s=20, min_requests=2_000)
    enough = {CANDIDATE: counted(2_000), STABLE: counted(9_000)}
    assert decided(in_stage(lasted_s=15, policy={"stages": (own,)})).event is None
    assert decided(in_stage(lasted_s=21, policy={"stages": (own,)})).trigger is Trigger.NO_CONCLUSION
    assert decided(in_stage(enough, lasted_s=11, policy={"stages": (own,)})).event is RolloutEvent.SWITCH


def test_what_is_proven_ends_the_rollout_at_once_and_names_its_trigger() -> None:
    decision = decided(in_stage({CANDIDATE: counted(1_000, 200), STABLE: counted(9_000)}, lasted_s=1))
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.ERROR_RATE)
    assert "worse than stable is proven" in decision.reason


def test_failed_checks_without_a_proof_end_the_rollout_at_the_limit_and_a_pass_forgets_them() -> None:
    low = {QUERY.name: QueryAnswer(value=0.5)}
    first = decided(in_stage(gates=ASKED), answers=low)
    assert (first.event, first.failed_checks) == (None, 1)
    assert first.reason.startswith("failed check 1 of 3")
    third = decided(in_stage(gates=ASKED, failed_checks=2), answers=low)
    assert (third.event, third.trigger) == (RolloutEvent.FAIL, Trigger.QUERY)
    assert third.reason.startswith("3 failed checks without a pass between")
    assert (
        decided(in_stage(gates=ASKED, failed_checks=2), answers={QUERY.name: QueryAnswer(value=2)}).failed_checks == 0
    )


def test_a_gate_that_cannot_be_asked_is_asked_again_and_holds_the_stage_at_the_limit() -> None:
    down = {QUERY.name: QueryAnswer(error="timeout")}
    assert decided(in_stage(gates=ASKED), answers=down).errored_checks == 1
    held = decided(in_stage(gates=ASKED, errored_checks=4), answers=down)
    assert held.event is RolloutEvent.HOLD
    assert held.reason.startswith("5 ticks in a row")
    assert (
        decided(in_stage(gates=ASKED, errored_checks=4), answers={QUERY.name: QueryAnswer(value=2)}).errored_checks == 0
    )


def test_a_failed_check_is_forgotten_by_a_pass_alone() -> None:
    failed = 0
    for answer in (QueryAnswer(value=0.5), QueryAnswer(), QueryAnswer(error="timeout"), QueryAnswer(value=0.5)):
        failed = decided(in_stage(gates=ASKED, failed_checks=failed), answers={QUERY.name: answer}).failed_checks
    assert failed == 2


def test_a_watch_in_which_a_gate_cannot_be_asked_neither_ends_nor_takes_back_and_says_for_how_long() -> None:
    down = {QUERY.name: QueryAnswer(error="timeout")}
    watched = in_stage(gates=ASKED, errored_checks=1_199, state=RolloutState.WATCHING, lasted_s=36_000)
    stays = decided(watched, answers=down)
    assert (stays.event, stays.errored_checks) == (None, 1_200)
    assert stays.reason.startswith("1200 ticks in a row: the query could not be asked")
    assert decided(watched, answers={QUERY.name: QueryAnswer(value=2)}).event is RolloutEvent.COMPLETE


@pytest.mark.parametrize("age_s", [1.0, 31.0])
def test_a_rolling_candidate_is_compared_with_what_stable_counted_in_the_stage_although_its_pod_is_late(
    age_s: float,
) -> None:
    slow, good = counted(1_000, ms={5.0: 0.95, 400.0: 0.05}), counted(1_000)
    found = in_stage(
        {CANDIDATE: slow, STABLE: good},
        policy={"strategy": Strategy.ROLLING, "max_unavailable": 1},
        pods={"a": pod(), "b": pod(age_s=age_s)},
        rolled=("a",),
        failed_checks=2,
        gates=Gates(slow_ms=1_000.0),
    )
    found.progress = found.progress.model_copy(update={"looked_at": NOW, "both": {STABLE: good}})
    decision = decided(found)
    assert (decision.event, decision.failed_checks) == (RolloutEvent.FAIL, 3)
    assert "the candidate's p99 is above the limit" in decision.reason


@pytest.mark.parametrize("state", [RolloutState.PAUSED, RolloutState.HELD, RolloutState.AWAITING])
def test_a_halted_stage_goes_nowhere_by_itself_but_back(state: RolloutState) -> None:
    assert decided(in_stage(state=state, lasted_s=10_000)).event is None
    failing = in_stage({CANDIDATE: counted(1_000, 200), STABLE: counted(9_000)}, state=state)
    assert decided(failing).event is RolloutEvent.FAIL


def test_a_split_is_ended_by_no_gate_but_by_failure() -> None:
    split = {"strategy": Strategy.SPLIT}
    assert decided(in_stage(lasted_s=10_000, policy=split)).event is None
    assert decided(in_stage({}, lasted_s=10_000, policy=split)).event is None
    failing = {CANDIDATE: counted(1_000, 200), STABLE: counted(9_000)}
    assert decided(in_stage(failing, policy=split)).event is RolloutEvent.FAIL


def test_what_blocks_keeps_a_passing_stage_and_ends_no_watch() -> None:
    decision = decided(in_stage(), blocked="freeze window x is on")
    assert decision.event is None
    assert decision.reason == "all gates pass; freeze window x is on"
    assert decided(loading(), blocked="freeze window x is on").event is None
    watched = in_stage({CANDIDATE: counted(10_000)}, lasted_s=301, state=RolloutState.WATCHING, both=HEALTHY)
    assert decided(watched, blocked="freeze window x is on").event is RolloutEvent.COMPLETE


# Whole state table: row G28.


def states() -> list[Rollout]:
    """A rollout of each active state and of each way to be in it, all evidence of which passes and is old enough."""
    active = [state for state in RolloutState if not state.is_over and state is not RolloutState.LOADING]
    found = []
    for strategy in Strategy:
        policy = {"strategy": strategy, "on_inconclusive": Otherwise.HOLD}
        found += [in_stage(lasted_s=10_000, gates=ASKED, policy=policy, state=state) for state in active]
        found += [in_stage(lasted_s=1, gates=ASKED, policy=policy, state=state) for state in active]
    return [one for one in found if one.stage is None or one.stage < len(one.stages)]


@pytest.mark.parametrize("answer", [QueryAnswer(), QueryAnswer(error="down"), QueryAnswer(value=0.0)])
def test_one_gate_that_is_inconclusive_in_error_or_failed_keeps_every_state_from_going_on(answer: QueryAnswer) -> None:
    looked_at = 0
    for found in states():
        decision = decided(found, answers={QUERY.name: answer})
        assert decision.event not in ONWARD, (found.state, found.policy.strategy)
        looked_at += 1
    assert looked_at >= 50


def test_no_data_keeps_every_state_from_going_on() -> None:
    for found in states():
        for pods in ({}, {"p": pod(age_s=100)}):
            empty = found.model_copy(update={"progress": Progress(generation=3, pods=pods)})
            for stage_started_at in (None, found.stage_started_at):
                decision = decided(empty.model_copy(update={"stage_started_at": stage_started_at}))
                assert decision.event not in ONWARD, (found.state, found.policy.strategy)
    assert decided(loading({})).event is None


@given(
    st.integers(0, 2_000),
    st.floats(0, 1),
    st.integers(0, 2_000),
    st.floats(0, 1),
    st.floats(0, 4_000),
    st.integers(0, 2),
    st.sampled_from([s for s in RolloutState if not s.is_over and s is not RolloutState.LOADING]),
)
def test_nothing_goes_on_without_a_pass_of_all_that_binds(
    requests: int, share: float, others: int, other_share: float, lasted_s: float, failed: int, state: RolloutState
) -> None:
    counts = {
        CANDIDATE: counted(requests, round(requests * share)),
        STABLE: counted(others, round(others * other_share)),
    }
    decision = decided(in_stage(counts, lasted_s=lasted_s, failed_checks=failed, state=state))
    if decision.event in ONWARD:
        assert joined(decision.verdicts) is Outcome.PASS


# Convergence.


def test_loading_ends_when_the_quorum_of_the_pods_that_report_has_the_candidate_ready() -> None:
    ready, behind = pod(), pod(loaded=(STABLE,))
    assert decided(loading({"a": ready, "b": ready})).event is RolloutEvent.LOADED
    one_of_two = decided(loading({"a": ready, "b": behind}))
    assert one_of_two.event is None
    assert "1 of 2 pods that report have version 2 ready" in one_of_two.reason
    half = {"quorum": 0.5}
    assert decided(loading({"a": ready, "b": behind}, policy=half)).event is RolloutEvent.LOADED


def test_a_pod_that_fell_silent_is_not_waited_for_and_one_that_reports_an_older_plan_is() -> None:
    silent = decided(loading({"a": pod(), "b": pod(age_s=31, loaded=(STABLE,))}))
    assert silent.event is RolloutEvent.LOADED
    assert "1 fell silent" in silent.reason
    assert decided(loading({"a": pod(), "b": pod(generation=2)})).event is None


def test_a_pod_that_cannot_load_takes_the_candidate_back_with_its_reason_or_holds_it_there() -> None:
    pods = {"a": pod(), "b": pod(loaded=(STABLE,), failed={CANDIDATE: "digest differs"})}
    decision = decided(loading(pods))
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.LOADING)
    assert "pod b cannot load version 2: digest differs" in decision.reason
    held = decided(loading(pods, policy={"on_load_failure": Otherwise.HOLD}))
    assert held.event is None
    assert "digest differs" in held.reason
    quorum = {"on_load_failure": Otherwise.HOLD, "quorum": 0.5}
    assert decided(loading(pods, policy=quorum)).event is RolloutEvent.LOADED


def test_a_further_shadow_that_no_pod_can_load_is_no_fault_of_the_candidate_s() -> None:
    pods = {"a": pod(failed={OTHER: "no memory"})}
    mirrored = in_stage({}, pods=pods, shadows=(target(OTHER),), policy={"strategy": Strategy.SHADOW}).model_copy(
        update={"stage_started_at": None}
    )
    assert decided(mirrored).is_settled
    waited_for = mirrored.model_copy(update={"progress": Progress(generation=3, pods={"a": pod()})})
    assert not decided(waited_for).is_settled


def test_loading_that_takes_too_long_is_taken_back() -> None:
    late = loading({"a": pod(loaded=())}, lasted_s=601)
    assert decided(late).trigger is Trigger.LOADING
    assert "after 601 s" in decided(late).reason


def test_a_stage_s_time_begins_when_the_quorum_has_applied_its_plan() -> None:
    assert not decided(unapplied()).is_settled
    both = decided(unapplied(pods={"p": pod(), "q": pod()}))
    assert both.is_settled
    assert both.event is None


def test_a_candidate_that_fails_before_all_pods_have_applied_the_stage_s_plan_is_taken_back_at_once() -> None:
    failing = unapplied({CANDIDATE: counted(1_000, 200), STABLE: counted(9_000)})
    assert (decided(failing).event, decided(failing).trigger) == (RolloutEvent.FAIL, Trigger.ERROR_RATE)


def test_a_plan_that_pods_do_not_apply_in_time_is_taken_back_or_held_and_resuming_gives_them_as_long_again() -> None:
    assert decided(unapplied(lasted_s=601)).trigger is Trigger.LOADING
    hold = {"on_load_failure": Otherwise.HOLD}
    assert decided(unapplied(lasted_s=601, policy=hold)).event is RolloutEvent.HOLD
    resumed = unapplied(lasted_s=601, policy=hold, resumed_at=NOW - timedelta(seconds=5))
    assert decided(resumed).event is None


def test_more_pods_of_a_rolling_rollout_wait_for_those_that_are_missing() -> None:
    rolling: dict[str, Any] = {"strategy": Strategy.ROLLING}
    pods = {"a": pod(), "b": pod(age_s=100)}
    held = decided(in_stage(pods=pods, policy=rolling))
    assert held.event is None
    assert "1 pods are silent or failing (b), max_unavailable is 0" in held.reason
    assert decided(in_stage(pods=pods, policy=rolling | {"max_unavailable": 1})).event is RolloutEvent.ADVANCE
    scaled_away = {"a": pod(), "b": pod(age_s=301)}
    assert decided(in_stage(pods=scaled_away, policy=rolling)).event is RolloutEvent.ADVANCE


# What the candidate is proven to be.


@pytest.mark.parametrize("active", [loading(), in_stage(), in_stage(stage=1), unapplied()])
def test_an_altered_candidate_is_taken_back_whatever_the_evidence(active: Rollout) -> None:
    found = decided(active, altered="the ONNX file is gone")
    assert (found.event, found.trigger) == (RolloutEvent.FAIL, Trigger.ALTERED)
    assert found.reason == "version 2 was altered: the ONNX file is gone"


@pytest.mark.parametrize("state", [s for s in RolloutState if not s.is_over])
def test_one_pod_whose_guard_tripped_takes_the_candidate_back_at_once(state: RolloutState) -> None:
    pods = {
        **{f"p{n}": pod() for n in range(20)},
        "q": pod(age_s=300, tripped={CANDIDATE: "it failed 3 of 3 requests"}),
    }
    decision = decided(in_stage(state=state, pods=pods))
    assert (decision.event, decision.trigger) == (RolloutEvent.FAIL, Trigger.GUARD)
    assert (
        decision.reason == "version 2 was taken out of traffic by a pod's own guard: pod q: it failed 3 of 3 requests"
    )
    assert [(verdict.check, verdict.outcome) for verdict in decision.verdicts] == [("guard", Outcome.FAIL)]


def test_a_trip_of_another_version_is_not_the_candidate_s() -> None:
    assert decided(in_stage(pods={"q": pod(tripped={STABLE: "x"})})).event is RolloutEvent.ADVANCE


# The ways of the strategies.


def test_the_first_version_is_promoted_once_it_is_loaded_and_approved_of_where_the_switch_needs_that() -> None:
    for strategy in Strategy:
        assert decided(loading(stable=None, policy={"strategy": strategy})).event is RolloutEvent.COMPLETE
    assert decided(loading(stable=None, policy={"switch_approval": True})).event is RolloutEvent.WAIT


def test_all_at_once_goes_from_loading_to_the_switch() -> None:
    policy = {"strategy": Strategy.ALL_AT_ONCE}
    assert decided(loading(policy=policy)).event is RolloutEvent.SWITCH
    assert decided(loading(policy=policy | {"watch_s": 0})).event is RolloutEvent.COMPLETE
    assert decided(loading(policy=policy | {"switch_approval": True})).event is RolloutEvent.WAIT


def test_the_plan_carries_the_guard_of_the_policy_that_the_rollout_began_with() -> None:
    guard = Guard(level=0.01, margin=0.02)
    active = in_stage(policy={"guard": guard})
    plan = Endpoint(endpoint="digits", generation=3, stable=target(STABLE), rollout=active).plan()
    assert plan is not None
    assert plan.guard == guard


@pytest.mark.parametrize(
    ("pods", "policy", "guards"),
    [
        ({}, {}, 2),
        ({"p": pod()}, {"stages": STAGES[:1]}, 1),
        ({f"p{n}": pod() for n in range(20)} | {"gone": pod(age_s=60)}, {}, 40),
        ({"p": pod(), "q": pod()}, {"strategy": Strategy.BLUE_GREEN}, 2),
        ({"p": pod(), "q": pod()}, {"strategy": Strategy.SHADOW, "shadow_then": Strategy.CANARY}, 4),
    ],
)
def test_the_guards_of_all_pods_under_all_stages_keep_the_policy_s_level_together(
    pods: dict[str, PodSeen], policy: dict[str, Any], guards: int
) -> None:
    active = in_stage(pods=pods, policy={"guard": Guard(level=0.01, margin=0.02), **policy})
    active.progress = active.progress.model_copy(update={"looked_at": NOW})
    endpoint = Endpoint(endpoint="digits", generation=3, stable=target(STABLE), rollout=active)
    publish(endpoint)
    plan = endpoint.plan()
    assert plan is not None
    assert plan.guard == Guard(level=0.01 / guards, margin=0.02)
    # Pods that come or go after that change no plan without a new generation.
    active.progress = active.progress.model_copy(update={"pods": {}})
    assert endpoint.plan() == plan
    # Nor does a later plan with fewer pods give back what the guards of this one may have used of the level.
    publish(endpoint)
    assert active.guards == guards


@pytest.mark.parametrize(
    ("otherwise", "lasted_s", "event", "trigger"),
    [
        (Otherwise.ABORT, 900, None, None),
        (Otherwise.ABORT, 901, RolloutEvent.FAIL, Trigger.NO_CONCLUSION),
        (Otherwise.HOLD, 901, None, None),
    ],
)
def test_drift_that_holds_keeps_a_watched_candidate_from_completing_for_so_long_and_no_longer(
    otherwise: Otherwise, lasted_s: float, event: RolloutEvent | None, trigger: Trigger | None
) -> None:
    drift = DriftEvidence(since=NOW, sentence="it drifts", report_id="r", following=Following.HOLD)
    policy = {"watch_s": 300, "max_stage_s": 900, "on_inconclusive": otherwise}
    found = in_stage({CANDIDATE: counted(1_000)}, stage=2, state=RolloutState.WATCHING, policy=policy, both=HEALTHY)
    found.stage_started_at = NOW - timedelta(seconds=lasted_s)
    assert decided(found).event is RolloutEvent.COMPLETE
    found.drift = drift
    decision = decided(found)
    assert (decision.event, decision.trigger) == (event, trigger)
    assert "it drifts (report r)" in decision.reason
