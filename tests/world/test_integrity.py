"""Altered artifacts: found by the ETag, told once, refused at a start, taken back when the right bytes are."""

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.alerts.documents import Alert, AlertState
from shared.core.canonical import digest_of_bytes
from shared.core.errors import ConflictError, UnavailableError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, ValidateVersion
from shared.integrity.documents import ArtifactCheck
from shared.integrity.service import IntegrityService
from shared.registry.documents import ModelVersion
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Strategy
from shared.rollout.starts import why_held
from shared.routing.plan import artifact_blob_name
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer
from shared.store.repository import Repository
from tests.world.copies import copy_of
from tests.world.fakes import FakeBlobs, Killed
from tests.world.world import MODEL, World

POLICY = Policy(rollout=RolloutPolicy(watch_s=0, automatic=False, strategy=Strategy.ALL_AT_ONCE))
CONTENT = b"one"
NAME = artifact_blob_name(digest_of_bytes(CONTENT))
OTHER_DIGEST = digest_of_bytes(b"bad")


@dataclass
class ReadCounting(FakeBlobs):
    """Counts the downloads of each blob, which cost what nothing else here does."""

    downloads: list[str] = field(default_factory=list)

    def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
        """See the port."""
        self.downloads.append(name)
        return super().download(container, name, path, etag=etag, max_bytes=max_bytes)


def world_with(*contents: bytes, serves: bool = True) -> World:
    """A world in which the first version serves, if it is to."""
    return copy_of(_prepared(contents, serves=serves))


@functools.cache
def _prepared(contents: tuple[bytes, ...], *, serves: bool) -> World:
    world = World()
    world.put_policy(POLICY)
    for number, content in enumerate(contents, 1):
        world.registration.register(world.drop(content.decode(), name=f"{number}.onnx"))
        world.validation.validate(ValidateVersion(model=MODEL, version=number))
    if serves:
        start(world, 1)
        world.run(seconds=40)
    return world


def start(world: World, number: int, command_id: str = "") -> None:
    world.rollouts.handle(
        RolloutCommand(
            command=CommandKind.START,
            command_id=command_id or f"start {number}",
            endpoint=MODEL,
            version=number,
            requested_by="test",
        )
    )


def counted(world: World, **limits: int) -> tuple[IntegrityService, ReadCounting]:
    """The service over the world's blobs, counting what it reads."""
    blobs = ReadCounting(world.fuse, world.clock, held=world.blobs.held, etags=world.blobs.etags)
    outbox = Outbox(world.documents, blobs, world.queues, world.clock)
    service = IntegrityService(
        versions=Repository(ModelVersion, world.documents, outbox),
        checks=Repository(ArtifactCheck, world.documents, outbox),
        uses=world.retention._uses,
        alerts=world.alerts,
        blobs=blobs,
        clock=world.clock,
        **limits,
    )
    return service, blobs


def overwrite(world: World, data: bytes, name: str = NAME) -> None:
    world.blobs.put(BlobContainer.ARTIFACTS, name, data, {})


def version(world: World, number: int = 1) -> ModelVersion:
    return world.registry.version(MODEL, VersionNumber(number))


def alert(world: World) -> Alert:
    (found,) = world.alerts.alerts().items
    return found


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.audit.events(version(world).stream) if "artifact" in event.kind]


def test_what_is_untouched_is_read_once_and_then_known_by_its_etag() -> None:
    world = world_with(CONTENT)
    service, blobs = counted(world)
    first, second = service.check_live(), service.check_live()
    assert (first.versions, first.hashed_bytes, first.findings) == (1, len(CONTENT), ())
    assert (second.versions, second.hashed_bytes) == (1, 0)
    assert blobs.downloads == [NAME]
    world.blobs.touch(BlobContainer.ARTIFACTS, NAME)
    assert service.check_live().hashed_bytes == len(CONTENT)
    assert world.alerts.alerts().items == []
    assert version(world).altered == ""


def test_an_altered_artifact_is_audited_once_fires_an_alert_and_keeps_the_version_from_starting() -> None:
    world = world_with(CONTENT)
    overwrite(world, b"bad")
    for _ in range(3):
        (finding,) = world.integrity.check_live().findings
    wanted = f"model.onnx at {NAME} holds bytes with the SHA-256 {OTHER_DIGEST}"
    assert (finding.model, finding.version, finding.sentence) == (MODEL, 1, wanted)
    assert version(world).altered == wanted
    assert kinds(world) == ["artifact_altered"]
    fired = alert(world)
    assert (fired.state, fired.subject, fired.model, fired.count) == (AlertState.FIRING, "version:digits:1", MODEL, 1)
    assert fired.evidence["artifacts"] == [
        {"what": "model.onnx", "digest": digest_of_bytes(CONTENT), "found": OTHER_DIGEST, "wrong": ""}
    ]
    assert why_held(version(world), POLICY.rollout) == wanted
    with pytest.raises(ConflictError, match=r"version 1 of digits cannot roll out: model\.onnx at"):
        start(world, 1, "another")
    assert world.audit.verify().verified


def test_a_version_that_is_whole_again_starts() -> None:
    world = world_with(CONTENT, serves=False)
    overwrite(world, b"bad")
    assert world.integrity.audit(MODEL).findings
    with pytest.raises(ConflictError, match="cannot roll out"):
        start(world, 1)
    overwrite(world, CONTENT)
    world.integrity.check_live()
    start(world, 1)
    assert world.endpoint().active is not None


def test_the_right_bytes_back_clear_it_and_another_finding_is_another_event() -> None:
    world = world_with(CONTENT)
    overwrite(world, b"bad")
    world.integrity.check_live()
    del world.blobs.held[BlobContainer.ARTIFACTS, NAME]
    world.integrity.check_live()
    assert version(world).altered == f"model.onnx at {NAME} is gone"
    assert alert(world).count == 2
    overwrite(world, CONTENT)
    assert world.integrity.check_live().findings == ()
    assert version(world).altered == ""
    assert alert(world).state is AlertState.RESOLVED
    assert kinds(world) == ["artifact_altered", "artifact_altered", "artifact_restored"]
    overwrite(world, b"bad")
    world.integrity.check_live()
    assert (alert(world).state, alert(world).count) == (AlertState.FIRING, 1)
    assert world.audit.verify().verified


def test_bytes_that_are_gone_come_back_with_the_same_drop_and_altered_ones_must_go_first() -> None:
    world = world_with(CONTENT)
    overwrite(world, b"bad")
    world.registration.register(world.drop("one", name="again.onnx"))
    assert world.integrity.check_live().findings
    del world.blobs.held[BlobContainer.ARTIFACTS, NAME]
    drop = world.registration.register(world.drop("one", name="once more.onnx"))
    assert drop is not None
    assert drop.version == 1
    assert world.integrity.check_live().findings == ()
    assert (version(world).altered, alert(world).state) == ("", AlertState.RESOLVED)


def test_a_serving_version_whose_bytes_are_lost_makes_way_for_another_and_is_archived_then() -> None:
    world = world_with(CONTENT)
    overwrite(world, b"bad")
    world.integrity.check_live()
    with pytest.raises(ConflictError, match="has the alias champion and production"):
        world.rollouts.archive(MODEL, VersionNumber(1), by="test", reason="lost")
    world.registration.register(world.drop("two", name="2.onnx"))
    world.validation.validate(ValidateVersion(model=MODEL, version=2))
    start(world, 2)
    world.run(seconds=90)
    assert world.stable == 2
    world.rollouts.archive(MODEL, VersionNumber(1), by="test", reason="lost")
    assert world.integrity.check_live().findings == ()
    assert alert(world).state is AlertState.RESOLVED
    refused = world.registration.register(world.drop("one", name="again.onnx"))
    assert refused is not None
    assert refused.code == "archived"


def test_a_version_in_no_use_is_left_to_the_audit_and_then_followed_until_it_is_whole() -> None:
    world = world_with(CONTENT, b"two")
    overwrite(world, b"bad", artifact_blob_name(digest_of_bytes(b"two")))
    assert world.integrity.check_live().findings == ()
    page = world.integrity.audit(MODEL)
    assert (page.versions, page.artifacts, page.hashed_bytes, page.after) == (2, 2, len("one" + "bad"), None)
    assert [finding.version for finding in page.findings] == [2]
    assert [finding.version for finding in world.integrity.check_live().findings] == [2]
    overwrite(world, b"two", artifact_blob_name(digest_of_bytes(b"two")))
    world.integrity.check_live()
    assert (version(world, 2).altered, alert(world).state) == ("", AlertState.RESOLVED)


def test_an_audit_reads_all_again_though_the_etag_stands() -> None:
    world = world_with(CONTENT)
    world.integrity.check_live()
    key = (BlobContainer.ARTIFACTS, NAME)
    # Storage that lies: other bytes under the same ETag.
    world.blobs.held[key] = type(world.blobs.held[key])(info=world.blobs.held[key].info, data=b"evi")
    assert world.integrity.check_live().findings == ()
    assert len(world.integrity.audit(MODEL).findings) == 1
    assert len(world.integrity.check_live().findings) == 1


def test_an_audit_goes_on_where_the_part_before_ended() -> None:
    world = world_with(b"one", b"two", b"three", serves=False)
    service, blobs = counted(world, audit_bytes=4)
    first = service.audit(MODEL)
    assert (first.versions, first.after) == (2, 2)
    last = service.audit(MODEL, first.after or 0)
    assert (last.versions, last.after) == (1, None)
    assert len(blobs.downloads) == len(set(blobs.downloads)) == 3
    assert service.audit("nothing").versions == 0


def test_one_look_hashes_no_more_than_its_budget_and_the_next_goes_on() -> None:
    world = world_with(b"one", b"two")
    start(world, 2)
    service, _ = counted(world, budget_bytes=3)
    first, second = service.check_live(), service.check_live()
    assert (first.versions, first.hashed_bytes, first.left_over) == (1, 3, 1)
    assert (second.versions, second.hashed_bytes, second.left_over) == (2, 3, 0)


def test_bytes_that_two_versions_share_are_read_once_and_both_are_told_of() -> None:
    world = world_with(CONTENT)
    world.blobs.put(BlobContainer.INCOMING, "other/x.onnx", CONTENT, {})
    world.registration.register("other/x.onnx")
    overwrite(world, b"bad")
    service, blobs = counted(world)
    assert service.check_live().findings
    assert service.audit("other").findings
    assert blobs.downloads == [NAME, NAME]
    assert {found.subject for found in world.alerts.alerts("firing").items} == {"version:digits:1", "version:other:1"}


def test_an_alert_about_an_archived_version_ends() -> None:
    world = world_with(b"two", CONTENT)
    overwrite(world, b"bad")
    world.integrity.audit(MODEL)
    world.rollouts.archive(MODEL, VersionNumber(2), by="test", reason="altered")
    world.integrity.check_live()
    assert (alert(world).state, alert(world).sentence) == (AlertState.RESOLVED, "the version is archived")


def test_an_artifact_that_changes_while_it_is_read_is_looked_at_again() -> None:
    world = world_with(CONTENT)

    class Restless(ReadCounting):
        """Is touched just before each of the first reads."""

        touches = 0

        def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
            if self.touches:
                self.touches -= 1
                self.touch(container, name)
            return super().download(container, name, path, etag=etag, max_bytes=max_bytes)

    service, _ = counted(world)
    restless = Restless(world.fuse, world.clock, held=world.blobs.held, etags=world.blobs.etags)
    service._blobs = restless
    restless.touches = 1
    assert service.check_live().findings == ()
    assert len(restless.downloads) == 2
    restless.touches = 100
    restless.touch(BlobContainer.ARTIFACTS, NAME)
    (finding,) = service.check_live().findings
    assert finding.sentence == f"model.onnx at {NAME} kept changing while it was read"
    assert version(world).altered == finding.sentence
    restless.touches = 0
    assert service.check_live().findings == ()
    assert alert(world).state is AlertState.RESOLVED


def test_another_size_is_altered_and_nothing_of_it_is_read() -> None:
    world = world_with(CONTENT)
    service, blobs = counted(world)
    overwrite(world, b"much more")
    (live,) = service.check_live().findings
    (audited,) = service.audit(MODEL).findings
    assert live.sentence == audited.sentence == f"model.onnx at {NAME} holds 9 bytes, and 3 were registered"
    assert blobs.downloads == []
    assert alert(world).evidence["artifacts"][0]["found"] == ""


@pytest.mark.parametrize("error", [UnavailableError("blob storage", "it refuses this one"), OSError("disk full")])
def test_a_version_that_cannot_be_looked_at_keeps_no_other_from_it(error: Exception) -> None:
    world = world_with(CONTENT, b"two", b"six")
    start(world, 2)
    service, _ = counted(world)

    class Refusing(ReadCounting):
        """Does not give the first artifact."""

        def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
            if name == NAME:
                raise error
            return super().download(container, name, path, etag=etag, max_bytes=max_bytes)

    service._blobs = Refusing(world.fuse, world.clock, held=world.blobs.held, etags=world.blobs.etags)
    overwrite(world, b"bad", artifact_blob_name(digest_of_bytes(b"two")))
    with pytest.raises(ExceptionGroup) as raised:
        service.check_live()
    assert raised.value.exceptions == (error,)
    assert error.__notes__[0] == f"looking at version 1 of {MODEL}"
    assert version(world, 2).altered
    assert alert(world).subject == f"version:{MODEL}:2"


def evil(world: World) -> None:
    overwrite(world, b"bad")


def right(world: World) -> None:
    overwrite(world, CONTENT)


@pytest.mark.parametrize(
    ("first", "then", "state", "events"),
    [
        (None, evil, "firing", ["artifact_altered"]),
        (evil, right, "resolved", ["artifact_altered", "artifact_restored"]),
    ],
    ids=["altered", "restored"],
)
def test_killed_at_any_call_the_next_look_tells_all_once(
    first: Callable[[World], None] | None, then: Callable[[World], None], state: str, events: list[str]
) -> None:
    for at in itertools.count(1):
        world = world_with(CONTENT, serves=False)
        start(world, 1)
        if first:
            first(world)
            world.integrity.check_live()
        then(world)
        world.fuse.at = world.fuse.calls + at
        with contextlib.suppress(Killed):
            world.integrity.check_live()
        was_killed = world.fuse.calls >= world.fuse.at
        world.fuse.at = None
        world.integrity.check_live()
        world.sweep.sweep()
        assert bool(version(world).altered) is (state == "firing")
        assert (alert(world).state, alert(world).count) == (state, 1)
        assert kinds(world) == events
        assert world.audit.verify().verified
        if not was_killed:
            break
    assert at > 15
