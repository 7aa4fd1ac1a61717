"""The registry: takes drops in, gives versions their numbers, and tells what is known.

A drop is registered once, however often its event comes and whatever dies on the way: its id is its place and ETag,
its version's number belongs to its digest, and each step first looks for the effect of the step.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, InvalidInputError, NotFoundError
from shared.core.ids import ModelName, VersionNumber, model_name
from shared.core.messages import RegisterDrop, ValidateVersion
from shared.registry.documents import (
    MODEL_ID,
    NO_MODEL,
    Drop,
    DropState,
    Model,
    ModelVersion,
    VersionState,
    drop_id,
    version_facts,
    version_id,
)
from shared.registry.policy import Policy
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.store.repository import AggregatePage, Repository
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import Intake, SandboxLimits, run_intake

MAX_DROP_BYTES = 2_000_000_000
_FORMS = (".onnx", ".zip")

_log = logging.getLogger(__name__)


class RegistryService:
    """Registers drops; finds models, versions and drops; keeps policies."""

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

        The drop's document tells what became of it: a version's number, or why it was refused. Raises
        UnavailableError; ChangedMeanwhileError where the blob is overwritten meanwhile, which is a drop of its own.
        """
        info = self._blobs.info(BlobContainer.INCOMING, blob)
        if info is None:
            _log.info("drop %s is gone", blob)
            return None
        drop = self._begin(info)
        if drop.state is not DropState.RECEIVED:
            return drop
        try:
            name, filename = _place(blob)
            with tempfile.TemporaryDirectory(prefix="slipway-drop-") as folder:
                version, digest = self._take_in(name, filename, info, Path(folder))
        except DropRefusedError as refusal:
            return self._end(drop, DropState.REFUSED, code=refusal.code, reason=str(refusal))
        except NotFoundError:
            return self._end(
                drop, DropState.REFUSED, code=RefusalCode.GONE, reason=f"{blob} was deleted before it was read"
            )
        return self._end(drop, DropState.REGISTERED, version=version, digest=digest)

    def model(self, name: str) -> Model:
        """A model. Raises NotFoundError."""
        found = self._models.find(name, MODEL_ID)
        if found is None:
            raise NotFoundError(f"model {name!r}", hint=f"drop one at incoming/{name}/")
        return found

    def models(self, continuation: str | None = None) -> AggregatePage[Model]:
        """A page of all models."""
        return self._models.page(continuation=continuation)

    def put_policy(self, name: ModelName, policy: Policy, *, by: str) -> Model:
        """Set a model's policy. The model comes to be where there is none; rollouts under way keep theirs."""
        now = self._clock.now()

        def put(model: Model) -> bool:
            if model.policy == policy:
                return False
            model.policy = policy
            model.record("policy_set", now, policy=policy.model_dump(mode="json"), by=by)
            return True

        self._models.find_or_create(Model(model=name))
        return self._models.change(name, MODEL_ID, put)

    def version(self, name: str, number: VersionNumber) -> ModelVersion:
        """A version of a model. Raises NotFoundError."""
        found = self._versions.find(name, version_id(number))
        if found is None:
            raise NotFoundError(f"version {number} of model {name!r}")
        return found

    def versions(self, name: str, continuation: str | None = None) -> AggregatePage[ModelVersion]:
        """A page of a model's versions, in the order of their numbers."""
        return self._versions.page(partition=name, continuation=continuation)

    def drops(self, name: str, continuation: str | None = None) -> AggregatePage[Drop]:
        """A page of what was dropped for a model; `-` for drops whose place does not name one."""
        return self._drops.page(partition=name, continuation=continuation)

    def missed_drops(self, grace: timedelta) -> Iterator[RegisterDrop]:
        """A message for each blob whose registration has not ended, nor begun within `grace`."""
        now = self._clock.now()
        for info in self._blobs.list(BlobContainer.INCOMING):
            if now - info.last_modified <= grace:
                continue
            drop = self._drops.find(_partition(info.name), drop_id(info.name, info.etag))
            if drop is None or (drop.state is DropState.RECEIVED and now - drop.attempted_at > grace):
                yield RegisterDrop(blob=info.name)

    def missed_validations(self, grace: timedelta) -> Iterator[ValidateVersion]:
        """A message for each version without a verdict whose validation has not begun within `grace`."""
        now = self._clock.now()
        for version in self._versions.where(state=VersionState.REGISTERED.value):
            if now - version.attempted_at > grace:
                yield ValidateVersion(model=version.model, version=version.version)

    def _begin(self, info: BlobInfo) -> Drop:
        now = self._clock.now()
        identity = drop_id(info.name, info.etag)
        partition = _partition(info.name)
        self._drops.find_or_create(
            Drop(id=identity, model=partition, blob=info.name, etag=info.etag, seen_at=now, attempted_at=now)
        )

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
                BlobContainer.INCOMING, info.name, path, etag=info.etag, max_bytes=MAX_DROP_BYTES
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
        for part in intake.parts:
            self._blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(part.digest), part.path)
        return self._number(name, info, digest, intake), digest

    def _known(self, name: str, digest: str) -> int | None:
        """The number of the version that these bytes have already, with its document there."""
        model = self._models.find(name, MODEL_ID)
        number = model.versions.get(digest) if model else None
        return number if number and self._versions.find(name, version_id(number)) else None

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
            validation_digest=intake.validation.digest if intake.validation else None,
            reference_digest=intake.reference.digest if intake.reference else None,
            manifest=intake.manifest,
            registered_at=now,
            attempted_at=now,
        )
        version.record("version_registered", now, **version_facts(version))
        version.send(ValidateVersion(model=name, version=number))
        return version


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
