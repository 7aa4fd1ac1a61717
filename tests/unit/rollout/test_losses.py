"""Pods that were lost with the candidate in memory: how many speak against it, and what excuses it."""

from typing import Any

import pytest

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Triggers
from shared.rollout.gates import judge
from shared.rollout.losses import Losses, losses
from shared.rollout.progress import PodSeen, Progress
from tests.unit.rollout.evidence import CANDIDATE, NOW, STABLE, judged, outcome, pod, rollout

SILENT_S = 31.0


def pods(count: int, **changes: Any) -> dict[str, PodSeen]:
    """So many pods, named by how they differ."""
    return {f"{sorted(changes.items())} {n}": pod(**changes) for n in range(count)}


def found(*parts: dict[str, PodSeen], first_generation: int = 3) -> Losses:
    seen = {name: one for part in parts for name, one in part.items()}
    progress = Progress(first_generation=first_generation, generation=3, pods=seen)
    return losses(rollout(progress=progress), NOW)


@pytest.mark.parametrize(
    ("lost", "reporting", "is_fault"),
    [(2, 1, False), (3, 2, True), (3, 3, False), (4, 3, True), (100, 100, False), (101, 100, True), (3, 0, False)],
)
def test_more_lost_than_report_and_three_at_least_speak_against_the_candidate(
    lost: int, reporting: int, *, is_fault: bool
) -> None:
    assert found(pods(lost, age_s=SILENT_S), pods(reporting)).are_too_many is is_fault


def test_who_is_told_of_counts_once_though_its_own_last_window_is_new_and_others_tell_of_it_too() -> None:
    died = dict.fromkeys(("a", "b", "c", "never seen"), (STABLE, CANDIDATE))
    told = found({"a": pod(), "b": pod(), "c": pod(), "d": pod(died=died), "e": pod(died=died)})
    assert (told.lost, told.told, told.reporting) == (4, 4, 2)
    assert told.are_too_many


@pytest.mark.parametrize("changes", [{"leaves": True}, {"generation": 2}, {"loaded": (STABLE,)}])
def test_who_was_told_to_stop_or_had_no_candidate_is_not_lost_with_it(changes: dict[str, Any]) -> None:
    assert found(pods(9, age_s=SILENT_S, **changes), pods(1)).lost == 0


@pytest.mark.parametrize(("others_lost", "is_fault"), [(0, True), (7, True), (8, False), (10, False)])
def test_where_pods_without_the_candidate_are_lost_as_readily_it_is_not_its_fault(
    others_lost: int, *, is_fault: bool
) -> None:
    alone = {"loaded": (STABLE,)}
    others = pods(others_lost, age_s=SILENT_S, **alone) | pods(10 - others_lost, **alone)
    assert found(pods(8, age_s=SILENT_S), pods(2), others).are_too_many is is_fault


def test_such_a_tick_fails_and_is_no_proof_and_without_the_trigger_nothing_is_asked() -> None:
    seen = pods(3, age_s=SILENT_S) | pods(1)
    failed = judged(rollout(pods=seen), "trigger_health")
    assert (failed.verdict.outcome, failed.is_proof, failed.verdict.value) == (Outcome.FAIL, False, 0.25)
    assert "3 pods with the candidate in memory were lost" in failed.verdict.sentence
    assert outcome(rollout(pods=pods(3, age_s=SILENT_S) | pods(3)), "trigger_health") is Outcome.PASS
    off = rollout(pods=seen, triggers=Triggers(healthy_share=None))
    assert "trigger_health" not in {verdict.verdict.check for verdict in judge(off, {}, NOW)}
