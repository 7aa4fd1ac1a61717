"""Registration and validation in trouble: what fails again and again ends, what was only interrupted does not."""

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.core.errors import IntegrityError, InvalidInputError, UnavailableError
from shared.core.ids import VersionNumber
from shared.core.messages import Queue, ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.registration.documents import Drop, DropState
from shared.registration.places import drop_of
from shared.registration.service import RegistrationService
from shared.registry.documents import Model, ModelVersion, VersionState
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import Policy, SigningPolicy
from shared.store.documents import MAX_DOCUMENT_BYTES
from shared.store.outbox import Outbox
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.store.repository import Repository
from shared.validation.failures import SandboxUnavailableError
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.report import ValidationReport
from shared.validation.sandbox import Intake, SandboxLimits, Validation
from shared.validation.service import ValidationService
from tests.support.waiting import eventually
from tests.unit.signing import made
from tests.world.fakes import FakeBlobs, Fuse, Killed
from tests.world.world import GRACE, MODEL, World, _intake, _parse_manifest

KEY = made.public_key(made.private_key(number=1)).pem
FILES = {"model.onnx": b"graph", "weights.bin": b"weights", "data/more.bin": b"more"}
FIRST = ValidateVersion(model=MODEL, version=1)
KILLED = "validation was killed from outside while loading the model"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(files: Mapping[str, bytes], **more: str) -> bytes:
    """A manifest that names these files."""
    lines = ["task: classification", *(f"{key}: {value}" for key, value in more.items()), "files:"]
    return "\n".join([*lines, *(f"  {name}: {sha256(data)}" for name, data in files.items()), ""]).encode()


WHOLE = {**FILES, "slipway.yaml": manifest(FILES)}
"""A folder that is complete."""


def registry_of(
    world: World,
    *,
    intake: Callable[..., Intake] = _intake,
    parse_manifest: Callable[..., Manifest] = _parse_manifest,
    blobs: BlobStore | None = None,
) -> RegistrationService:
    outbox = Outbox(world.documents, world.blobs, world.queues, world.clock)
    return RegistrationService(
        models=Repository(Model, world.documents, outbox),
        versions=Repository(ModelVersion, world.documents, outbox),
        drops=Repository(Drop, world.documents, outbox),
        blobs=blobs or world.blobs,
        clock=world.clock,
        limits=SandboxLimits(),
        intake=intake,
        parse_manifest=parse_manifest,
    )


def validation_of(world: World, check: Callable[..., Validation]) -> ValidationService:
    outbox = Outbox(world.documents, world.blobs, world.queues, world.clock)
    return ValidationService(
        versions=Repository(ModelVersion, world.documents, outbox),
        registry=world.registry,
        blobs=world.blobs,
        clock=world.clock,
        limits=SandboxLimits(),
        check=check,
    )


def the_drop(world: World) -> Drop:
    (drop,) = world.registration.drops(MODEL).items
    return drop


def the_version(world: World) -> ModelVersion:
    return world.registry.version(MODEL, VersionNumber(1))


def failing(error: BaseException) -> Callable[..., Intake]:
    def intake(*_: object, **__: object) -> Intake:
        raise error

    return intake


def killed_from_outside(**_: object) -> Validation:
    verdict = Verdict(check="sandbox", outcome=Outcome.ERROR, sentence=KILLED)
    return Validation(report=ValidationReport(outcome=Outcome.ERROR, verdicts=(verdict,)), golden=None)


def with_parameters(parameters: dict[str, int | str]) -> Callable[..., Intake]:
    def intake(path: Path, *, filename: str, **_: object) -> Intake:
        manifest = Manifest.model_construct(
            **(Manifest(task=Task.CLASSIFICATION).model_dump() | {"parameters": parameters})
        )
        return dataclasses.replace(_intake(path, filename=filename), manifest=manifest)

    return intake


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("parameters", [{"seed": 2**53}, {"notes": "x" * MAX_DOCUMENT_BYTES}], ids=["number", "size"])
def test_a_version_that_cannot_be_stored_is_refused_and_burns_no_number(parameters: dict[str, int | str]) -> None:
    world = World()
    drop = registry_of(world, intake=with_parameters(parameters)).register(world.drop("one"))
    assert drop is not None
    assert (drop.state, drop.code) == (DropState.REFUSED, "unstorable")
    assert not [name for container, name in world.blobs.held if container is BlobContainer.ARTIFACTS]
    good = world.registration.register(world.drop("two"))
    assert good is not None
    assert good.version == 1


@pytest.mark.parametrize(
    "error", [IntegrityError("the digest differs"), OSError(28, "No space left"), SandboxUnavailableError("no process")]
)
def test_a_drop_whose_registration_fails_five_times_is_refused_with_the_last_reason(error: Exception) -> None:
    world = World()
    registry = registry_of(world, intake=failing(error))
    blob = world.drop("one")
    for _ in range(4):
        with pytest.raises(type(error)):
            registry.register(blob)
    assert the_drop(world).state is DropState.RECEIVED
    drop = registry.register(blob)
    assert drop is not None
    assert (drop.state, drop.code, drop.failures, drop.attempts) == (DropState.REFUSED, "gave_up", 5, 5)
    assert str(error) in drop.reason
    assert "5 times" in drop.reason
    assert world.audit.verify().verified


def test_an_outage_never_uses_up_a_drops_attempts() -> None:
    world = World()
    registry = registry_of(world, intake=failing(UnavailableError("blob storage", "no answer")))
    blob = world.drop("one")
    for _ in range(20):
        with pytest.raises(UnavailableError):
            registry.register(blob)
    world.registration.register(blob)
    assert (the_drop(world).state, the_drop(world).failures) == (DropState.REGISTERED, 0)


def test_an_attempt_that_fails_says_nothing_of_a_drop_that_another_one_registered_meanwhile() -> None:
    world = World()
    blob = world.drop("one")

    def intake(*_: object, **__: object) -> Intake:
        world.registration.register(blob)
        raise OSError(28, "No space left")

    with pytest.raises(OSError, match="No space left"):
        registry_of(world, intake=intake).register(blob)
    drop = the_drop(world)
    assert (drop.state, drop.failures, drop.last_error) == (DropState.REGISTERED, 0, "")


def test_a_host_that_is_killed_thirty_times_uses_up_no_attempts() -> None:
    world = World()
    blob = world.drop("one")
    dying = registry_of(world, intake=failing(Killed()))
    for _ in range(30):
        with pytest.raises(Killed):
            dying.register(blob)
    world.registration.register(blob)
    assert (the_drop(world).state, the_drop(world).attempts) == (DropState.REGISTERED, 31)

    def check(**_: object) -> Validation:
        raise Killed

    for _ in range(30):
        with pytest.raises(Killed):
            validation_of(world, check).validate(FIRST)
    world.validation.validate(FIRST)
    assert (the_version(world).state, the_version(world).failures) == (VersionState.VALIDATED, 0)


def test_a_version_whose_artifact_is_gone_is_rejected_after_five_failures() -> None:
    world = World()
    world.event(world.drop("one"))
    world.step()
    del world.blobs.held[next(key for key in world.blobs.held if key[0] is BlobContainer.ARTIFACTS)]
    for _ in range(4):
        with pytest.raises(IntegrityError, match="is gone"):
            world.validation.validate(FIRST)
    version = world.validation.validate(FIRST)
    assert version is not None
    assert version.state is VersionState.REJECTED
    assert version.validation is not None
    assert version.validation.outcome is Outcome.ERROR
    assert "5 times" in version.validation.verdicts[0].sentence
    assert "is gone" in version.validation.verdicts[0].sentence
    assert world.validation.report(MODEL, VersionNumber(1))["outcome"] == "error"


def test_dropping_the_same_bytes_again_restores_a_lost_artifact() -> None:
    world = World()
    world.event(world.drop("one"))
    world.step()
    key = next(key for key in world.blobs.held if key[0] is BlobContainer.ARTIFACTS)
    lost = world.blobs.held.pop(key)
    with pytest.raises(IntegrityError, match="drop the model again"):
        world.validation.validate(FIRST)
    again = world.registration.register(world.drop("one", name="again.onnx"))
    assert again is not None
    assert again.version == 1
    assert world.blobs.held[key].data == lost.data
    world.validation.validate(FIRST)
    assert the_version(world).state is VersionState.VALIDATED


def test_a_validation_killed_from_outside_is_tried_again() -> None:
    world = World()
    world.registration.register(world.drop("one"))
    with pytest.raises(UnavailableError, match="killed from outside"):
        validation_of(world, killed_from_outside).validate(FIRST)
    assert (the_version(world).state, the_version(world).failures) == (VersionState.VALIDATING, 1)
    world.validation.validate(FIRST)
    assert the_version(world).state is VersionState.VALIDATED


def test_a_validation_killed_from_outside_each_time_ends_with_the_reason() -> None:
    world = World()
    world.registration.register(world.drop("one"))
    dying = validation_of(world, killed_from_outside)
    for _ in range(5):
        with contextlib.suppress(UnavailableError):
            dying.validate(FIRST)
    version = the_version(world)
    assert version.state is VersionState.REJECTED
    assert version.validation is not None
    assert KILLED in version.validation.verdicts[0].sentence


def test_a_bug_of_ours_while_validating_is_raised_and_ends_at_last() -> None:
    world = World()
    world.registration.register(world.drop("one"))
    calls: list[object] = []

    def check(**parts: object) -> Validation:
        calls.append(parts)
        raise ValueError("a bug")

    broken = validation_of(world, check)
    for _ in range(4):
        with pytest.raises(ValueError, match="a bug"):
            broken.validate(FIRST)
    broken.validate(FIRST)
    broken.validate(FIRST)
    assert len(calls) == 5
    assert the_version(world).state is VersionState.REJECTED


class PickyBlobs(FakeBlobs):
    """Blobs that are not read under names which storage would resolve to others."""

    def info(self, container: BlobContainer, name: str) -> BlobInfo | None:
        """See the port."""
        if name.endswith(".") or "\t" in name or not {".", ".."}.isdisjoint(name.split("/")):
            raise InvalidInputError(f"{name!r} is not a blob name")
        return super().info(container, name)


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        ("digits/model.onnx.", "bad_place"),
        ("digits/a\tb.onnx", "bad_place"),
        ("digits/..", "bad_place"),
        ("../model.onnx", "bad_name"),
    ],
)
@pytest.mark.parametrize("listed", ["listed", ""])
def test_a_drop_whose_name_storage_does_not_read_is_refused_and_not_asked_for_again(
    blob: str, code: str, listed: str
) -> None:
    world = World()
    picky = PickyBlobs(fuse=Fuse(), clock=world.clock, held=world.blobs.held)
    registry = registry_of(world, blobs=picky)
    if listed:
        picky.put(BlobContainer.INCOMING, blob, b"one", {})
    drop = registry.register(blob)
    assert drop is not None
    assert (drop.state, drop.code, drop.blob) == (DropState.REFUSED, code, blob)
    assert "is not a blob name" in drop.reason
    world.clock.pass_s(1_000)
    assert list(registry.missed_drops(GRACE)) == []


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_a_drop_whose_blob_goes_before_its_registration_ends_is_ended_by_the_sweep(how: str) -> None:
    world = World()
    blob = world.drop("one")
    with pytest.raises(Killed):
        registry_of(world, intake=failing(Killed())).register(blob)
    if how == "deleted":
        del world.blobs.held[BlobContainer.INCOMING, blob]
    else:
        world.drop("two")
    world.sweep.sweep()
    assert the_drop(world).state is DropState.RECEIVED, "within its grace"
    world.run(seconds=300)
    ended = [drop for drop in world.registration.drops(MODEL).items if drop.state is DropState.REFUSED]
    assert [(drop.code, how in drop.reason) for drop in ended] == [("gone", True)]
    assert len(world.registration.drops(MODEL).items) == (1 if how == "deleted" else 2)
    assert {drop.state for drop in world.registration.drops(MODEL).items} <= {DropState.REFUSED, DropState.REGISTERED}


def test_a_drop_whose_blob_is_there_is_not_ended_however_old() -> None:
    world = World()
    blob = world.drop("one")
    with pytest.raises(Killed):
        registry_of(world, intake=failing(Killed())).register(blob)
    world.clock.pass_s(1_000_000)
    assert [message.blob for message in world.registration.missed_drops(GRACE)] == [blob]
    assert the_drop(world).state is DropState.RECEIVED


def test_while_nobody_registers_the_sweep_asks_for_a_drop_once_a_grace() -> None:
    world = World()
    world.drop("one")
    asked = []
    for _ in range(8):
        world.clock.pass_s(GRACE.total_seconds() / 2)
        asked.append(world.sweep.sweep().drops)
    assert asked == [0, 0, 1, 0, 0, 1, 0, 0]
    assert the_drop(world).attempts == 0
    world.step()
    assert (the_drop(world).state, the_drop(world).attempts) == (DropState.REGISTERED, 1)


def test_while_nobody_validates_the_sweep_asks_for_a_version_once_a_grace() -> None:
    world = World()
    world.registration.register(world.drop("one"))
    world.queues.messages.clear()
    asked = []
    for _ in range(8):
        world.clock.pass_s(GRACE.total_seconds() / 2)
        asked.append(world.sweep.sweep().validations)
    assert asked == [0, 0, 1, 0, 0, 1, 0, 0]
    assert [queue for _, queue, _ in world.queues.messages] == [Queue.VALIDATIONS] * 2


def test_of_two_sweeps_that_meet_one_asks() -> None:
    world = World()
    world.registration.register(world.drop("one"))
    world.clock.pass_s(100)
    other: list[ValidateVersion] = []

    def sweep_beside() -> None:
        world.clock.pass_s(1)
        other.extend(world.registry.missed_validations(GRACE))

    world.documents.other_writers = [sweep_beside]
    own = list(world.registry.missed_validations(GRACE))
    assert (own, other) == ([], [FIRST])


def test_a_drop_that_was_refused_for_what_policy_asked_is_looked_at_again_under_another_policy() -> None:
    world = World()
    world.put_policy(Policy(signing=SigningPolicy(required=True, trusted_keys=(KEY,))))

    def intake(dropped: Path, *, signing: SigningPolicy, **more: Any) -> Intake:
        if signing.required:
            raise DropRefusedError(RefusalCode.UNSIGNED, "it is not signed")
        return _intake(dropped, **more)

    registration = registry_of(world, intake=intake)
    blob = world.drop("one")
    for _ in range(3):
        registration.register(blob)
        world.clock.pass_s(1_000)
        assert list(registration.missed_drops(GRACE)) == []
    assert (the_drop(world).state, the_drop(world).code, the_drop(world).attempts) == (
        DropState.REFUSED,
        "unsigned",
        1,
    )
    world.put_policy(Policy())
    assert [message.blob for message in registration.missed_drops(GRACE)] == [blob]
    registration.register(blob)
    assert (the_drop(world).state, the_drop(world).version) == (DropState.REGISTERED, 1)
    kinds = [event.kind for event in world.audit.events(the_drop(world).stream)]
    assert kinds == ["drop_refused", "drop_opened_again", "drop_registered"]


def test_another_policy_does_not_open_a_drop_that_was_refused_for_itself() -> None:
    world = World()
    blob = world.drop("bad")
    world.registration.register(blob)
    world.put_policy(Policy(signing=SigningPolicy(trusted_keys=(KEY,))))
    world.clock.pass_s(1_000)
    assert list(world.registration.missed_drops(GRACE)) == []
    world.registration.register(blob)
    assert the_drop(world).attempts == 1


def test_what_a_blobs_metadata_say_of_a_bare_model_is_part_of_its_content() -> None:
    world = World()
    said: tuple[dict[str, str], ...] = (
        {},
        {"uploader": "x"},
        {"slipway_task": "regression"},
        {"slipway_task": "regression", "uploader": "y"},
    )
    numbers = []
    for number, metadata in enumerate(said):
        world.blobs.put(BlobContainer.INCOMING, f"{MODEL}/{number}.onnx", b"one", metadata)
        drop = world.registration.register(f"{MODEL}/{number}.onnx")
        assert drop is not None
        numbers.append(drop.version)
    assert numbers == [1, 1, 2, 2]


@pytest.mark.parametrize("blob", ["digits/one.onnx", "digits/one/slipway.yaml"])
def test_threads_of_one_process_take_turns_at_a_drop(blob: str) -> None:
    world = World()
    for name, data in {"digits/one.onnx": b"one", **{f"digits/one/{n}": d for n, d in WHOLE.items()}}.items():
        world.blobs.put(BlobContainer.INCOMING, name, data, {})
    entered, release = threading.Event(), threading.Event()
    calls: list[object] = []

    def intake(dropped: Any, **more: Any) -> Intake:
        calls.append(dropped)
        entered.set()
        assert release.wait(60)
        return _intake(dropped, **more)

    registration = registry_of(world, intake=intake)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(registration.register, blob)
        assert entered.wait(60)
        others = [pool.submit(registration.register, blob) for _ in range(2)]
        eventually(lambda: registration._turns.wanted(drop_of(blob)) == 3, what="all three at the drop")
        release.set()
        drops = [done.result(60) for done in (first, *others)]
    assert len(calls) == 1
    assert {drop and (drop.state, drop.version) for drop in drops} == {(DropState.REGISTERED, 1)}
    assert registration._turns.wanted(drop_of(blob)) == 0
