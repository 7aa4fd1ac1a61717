"""What holds a rollout back: approvals, a signature that breaks callers, and archiving. And what overcomes it."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, MoveAlias, Queue, RolloutCommand
from shared.registry.aliases import AliasName
from shared.registry.commands import Approve, SetAlias
from shared.registry.documents import ModelVersion, VersionState, version_id
from shared.registry.policy import Policy, SigningPolicy
from shared.registry.rollout_policy import RolloutPolicy, Stage
from shared.rollout.documents import automatic_command_id
from shared.rollout.endpoint import ENDPOINT_ID
from shared.rollout.starts import why_held
from shared.routing.plan import Signing, artifact_blob_name
from shared.signing.keys import TrustedKey
from shared.store.ports import BlobContainer, Container
from tests.unit.signing import made
from tests.world.fakes import Fuse, Killed
from tests.world.world import ENDPOINT, MODEL, World

STAGES = (Stage(weight_bp=5_000, duration_s=10),)


def policy(**rollout: Any) -> Policy:
    return Policy(rollout=RolloutPolicy.model_validate({"stages": STAGES, "tick_s": 5, "watch_s": 0} | rollout))


def drop(world: World, name: str, content: str, *, seconds: int = 60) -> None:
    world.event(world.drop(content, name=f"{name}.onnx"))
    world.run(seconds=seconds)


def serving(content: str = "one takes:x", **rollout: Any) -> World:
    """A world whose first version serves."""
    world = World()
    world.put_policy(policy())
    drop(world, "one", content, seconds=20)
    world.put_policy(policy(**rollout))
    assert world.stable == 1
    return world


def approve(world: World, by: str, *, version: int = 2, command_id: str = "") -> None:
    world.registry.approve(
        Approve(
            model=MODEL, version=VersionNumber(version), by=by, reason="looks good", command_id=command_id or f"by {by}"
        )
    )


def start(world: World, version: int, command_id: str = "start", **given: Any) -> None:
    command = RolloutCommand(
        command=CommandKind.START,
        command_id=command_id,
        endpoint=MODEL,
        version=version,
        requested_by="ann",
        **given,
    )
    world.rollouts.handle(command)


def held(world: World, version: int) -> str:
    found = world.registry.version(MODEL, VersionNumber(version))
    return why_held(found, world.registry.model(MODEL).policy.rollout)


def rollouts_of(world: World, version: int) -> list[str]:
    return [
        rollout.state.value for rollout in world.rollouts.rollouts(ENDPOINT) if rollout.candidate.version == version
    ]


def kinds(world: World, stream: str) -> list[str]:
    return [event.kind for event in world.audit.events(stream)]


def test_an_automatic_rollout_waits_for_its_approvals_and_begins_with_the_last_one() -> None:
    world = serving(approvals=2)
    drop(world, "two", "two takes:x by:Ann")
    assert rollouts_of(world, 2) == []
    assert held(world, 2) == (
        "version 2 of digits has 0 approvals of the 2 that its policy wants: 2 more may come from anybody "
        "but its author Ann"
    )
    approve(world, "Bob")
    world.run(seconds=130)
    assert rollouts_of(world, 2) == []
    assert "1 more may come from anybody but its author Ann, Bob" in held(world, 2)
    approve(world, "Cid")
    world.run(seconds=60)
    assert rollouts_of(world, 2) == ["promoted"]
    started = [event for event in world.audit.events(f"endpoint:{MODEL}") if event.kind == "rollout_started"]
    assert started[-1].data["reason"] == "approved by Bob, Cid"
    assert held(world, 2) == ""
    assert kinds(world, f"version:{MODEL}:2").count("version_approved") == 2
    assert world.audit.verify().verified


def test_the_last_approval_has_its_effect_even_if_its_message_is_lost() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x")
    world.queues.loses = lambda: True
    approve(world, "Bob")
    world.queues.loses = lambda: False
    world.run(seconds=200)
    assert rollouts_of(world, 2) == ["promoted"]


def test_a_policy_that_comes_to_want_fewer_approvals_lets_the_rollout_begin() -> None:
    world = serving(approvals=3)
    drop(world, "two", "two takes:x")
    world.put_policy(policy(approvals=0))
    world.run(seconds=200)
    assert rollouts_of(world, 2) == ["promoted"]


@pytest.mark.parametrize("author", ["Ann", "ann", "  ANN ", "\uff21nn", "A\u200bnn", "\u2060ann\u200d", "An\u00adn"])
def test_the_author_cannot_approve_however_the_name_is_written(author: str) -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x by:Ann")
    with pytest.raises(ConflictError, match="is the author of version 2 of digits: somebody else has to approve"):
        approve(world, author)


def test_a_person_approves_once_and_a_command_that_comes_again_is_one_approval() -> None:
    world = serving(approvals=2)
    drop(world, "two", "two takes:x")
    approve(world, "Bob", command_id="c")
    approve(world, "Bob", command_id="c")
    with pytest.raises(ConflictError, match="has approved version 2 of digits already"):
        approve(world, " bob ", command_id="d")
    for nobody in ("  ", "\u200b", " \u2060 "):
        with pytest.raises(InvalidInputError, match="needs a name"):
            approve(world, nobody, command_id="e")
    assert [found.by for found in world.registry.version(MODEL, VersionNumber(2)).approvals] == ["Bob"]


def test_approvals_that_policy_does_not_want_are_not_taken() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x")
    approve(world, "Bob")
    with pytest.raises(ConflictError, match="has 1 approvals, and its policy wants 1: no more are taken"):
        approve(world, "Cid")
    # The same command again is no other approval.
    approve(world, "Bob")
    assert [found.by for found in world.registry.version(MODEL, VersionNumber(2)).approvals] == ["Bob"]
    world.put_policy(policy(approvals=2))
    approve(world, "Cid")
    assert [found.by for found in world.registry.version(MODEL, VersionNumber(2)).approvals] == ["Bob", "Cid"]


def test_a_policy_that_is_set_while_somebody_approves_says_how_many_it_wants() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x")
    world.documents.other_writers = [
        lambda: world.put_policy(policy(approvals=2)),
        lambda: approve(world, "Cid"),
    ]
    approve(world, "Bob")
    world.run(seconds=10)
    assert [found.by for found in world.registry.version(MODEL, VersionNumber(2)).approvals] == ["Cid", "Bob"]


def test_only_a_validated_version_can_be_approved() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two worse")
    with pytest.raises(ConflictError, match="version 2 of digits is rejected: only a validated one can be approved"):
        approve(world, "Bob")
    with pytest.raises(NotFoundError, match="version 7"):
        approve(world, "Bob", version=7)


def test_a_start_by_command_without_the_approvals_is_a_conflict_even_by_force() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x by:Ann")
    for force in (False, True):
        with pytest.raises(ConflictError, match="1 more may come from anybody but its author Ann"):
            start(world, 2, force=force, reason="in a hurry")
    approve(world, "Bob")
    world.queues.messages = []
    start(world, 2)
    assert world.endpoint().active is not None


def test_policy_does_not_start_a_version_that_breaks_the_callers_of_stable() -> None:
    world = serving()
    drop(world, "two", "two takes:x,z", seconds=400)
    assert rollouts_of(world, 2) == []
    said = "version 2 breaks those who call version 1: the input 'z' is new, and callers do not send it"
    refused = world.endpoint().refused
    assert refused is not None
    assert (refused.version, refused.reason) == (2, said)
    assert held(world, 2) == said
    version = world.registry.version(MODEL, VersionNumber(2))
    assert (version.state, version.rollout_pending) == (VersionState.VALIDATED, False)
    assert kinds(world, f"endpoint:{MODEL}").count("rollout_refused") == 1
    assert kinds(world, f"version:{MODEL}:2").count("rollout_refused") == 1
    drop(world, "three", "three takes:x")
    assert world.stable == 3
    assert world.endpoint().refused is None


def test_a_refused_start_that_comes_again_stays_refused_though_stable_has_changed() -> None:
    world = serving()
    drop(world, "two", "two takes:x,z")
    start(world, 2, force=True, reason="callers are ready")
    world.run(seconds=60)
    drop(world, "three", "three takes:x")
    assert held(world, 3)
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(3))
    assert rollouts_of(world, 3) == []
    assert rollouts_of(world, 2) == ["promoted"]


def automatic_start(version: int) -> str:
    return RolloutCommand(
        command=CommandKind.START,
        command_id=automatic_command_id(MODEL, version),
        endpoint=MODEL,
        version=version,
        requested_by="policy",
    ).model_dump_json()


def test_a_breaking_version_starts_by_command_only_with_force_and_a_reason_and_that_is_audited() -> None:
    world = serving()
    drop(world, "two", "two takes:y")
    with pytest.raises(ConflictError, match=r"the input 'x' is gone.*start it with force and a reason"):
        start(world, 2)
    for reason in ("", "  "):
        with pytest.raises(InvalidInputError, match="needs a reason"):
            start(world, 2, force=True, reason=reason)
    start(world, 2, force=True, reason="callers were told")
    (event,) = [found for found in world.audit.events(f"endpoint:{MODEL}") if found.kind == "rollout_forced"]
    assert event.data["differences"] == [
        "the input 'x' is gone",
        "the input 'y' is new, and callers do not send it",
    ]
    assert (event.data["reason"], event.data["stable"], event.data["version"]) == ("callers were told", 1, 2)
    assert world.endpoint().refused is None
    rollout = world.endpoint().active
    assert rollout is not None
    assert rollout.forced


@pytest.mark.parametrize(("stable", "candidate", "unknown"), [("takes:", "takes:x", 1), ("takes:x", "takes:", 2)])
def test_a_signature_that_nobody_knows_is_not_taken_for_one_that_breaks_nothing(
    stable: str, candidate: str, unknown: int
) -> None:
    world = serving(f"one {stable}")
    drop(world, "two", f"two {candidate}")
    said = (
        f"whether version 2 breaks those who call version 1 cannot be told: the signature of version {unknown} "
        "is not known"
    )
    assert rollouts_of(world, 2) == []
    assert held(world, 2) == said
    with pytest.raises(ConflictError, match=f"{said}: start it with force and a reason"):
        start(world, 2)
    start(world, 2, force=True, reason="callers were told")
    (event,) = [found for found in world.audit.events(f"endpoint:{MODEL}") if found.kind == "rollout_forced"]
    assert event.data["differences"] == [f"the signature of version {unknown} is not known"]


def test_force_that_is_not_needed_is_a_plain_start() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    start(world, 2, force=True, reason="to be sure")
    assert "rollout_forced" not in kinds(world, f"endpoint:{MODEL}")
    rollout = world.endpoint().active
    assert rollout is not None
    assert not rollout.forced


def test_a_stable_version_that_changes_between_the_check_and_the_start_is_the_one_that_counts() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:y")
    drop(world, "three", "three takes:x")

    def promote_two() -> None:
        start(world, 2, "other host", force=True, reason="callers are ready")
        world.run(seconds=40)
        assert world.stable == 2

    world.documents.other_writers = [promote_two]
    with pytest.raises(ConflictError, match="version 3 breaks those who call version 2"):
        start(world, 3)
    assert rollouts_of(world, 3) == []


def test_a_version_that_waits_in_the_queue_is_compared_with_what_is_stable_when_its_turn_comes() -> None:
    world = serving()
    drop(world, "two", "two takes:x", seconds=8)
    drop(world, "three", "three takes:y", seconds=2)
    assert world.endpoint().queued_version == 3
    world.run(seconds=60)
    assert world.stable == 2
    assert world.endpoint().queued_version is None
    assert held(world, 3).startswith("version 3 breaks those who call version 2")


def archive(world: World, version: int) -> None:
    world.rollouts.archive(MODEL, VersionNumber(version), by="ann", reason="old")


def test_a_version_in_use_cannot_be_archived_and_what_uses_it_is_named() -> None:
    world = serving()
    world.run(seconds=100)
    with pytest.raises(ConflictError, match="has the alias champion and production: move that first"):
        archive(world, 1)
    drop(world, "two", "two takes:x", seconds=8)
    drop(world, "three", "three takes:x", seconds=2)
    with pytest.raises(ConflictError, match="has the alias challenger"):
        archive(world, 2)
    with pytest.raises(ConflictError, match="version 3 of digits waits for its rollout"):
        archive(world, 3)
    with pytest.raises(NotFoundError, match="version 9"):
        archive(world, 9)


def test_a_version_that_serves_or_rolls_out_without_an_alias_cannot_be_archived_either() -> None:
    world = World()
    world.put_policy(policy())
    world.event(world.drop("one takes:x"))
    while world.step():
        world.queues.messages = [found for found in world.queues.messages if found[1] != Queue.ALIAS_MOVES]
    with pytest.raises(ConflictError, match="version 1 of digits is being rolled out"):
        archive(world, 1)
    for _ in range(20):
        world.pod.report(world.blobs, world.clock, MODEL)
        world.clock.pass_s(1)
        while world.step():
            world.queues.messages = [found for found in world.queues.messages if found[1] != Queue.ALIAS_MOVES]
    assert world.stable == 1
    with pytest.raises(ConflictError, match="version 1 of digits serves"):
        archive(world, 1)


def test_an_archived_version_is_out_of_use_for_good() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    archive(world, 2)
    archive(world, 2)
    version = world.registry.version(MODEL, VersionNumber(2))
    assert version.state is VersionState.ARCHIVED
    assert kinds(world, f"version:{MODEL}:2").count("version_archived") == 1
    assert world.endpoint().withdrawn == []
    with pytest.raises(ConflictError, match="version 2 of digits is archived: only a validated one can roll out"):
        start(world, 2)


@pytest.mark.parametrize("changes", [{}, {"state": VersionState.VALIDATING, "rollout_pending": False}])
def test_an_archiving_that_is_taken_back_leaves_the_version_as_it_was_just_before(changes: dict[str, Any]) -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x")
    version = world.registry.version(MODEL, VersionNumber(2))
    assert (version.state, version.rollout_pending) == (VersionState.VALIDATED, True)

    def meanwhile() -> None:
        changed = world.registry.version(MODEL, VersionNumber(2)).model_copy(update=changes)
        key = (Container.MODELS, MODEL, version.id)
        world.documents.replace(key[0], changed.to_body(), etag=world.documents.held[key].etag)
        world.aliases.follow(
            MoveAlias(model=MODEL, alias="challenger", version=2, generation=99, rollout_id="r", at=world.clock.now())
        )

    # The first write is the endpoint's, the second the version's.
    world.documents.other_writers = [lambda: None, meanwhile]
    with pytest.raises(ConflictError, match="has the alias challenger"):
        archive(world, 2)
    after = world.registry.version(MODEL, VersionNumber(2))
    expected = version.model_copy(update=changes)
    assert (after.state, after.rollout_pending) == (expected.state, expected.rollout_pending)
    assert after.archived_at is None
    assert kinds(world, version.stream)[-2:] == ["version_archived", "version_revived"]


def test_a_version_that_is_archived_while_its_start_is_under_way_does_not_begin() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    world.documents.other_writers = [lambda: archive(world, 2)]
    with pytest.raises(ConflictError, match="archived"):
        start(world, 2)
    assert world.endpoint().active is None


def test_at_every_moment_of_an_archiving_a_start_makes_exactly_one_of_both_hold() -> None:
    counted = serving(automatic=False)
    drop(counted, "two", "two takes:x")
    counted.documents.fuse = Fuse()
    archive(counted, 2)
    calls = counted.documents.fuse.calls
    assert calls > 6
    seen = set()
    for at in range(1, calls + 1):
        world = serving(automatic=False)
        drop(world, "two", "two takes:x")
        world.documents.fuse = _Interruption(at, partial(start, world, 2, "other host"))
        try:
            archive(world, 2)
            archived = True
        except ConflictError:
            archived = False
        begun = world.endpoint().active is not None
        assert archived is (world.registry.version(MODEL, VersionNumber(2)).state is VersionState.ARCHIVED)
        assert archived is not begun, at
        assert world.endpoint().withdrawn == []
        seen.add(begun)
    assert seen == {True, False}


class _Interruption(Fuse):
    """Does something, as another host would, just before a numbered port call."""

    def __init__(self, at: int, do: Callable[[], object]) -> None:
        super().__init__()
        self._place, self._do = at, do

    def before_call(self) -> None:
        self.calls += 1
        if self.calls == self._place:
            self._place = 0
            with contextlib.suppress(ConflictError):
                self._do()


def set_blue(world: World, version: int | None, command_id: str = "blue") -> None:
    world.aliases.set(
        SetAlias(
            model=MODEL,
            alias=AliasName("blue"),
            version=None if version is None else VersionNumber(version),
            by="ann",
            reason="",
            command_id=command_id,
        )
    )


@pytest.mark.parametrize("archiving_is_interrupted", [True, False])
def test_at_no_moment_do_an_archiving_and_a_move_of_an_alias_leave_an_alias_on_an_archived_version(
    archiving_is_interrupted: bool,  # noqa: FBT001 - a case
) -> None:
    ended, at = set(), 0
    while True:
        at += 1
        world = serving(automatic=False)
        drop(world, "two", "two takes:x")
        set_blue(world, 1, "before")
        deeds: list[Callable[[], object]] = [partial(archive, world, 2), partial(set_blue, world, 2)]
        if not archiving_is_interrupted:
            deeds.reverse()
        world.documents.fuse = interruption = _Interruption(at, deeds[1])
        with contextlib.suppress(ConflictError):
            deeds[0]()
        if interruption.calls < at:
            break
        archived = world.registry.version(MODEL, VersionNumber(2)).state is VersionState.ARCHIVED
        named = world.aliases.version(MODEL, AliasName("blue"))
        assert named in {1, 2}
        assert not (archived and named == 2), at
        assert world.endpoint().withdrawn == []
        assert world.audit.verify().verified
        ended.add((archived, named))
    assert at > 10
    assert {(True, 1), (False, 2)} <= ended


class _JustAfter(Fuse):
    """Does something once, just after a move of `blue` to 2 is saved: before the version is looked at again."""

    def __init__(self, world: World, do: Callable[[], object]) -> None:
        super().__init__()
        self._world, self._do, self._done = world, do, False

    def before_call(self) -> None:
        super().before_call()
        stored = self._world.documents.held.get((Container.MODELS, MODEL, "alias-blue"))
        if not self._done and stored and stored.body["version"] == 2 and not stored.body["outbox_pending"]:
            self._done = True
            self._do()


def archived_just_after_the_move(*archived: int) -> World:
    """A world in which `blue` was moved from 1 to 2 while these were archived by hosts that saw no alias on them."""
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    set_blue(world, 1, "before")
    world.clock.pass_s(10)

    def archive_them() -> None:
        for number in archived:
            world.registry.mark_archived(MODEL, VersionNumber(number), by="ann", reason="old")

    world.documents.fuse = _JustAfter(world, archive_them)
    with pytest.raises(ConflictError, match="was taken back: version 2 of digits is archived"):
        set_blue(world, 2)
    world.documents.fuse = Fuse()
    return world


@pytest.mark.parametrize(("archived", "named"), [((2,), 1), ((2, 1), None)])
def test_a_move_is_taken_back_to_what_the_alias_may_still_name(archived: tuple[int, ...], named: int | None) -> None:
    world = archived_just_after_the_move(*archived)
    assert world.aliases.version(MODEL, AliasName("blue")) == named
    moves = world.aliases.history(MODEL, AliasName("blue")).items
    assert [(move.sequence, move.version, move.takes_back) for move in moves] == [
        (3, named, 2),
        (2, 2, None),
        (1, 1, None),
    ]


def test_a_version_that_is_archived_while_an_alias_goes_back_to_it_is_not_named_either() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    set_blue(world, 1, "before")

    def archive_both() -> None:
        world.registry.mark_archived(MODEL, VersionNumber(2), by="ann", reason="old")
        # The next conditional write is that of the taking back.
        world.documents.other_writers = [
            lambda: world.registry.mark_archived(MODEL, VersionNumber(1), by="ann", reason="old")
        ]

    world.documents.fuse = _JustAfter(world, archive_both)
    with pytest.raises(ConflictError, match="was taken back"):
        set_blue(world, 2)
    world.documents.fuse = Fuse()
    moves = world.aliases.history(MODEL, AliasName("blue")).items
    assert [(move.version, move.takes_back) for move in moves] == [(None, 2), (1, 2), (2, None), (1, None)]


def test_a_move_that_was_taken_back_stays_refused_when_it_is_sent_again() -> None:
    world = archived_just_after_the_move(2)
    with pytest.raises(ConflictError, match="the move of blue to version 2 was taken back: version 2 of digits"):
        set_blue(world, 2)
    for number in range(30):
        set_blue(world, 1, f"more {number}")
    with pytest.raises(ConflictError, match="was taken back"):
        set_blue(world, 2)


def test_a_move_that_was_taken_back_does_not_hold_against_a_rollouts_late_call() -> None:
    world = archived_just_after_the_move(2)
    drop(world, "three", "three takes:x")
    before = world.aliases.history(MODEL, AliasName("blue")).items[-1].at
    step = before + timedelta(seconds=5)
    call = MoveAlias(model=MODEL, alias="blue", version=3, generation=4, rollout_id="r", at=step)
    for _ in range(2):
        world.aliases.follow(call)
    assert world.aliases.version(MODEL, AliasName("blue")) == 3
    line = world.aliases.history(MODEL, AliasName("blue")).items
    assert [(move.at - before).total_seconds() for move in line] == [10, 10, 10, 5, 0]
    assert [move.version for move in line] == [3, 1, 2, 3, 1]
    assert "alias_move_overtaken" not in kinds(world, f"alias:{MODEL}:blue")


def test_a_kill_at_every_port_call_of_an_archiving_leaves_it_to_be_done_by_the_same_command() -> None:
    at, died = 0, True
    while died:
        at += 1
        world = serving(automatic=False)
        drop(world, "two", "two takes:x")
        world.documents.fuse = Fuse(at=at)
        died = False
        try:
            archive(world, 2)
        except Killed:
            died = True
        world.documents.fuse = Fuse()
        archive(world, 2)
        world.sweep.sweep()
        assert world.registry.version(MODEL, VersionNumber(2)).state is VersionState.ARCHIVED
        assert kinds(world, f"version:{MODEL}:2").count("version_archived") == 1
        assert world.audit.verify().verified
    assert at > 6


def test_a_kill_at_every_port_call_of_a_refused_start_leaves_it_refused_once() -> None:
    at, died = 0, True
    while died:
        at += 1
        world = serving()
        world.event(world.drop("two takes:z", name="two.onnx"))
        while not any(found[1] == Queue.ROLLOUT_COMMANDS for found in world.queues.messages):
            world.step()
        world.documents.fuse = fuse = Fuse(at=at)
        world.step()
        died = fuse.calls >= at
        world.documents.fuse = Fuse()
        world.run(seconds=130)
        assert held(world, 2).startswith("version 2 breaks")
        assert kinds(world, f"version:{MODEL}:2").count("rollout_refused") == 1
        assert not world.registry.version(MODEL, VersionNumber(2)).rollout_pending
        assert world.documents.held[Container.ENDPOINTS, MODEL, ENDPOINT_ID].body["stable"]["version"] == 1
    assert at > 10


def rolling(weight_bp: int) -> World:
    """A world in which version 2 rolls out: it is still loaded, or has this weight."""
    world = serving(automatic=False, stages=(Stage(weight_bp=weight_bp or 1, duration_s=100),))
    drop(world, "two", "two takes:x")
    start(world, 2)
    if weight_bp:
        world.run(seconds=8)
    rollout = world.endpoint().active
    assert rollout is not None
    assert rollout.weight_bp == weight_bp
    return world


def alter(world: World, number: int) -> None:
    version = world.registry.version(MODEL, VersionNumber(number))
    world.blobs.put(BlobContainer.ARTIFACTS, artifact_blob_name(version.artifact_digest), b"evil", {})
    assert [found.version for found in world.integrity.check_live().findings] == [number]


def promote(world: World, command_id: str = "promote") -> None:
    world.rollouts.handle(
        RolloutCommand(command=CommandKind.PROMOTE, command_id=command_id, endpoint=MODEL, requested_by="ann")
    )


@pytest.mark.parametrize("weight_bp", [0, 5_000])
def test_a_candidate_that_is_found_altered_is_taken_back_by_the_next_tick(weight_bp: int) -> None:
    world = rolling(weight_bp)
    alter(world, 2)
    world.run(seconds=12)
    assert rollouts_of(world, 2) == ["rolled_back"]
    rollout = world.endpoint().rollout
    assert rollout is not None
    assert rollout.reason.startswith("version 2 was altered: ")
    assert world.stable == 1


def test_a_candidate_that_is_found_altered_is_not_promoted_by_command_either() -> None:
    world = rolling(5_000)
    alter(world, 2)
    with pytest.raises(ConflictError, match=r"version 2 of digits cannot be promoted: .*; abort the rollout"):
        promote(world)
    assert world.stable == 1


def test_a_promotion_that_came_before_the_alteration_is_answered_as_it_was() -> None:
    world = rolling(5_000)
    promote(world)
    alter(world, 2)
    promote(world)
    assert rollouts_of(world, 2) == ["promoted"]


def test_an_alteration_that_is_found_while_a_tick_is_decided_is_seen_by_it() -> None:
    world = rolling(5_000)
    world.clock.pass_s(200)
    world.pod.report(world.blobs, world.clock, MODEL)
    world.documents.other_writers = [partial(alter, world, 2), partial(touch_endpoint, world)]
    while world.step():
        pass
    assert rollouts_of(world, 2) == ["rolled_back"]


def touch_endpoint(world: World) -> None:
    key = (Container.ENDPOINTS, MODEL, ENDPOINT_ID)
    world.documents.replace(key[0], world.documents.held[key].body, etag=world.documents.held[key].etag)


def test_a_policy_that_is_set_while_a_start_is_under_way_holds_for_it() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    world.documents.other_writers = [
        lambda: world.put_policy(policy(approvals=1, automatic=False)),
        partial(touch_endpoint, world),
    ]
    with pytest.raises(ConflictError, match="has 0 approvals of the 1 that its policy wants"):
        start(world, 2)
    assert world.endpoint().active is None


def test_a_policy_that_is_set_while_an_automatic_start_is_under_way_holds_for_it() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x")
    world.put_policy(policy())
    world.queues.messages = []
    world.documents.other_writers = [
        lambda: world.put_policy(policy(approvals=1)),
        partial(touch_endpoint, world),
    ]
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    assert rollouts_of(world, 2) == []
    approve(world, "Bob")
    world.run(seconds=60)
    assert rollouts_of(world, 2) == ["promoted"]


def test_policy_does_not_start_a_version_that_is_just_being_archived() -> None:
    world = serving(approvals=1)
    drop(world, "two", "two takes:x")
    world.put_policy(policy())
    world.queues.messages = []
    withdrawn = world.endpoint().model_copy(update={"withdrawn": [2]})
    key = (Container.ENDPOINTS, MODEL, ENDPOINT_ID)
    world.documents.replace(key[0], withdrawn.to_body(), etag=world.documents.held[key].etag)
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    assert rollouts_of(world, 2) == []
    # Whoever was archiving it gave up.
    withdrawn = world.endpoint().model_copy(update={"withdrawn": []})
    world.documents.replace(key[0], withdrawn.to_body(), etag=world.documents.held[key].etag)
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    assert rollouts_of(world, 2) == ["loading"]


OLD_KEY, NEW_KEY = (made.public_key(made.private_key(number=number)) for number in (1, 2))


def signing(*keys: TrustedKey, required: bool = True, **rollout: Any) -> Policy:
    trusted = SigningPolicy(required=required, trusted_keys=tuple(key.pem for key in keys))
    return policy(**rollout).model_copy(update={"signing": trusted})


def sign(world: World, number: int, key: TrustedKey) -> None:
    """Have a version be as if its drop had come with a signature by a key that was trusted then."""

    def as_signed(version: ModelVersion) -> bool:
        version.signing = Signing(digest="5" * 64, trusted_keys=(key.pem,))
        version.signed_by = key.fingerprint
        return True

    world.validation._versions.change(MODEL, version_id(number), as_signed)


def test_a_version_without_a_signature_does_not_start_once_policy_requires_one() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    world.put_policy(signing(OLD_KEY, automatic=False))
    said = "version 2 of digits has no cryptographic signature, and its policy requires one: drop it again, signed"
    for force in (False, True):
        with pytest.raises(ConflictError, match=said):
            start(world, 2, force=force, reason="in a hurry")
    world.put_policy(signing(OLD_KEY))
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    assert rollouts_of(world, 2) == []
    assert held(world, 2) == said
    world.put_policy(signing(required=False))
    start(world, 2)
    assert rollouts_of(world, 2) == ["loading"]


@pytest.mark.parametrize("required", [True, False])
def test_a_version_signed_by_a_key_that_is_not_trusted_any_more_does_not_start(
    required: bool,  # noqa: FBT001 - a case
) -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    sign(world, 2, OLD_KEY)
    world.put_policy(signing(NEW_KEY, required=required))
    said = f"is signed by the key {OLD_KEY.fingerprint}, which is not among the 1 that its policy trusts now: drop it"
    with pytest.raises(ConflictError, match=said):
        start(world, 2)
    world.handle(Queue.ROLLOUT_COMMANDS, automatic_start(2))
    assert rollouts_of(world, 2) == []
    assert said in held(world, 2)
    world.put_policy(signing(NEW_KEY, OLD_KEY, required=required))
    start(world, 2)
    assert rollouts_of(world, 2) == ["loading"]


def test_the_plan_names_the_keys_that_are_trusted_when_the_rollout_starts() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    sign(world, 2, OLD_KEY)
    world.put_policy(signing(NEW_KEY, OLD_KEY))
    start(world, 2)
    plan = world.endpoint().plan()
    assert plan is not None
    assert plan.candidate is not None
    assert plan.candidate.signing == Signing(digest="5" * 64, trusted_keys=(NEW_KEY.pem, OLD_KEY.pem))


def test_a_signature_under_a_policy_that_trusts_no_key_is_held_against_the_keys_of_its_intake() -> None:
    world = serving(automatic=False)
    drop(world, "two", "two takes:x")
    sign(world, 2, OLD_KEY)
    start(world, 2)
    plan = world.endpoint().plan()
    assert plan is not None
    assert plan.candidate is not None
    assert plan.candidate.signing == Signing(digest="5" * 64, trusted_keys=(OLD_KEY.pem,))
