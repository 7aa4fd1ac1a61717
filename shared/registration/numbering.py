"""What a well-formed drop leaves: its parts in the artifacts container, its version's number, its version's document.

Each step first looks for its own effect, and the same content has the same number. What is stored under a digest are
the bytes that were hashed: a part that is a dropped blob is copied by storage itself, under the ETag that it was read
under.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from shared.core.clock import Clock
from shared.core.errors import UnavailableError
from shared.core.ids import ModelName
from shared.core.messages import ValidateVersion
from shared.core.tracing import current_traceparent
from shared.registry.documents import MODEL_ID, Model, ModelVersion, VersionState, version_facts, version_id
from shared.registry.policy import Policy
from shared.routing.plan import ArtifactFile, Signing, artifact_blob_name
from shared.store.documents import checked_document
from shared.store.ports import BlobContainer, BlobInfo, BlobStore, Container
from shared.store.repository import Repository
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import Intake, SandboxLimits, StoredPart

_LARGEST_NUMBER = 999_999_999
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dropped blob that was downloaded: what it was then, and the SHA-256 of what came."""

    info: BlobInfo
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A drop's content, downloaded. `digest` stands for all of it; `sources` tells which blob each file was."""

    model: ModelName
    drop: str
    digest: str
    filename: str
    dropped: Path | Mapping[str, Path]
    sources: Mapping[Path, Source]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Numbering:
    """Has contents looked at, stores their parts, and numbers them."""

    def __init__(
        self,
        *,
        models: Repository[Model],
        versions: Repository[ModelVersion],
        blobs: BlobStore,
        clock: Clock,
        limits: SandboxLimits,
        intake: Callable[..., Intake],
    ) -> None:
        self._models = models
        self._versions = versions
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
        self._intake = intake

    def policy(self, name: ModelName) -> Policy:
        """A model's policy; the default one where there is no such model yet."""
        model = self._models.find(name, MODEL_ID)
        return model.policy if model else Policy()

    def policy_version(self, name: str) -> int:
        """The number of the policy that is in force; 0 where none was set."""
        model = self._models.find(name, MODEL_ID)
        return model.policy_version if model else 0

    def known(self, name: ModelName, digest: str) -> int | None:
        """The number of the version that has this content already, its document and all its parts there.

        Raises DropRefusedError where that version is archived.
        """
        model = self._models.find(name, MODEL_ID)
        number = model.versions.get(digest) if model else None
        version = self._versions.find(name, version_id(number)) if number else None
        if version is None:
            return None
        if version.state is VersionState.ARCHIVED:
            raise DropRefusedError(
                RefusalCode.ARCHIVED,
                f"these bytes are version {version.version}, which is archived for good: to register the model anew, "
                "change something of the drop, as the description in its manifest",
            )
        # A part that stood there might be cleaned away just now: that it is touched keeps it.
        held = all(self._blobs.touch(BlobContainer.ARTIFACTS, artifact_blob_name(part)) for part in _parts(version))
        return version.version if held else None

    def number(self, content: Content, workdir: Path) -> int:
        """Look at a content in the sandbox, store it, and return its version's number.

        Raises DropRefusedError, InvalidInputError where its document could not be stored, and ChangedMeanwhileError or
        NotFoundError where a dropped blob is not what it was any more.
        """
        policy = self.policy(content.model)
        intake = self._intake(
            content.dropped,
            filename=content.filename,
            workdir=workdir,
            limits=self._limits,
            metadata=content.metadata,
            signing=policy.signing,
        )
        # Before anything is stored or numbered: will the version's document be taken?
        largest = _registered(_LARGEST_NUMBER, content, intake, policy, self._clock.now())
        checked_document(Container.MODELS, largest.to_body())
        for part in intake.parts:
            self._store(part, content.sources.get(part.path))
        now = self._clock.now()
        self._models.find_or_create(Model(model=content.model))
        model = self._models.change(content.model, MODEL_ID, lambda model: model.number_for(content.digest, now)[1])
        number = model.versions[content.digest]
        self._versions.find_or_create(_registered(number, content, intake, policy, now))
        return number

    def _store(self, part: StoredPart, source: Source | None) -> None:
        if source is not None and source.digest != part.digest:
            raise DropRefusedError(
                RefusalCode.SANDBOX, f"looking at the drop changed {part.path.name}, which it may only read"
            )
        name = artifact_blob_name(part.digest)
        for _ in range(_TRIES):
            stored = (
                self._blobs.copy(
                    BlobContainer.INCOMING, source.info.name, BlobContainer.ARTIFACTS, name, etag=source.info.etag
                )
                if source
                else self._blobs.create(BlobContainer.ARTIFACTS, name, part.path)
            )
            # What stood there before might be cleaned away just now: that it is touched keeps it.
            if stored or self._blobs.touch(BlobContainer.ARTIFACTS, name):
                return
        raise UnavailableError("blob storage", f"the artifact {part.digest} was removed each time that it was stored")


def _parts(version: ModelVersion) -> list[str]:
    signing = version.signing.digest if version.signing else None
    parts = (version.artifact_digest, version.validation_digest, version.reference_digest, signing)
    return [part for part in parts if part] + [file.digest for file in version.external]


def _registered(number: int, content: Content, intake: Intake, policy: Policy, now: datetime) -> ModelVersion:
    signing = intake.signing and Signing(digest=intake.signing.digest, trusted_keys=policy.signing.trusted_keys)
    version = ModelVersion(
        id=version_id(number),
        model=content.model,
        version=number,
        drop=content.drop,
        digest=content.digest,
        artifact_digest=intake.model.digest,
        artifact_size_bytes=intake.model.size_bytes,
        model_file=intake.model_file,
        external=[
            ArtifactFile(name=file, digest=part.digest, size_bytes=part.size_bytes)
            for file, part in sorted(intake.external.items())
        ],
        signing=signing,
        signed_by=intake.signed_by,
        validation_digest=intake.validation.digest if intake.validation else None,
        reference_digest=intake.reference.digest if intake.reference else None,
        manifest=intake.manifest,
        registered_at=now,
        attempted_at=now,
        trace=current_traceparent(),
    )
    version.record("version_registered", now, **version_facts(version))
    version.send(ValidateVersion(model=content.model, version=number))
    return version
