"""Tick records keep the pods and the answers exactly, and stay small where there are many pods."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import RolloutPolicy
from shared.rollout.decide import Decision
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.podrecord import MAX_REASONS
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.queries import QueryAnswer
from shared.rollout.tickrecord import MAX_WAITING, TickRecord, publish, record_of, with_evidence
from shared.store.aggregate import PublishEntry
from shared.store.ports import BlobContainer
from shared.telemetry.window import Deaths, ShadowCounts, VersionCounts

AT = datetime(2026, 11, 21, 8, 0, 0, 123_456, tzinfo=UTC)


def rollout(progress: Progress) -> Rollout:
    def target(version: int) -> Target:
        return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)

    return Rollout(
        rollout_id="rollout-000002-abc",
        command_id="c",
        candidate=target(2),
        stable=target(1),
        policy=RolloutPolicy(),
        started_at=AT,
        published_at=AT,
        next_tick_at=AT,
        requested_by="ann",
        tick=7,
        progress=progress,
    )


def recorded(progress: Progress, **more: QueryAnswer) -> TickRecord:
    """The record of a tick, as it comes back from its blob."""
    record = record_of(Endpoint(endpoint="digits"), rollout(progress), AT, Decision(reason="so"), answers=more)
    return TickRecord.model_validate_json(record.model_dump_json())


def as_before(stored: Any) -> Any:
    """A stored document with the sums of shadows as floats, as releases wrote them before they were whole numbers."""
    if isinstance(stored, list):
        return [as_before(part) for part in stored]
    if not isinstance(stored, dict):
        return stored
    found = {key: as_before(part) for key, part in stored.items()}
    if "difference_millionths" in found:
        found["difference"] = found.pop("difference_millionths") / 1e6
        found["difference_squared"] = found.pop("squared_millionths") / 1e12
    return found


WORDS = st.text(max_size=10)
TIMES = st.integers(0, 10**9).map(lambda us: AT + timedelta(microseconds=us))
PODS = st.builds(
    PodSeen,
    sequence=st.integers(0, 5),
    generation=st.integers(1, 2),
    at=TIMES,
    since=st.none() | TIMES,
    loaded=st.sampled_from([(), (1,), (1, 2)]),
    failed=st.dictionaries(st.integers(1, 2), WORDS, max_size=1),
    tripped=st.dictionaries(st.integers(1, 2), WORDS, max_size=1),
    memory_share=st.none() | st.floats(0, 2),
    deaths=st.none()
    | st.builds(Deaths, rollout_id=WORDS, processes=st.dictionaries(st.integers(1, 2), st.integers(0, 9))),
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), PODS, max_size=6))
def test_what_pods_said_comes_back_as_it_was(pods: dict[str, PodSeen]) -> None:
    assert recorded(Progress(pods=pods)).pods_seen == pods


def test_answers_come_back_as_they_were() -> None:
    answers = {"a": QueryAnswer(value=0.1 + 0.2), "b": QueryAnswer(), "c": QueryAnswer(error="down")}
    assert recorded(Progress(), **answers).query_answers == answers


def test_a_thousand_pods_and_full_histograms_are_a_small_record() -> None:
    pods = {
        f"digits-7f9c5b6d8-{n:05d}": PodSeen(
            sequence=n, generation=3, at=AT + timedelta(seconds=n % 30), since=AT, loaded=(1, 2), memory_share=n / 1_000
        )
        for n in range(1_000)
    }
    counts = VersionCounts(
        requests=10**6,
        latency_ms=dict.fromkeys(range(400), 10**4),
        predictions={f"label-{n}": 10**4 for n in range(200)},
    )
    record = recorded(Progress(generation=3, pods=pods, block={1: counts, 2: counts}))
    assert (record.pods.reporting, record.pods.ready, record.pods.greatest_memory_share) == (1_000, 1_000, 0.999)
    assert len(record.model_dump_json()) < 250_000


def test_it_is_written_with_the_endpoint_s_change_under_the_name_that_its_verdicts_hold() -> None:
    endpoint, found = Endpoint(endpoint="digits"), rollout(Progress())
    verdict = Verdict(check="error_rate", outcome=Outcome.PASS, sentence="fine")
    decision = with_evidence(Decision(reason="so", verdicts=(verdict,)), endpoint, found)
    publish(endpoint, record_of(endpoint, found, AT, decision))
    (entry,) = endpoint.outbox
    assert isinstance(entry, PublishEntry)
    assert (entry.container, entry.generation) == (BlobContainer.REPORTS, 7)
    assert entry.name == "rollouts/digits/rollout-000002-abc/000007.json"
    assert decision.verdicts[0].evidence == f"reports/{entry.name}"
    assert TickRecord.model_validate(entry.body).decided.verdicts == decision.verdicts


def test_records_that_storage_does_not_take_pile_up_to_a_bound_and_the_latest_are_kept() -> None:
    endpoint = Endpoint(endpoint="digits")
    endpoint.record("check_failed", AT)
    for tick in range(1, 50):
        endpoint.publish(BlobContainer.ROUTES, "digits.json", {}, generation=tick)
        found = rollout(Progress())
        found.tick = tick
        publish(endpoint, record_of(endpoint, found, AT, Decision(reason="so")))
    entries = [entry for entry in endpoint.outbox if isinstance(entry, PublishEntry)]
    kept = [entry.generation for entry in entries if entry.container is BlobContainer.REPORTS]
    assert kept == list(range(50 - MAX_WAITING, 50))
    # Nothing else is given up.
    assert len(endpoint.outbox) == 1 + 49 + MAX_WAITING


def test_a_thousand_pods_that_each_fail_with_a_text_of_their_own_fit_into_a_document_with_the_records_that_wait() -> (
    None
):
    said = "cannot reach the storage account at 10.0.0.1: connection timed out; " * 4
    counts = VersionCounts(
        requests=10**9,
        errors=10**6,
        latency_ms=dict.fromkeys(range(-100, 700), 10**6),
        predictions={f"label-{n:040d}": 10**6 for n in range(201)},
    )
    pods = {
        f"model-server-7d9f8c6b5d-{n:04d}-abcdef": PodSeen(
            sequence=10**6,
            generation=3,
            at=AT,
            since=AT,
            loaded=(1,),
            failed={2: f"pod {n} {said}"[:200]},
            deaths=Deaths(rollout_id="rollout-000002-abcdef", processes={1: n, 2: n}),
        )
        for n in range(1_000)
    }
    versions = {1: counts, 2: counts}
    progress = Progress(generation=3, pods=pods, counts=versions, block=versions, both=versions)
    found = rollout(progress).model_copy(update={"state": RolloutState.PROGRESSING, "stage": 0})
    endpoint = Endpoint(endpoint="digits", generation=3, rollout=found)
    for tick in range(1, 5):
        found.tick = tick
        publish(endpoint, record_of(endpoint, found, AT, Decision(reason="so")))
        assert len(endpoint.model_dump_json()) < 1_000_000
    (waiting,) = [entry for entry in endpoint.outbox if isinstance(entry, PublishEntry)]
    assert waiting.generation == 4


def test_the_texts_that_decisions_name_are_kept_where_too_many_differ() -> None:
    pods = {
        f"p{n:02d}": PodSeen(
            sequence=1,
            generation=3,
            at=AT - timedelta(seconds=31 if n < 30 else 1),
            failed={1: "the same", 2: f"failed {n}"},
            tripped={2: f"tripped {n}"},
        )
        for n in range(60)
    }
    seen = recorded(Progress(pods=pods)).pods_seen
    assert [seen[name].failed[1] for name in pods] == ["the same"] * 60
    # Of those that report the first, and of the tripped the first of all.
    kept = [name for name in pods if seen[name].failed == pods[name].failed]
    assert kept == [f"p{n}" for n in range(30, 30 + MAX_REASONS)]
    assert [name for name in pods if seen[name].tripped == pods[name].tripped] == list(pods)[:MAX_REASONS]
    assert seen["p59"].failed.keys() == {1, 2}


def test_a_record_and_an_endpoint_of_an_older_release_with_a_shadow_are_read() -> None:
    shadow = ShadowCounts(
        mirrored=5, compared=5, disagreements=1, numbers=4, difference_millionths=-500_000, squared_millionths=10**12
    )
    counts = {2: VersionCounts(requests=5, shadow=shadow)}
    progress = Progress(counts=counts, block=counts)
    endpoint = Endpoint(endpoint="digits", rollout=rollout(progress))
    assert Endpoint.from_body(as_before(endpoint.to_body())) == endpoint
    record = record_of(endpoint, rollout(progress), AT, Decision(reason="so"), answers={})
    assert record.block == counts
    stored = json.dumps(as_before(json.loads(record.model_dump_json())))
    assert '"difference": -0.5' in stored
    assert TickRecord.model_validate_json(stored).block == counts
