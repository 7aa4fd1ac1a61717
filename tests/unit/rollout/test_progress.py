"""What ticks take in of windows: once each, of the right plan, in bounds."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.messages import CommandKind, RolloutCommand
from shared.core.slots import Slot
from shared.rollout import steps
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutEvent
from shared.rollout.progress import PodSeen, Progress, taken
from shared.telemetry.window import Deaths, VersionCounts, Window
from tests.unit.rollout.evidence import CANDIDATE, NOW, STABLE, rollout, target

COSMOS_LIMIT = 2_000_000


def command(n: int) -> RolloutCommand:
    return RolloutCommand(command=CommandKind.PAUSE, command_id=f"command-{n}", endpoint="digits", requested_by="ann")


def window(pod: str = "a", sequence: int = 1, *, at: datetime = NOW, **changes: Any) -> Window:
    fields: dict[str, Any] = {
        "endpoint": "digits",
        "pod": pod,
        "sequence": sequence,
        "generation": 3,
        "started_at": at - timedelta(seconds=5),
        "ended_at": at,
        "loaded": [STABLE, CANDIDATE],
    }
    return Window(**(fields | changes))


def busy(pod: str, sequence: int, **changes: Any) -> Window:
    return window(pod, sequence, versions={CANDIDATE: VersionCounts(requests=10, errors=1)}, **changes)


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=6))
def test_windows_count_once_in_whatever_order_and_however_often_they_come(order: list[int], again: list[int]) -> None:
    windows = [busy(pod, sequence) for pod in "ab" for sequence in (1, 2, 3)]
    once = taken(Progress(), [windows[n] for n in order], 3)
    twice = taken(once, [windows[n] for n in again], 3)
    assert once.of(CANDIDATE) == twice.of(CANDIDATE) == VersionCounts(requests=60, errors=6)
    assert twice.block == {}


def test_a_window_of_another_plan_counts_for_its_pod_alone_and_another_plan_begins_the_counts_anew() -> None:
    first = taken(Progress(), [busy("a", 1), busy("b", 1, generation=2)], 3)
    assert first.of(CANDIDATE).requests == 10
    assert set(first.pods) == {"a", "b"}
    assert taken(first, [busy("a", 2)], 4).of(CANDIDATE).requests == 0


def test_a_late_window_of_an_older_plan_does_not_hide_that_a_pod_has_applied_the_newer_one() -> None:
    late = taken(Progress(), [window("a", 1), window("a", 2, generation=2, loaded=[STABLE])], 3)
    assert (late.pods["a"].generation, late.pods["a"].loaded) == (3, (STABLE, CANDIDATE))


def test_a_pod_s_plan_is_applied_from_the_start_of_its_first_window_under_it_on() -> None:
    first = taken(Progress(), [window("a", 1)], 3)
    second = taken(first, [window("a", 2, at=NOW + timedelta(seconds=5))], 3)
    assert second.pods["a"].since == NOW - timedelta(seconds=5)
    third = taken(second, [window("a", 3, at=NOW + timedelta(seconds=10), generation=4)], 4)
    assert third.pods["a"].since == NOW + timedelta(seconds=5)


def test_a_trip_that_is_read_after_the_next_plan_was_made_counts_and_one_of_an_earlier_rollout_does_not() -> None:
    begun = Progress(first_generation=3)
    told = taken(begun, [window("a", 1, tripped={CANDIDATE: "it hangs"}), window("a", 2, generation=4)], 4)
    assert told.tripped(CANDIDATE) == "pod a: it hangs"
    assert told.tripped(STABLE) == ""
    earlier = taken(begun, [window("a", 1, generation=2, tripped={CANDIDATE: "it hangs"})], 3)
    assert earlier.tripped(CANDIDATE) == ""


def test_a_pod_that_was_silent_for_an_hour_is_forgotten() -> None:
    seen = taken(Progress(), [window("a"), window("b", at=NOW - timedelta(seconds=3_601))], 3, now=NOW)
    assert set(seen.pods) == {"a"}
    assert seen.looked_at == NOW


def test_a_window_that_ended_an_hour_ago_is_left_out_rather_than_counted_at_each_tick() -> None:
    progress = Progress()
    for tick in range(3):
        progress = taken(
            progress, [busy("a", 1, at=NOW - timedelta(seconds=3_601))], 3, now=NOW + timedelta(seconds=tick)
        )
    assert progress.of(CANDIDATE).requests == 0
    on_time = taken(Progress(), [busy("a", 1, at=NOW - timedelta(seconds=3_600))], 3, now=NOW)
    assert on_time.of(CANDIDATE).requests == 10


def test_a_thousand_pods_fit_well_into_one_document_whatever_they_say() -> None:
    said = "the ONNX file's digest is not the one that the plan names " * 20
    counts = VersionCounts(
        requests=10**9,
        errors=10**6,
        latency_ms=dict.fromkeys(range(-100, 700), 10**6),
        predictions={f"label-{n:040d}": 10**6 for n in range(201)},
    )
    windows = [
        window(
            f"model-server-7d9f8c6b5d-{n:04d}-abcdef",
            10**6,
            failed={CANDIDATE: said},
            memory_share=0.123456789,
            deaths=Deaths(rollout_id="rollout-000002-0", processes={STABLE: n, CANDIDATE: n}),
            versions={STABLE: counts, CANDIDATE: counts},
        )
        for n in range(1_000)
    ]
    progress = taken(Progress(), windows, 3, now=NOW)
    assert len(progress.pods) == 1_000
    active = rollout({}).model_copy(update={"progress": progress})
    endpoint = Endpoint(endpoint="digits", generation=3, stable=target(STABLE), rollout=active)
    for n in range(1_000):
        endpoint.hear(command(n))
    assert len(endpoint.model_dump_json()) < COSMOS_LIMIT // 2
    # The end of a rollout archives it in the same write.
    steps.move(endpoint, active, RolloutEvent.FAIL, NOW, reason="x")
    assert len(endpoint.model_dump_json()) < COSMOS_LIMIT // 2


@pytest.mark.parametrize("count", [0, 1_500])
def test_the_commands_that_an_endpoint_remembers_are_bounded_and_the_latest(count: int) -> None:
    endpoint = Endpoint(endpoint="digits")
    for n in range(count):
        endpoint.hear(command(n))
        endpoint.hear(command(n))
    assert len(endpoint.heard) == min(count, 1_000)
    assert endpoint.has_heard(command(count - 1)) is bool(count)
    assert not endpoint.has_heard(command(0))


def test_a_pod_s_latest_word_is_kept_as_it_was() -> None:
    told = taken(Progress(), [window("a", 4, memory_share=0.5, failed={CANDIDATE: "no"}, loaded=[STABLE])], 3)
    assert told.pods["a"] == PodSeen(
        sequence=4,
        generation=3,
        at=NOW,
        since=NOW - timedelta(seconds=5),
        loaded=(STABLE,),
        failed={CANDIDATE: "no"},
        memory_share=0.5,
    )


def test_what_a_pod_was_still_sent_under_an_earlier_plan_is_kept_and_of_which_slot_it_is() -> None:
    some = {STABLE: VersionCounts(requests=10)}
    sent = window(generation=2, versions=some, slot=Slot.GREEN)
    seen = taken(Progress(), [sent], 3).pods["a"]
    assert (seen.slot, seen.late_at) == (Slot.GREEN, sent.ended_at)
    later = window(sequence=2, at=NOW + timedelta(seconds=5), generation=2, versions={STABLE: VersionCounts()})
    again = taken(taken(Progress(), [sent], 3), [later], 3).pods["a"]
    assert (again.late_at, again.at) == (sent.ended_at, later.ended_at)
    assert taken(Progress(), [window(versions=some, slot=Slot.GREEN)], 3).pods["a"].late_at is None


def test_a_pod_is_sent_what_it_should_not_be_also_where_its_version_has_no_share_and_where_it_has_none() -> None:
    def late(window: Window, idle: frozenset[Slot | None] | None = frozenset()) -> bool:
        return taken(Progress(), [window], 3, idle=idle).pods["a"].late_at is not None

    some = {STABLE: VersionCounts(requests=10)}
    assert late(window(versions=some), idle=frozenset({None}))
    assert not late(window(versions=some), idle=frozenset({Slot.BLUE}))
    assert not late(window(versions={STABLE: VersionCounts(pinned=10)}), idle=frozenset({None}))
    assert late(window(loaded=[], refused={"elsewhere": 1}))
    assert not late(window(loaded=[], refused={"overloaded": 1}))
    assert not late(window(refused={"elsewhere": 1})), "who has a version refuses those that name another"
    # The shared pods alone have the endpoint's versions: the Gateway has nothing to hear.
    assert not late(window(generation=2, versions=some), idle=None)
    assert late(window(generation=2, versions=some, slot=Slot.GREEN), idle=None)
    empty = window("a", 2, generation=2, loaded=[], refused={"elsewhere": 1}, slot=Slot.GREEN)
    assert taken(taken(Progress(), [window("a", 1)], 3), [empty], 3).pods["a"].late_at == empty.ended_at
