"""Retention in a world that moves: exactly the plan that was shown, whatever happens or dies between any two calls."""

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.canonical import digest_of_bytes
from shared.core.errors import ConflictError, NotFoundError, SlipwayError, UnavailableError
from shared.core.ids import Digest, ModelName, VersionNumber
from shared.core.messages import CommandKind, Queue, RolloutCommand, ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.registration.documents import DropState
from shared.registry.aliases import alias_name
from shared.registry.commands import SetAlias
from shared.registry.documents import ModelVersion, VersionState, version_id
from shared.registry.policy import Policy, RetentionPolicy
from shared.registry.rollout_policy import RolloutPolicy, Strategy
from shared.retention.deeds import deeds_blob_name
from shared.retention.documents import MAX_SPARED, RetentionPlan, RetentionRun, RunState
from shared.retention.service import GRACE
from shared.retention.uses import digests_of
from shared.routing.plan import artifact_blob_name
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, Stored
from shared.store.repository import Repository
from shared.validation.report import ValidationReport
from shared.validation.sandbox import SandboxLimits, StoredPart, Validation
from shared.validation.service import ValidationService
from tests.world.copies import copy_of
from tests.world.fakes import Fuse, Killed
from tests.world.test_registration import WHOLE
from tests.world.world import MODEL, World

OTHER = ModelName("other")
POLICY = Policy(
    retention=RetentionPolicy(keep_latest=1, keep_days=7),
    rollout=RolloutPolicy(watch_s=0, automatic=False, strategy=Strategy.ALL_AT_ONCE),
)
WIDER = POLICY.model_copy(update={"retention": RetentionPolicy(keep_latest=2, keep_days=7)})
DAY_S = 24 * 3600.0
GOLDEN = b"{golden rows}"
GOLDEN_DIGEST = digest_of_bytes(GOLDEN)


def world_with(*contents: str) -> World:
    """A world with a version for each content, a month old. The newest is kept by policy."""
    return copy_of(_prepared(contents))


@functools.cache
def _prepared(contents: tuple[str, ...]) -> World:
    world = World()
    world.put_policy(POLICY)
    for number, content in enumerate(contents, 1):
        register(world, content, name=f"{number}.onnx")
        world.validation.validate(ValidateVersion(model=MODEL, version=number))
    world.queues.messages.clear()
    world.clock.pass_s(30 * DAY_S)
    return world


def register(world: World, content: str, *, model: str = MODEL, name: str = "again.onnx") -> None:
    """A drop is registered; one that fails because of what happens meanwhile has its event again."""
    blob = f"{model}/{name}"
    world.blobs.put(BlobContainer.INCOMING, blob, content.encode(), {})
    world.registration.register(blob)


def version(world: World, number: int, model: str = MODEL) -> ModelVersion:
    return world.registry.version(model, VersionNumber(number))


def is_there(world: World, digest: str) -> bool:
    return (BlobContainer.ARTIFACTS, artifact_blob_name(digest)) in world.blobs.held


def is_stored(world: World, content: str) -> bool:
    return is_there(world, digest_of_bytes(content.encode()))


def plan(world: World) -> RetentionPlan:
    return world.retention.plan(MODEL)


def run(world: World) -> RetentionRun:
    """Plan and run, to the end."""
    begun = world.retention.run(MODEL, plan(world).plan_id, by="test")
    world.clock.pass_s(GRACE.total_seconds())
    world.retention.resume()
    return world.retention.one(MODEL, begun.id)


def serve(world: World, number: int) -> None:
    """Have a version serve."""
    start(world, number)
    world.run(seconds=90)


def start(world: World, number: int) -> None:
    command = RolloutCommand(
        command=CommandKind.START, command_id=f"start {number}", endpoint=MODEL, version=number, requested_by="test"
    )
    world.rollouts.handle(command)


def name_it(world: World, number: int, alias: str = "favourite") -> None:
    world.aliases.set(
        SetAlias(
            model=MODEL,
            alias=alias_name(alias),
            version=VersionNumber(number),
            by="test",
            reason="",
            command_id=f"{alias} {number}",
        )
    )


@dataclass
class Meanwhile(Fuse):
    """Has something else happen just before a numbered port call."""

    action: Callable[[], object] = lambda: None
    happened: bool = False

    def before_call(self) -> None:
        """Count, and act if it is time."""
        self.calls += 1
        if self.calls == self.at:
            self.happened = True
            self.action()


def meanwhile(world: World, at: int, action: Callable[[], object]) -> Meanwhile:
    fuse = Meanwhile(at=at, action=action)
    world.fuse = world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
    return fuse


def interleavings(make: Callable[[], World], action: Callable[[World], object]) -> Iterator[tuple[World, Meanwhile]]:
    """Worlds in which something happens before the first, the second, ... port call, until there are no more calls."""
    for at in itertools.count(1):
        world = make()
        fuse = meanwhile(world, at, lambda world=world: action(world))  # type: ignore[misc]
        yield world, fuse
        if not fuse.happened:
            assert at > 5  # there was something to happen between
            return


def test_the_plan_shows_what_goes_how_much_it_is_and_why_the_rest_stays_and_changes_nothing() -> None:
    world = world_with("one", "two is worse", "three", "four")
    serve(world, 3)
    before = dict(world.documents.held), dict(world.blobs.held)
    shown = plan(world)
    assert [(gone.version, gone.state) for gone in shown.deeds.archive] == [(1, "validated"), (2, "rejected")]
    artifacts = [blob for blob in shown.deeds.delete if blob.container is BlobContainer.ARTIFACTS]
    assert sum(blob.size_bytes for blob in artifacts) == len("one") + len("two is worse")
    assert [blob.reason for blob in artifacts] == ["model.onnx of version 1", "model.onnx of version 2"]
    dropped = [blob.name for blob in shown.deeds.delete if blob.container is BlobContainer.INCOMING]
    assert dropped == [f"{MODEL}/{number}.onnx" for number in (1, 2, 3, 4)]
    kept = {kept.version: kept.reasons for kept in shown.keep}
    assert kept.keys() == {3, 4}
    assert "its endpoint serves it" in kept[3]
    assert kept[4] == ("it is among the 1 newest validated versions",)
    assert (dict(world.documents.held), dict(world.blobs.held)) == before
    assert plan(world).plan_id == shown.plan_id


def test_a_run_archives_at_once_and_deletes_after_the_grace() -> None:
    world = world_with("one", "two")
    shown = plan(world)
    begun = world.retention.run(MODEL, shown.plan_id, by="test")
    assert (begun.state, begun.archived) == (RunState.WAITING, [1])
    assert begun.delete_after == world.clock.now() + GRACE
    assert version(world, 1).state is VersionState.ARCHIVED
    world.clock.pass_s(GRACE.total_seconds() - 1)
    assert world.retention.resume() == 1
    assert is_stored(world, "one")
    world.clock.pass_s(1)
    world.retention.resume()
    ended = world.retention.one(MODEL, begun.id)
    assert (ended.state, ended.archived, ended.deleted, ended.spared) == (RunState.DONE, [1], 3, [])
    assert ended.deleted_bytes == shown.deeds.size_bytes
    assert not is_stored(world, "one")
    assert is_stored(world, "two")
    assert [name for container, name in world.blobs.held if container is BlobContainer.INCOMING] == []
    assert world.retention.resume() == 0
    assert plan(world).deeds.delete == ()
    assert [event.kind for event in world.audit.events(begun.stream)] == [
        "retention_started",
        "retention_archived",
        "retention_done",
    ]
    assert world.audit.verify().verified


def test_the_reports_of_archived_versions_stay() -> None:
    world = world_with("one", "two")
    run(world)
    assert world.validation.report(MODEL, VersionNumber(1))["outcome"] == "pass"


@pytest.mark.parametrize(
    "change",
    [
        lambda world: name_it(world, 1),
        lambda world: world.put_policy(POLICY.model_copy(update={"retention": RetentionPolicy(keep_latest=2)})),
        lambda world: world.blobs.touch(BlobContainer.ARTIFACTS, artifact_blob_name(digest_of_bytes(b"one"))),
        lambda world: register(world, "one", model=OTHER),
    ],
    ids=["alias", "policy", "touched", "another model"],
)
def test_a_plan_of_another_world_is_refused_and_nothing_is_done(change: Callable[[World], None]) -> None:
    world = world_with("one", "two")
    shown = plan(world)
    change(world)
    with pytest.raises(ConflictError, match=f"the plan '{shown.plan_id[:12]}' is not what retention of digits would"):
        world.retention.run(MODEL, shown.plan_id, by="test")
    assert version(world, 1).state is VersionState.VALIDATED
    assert is_stored(world, "one")
    assert world.retention.runs(MODEL).items == []


def test_a_run_asked_for_again_is_the_same_run() -> None:
    world = world_with("one", "two")
    shown = plan(world)
    first = world.retention.run(MODEL, shown.plan_id, by="test")
    assert world.retention.run(MODEL, shown.plan_id, by="test").id == first.id
    world.clock.pass_s(GRACE.total_seconds())
    assert world.retention.run(MODEL, shown.plan_id, by="test").state is RunState.DONE
    assert world.retention.run(MODEL, shown.plan_id, by="test").state is RunState.DONE
    assert len(world.retention.runs(MODEL).items) == 1
    with pytest.raises(ConflictError):
        world.retention.run(MODEL, "0" * 64, by="test")
    with pytest.raises(NotFoundError, match="the retention run 'nothing' of 'digits' does not exist"):
        world.retention.one(MODEL, "nothing")
    with pytest.raises(NotFoundError, match="model 'nothing'"):
        world.retention.plan("nothing")


def test_blobs_that_are_gone_already_are_fine() -> None:
    world = world_with("one", "two")
    shown = plan(world)
    world.retention.run(MODEL, shown.plan_id, by="test")
    for blob in shown.deeds.delete:
        del world.blobs.held[blob.container, blob.name]
    world.clock.pass_s(GRACE.total_seconds())
    world.retention.resume()
    (ended,) = world.retention.runs(MODEL).items
    assert (ended.state, ended.deleted) == (RunState.DONE, 3)


def test_a_blob_that_storage_protects_is_spared_and_the_rest_goes() -> None:
    world = world_with("one", "two", "three")
    name = artifact_blob_name(digest_of_bytes(b"one"))
    world.blobs.protected.add(name)
    ended = run(world)
    assert (ended.state, ended.archived, ended.deleted) == (RunState.DONE, [1, 2], 4)
    assert ended.spared == [
        f"artifacts/{name} stays: protected: the blob artifacts/{name} is protected from being deleted"
    ]
    assert is_stored(world, "one")
    assert not is_stored(world, "two")


def begun(world: World) -> RetentionRun:
    """A run whose process died right after it was begun."""
    return world.retention._begin(plan(world), "test")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda world: world.put_policy(WIDER), "it is among the 2 newest validated versions"),
        (lambda world: name_it(world, 1), "the alias favourite names it"),
        (lambda world: alter(world, 1), "find out first why it was altered: model.onnx at "),
    ],
    ids=["policy", "alias", "altered"],
)
def test_a_run_carried_on_leaves_alone_what_may_not_go_any_more_and_says_why(
    change: Callable[[World], object], why: str
) -> None:
    world = world_with("one", "two")
    run = begun(world)
    change(world)
    finish(world)
    finish(world)
    ended = world.retention.one(MODEL, run.id)
    assert (ended.state, ended.archived) == (RunState.DONE, [])
    assert version(world, 1).state is VersionState.VALIDATED
    assert is_stored(world, "one")
    assert ended.spared[0].startswith(f"version 1 stays: {why}")
    assert ended.spared[1].endswith("stays: version 1 of digits stands on it")


def alter(world: World, number: int) -> None:
    """The bytes of a version that is in no use are found altered, and put back unnoticed."""
    name = artifact_blob_name(version(world, number).artifact_digest)
    held = world.blobs.held[BlobContainer.ARTIFACTS, name]
    world.blobs.held[BlobContainer.ARTIFACTS, name] = replace(held, info=replace(held.info, size_bytes=1))
    assert world.integrity.audit(MODEL).findings
    world.blobs.held[BlobContainer.ARTIFACTS, name] = held


def test_a_version_that_an_alias_named_as_it_was_archived_is_taken_back_before_anything_goes() -> None:
    world = world_with("one", "two")
    name_it(world, 2)

    def archive_then_die() -> None:
        world.retention.run(MODEL, plan(world).plan_id, by="test")
        world.fuse.at = world.fuse.calls + 1

    world.documents.other_writers.append(archive_then_die)
    with pytest.raises(Killed):
        name_it(world, 1)
    world.fuse.at = None
    assert version(world, 1).state is VersionState.ARCHIVED
    finish(world)
    (ended,) = world.retention.runs(MODEL).items
    assert (ended.state, ended.archived) == (RunState.DONE, [])
    assert ended.spared[0] == "version 1 stays: the alias favourite names it"
    assert version(world, 1).state is VersionState.VALIDATED
    assert is_stored(world, "one")


def test_the_version_that_served_before_the_latest_rollout_stays() -> None:
    world = world_with("one", "two", "three", "four")
    serve(world, 1)
    serve(world, 2)
    shown = plan(world)
    assert [gone.version for gone in shown.deeds.archive] == [3]
    kept = {kept.version: kept.reasons for kept in shown.keep}
    assert kept[1] == ("its endpoint served it before the latest rollout",)
    world.clock.pass_s(DAY_S)
    start(world, 4)
    assert "its endpoint serves it" in world.retention._uses.of(MODEL)[2]
    assert world.retention._uses.of(MODEL)[4] == ("it is being rolled out",)


def test_a_run_s_document_is_small_however_much_it_does_and_spares() -> None:
    world = world_with("one", "two")
    longest = "f" * 800
    count = MAX_SPARED + 20
    for number in range(count):
        register(world, f"{number}", name=f"{longest}{number:05d}.onnx")
    world.clock.pass_s(30 * DAY_S)
    shown = plan(world)
    assert len(shown.deeds.delete) == count + 3  # and what the world began with
    world.retention.run(MODEL, shown.plan_id, by="test")
    for blob in shown.deeds.delete:
        world.blobs.touch(blob.container, blob.name)
    finish(world)
    (ended,) = world.retention.runs(MODEL).items
    assert (ended.state, ended.deleted) == (RunState.DONE, 0)
    assert (len(ended.spared), ended.spared[-1]) == (MAX_SPARED + 1, "and 23 more")
    assert len(json.dumps(ended.to_body())) < MAX_SPARED * 1_000


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (None, "are gone from reports/digits/retention/"),
        (b"{", "does not hold the deeds of"),
        (b'{"archive": [], "delete": []}', "does not hold the deeds of"),
    ],
)
def test_deeds_that_are_not_those_of_the_plan_are_not_done(data: bytes | None, wanted: str) -> None:
    world = world_with("one", "two")
    shown = plan(world)
    world.retention.run(MODEL, shown.plan_id, by="test")
    key = (BlobContainer.REPORTS, deeds_blob_name(MODEL, shown.plan_id))
    right = world.blobs.held.pop(key)
    if data is not None:
        world.blobs.put(*key, data, {})
    with pytest.raises(ExceptionGroup) as raised:
        finish(world)
    assert wanted in str(raised.value.exceptions[0])
    assert is_stored(world, "one")
    world.blobs.put(*key, right.data, {})
    assert world.retention.resume() == 1
    assert not is_stored(world, "one")


@pytest.mark.parametrize("failing", [MODEL, OTHER])
def test_a_run_that_cannot_go_on_keeps_no_other_from_its_end(failing: ModelName) -> None:
    world = world_with("one", "two")
    world.registry.put_policy(OTHER, POLICY, by="test")
    for number in (1, 2):
        register(world, f"other {number}", model=OTHER, name=f"{number}.onnx")
        world.validation.validate(ValidateVersion(model=OTHER, version=number))
    world.clock.pass_s(30 * DAY_S)
    for model in (MODEL, OTHER):
        world.retention.run(model, world.retention.plan(model).plan_id, by="test")
    world.clock.pass_s(GRACE.total_seconds())
    world.blobs.refused.add(f"{failing}/1.onnx")
    with pytest.raises(ExceptionGroup) as raised:
        world.retention.resume()
    (error,) = raised.value.exceptions
    assert isinstance(error, UnavailableError)
    states = {model: world.retention.runs(model).items[0].state for model in (MODEL, OTHER)}
    assert states.pop(failing) is RunState.WAITING
    assert list(states.values()) == [RunState.DONE]
    world.blobs.refused.clear()
    assert world.retention.resume() == 1
    assert world.retention.runs(failing).items[0].state is RunState.DONE


def test_a_blob_that_another_model_s_version_stands_on_stays() -> None:
    world = world_with("one", "two")
    register(world, "one", model=OTHER)
    world.clock.pass_s(DAY_S)
    ended = run(world)
    assert ended.archived == [1]
    assert is_stored(world, "one")
    assert ended.deleted == ended.blobs == 2  # its drops


def test_what_was_archived_by_hand_loses_its_blobs_after_the_grace() -> None:
    world = world_with("one", "two")
    world.registry.mark_archived(MODEL, VersionNumber(1), by="test", reason="old")
    artifacts = {BlobContainer.ARTIFACTS}
    assert not [blob for blob in plan(world).deeds.delete if blob.container in artifacts]
    world.clock.pass_s(GRACE.total_seconds())
    assert [blob.reason for blob in plan(world).deeds.delete if blob.container in artifacts] == [
        "model.onnx of version 1"
    ]
    run(world)
    assert not is_stored(world, "one")


def test_a_folder_that_is_cleared_away_stays_registered_wherever_that_is_cut_off() -> None:
    for at in itertools.count(1):
        world = world_with("one", "two")
        for name, data in WHOLE.items():
            world.blobs.put(BlobContainer.INCOMING, f"{MODEL}/folder/{name}", data, {})
        world.registration.register(f"{MODEL}/folder/")
        world.clock.pass_s(30 * DAY_S)
        shown = plan(world)
        names = {blob.name for blob in shown.deeds.delete if blob.container is BlobContainer.INCOMING}
        assert names == {f"{MODEL}/1.onnx", f"{MODEL}/2.onnx", *(f"{MODEL}/folder/{name}" for name in WHOLE)}
        world.retention.run(MODEL, shown.plan_id, by="test")
        world.clock.pass_s(GRACE.total_seconds())
        world.queues.messages.clear()
        fuse = world.fuse
        fuse.at = fuse.calls + at
        with contextlib.suppress(Killed):
            world.retention.resume()
        was_killed = fuse.calls >= fuse.at
        fuse.at = None
        world.sweep.sweep()
        assert not [queue for _, queue, _ in world.queues.messages if queue == Queue.REGISTRATIONS]
        world.retention.resume()
        assert not [name for container, name in world.blobs.held if container is BlobContainer.INCOMING]
        (drop,) = (drop for drop in world.registration.drops(MODEL).items if drop.blob.endswith("/"))
        assert (drop.state, drop.version) == (DropState.REGISTERED, 3)
        if not was_killed:
            break
    assert at > 10


def test_killed_at_any_call_a_run_is_carried_on_to_its_end() -> None:
    for at in itertools.count(1):
        world = world_with("one", "two", "three")
        shown = plan(world)
        world.fuse.at = world.fuse.calls + at
        for _ in range(2):
            with contextlib.suppress(Killed):
                world.retention.run(MODEL, shown.plan_id, by="test")
        world.clock.pass_s(GRACE.total_seconds())
        for _ in range(2):
            with contextlib.suppress(Killed):
                world.retention.resume()
        was_killed = world.fuse.calls >= world.fuse.at
        world.fuse.at = None
        world.sweep.sweep()
        (ended,) = world.retention.runs(MODEL).items
        assert (ended.state, ended.archived, ended.deleted) == (RunState.DONE, [1, 2], 5)
        assert not is_stored(world, "one")
        assert is_stored(world, "three")
        assert world.audit.verify().verified
        if not was_killed:
            break
    assert at > 40


def finish(world: World) -> None:
    """What is under way goes on: retention is carried on until it is over, though its plan may have been refused."""
    world.clock.pass_s(GRACE.total_seconds())
    world.retention.resume()


def plan_run_and_finish(world: World) -> None:
    with contextlib.suppress(ConflictError):
        world.retention.run(MODEL, plan(world).plan_id, by="test")
    finish(world)


def test_the_same_bytes_registered_at_any_call_of_retention_stay() -> None:
    for world, fuse in interleavings(
        lambda: world_with("one", "two"), lambda world: register(world, "one", model=OTHER)
    ):
        plan_run_and_finish(world)
        assert version(world, 1, OTHER).state is VersionState.REGISTERED if fuse.happened else True
        assert is_stored(world, "one") is fuse.happened


def test_bytes_deleted_at_any_call_of_their_registration_are_stored_again() -> None:
    def due() -> World:
        world = world_with("one", "two")
        world.retention.run(MODEL, plan(world).plan_id, by="test")
        world.clock.pass_s(GRACE.total_seconds())
        return world

    deleted = 0
    for world, fuse in interleavings(due, lambda world: world.retention.resume()):
        register(world, "one", model=OTHER)
        assert version(world, 1, OTHER).state is VersionState.REGISTERED
        assert is_stored(world, "one")
        if fuse.happened:
            (ended,) = world.retention.runs(MODEL).items
            assert ended.state is RunState.DONE
            deleted += not ended.spared
    # The order decides which of the two wins; both were seen.
    assert deleted > 3


@pytest.mark.parametrize("left", ["golden", "profile", "performance"])
def test_what_is_deleted_at_any_call_of_a_validation_that_leaves_the_same_is_stored_again(left: str) -> None:
    for world, fuse in interleavings(lambda: with_left_due(left), lambda world: world.retention.resume()):
        validation_with(world, left).validate(ValidateVersion(model=MODEL, version=3))
        assert getattr(version(world, 3), f"{left}_digest") == GOLDEN_DIGEST
        assert is_there(world, GOLDEN_DIGEST)
        if not fuse.happened:
            fuse.at = None
            world.retention.resume()
            assert is_there(world, GOLDEN_DIGEST)


def with_left_due(left: str) -> World:
    """What validation left of version 1 is due to be deleted, and version 3 is to be validated."""
    world = world_with("one", "two")
    (key,) = (key for key in world.documents.held if key[2] == version_id(1))
    named = world.documents.held[key].body | {f"{left}_digest": GOLDEN_DIGEST}
    world.documents.held[key] = Stored(body=named, etag="with more")
    world.blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(GOLDEN_DIGEST), GOLDEN)
    world.clock.pass_s(DAY_S)
    world.retention.run(MODEL, plan(world).plan_id, by="test")
    world.clock.pass_s(GRACE.total_seconds())
    register(world, "three")
    return world


def validation_with(world: World, left: str) -> ValidationService:
    """Validation that leaves the same each time."""

    def check(*, workdir: Path, **_: object) -> Validation:
        (workdir / "left").write_bytes(GOLDEN)
        part = StoredPart(path=workdir / "left", digest=Digest(GOLDEN_DIGEST), size_bytes=len(GOLDEN))
        verdict = Verdict(check="accuracy", outcome=Outcome.PASS, sentence="fine")
        parts = {"golden": None, left: part}
        return Validation(report=ValidationReport(outcome=Outcome.PASS, verdicts=(verdict,)), **parts)

    outbox = Outbox(world.documents, world.blobs, world.queues, world.clock)
    return ValidationService(
        versions=Repository(ModelVersion, world.documents, outbox),
        registry=world.registry,
        blobs=world.blobs,
        clock=world.clock,
        limits=SandboxLimits(),
        check=check,
    )


@pytest.mark.parametrize("use", [start, name_it], ids=["rollout", "alias"])
def test_a_version_that_comes_into_use_at_any_call_of_retention_stays(use: Callable[[World, int], None]) -> None:
    def begin_to_use(world: World) -> None:
        with contextlib.suppress(SlipwayError):
            use(world, 1)

    used = 0
    for world, _ in interleavings(lambda: world_with("one", "two"), begin_to_use):
        with contextlib.suppress(ConflictError):
            world.retention.run(MODEL, plan(world).plan_id, by="test")
        assert_used_versions_are_whole(world)
        finish(world)
        used += assert_used_versions_are_whole(world)
        for ended in world.retention.runs(MODEL).items:
            assert not [told for told in ended.spared if told.startswith("version") and not is_use(told)]
    assert used > 5


@pytest.mark.parametrize("use", [start, name_it], ids=["rollout", "alias"])
def test_a_version_archived_at_any_call_of_what_brings_it_into_use_stays(use: Callable[[World, int], None]) -> None:
    def archive(world: World) -> None:
        world.retention.run(MODEL, plan(world).plan_id, by="test")

    for world, _ in interleavings(lambda: world_with("one", "two"), archive):
        with contextlib.suppress(SlipwayError):
            use(world, 1)
        finish(world)
        assert_used_versions_are_whole(world)


def is_use(told: str) -> bool:
    """Whether a sentence names what brought the version into use."""
    return any(use in told for use in ("is being rolled out", "its endpoint serves it", "the alias favourite"))


def assert_used_versions_are_whole(world: World) -> int:
    """Whatever is in use is not archived, and all its bytes lie there. Returns how many versions that are."""
    uses = world.retention._uses.of(MODEL)
    for number in uses:
        found = version(world, number)
        assert found.state is not VersionState.ARCHIVED, uses[number]
        for digest in digests_of(found):
            assert is_there(world, digest), uses[number]
    return len(uses)


STEPS = st.one_of(
    st.tuples(st.just("register"), st.integers(1, 4)),
    st.tuples(st.just("serve"), st.integers(1, 6)),
    st.tuples(st.just("start"), st.integers(1, 6)),
    st.tuples(st.just("name"), st.integers(1, 6)),
    st.tuples(st.just("plan and run"), st.just(0)),
    st.tuples(st.just("resume"), st.just(0)),
    st.tuples(st.just("days"), st.integers(1, 10)),
)


@settings(max_examples=15, deadline=timedelta(seconds=20))
@given(st.lists(STEPS, min_size=4, max_size=14))
def test_whatever_the_history_no_version_in_use_is_archived_and_no_bytes_of_a_living_version_go(
    steps: list[tuple[str, int]],
) -> None:
    world = world_with("1", "2", "3")
    for step, number in steps:
        with contextlib.suppress(ConflictError, NotFoundError):
            take(world, step, number)
        assert_used_versions_are_whole(world)
        for found in [*world.registry.versions(MODEL).items, *world.registry.versions(OTHER).items]:
            if found.state is not VersionState.ARCHIVED:
                assert all(is_there(world, digest) for digest in digests_of(found))


def take(world: World, step: str, number: int) -> None:
    match step:
        case "register":
            register(world, str(number), model=OTHER if number % 2 else MODEL, name=f"{number}.onnx")
        case "serve":
            serve(world, number)
        case "start":
            start(world, number)
        case "name":
            name_it(world, number)
        case "plan and run":
            world.retention.run(MODEL, plan(world).plan_id, by="test")
        case "resume":
            finish(world)
        case "days":
            world.clock.pass_s(number * DAY_S)
            world.retention.resume()
        case _:
            raise AssertionError(step)
