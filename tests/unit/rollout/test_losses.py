"""Places whose processes end again and again with the candidate: how many speak against it, and what excuses it."""

from typing import Any

import pytest

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Otherwise, Triggers
from shared.rollout.decide import decide
from shared.rollout.gates import judge
from shared.rollout.losses import Losses, losses
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.rollbacks import Trigger
from shared.telemetry.window import Deaths, host_of
from tests.unit.rollout.evidence import CANDIDATE, NOW, STABLE, judged, outcome, pod, rollout

ROLLOUT = "rollout-000002-0"


def dead(number: int, *versions: int, rollout_id: str = ROLLOUT) -> Deaths:
    return Deaths(rollout_id=rollout_id, processes=dict.fromkeys(versions or (STABLE, CANDIDATE), number))


def pods(count: int, what: str = "a", **changes: Any) -> dict[str, PodSeen]:
    """So many places, a process each."""
    return {f"{what}-{n}-00000{n % 10}-0": pod(**changes) for n in range(count)}


def found(*parts: dict[str, PodSeen]) -> Losses:
    seen = {name: one for part in parts for name, one in part.items()}
    return losses(rollout(progress=Progress(first_generation=3, generation=3, pods=seen)))


def test_a_process_is_of_the_place_that_its_name_tells() -> None:
    assert host_of("model-server-7d9f8c6b5d-x2x9k-0a1b2c") == "model-server-7d9f8c6b5d-x2x9k"
    assert host_of("model-server-7d9f8c6b5d-x2x9k-0a1b2c-12") == "model-server-7d9f8c6b5d-x2x9k"
    assert host_of("pod-1") == "pod-1"


@pytest.mark.parametrize(
    ("restless", "calm", "is_fault"),
    [(1, 0, True), (1, 1, False), (2, 1, True), (1, 4, False), (2, 2, False), (51, 49, True), (0, 3, False)],
)
def test_more_than_half_of_the_places_speak_against_the_candidate(restless: int, calm: int, *, is_fault: bool) -> None:
    assert found(pods(restless, "r", deaths=dead(3)), pods(calm, "c", deaths=dead(2))).are_too_many is is_fault


def test_the_processes_of_one_place_are_one_place_which_the_latest_tells_most_of() -> None:
    of_one = {f"p-00000{n}-{n}": pod(deaths=dead(n)) for n in range(5)}
    assert found(of_one) == Losses(restless=1, places=1, others_restless=0, others=0)


@pytest.mark.parametrize("changes", [{"age_s": 600.0}, {"deaths": dead(9, rollout_id="rollout-000001-0")}])
def test_silence_and_the_deaths_of_another_rollout_are_none(changes: dict[str, Any]) -> None:
    assert found(pods(9, **changes)).restless == 0


def test_deaths_while_it_loads_under_the_plan_before_count() -> None:
    assert found(pods(1, generation=2, loaded=(STABLE,), deaths=dead(3))).are_too_many


@pytest.mark.parametrize(
    ("others", "others_restless", "is_fault"), [(10, 0, True), (10, 7, True), (10, 8, False), (1, 1, True)]
)
def test_where_places_without_the_candidate_fare_no_better_it_is_not_its_fault(
    others: int, others_restless: int, *, is_fault: bool
) -> None:
    with_it = pods(8, "r", deaths=dead(3)) | pods(2, "c")
    alone: dict[str, Any] = {"loaded": (STABLE,)}
    without = pods(others_restless, "s", deaths=dead(3, STABLE), **alone) | pods(others - others_restless, "t", **alone)
    assert found(with_it, without).are_too_many is is_fault


def test_such_a_tick_fails_and_is_no_proof_and_without_the_trigger_nothing_is_asked() -> None:
    seen = pods(3, "r", deaths=dead(3)) | pods(1, "c")
    failed = judged(rollout(pods=seen), "trigger_health")
    assert (failed.verdict.outcome, failed.is_proof, failed.verdict.value) == (Outcome.FAIL, False, 0.25)
    assert "on 3 of 4 pods 3 processes or more ended unbidden" in failed.verdict.sentence
    assert outcome(rollout(pods=pods(4)), "trigger_health") is Outcome.PASS
    off = rollout(pods=seen, triggers=Triggers(healthy_share=None))
    assert "trigger_health" not in {verdict.verdict.check for verdict in judge(off, {}, NOW)}


def test_a_candidate_that_ends_whatever_loads_it_does_not_get_to_its_first_stage() -> None:
    for otherwise, event in ((Otherwise.ABORT, RolloutEvent.FAIL), (Otherwise.HOLD, None)):
        changes: dict[str, Any] = {
            "state": RolloutState.LOADING,
            "stage": None,
            "policy": {"on_load_failure": otherwise},
        }
        decision = decide(rollout(pods=pods(1, deaths=dead(3)), **changes), NOW)
        assert decision.event is event
        assert "ended unbidden" in decision.reason
        assert event is None or decision.trigger is Trigger.LOADING
