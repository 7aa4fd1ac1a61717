"""Folder drops: they wait until they are whole, say for what, and are then registered once."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.core.errors import UnavailableError
from shared.core.ids import Digest, VersionNumber
from shared.core.messages import Queue
from shared.registration.documents import Drop, DropState
from shared.registry.documents import VersionState
from shared.registry.manifest import MAX_FILES, MAX_MANIFEST_BYTES, Manifest
from shared.registry.policy import Policy, SigningPolicy
from shared.routing.plan import Signing, artifact_blob_name
from shared.store.ports import Blob, BlobContainer
from shared.validation.sandbox import Intake, StoredPart
from tests.world.fakes import FakeBlobs, Fuse, Killed
from tests.world.test_registration import FILES, KEY, WHOLE, manifest, registry_of, sha256
from tests.world.world import GRACE, MODEL, World, _intake, _parse_manifest

INCOMING = BlobContainer.INCOMING
FOLDER = f"{MODEL}/first/"


def put(world: World, files: Mapping[str, bytes], folder: str = FOLDER) -> None:
    """Put files into a folder, without their events."""
    for name, data in files.items():
        world.blobs.put(INCOMING, folder + name, data, {})


def remove(world: World, *names: str) -> None:
    for name in names:
        del world.blobs.held[INCOMING, FOLDER + name]


def look(world: World, name: str = "", folder: str = FOLDER) -> Drop:
    """What the event of a file of the folder leads to."""
    drop = world.registration.register(folder + name)
    assert drop is not None
    return drop


def drops(world: World) -> list[tuple[str, DropState, int | None]]:
    return [(drop.blob, drop.state, drop.version) for drop in world.registration.drops(MODEL).items]


def kinds(world: World, drop: Drop) -> list[str]:
    return [event.kind for event in world.audit.events(drop.stream)]


def test_a_whole_folder_is_a_version_whose_parts_storage_copied_by_itself() -> None:
    world = World()
    put(world, WHOLE)
    drop = look(world, "weights.bin")
    assert (drop.state, drop.version, drop.blob) == (DropState.REGISTERED, 1, FOLDER)
    version = world.registry.version(MODEL, VersionNumber(1))
    assert version.drop == FOLDER
    assert version.artifact_digest == sha256(b"graph")
    assert [(file.name, file.digest, file.size_bytes) for file in version.external] == [
        ("data/more.bin", sha256(b"more"), 4),
        ("weights.bin", sha256(b"weights"), 7),
    ]
    for data in (b"graph", b"weights", b"more"):
        assert world.blobs.held[BlobContainer.ARTIFACTS, artifact_blob_name(sha256(data))].data == data
    assert (world.blobs.copies, world.blobs.uploads) == (3, 0)
    assert kinds(world, drop) == ["drop_registered"]
    assert world.audit.verify(drop.stream).verified


@pytest.mark.parametrize("order", list(itertools.permutations(WHOLE)), ids=lambda order: "-".join(n[0] for n in order))
def test_uploaded_file_by_file_in_any_order_a_folder_waits_and_is_registered_exactly_when_whole(
    order: tuple[str, ...],
) -> None:
    world = World()
    waited: list[list[str]] = []
    for number, name in enumerate(order, 1):
        put(world, {name: WHOLE[name]})
        drop = look(world, name)
        if number == len(order):
            break
        waited.append(drop.waiting_for)
        there = set(order[:number])
        assert drop.state is DropState.WAITING
        assert not world.registry.models().items
        assert sorted(drop.waiting_for) == (sorted(set(WHOLE) - there) if "slipway.yaml" in there else ["slipway.yaml"])
    assert (drop.state, drop.version, drop.waiting_for) == (DropState.REGISTERED, 1, [])
    changes = [wanted for wanted, _ in itertools.groupby(waited)]
    assert kinds(world, drop) == ["drop_waiting"] * len(changes) + ["drop_registered"]


def test_events_that_come_again_are_audited_once_and_read_nothing_again() -> None:
    world = World()
    calls: list[Path] = []

    def parse(path: Path, **_: object) -> Manifest:
        calls.append(path)
        return _parse_manifest(path)

    registration = registry_of(world, parse_manifest=parse)
    put(world, {"slipway.yaml": WHOLE["slipway.yaml"], "model.onnx": FILES["model.onnx"]})
    for _ in range(10):
        registration.register(FOLDER + "model.onnx")
        registration.register(FOLDER + "slipway.yaml")
    (drop,) = world.registration.drops(MODEL).items
    assert kinds(world, drop) == ["drop_waiting"]
    assert (len(calls), world.blobs.reads, drop.attempts) == (1, [FOLDER + "slipway.yaml"], 1)
    put(world, {"weights.bin": b"other", "data/more.bin": FILES["data/more.bin"]})
    registration.register(FOLDER + "weights.bin")
    put(world, {"weights.bin": b"another"})
    registration.register(FOLDER + "weights.bin")
    assert Counter(world.blobs.reads) == {FOLDER + name: 2 if name == "weights.bin" else 1 for name in WHOLE}
    put(world, {"weights.bin": FILES["weights.bin"]})
    for _ in range(10):
        registration.register(FOLDER + "weights.bin")
    assert len(calls) == 1
    # Once to learn what a file holds, and once more to hand all of them to the sandbox together.
    assert Counter(world.blobs.reads) == {FOLDER + name: 3 if name == "weights.bin" else 2 for name in WHOLE}
    assert drops(world) == [(FOLDER, DropState.REGISTERED, 1)]


def test_a_file_that_holds_something_else_is_waited_for_with_both_digests() -> None:
    world = World()
    put(world, WHOLE | {"weights.bin": b"half"})
    drop = look(world)
    assert drop.state is DropState.WAITING
    assert drop.waiting_for == [
        f"weights.bin with the SHA-256 {sha256(b'weights')[:12]}…: it holds {sha256(b'half')[:12]}…"
    ]
    assert not world.registry.models().items
    put(world, {"weights.bin": b"weights"})
    assert look(world).state is DropState.REGISTERED


def test_a_file_that_the_manifest_does_not_name_is_refused_until_it_is_removed() -> None:
    world = World()
    put(world, WHOLE | {"notes.txt": b"notes"})
    drop = look(world)
    assert (drop.state, drop.code) == (DropState.REFUSED, "unexpected_file")
    assert "'notes.txt'" in drop.reason
    assert FOLDER + "notes.txt" not in world.blobs.reads
    remove(world, "notes.txt")
    world.clock.pass_s(GRACE.total_seconds() + 1)
    assert world.sweep.sweep().drops == 1
    world.step()
    assert drops(world) == [(FOLDER, DropState.REGISTERED, 1)]
    assert kinds(world, drop) == ["drop_refused", "drop_opened_again", "drop_registered"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"task: classification\nfoo: 1\n", "unknown key 'foo'"),
        (b"\xff\xfe", "not UTF-8"),
        (b"task: classification\n", "gives no digest of 'model.onnx'"),
        (
            b"task: classification\nvalidation: v.npz\nfiles:\n  model.onnx: " + sha256(b"graph").encode(),
            "gives no digest of 'v.npz'",
        ),
        (manifest({**FILES, "model.sig": b"s"}), "names model.sig"),
        (manifest({**FILES, "slipway.yaml": b"s"}), "names slipway.yaml"),
        (b"task: classification\nfiles:\n  ../model.onnx: " + sha256(b"graph").encode(), "files"),
        (b"#" * (MAX_MANIFEST_BYTES + 1), f"at most {MAX_MANIFEST_BYTES}"),
    ],
)
def test_a_manifest_that_cannot_do_is_refused_and_only_another_one_opens_the_drop_again(
    text: bytes, reason: str
) -> None:
    world = World()
    put(world, FILES | {"slipway.yaml": text})
    drop = look(world)
    assert (drop.state, drop.code) == (DropState.REFUSED, "bad_manifest")
    assert reason in drop.reason
    reads = len(world.blobs.reads)
    put(world, {"weights.bin": b"another"})
    world.clock.pass_s(1_000)
    assert world.sweep.sweep().drops == 0
    assert look(world).attempts == 1
    assert len(world.blobs.reads) == reads
    put(world, WHOLE)
    assert look(world).state is DropState.REGISTERED


def test_an_mlflow_folder_need_not_name_the_file_that_its_mlmodel_tells() -> None:
    world = World()
    files = {"MLmodel": b"flavors", "model.onnx": b"graph"}
    text = manifest({"MLmodel": b"flavors", "model.onnx": b"graph"}, model="elsewhere.onnx")
    put(world, files | {"slipway.yaml": text})
    assert look(world).state is DropState.REGISTERED


def test_the_same_content_in_two_folders_is_one_version_and_another_word_is_another() -> None:
    world = World()
    put(world, WHOLE)
    put(world, WHOLE, f"{MODEL}/second/")
    put(world, WHOLE | {"slipway.yaml": manifest(FILES, author="ann")}, f"{MODEL}/third/")
    for folder in ("first", "second", "third"):
        look(world, folder=f"{MODEL}/{folder}/")
    assert sorted(drops(world)) == [
        (f"{MODEL}/first/", DropState.REGISTERED, 1),
        (f"{MODEL}/second/", DropState.REGISTERED, 1),
        (f"{MODEL}/third/", DropState.REGISTERED, 2),
    ]


def test_a_folder_that_is_changed_after_its_end_is_opened_again() -> None:
    world = World()
    put(world, WHOLE)
    look(world)
    other = FILES | {"weights.bin": b"better"}
    put(world, {"weights.bin": b"better"})
    drop = look(world)
    assert (drop.state, drop.version) == (DropState.WAITING, None)
    assert "weights.bin" in drop.waiting_for[0]
    put(world, {"slipway.yaml": manifest(other)})
    assert (look(world).state, look(world).version) == (DropState.REGISTERED, 2)
    assert kinds(world, drop) == ["drop_registered", "drop_opened_again", "drop_waiting", "drop_registered"]
    opened = next(event for event in world.audit.events(drop.stream) if event.kind == "drop_opened_again")
    assert opened.data["version"] == 1


def test_a_registered_folder_that_is_cleared_away_stays_registered() -> None:
    world = World()
    put(world, WHOLE)
    look(world)
    for name in WHOLE:
        remove(world, name)
        world.clock.pass_s(1_000)
        assert world.sweep.sweep().drops == 0
        assert drops(world) == [(FOLDER, DropState.REGISTERED, 1)]
    assert look(world).state is DropState.REGISTERED


@pytest.mark.parametrize("by", ["event", "sweep"])
def test_a_waiting_folder_that_is_cleared_away_is_ended(by: str) -> None:
    world = World()
    put(world, FILES)
    look(world)
    remove(world, *FILES)
    if by == "event":
        look(world)
    else:
        world.clock.pass_s(GRACE.total_seconds() + 1)
        world.sweep.sweep()
    (drop,) = world.registration.drops(MODEL).items
    assert (drop.state, drop.code, drop.waiting_for) == (DropState.REFUSED, "gone", [])
    put(world, WHOLE)
    assert look(world).state is DropState.REGISTERED


def test_nothing_in_a_folder_is_no_drop() -> None:
    world = World()
    world.blobs.put(INCOMING, FOLDER, b"", {})
    world.blobs.put(INCOMING, FOLDER + "sub", b"", {"hdi_isfolder": "true"})
    world.blobs.put(INCOMING, f"{MODEL}", b"", {"hdi_isfolder": "true"})
    assert world.registration.register(FOLDER) is None
    assert world.registration.register(MODEL) is None
    world.clock.pass_s(1_000)
    assert world.sweep.sweep().drops == 0
    put(world, WHOLE)
    assert look(world).state is DropState.REGISTERED


def test_the_sweep_looks_again_where_a_folder_changed_and_only_there() -> None:
    world = World()
    put(world, {"model.onnx": b"graph"})
    put(world, {"model.onnx": b"graph"}, f"{MODEL}/still/")
    look(world)
    look(world, folder=f"{MODEL}/still/")
    put(world, WHOLE)
    assert world.sweep.sweep().drops == 0, "within its grace"
    world.clock.pass_s(GRACE.total_seconds() + 1)
    assert world.sweep.sweep().drops == 1
    assert world.sweep.sweep().drops == 0, "asked a moment ago"
    assert [queue for _, queue, _ in world.queues.messages] == [Queue.REGISTRATIONS]
    world.step()
    assert drops(world) == [(FOLDER, DropState.REGISTERED, 1), (f"{MODEL}/still/", DropState.WAITING, None)]


def test_a_folder_of_which_every_event_was_lost_is_registered_by_one_sweep() -> None:
    world = World()
    put(world, WHOLE)
    world.clock.pass_s(GRACE.total_seconds() + 1)
    world.sweep.sweep()
    world.step()
    assert drops(world) == [(FOLDER, DropState.REGISTERED, 1)]


class ActingBlobs(FakeBlobs):
    """Blobs that somebody acts on just before they are read or copied for the first time, each."""

    def act(self, before_read: Mapping[str, Callable[[], object]], before_copy: Callable[[], object]) -> None:
        """What to do before the first read of a name, and before the first copy."""
        self.before_read, self.before_copy = dict(before_read), [before_copy]

    def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
        """See the port."""
        self.before_read.pop(name, lambda: None)()
        return super().download(container, name, path, etag=etag, max_bytes=max_bytes)

    def copy(self, source: BlobContainer, source_name: str, target: BlobContainer, name: str, *, etag: str) -> bool:
        """See the port."""
        if self.before_copy:
            self.before_copy.pop()()
        return super().copy(source, source_name, target, name, etag=etag)


def acting(
    world: World, *, before_read: Mapping[str, Callable[[], object]] | None = None, before_copy: Any = lambda: None
) -> FakeBlobs:
    blobs = ActingBlobs(Fuse(), world.clock, held=world.blobs.held, etags=world.blobs.etags)
    blobs.act({FOLDER + name: do for name, do in (before_read or {}).items()}, before_copy)
    return blobs


def test_a_file_that_changes_before_it_is_read_has_the_folder_looked_at_anew() -> None:
    world = World()
    put(world, WHOLE)
    other = FILES | {"weights.bin": b"better"}
    change = lambda: put(world, {"weights.bin": b"better", "slipway.yaml": manifest(other)})  # noqa: E731
    drop = registry_of(world, blobs=acting(world, before_read={"weights.bin": change})).register(FOLDER)
    assert drop is not None
    assert (drop.state, drop.version) == (DropState.REGISTERED, 1)
    (file,) = [f for f in world.registry.version(MODEL, VersionNumber(1)).external if f.name == "weights.bin"]
    assert file.digest == sha256(b"better")


def test_a_file_that_changes_before_it_is_copied_is_never_stored_under_the_digest_of_what_was_read() -> None:
    world = World()
    put(world, WHOLE)
    change = lambda: put(world, {"model.onnx": b"swapped"})  # noqa: E731
    drop = registry_of(world, blobs=acting(world, before_copy=change)).register(FOLDER)
    assert drop is not None
    assert drop.state is DropState.WAITING
    assert drop.waiting_for[0].startswith("model.onnx with the SHA-256")
    assert not world.registry.models().items
    for (container, name), blob in world.blobs.held.items():
        if container is BlobContainer.ARTIFACTS:
            assert name == artifact_blob_name(sha256(blob.data))


def test_a_file_that_is_deleted_before_it_is_read_is_waited_for() -> None:
    world = World()
    put(world, WHOLE)
    drop = registry_of(world, blobs=acting(world, before_read={"model.onnx": lambda: remove(world, "weights.bin")}))
    waiting = drop.register(FOLDER)
    assert waiting is not None
    assert (waiting.state, waiting.waiting_for) == (DropState.WAITING, ["weights.bin"])


def test_what_comes_while_a_folder_is_looked_at_needs_no_event_of_its_own() -> None:
    world = World()
    put(world, {"slipway.yaml": WHOLE["slipway.yaml"]})
    blobs = acting(world, before_read={"slipway.yaml": lambda: put(world, FILES)})
    drop = registry_of(world, blobs=blobs).register(FOLDER)
    assert drop is not None
    assert drop.state is DropState.REGISTERED


def test_a_look_that_another_overtook_does_not_undo_what_that_found() -> None:
    world = World()
    put(world, {"slipway.yaml": WHOLE["slipway.yaml"]})

    def overtake() -> None:
        put(world, FILES)
        assert look(world).state is DropState.REGISTERED

    drop = registry_of(world, blobs=acting(world, before_read={"slipway.yaml": overtake})).register(FOLDER)
    assert drop is not None
    assert (drop.state, drop.version) == (DropState.REGISTERED, 1)
    assert kinds(world, drop) == ["drop_registered"]


def test_a_look_whose_overtaker_died_finishes_in_its_place() -> None:
    world = World()
    put(world, {"slipway.yaml": WHOLE["slipway.yaml"]})

    def die(*_: object, **__: object) -> Intake:
        raise Killed

    def overtake() -> None:
        put(world, FILES)
        with pytest.raises(Killed):
            registry_of(world, intake=die).register(FOLDER)

    drop = registry_of(world, blobs=acting(world, before_read={"slipway.yaml": overtake})).register(FOLDER)
    assert drop is not None
    assert (drop.state, drop.version, drop.attempts) == (DropState.REGISTERED, 1, 3)


def _port_calls() -> int:
    world = World()
    put(world, WHOLE)
    look(world)
    return world.fuse.calls


def test_a_kill_at_every_port_call_ends_in_one_version() -> None:
    calls = _port_calls()
    assert calls > 30
    for at in range(1, calls + 1):
        world = World()
        put(world, WHOLE)
        world.documents.fuse = world.blobs.fuse = world.queues.fuse = Fuse(at=at)
        with pytest.raises(Killed):
            look(world, "slipway.yaml")
        world.run(seconds=130)
        assert drops(world) == [(FOLDER, DropState.REGISTERED, 1)], at
        assert [v.state for v in world.registry.versions(MODEL).items] == [VersionState.VALIDATED], at
        assert world.audit.verify().verified, at
        undelivered = [key for key, doc in world.documents.held.items() if doc.body.get("outbox_pending")]
        assert undelivered == [], at


def test_an_outage_while_reading_leaves_the_drop_to_the_next_event() -> None:
    world = World()
    put(world, WHOLE)

    def fail() -> None:
        raise UnavailableError("blob storage", "no answer")

    with pytest.raises(UnavailableError):
        registry_of(world, blobs=acting(world, before_read={"weights.bin": fail})).register(FOLDER)
    assert drops(world) == [(FOLDER, DropState.RECEIVED, None)]
    assert (look(world).state, look(world).failures) == (DropState.REGISTERED, 0)


def test_a_folder_whose_registration_fails_five_times_is_refused_until_it_changes() -> None:
    world = World()
    put(world, WHOLE)

    def intake(*_: object, **__: object) -> Intake:
        raise OSError(28, "No space left")

    registration = registry_of(world, intake=intake)
    for _ in range(4):
        with pytest.raises(OSError, match="No space left"):
            registration.register(FOLDER)
    drop = registration.register(FOLDER)
    assert drop is not None
    assert (drop.state, drop.code, drop.failures) == (DropState.REFUSED, "gave_up", 5)
    put(world, {"slipway.yaml": manifest(FILES, author="ann")})
    drop = look(world)
    assert (drop.state, drop.failures, drop.last_error) == (DropState.REGISTERED, 0, "")


def test_failures_between_looks_that_went_well_do_not_add_up() -> None:
    world = World()

    def fail(*_: object, **__: object) -> Manifest:
        raise OSError(28, "No space left")

    for number in range(6):
        put(world, {"slipway.yaml": manifest(FILES, author=f"author {number}")})
        with pytest.raises(OSError, match="No space left"):
            registry_of(world, parse_manifest=fail).register(FOLDER)
        drop = look(world)
        assert (drop.state, drop.failures) == (DropState.WAITING, 0)
    put(world, FILES)
    assert look(world).state is DropState.REGISTERED


def signed_intake(dropped: Any, *, signing: SigningPolicy, **more: Any) -> Intake:
    """An intake that believes any signature, and says by which policy."""
    intake = _intake(dropped, **more)
    path = dropped["model.sig"] if isinstance(dropped, Mapping) and "model.sig" in dropped else None
    if path is None:
        return intake
    assert signing.trusted_keys == (KEY,)
    data = path.read_bytes()
    part = StoredPart(path=path, digest=Digest(sha256(data)), size_bytes=len(data))
    return dataclasses.replace(intake, signing=part, signed_by="abc")


def test_where_policy_wants_a_signature_a_folder_waits_for_it_and_the_version_keeps_it() -> None:
    world = World()
    world.put_policy(Policy(signing=SigningPolicy(required=True, trusted_keys=(KEY,))))
    registration = registry_of(world, intake=signed_intake)
    put(world, WHOLE)
    waiting = registration.register(FOLDER)
    assert waiting is not None
    assert (waiting.state, waiting.waiting_for) == (DropState.WAITING, ["model.sig"])
    put(world, {"model.sig": b"signature"})
    registration.register(FOLDER)
    version = world.registry.version(MODEL, VersionNumber(1))
    assert version.signing == Signing(digest=sha256(b"signature"), trusted_keys=(KEY,))
    assert version.signed_by == "abc"
    assert world.blobs.held[BlobContainer.ARTIFACTS, artifact_blob_name(sha256(b"signature"))].data == b"signature"
    registered = [event for event in world.audit.events(version.stream) if event.kind == "version_registered"]
    assert registered[0].data["signed_by"] == "abc"


def test_a_model_without_a_document_is_looked_at_under_the_default_policy() -> None:
    world = World()
    seen: list[object] = []

    def intake(dropped: Any, *, signing: SigningPolicy, **more: Any) -> Intake:
        seen.append((signing, more["metadata"]))
        return _intake(dropped, **more)

    world.blobs.put(INCOMING, f"{MODEL}/one.onnx", b"one", {"task": "regression"})
    registry_of(world, intake=intake).register(f"{MODEL}/one.onnx")
    assert seen == [(SigningPolicy(), {"task": "regression"})]


def test_a_folder_of_too_many_files_or_bytes_is_refused_unread() -> None:
    world = World()
    put(world, {f"{number}.bin": b"" for number in range(MAX_FILES + 1)})
    drop = look(world)
    assert (drop.state, drop.code) == (DropState.REFUSED, "too_large")
    big = f"{MODEL}/big/"
    put(world, WHOLE, big)
    for name in ("model.onnx", "weights.bin", "data/more.bin"):
        held = world.blobs.held[INCOMING, big + name]
        info = dataclasses.replace(held.info, size_bytes=6_000_000_000)
        world.blobs.held[INCOMING, big + name] = Blob(info=info, data=held.data)
    drop = look(world, folder=big)
    assert (drop.state, drop.code) == (DropState.REFUSED, "too_large")
    assert "18000000" in drop.reason
    assert world.blobs.reads == []


def test_what_a_folder_waits_for_is_cut_to_what_a_person_reads() -> None:
    world = World()

    many = {f"{number:04d}.bin": b"" for number in range(600)} | {"model.onnx": b"graph"}
    put(world, {"slipway.yaml": manifest(many), "model.onnx": b"graph"})
    drop = look(world)
    assert drop.state is DropState.WAITING
    assert len(drop.waiting_for) == 21
    assert drop.waiting_for[-1] == "and 580 more"


@pytest.mark.parametrize("folder", [".hidden", "a b", "-x", "x" * 129, "é", ".."])
def test_a_folder_of_a_wrong_name_is_refused_once_for_all_its_files(folder: str) -> None:
    world = World()
    put(world, WHOLE, f"{MODEL}/{folder}/")
    for name in WHOLE:
        look(world, name, f"{MODEL}/{folder}/")
    (drop,) = world.registration.drops(MODEL).items
    assert (drop.state, drop.code, drop.attempts) == (DropState.REFUSED, "bad_place", 1)
    assert world.blobs.reads == []


def test_content_of_an_archived_version_is_refused_with_a_word_on_what_to_do() -> None:
    world = World()
    put(world, WHOLE)
    look(world)
    version = world.registry.version(MODEL, VersionNumber(1))
    key = next(key for key, doc in world.documents.held.items() if doc.body["id"] == version.id)
    world.documents.held[key].body["state"] = VersionState.ARCHIVED.value
    put(world, WHOLE, f"{MODEL}/again/")
    drop = look(world, folder=f"{MODEL}/again/")
    assert (drop.state, drop.code) == (DropState.REFUSED, "archived")
    assert "version 1" in drop.reason


def test_dropping_a_known_content_again_keeps_its_parts_from_a_delete_that_was_decided_before() -> None:
    world = World()
    put(world, WHOLE)
    look(world)
    before = {name: blob.info.etag for (box, name), blob in world.blobs.held.items() if box is BlobContainer.ARTIFACTS}
    put(world, WHOLE, f"{MODEL}/again/")
    look(world, folder=f"{MODEL}/again/")
    after = {name: blob.info.etag for (box, name), blob in world.blobs.held.items() if box is BlobContainer.ARTIFACTS}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
