"""Registration: takes drops in, and gives versions their numbers.

A drop is registered once, however often its event comes and whatever dies on the way: its id is its place and ETag,
its version's number belongs to its digest, and each step first looks for the effect of the step.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, InvalidInputError, NotFoundError
from shared.core.ids import ModelName, model_name
from shared.core.messages import RegisterDrop, ValidateVersion
from shared.core.workdir import work_folder
from shared.registration.documents import NO_MODEL, Drop, DropState, drop_id
from shared.registry.documents import MODEL_ID, Model, ModelVersion, version_facts, version_id
from shared.routing.plan import MAX_FILE_BYTES, ArtifactFile, artifact_blob_name
from shared.store.documents import checked_document
from shared.store.ports import BlobContainer, BlobInfo, BlobStore, Container
from shared.store.repository import AggregatePage, Repository
from shared.validation.failures import MAX_FAILURES, is_failure, last_error
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import Intake, SandboxLimits, run_intake

_LARGEST_NUMBER = 999_999_999
_FORMS = (".onnx", ".zip")

_log = logging.getLogger(__name__)


class RegistrationService:
    """Registers drops, and tells what became of them."""

    def __init__(
        self,
        *,
        models: Repository[Model],
        versions: Repository[ModelVersion],
        drops: Repository[Drop],
        blobs: BlobStore,
        clock: Clock,
        limits: SandboxLimits,
        intake: Callable[..., Intake] = run_intake,
    ) -> None:
        self._models = models
        self._versions = versions
        self._drops = drops
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
        self._intake = intake

    def register(self, blob: str) -> Drop | None:
        """Take in what lies at `blob` in the incoming container. None where nothing lies there any more.

        The drop's document tells what became of it: a version's number, or why it was refused. What fails MAX_FAILURES
        times is refused; until then the failure is raised. Raises UnavailableError; ChangedMeanwhileError where the
        blob is overwritten meanwhile, which is a drop of its own.
        """
        info, unreadable = self._look_up(blob)
        if info is None and unreadable is None:
            _log.info("drop %s is gone", blob)
            return None
        drop = self._begin(info or BlobInfo(name=blob, etag="", size_bytes=0, last_modified=self._clock.now()))
        if drop.state is not DropState.RECEIVED:
            return drop
        try:
            if info is None or unreadable is not None:
                code = RefusalCode.BAD_NAME if "/" in blob and drop.model == NO_MODEL else RefusalCode.BAD_PLACE
                return self._end(drop, DropState.REFUSED, code=code, reason=str(unreadable))
            return self._register(drop, info)
        except Exception as error:
            if not is_failure(error):
                raise
            drop = self._note_failure(drop, error)
            if drop.failures < MAX_FAILURES:
                raise
        reason = f"registration failed {drop.failures} times; the last time: {drop.last_error}"
        return self._end(drop, DropState.REFUSED, code=RefusalCode.GAVE_UP, reason=reason)

    def drops(self, name: str, continuation: str | None = None) -> AggregatePage[Drop]:
        """A page of what was dropped for a model; `-` for drops whose place does not name one."""
        return self._drops.page(partition=name, continuation=continuation)

    def missed_drops(self, grace: timedelta) -> Iterator[RegisterDrop]:
        """A message for each blob whose registration has not ended, nor begun or been asked for within `grace`.

        Drops whose blob is gone meanwhile are ended.
        """
        self._end_gone(grace)
        now = self._clock.now()
        for info in self._blobs.list(BlobContainer.INCOMING):
            if now - info.last_modified <= grace:
                continue
            drop = self._drops.find(_partition(info.name), drop_id(info.name, info.etag))
            if drop is None:
                drop = self._drops.find_or_create(_received(info, now, asked_at=now))
            elif drop.state is DropState.RECEIVED and drop.is_overdue(now, grace):
                drop = self._drops.change(drop.partition, drop.id, lambda current: _ask(current, now, grace))
            if drop.asked_at == now:
                yield RegisterDrop(blob=info.name)

    def _end_gone(self, grace: timedelta) -> None:
        """End the drops whose blob was deleted or overwritten: their registration can never end otherwise."""
        now = self._clock.now()
        for drop in list(self._drops.where(state=DropState.RECEIVED.value)):
            if now - drop.attempted_at <= grace:
                continue
            info, _ = self._look_up(drop.blob)
            if info is None or info.etag != drop.etag:
                how = "deleted" if info is None else "overwritten, which is a drop of its own,"
                reason = f"{drop.blob} was {how} before its registration ended"
                self._end(drop, DropState.REFUSED, code=RefusalCode.GONE, reason=reason)

    def _look_up(self, blob: str) -> tuple[BlobInfo | None, InvalidInputError | None]:
        """The blob as it stands, and the error where storage does not read blobs of such a name."""
        try:
            return self._blobs.info(BlobContainer.INCOMING, blob), None
        except InvalidInputError as error:
            # Names come in order, so the first one with the whole name as its prefix is the name itself, if any.
            first = next(iter(self._blobs.list(BlobContainer.INCOMING, blob)), None)
            return (first if first and first.name == blob else None), error

    def _register(self, drop: Drop, info: BlobInfo) -> Drop:
        try:
            name, filename = _place(drop.blob)
            with work_folder("drop") as folder:
                version, digest = self._take_in(name, filename, info, folder)
        except DropRefusedError as refusal:
            return self._end(drop, DropState.REFUSED, code=refusal.code, reason=str(refusal))
        except NotFoundError:
            return self._end(
                drop, DropState.REFUSED, code=RefusalCode.GONE, reason=f"{drop.blob} was deleted before it was read"
            )
        except InvalidInputError as error:
            return self._end(drop, DropState.REFUSED, code=RefusalCode.UNSTORABLE, reason=last_error(error))
        return self._end(drop, DropState.REGISTERED, version=version, digest=digest)

    def _note_failure(self, drop: Drop, error: Exception) -> Drop:
        _log.warning("registering %s failed", drop.blob, exc_info=error)

        def note(current: Drop) -> bool:
            current.failures += 1
            current.last_error = last_error(error)
            return True

        return self._drops.change(drop.partition, drop.id, note)

    def _begin(self, info: BlobInfo) -> Drop:
        now = self._clock.now()
        identity = drop_id(info.name, info.etag)
        partition = _partition(info.name)
        self._drops.find_or_create(_received(info, now))

        def begin(drop: Drop) -> bool:
            if drop.state is not DropState.RECEIVED:
                return False
            drop.attempts += 1
            drop.attempted_at = now
            return True

        return self._drops.change(partition, identity, begin)

    def _end(
        self,
        drop: Drop,
        state: DropState,
        *,
        code: str = "",
        reason: str = "",
        version: int | None = None,
        digest: str | None = None,
    ) -> Drop:
        now = self._clock.now()

        def end(current: Drop) -> bool:
            if current.state is not DropState.RECEIVED:
                return False
            current.state, current.code, current.reason, current.version = state, code, reason, version
            current.record(
                f"drop_{state}", now, blob=drop.blob, code=code, reason=reason, version=version, digest=digest
            )
            return True

        return self._drops.change(drop.partition, drop.id, end)

    def _take_in(self, name: ModelName, filename: str, info: BlobInfo, folder: Path) -> tuple[int, str]:
        """Read, inspect and store a drop. Returns its version's number and its digest."""
        path = folder / "drop"
        try:
            digest = self._blobs.download(
                BlobContainer.INCOMING, info.name, path, etag=info.etag, max_bytes=MAX_FILE_BYTES
            )
        except ChangedMeanwhileError:
            raise
        except InvalidInputError as error:
            raise DropRefusedError(RefusalCode.TOO_LARGE, str(error)) from error
        number = self._known(name, digest)
        if number is not None:
            return number, digest
        workdir = folder / "parts"
        workdir.mkdir()
        intake = self._intake(path, filename=filename, workdir=workdir, limits=self._limits)
        self._check_storable(name, info, digest, intake)
        for part in intake.parts:
            self._blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(part.digest), part.path)
        return self._number(name, info, digest, intake), digest

    def _known(self, name: str, digest: str) -> int | None:
        """The number of the version that these bytes have already, with its document and its parts there."""
        model = self._models.find(name, MODEL_ID)
        number = model.versions.get(digest) if model else None
        version = self._versions.find(name, version_id(number)) if number else None
        if version is None:
            return None
        parts = (version.artifact_digest, version.validation_digest, version.reference_digest)
        held = all(self._blobs.info(BlobContainer.ARTIFACTS, artifact_blob_name(part)) for part in parts if part)
        return version.version if held else None

    def _check_storable(self, name: ModelName, info: BlobInfo, digest: str, intake: Intake) -> None:
        """Before anything is stored or numbered: will the version's document be taken? Raises InvalidInputError."""
        version = self._registered(name, _LARGEST_NUMBER, info, digest, intake, self._clock.now())
        checked_document(Container.MODELS, version.to_body())

    def _number(self, name: ModelName, info: BlobInfo, digest: str, intake: Intake) -> int:
        now = self._clock.now()
        self._models.find_or_create(Model(model=name))
        number = self._models.change(name, MODEL_ID, lambda model: model.number_for(digest, now)[1]).versions[digest]
        self._versions.find_or_create(self._registered(name, number, info, digest, intake, now))
        return number

    def _registered(
        self, name: ModelName, number: int, info: BlobInfo, digest: str, intake: Intake, now: datetime
    ) -> ModelVersion:
        version = ModelVersion(
            id=version_id(number),
            model=name,
            version=number,
            drop=info.name,
            digest=digest,
            artifact_digest=intake.model.digest,
            artifact_size_bytes=intake.model.size_bytes,
            model_file=intake.model_file,
            external=[
                ArtifactFile(name=file, digest=part.digest, size_bytes=part.size_bytes)
                for file, part in sorted(intake.external.items())
            ],
            signed_by=intake.signed_by,
            validation_digest=intake.validation.digest if intake.validation else None,
            reference_digest=intake.reference.digest if intake.reference else None,
            manifest=intake.manifest,
            registered_at=now,
            attempted_at=now,
        )
        version.record("version_registered", now, **version_facts(version))
        version.send(ValidateVersion(model=name, version=number))
        return version


def _received(info: BlobInfo, now: datetime, *, asked_at: datetime | None = None) -> Drop:
    return Drop(
        id=drop_id(info.name, info.etag),
        model=_partition(info.name),
        blob=info.name,
        etag=info.etag,
        seen_at=now,
        attempted_at=now,
        asked_at=asked_at,
    )


def _ask(drop: Drop, now: datetime, grace: timedelta) -> bool:
    """Note that a message is sent, unless it need not be any more."""
    if drop.state is not DropState.RECEIVED or not drop.is_overdue(now, grace):
        return False
    drop.asked_at = now
    return True


def _partition(blob: str) -> str:
    try:
        return model_name(blob.split("/", 1)[0]) if "/" in blob else NO_MODEL
    except InvalidInputError:
        return NO_MODEL


def _place(blob: str) -> tuple[ModelName, str]:
    """The model and the file name of a blob `<model>/<file>`. Raises DropRefusedError."""
    parts = PurePosixPath(blob).parts
    if len(parts) != 2 or "/".join(parts) != blob:
        raise DropRefusedError(
            RefusalCode.BAD_PLACE, f"a drop lies at incoming/<model>/<file>, and this one at incoming/{blob}"
        )
    try:
        name = model_name(parts[0])
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_NAME, str(error)) from error
    if PurePosixPath(parts[1]).suffix.lower() not in _FORMS:
        raise DropRefusedError(
            RefusalCode.UNKNOWN_FORM, f"a drop is an .onnx file or a .zip bundle, and this one is {parts[1]!r}"
        )
    return name, parts[1]
