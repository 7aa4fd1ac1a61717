"""What retention chooses: a pure function, held against worlds of any shape."""

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.registration.documents import Drop, DropState
from shared.registry.documents import ModelVersion, VersionState, version_id
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import RetentionPolicy
from shared.retention.plan import MAX_VERSIONS, Choice, DropBlobs, chosen, plan_of
from shared.retention.reports import GRACE as REPORTS_GRACE
from shared.retention.service import GRACE as SERVICE_GRACE
from shared.retention.uses import digests_of
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobInfo
from shared.validation.process import MAX_AT_ONCE, SandboxLimits
from tests.world.fakes import FakeClock

NOW = FakeClock().now()
HOST = json.loads((Path(__file__).parents[3] / "host.json").read_text())
GRACE = timedelta(hours=1)
POLICY = RetentionPolicy(keep_latest=2, keep_days=10)


def version(
    number: int,
    *,
    state: VersionState = VersionState.VALIDATED,
    age_days: float = 100,
    digest: str = "",
    pending: bool = False,
    altered: str = "",
) -> ModelVersion:
    at = NOW - timedelta(days=age_days)
    return ModelVersion(
        id=version_id(number),
        model="digits",
        version=number,
        state=state,
        drop=f"digits/{number}.onnx",
        digest=f"drop {number}",
        artifact_digest=digest or f"digest {number}",
        artifact_size_bytes=10,
        manifest=Manifest(task=Task.CLASSIFICATION),
        registered_at=at,
        decided_at=None if state.is_undecided else at,
        attempted_at=at,
        rollout_pending=pending,
        altered=altered,
    )


def test_what_validation_left_is_among_the_bytes_that_a_version_stands_on() -> None:
    left = version(1).model_copy(
        update={"golden_digest": "g", "profile_digest": "p", "performance_digest": "e", "reference_digest": "r"}
    )
    assert digests_of(left) == {
        "digest 1": "model.onnx",
        "r": "the reference data",
        "g": "the golden rows",
        "p": "the reference profile",
        "e": "the estimate of performance",
    }
    assert digests_of(version(1)) == {"digest 1": "model.onnx"}


def stored(*digests: str, age: timedelta = timedelta(days=1)) -> dict[str, BlobInfo]:
    names = [artifact_blob_name(digest) for digest in digests]
    return {name: BlobInfo(name=name, etag="1", size_bytes=10, last_modified=NOW - age) for name in names}


def reasons(choice: Choice) -> dict[int, tuple[str, ...]]:
    return {kept.version: kept.reasons for kept in choice.keep}


def test_old_unused_versions_go_and_each_that_stays_says_why() -> None:
    versions = [
        version(1),
        version(2),
        version(3, state=VersionState.REJECTED),
        version(4, state=VersionState.REJECTED, age_days=9.9),
        version(5, state=VersionState.VALIDATING),
        version(6, pending=True),
        version(7, altered="model.onnx is gone"),
        version(8),
        version(9, age_days=1),
        version(10, state=VersionState.ARCHIVED),
    ]
    choice = chosen(versions, {2: ("its endpoint serves it", "the alias champion names it")}, POLICY, NOW)
    assert [(gone.version, gone.state) for gone in choice.archive] == [(1, "validated"), (3, "rejected")]
    assert choice.archive[0].reason == "it was validated on 2026-08-13, and nothing uses it"
    assert reasons(choice) == {
        2: ("its endpoint serves it", "the alias champion names it"),
        4: ("it is younger than 10 days",),
        5: ("its validation has not concluded",),
        6: ("its rollout is asked for",),
        7: ("find out first why it was altered: model.onnx is gone",),
        8: ("it is among the 2 newest validated versions",),
        9: ("it is younger than 10 days", "it is among the 2 newest validated versions"),
    }


def test_the_age_counts_from_the_verdict_and_its_limit_is_old_enough() -> None:
    versions = [version(1, age_days=10), version(2), version(3)]
    assert [gone.version for gone in chosen(versions, {}, POLICY, NOW).archive] == [1]
    versions[0].registered_at, versions[0].decided_at = NOW - timedelta(days=100), NOW - timedelta(days=9)
    assert chosen(versions, {}, POLICY, NOW).archive == ()


@given(
    states=st.lists(
        st.tuples(st.sampled_from(VersionState), st.floats(0, 30), st.booleans(), st.booleans()), max_size=15
    ),
    keep_latest=st.integers(1, 5),
    keep_days=st.floats(0, 30),
)
def test_whatever_the_world_nothing_in_use_or_undecided_goes_and_all_is_told_of(
    states: list[tuple[VersionState, float, bool, bool]], keep_latest: int, keep_days: float
) -> None:
    versions = [
        version(number, state=state, age_days=age, pending=pending and state is VersionState.VALIDATED)
        for number, (state, age, _, pending) in enumerate(states, 1)
    ]
    uses = {number: ("it is used",) for number, (_, _, used, _) in enumerate(states, 1) if used}
    policy = RetentionPolicy(keep_latest=keep_latest, keep_days=keep_days)
    choice = chosen(versions, uses, policy, NOW)
    going = {gone.version for gone in choice.archive}
    known = {found.version: found for found in versions}
    assert not going & uses.keys()
    assert not [number for number in going if known[number].state.is_undecided or known[number].rollout_pending]
    validated = [number for number, found in known.items() if found.state is VersionState.VALIDATED]
    assert not going & set(validated[-keep_latest:])
    assert all(NOW - known[number].registered_at >= timedelta(days=keep_days) for number in going)
    unused_archived = {
        number for number, found in known.items() if found.state is VersionState.ARCHIVED and number not in uses
    }
    assert going | reasons(choice).keys() | unused_archived == set(known)
    assert not going & reasons(choice).keys()


def planned(
    versions: list[ModelVersion],
    *,
    referenced: dict[str, str] | None = None,
    infos: dict[str, BlobInfo] | None = None,
    drops: Iterable[DropBlobs] = (),
) -> set[str]:
    plan = plan_of(
        model="digits",
        policy=POLICY,
        versions=versions,
        choice=chosen(versions, {}, POLICY, NOW),
        stored=infos or stored(*[digest for found in versions for digest in digests_of(found)]),
        referenced=referenced or {},
        drops=drops,
        now=NOW,
        grace=GRACE,
    )
    return {blob.name for blob in plan.deeds.delete}


def test_blobs_of_archived_and_going_versions_go_but_for_what_others_stand_on_and_what_is_young() -> None:
    versions = [version(1), version(2, state=VersionState.ARCHIVED), version(3), version(4)]
    assert planned(versions) == {"sha256/digest 1", "sha256/digest 2"}
    assert planned(versions, referenced={"digest 1": "version 7 of other"}) == {"sha256/digest 2"}
    young = stored("digest 1", age=GRACE) | stored("digest 2", age=GRACE + timedelta(seconds=1))
    assert planned(versions, infos=young) == {"sha256/digest 2"}
    assert planned(versions, infos=stored("digest 3")) == set()


def test_blobs_of_drops_that_ended_long_ago_go() -> None:
    def dropped(name: str, *, age_days: float, blob_age_days: float = 100) -> DropBlobs:
        at = NOW - timedelta(days=age_days)
        drop = Drop(
            id=name, model="digits", blob=name, etag="1", state=DropState.REGISTERED, seen_at=at, attempted_at=at
        )
        info = BlobInfo(
            name=name, etag="1", size_bytes=1, last_modified=NOW - timedelta(days=blob_age_days), metadata={}
        )
        return DropBlobs(drop=drop, blobs=(info,))

    drops = [dropped("old", age_days=10), dropped("young", age_days=9), dropped("new", age_days=50, blob_age_days=1)]
    assert planned([], drops=drops) == {"old"}


def test_each_part_of_a_version_is_known_by_its_digest() -> None:
    found = version(1)
    found.golden_digest, found.validation_digest = "g", "v"
    assert digests_of(found) == {"digest 1": "model.onnx", "v": "the validation data", "g": "the golden rows"}


@pytest.mark.parametrize("count", [MAX_VERSIONS, MAX_VERSIONS + 3])
def test_a_plan_that_is_full_says_so_and_leaves_the_rest_to_the_next(count: int) -> None:
    versions = [version(number, digest="one") for number in range(1, count + 3)]
    choice = chosen(versions, {}, POLICY, NOW)
    assert len(choice.archive) == MAX_VERSIONS
    assert choice.is_partial is (count > MAX_VERSIONS)
    assert len(choice.keep) == 2 + count - MAX_VERSIONS


def test_the_id_of_a_plan_is_that_of_what_it_does() -> None:
    def plan(
        *versions: ModelVersion, infos: dict[str, BlobInfo] | None = None, uses: dict[int, tuple[str, ...]]
    ) -> str:
        return plan_of(
            model="digits",
            policy=POLICY,
            versions=versions,
            choice=chosen(versions, uses, POLICY, NOW),
            stored=infos or stored("digest 1"),
            referenced={},
            drops=(),
            now=NOW,
            grace=GRACE,
        ).plan_id

    versions = [version(1), version(2), version(3)]
    base = plan(*versions, uses={})
    assert plan(*versions, uses={2: ("some other reason",)}) == base
    assert plan(*versions, uses={1: ("it is used",)}) != base
    touched = {
        name: BlobInfo(name=name, etag="2", size_bytes=10, last_modified=info.last_modified)
        for name, info in stored("digest 1").items()
    }
    assert plan(*versions, infos=touched, uses={}) != base


def test_the_grace_outlasts_every_function_by_far() -> None:
    assert function_timeout() * 3 <= SERVICE_GRACE
    assert function_timeout() * 3 <= REPORTS_GRACE


def test_a_function_outlasts_the_validations_it_may_wait_for_and_its_own() -> None:
    queues = HOST["extensions"]["queues"]
    rounds = -(-(queues["batchSize"] + queues["newBatchThreshold"]) // MAX_AT_ONCE)
    for_all_else = timedelta(minutes=10)
    assert timedelta(seconds=SandboxLimits().wall_s) * rounds + for_all_else <= function_timeout()


def function_timeout() -> timedelta:
    hours, minutes, seconds = map(int, HOST["functionTimeout"].split(":"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
