"""A look at a folder drop: reads what must be read, and tells what the folder waits for, or registers it.

The manifest is parsed once for each content of it, in the sandbox. Files are read when all that the manifest names are
there: those of which the digest is not known yet, and all once more in the look that finds the folder complete.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared.core.errors import ChangedMeanwhileError, IntegrityError, InvalidInputError, NotFoundError
from shared.core.ids import ModelName
from shared.core.workdir import work_folder
from shared.registration.documents import Drop, DropOutcome, DropState, SeenFile
from shared.registration.folders import (
    Listing,
    absent,
    check_all_named,
    check_size,
    content_digest,
    differing,
    named_files,
    said,
    still_seen,
)
from shared.registration.numbering import Content, Numbering, Source
from shared.registration.places import folder_place
from shared.registry.manifest import MANIFEST_NAME, Manifest
from shared.routing.plan import MAX_FILE_BYTES
from shared.signing.bundle import SIGNATURE_FILE
from shared.store.ports import BlobContainer, BlobStore
from shared.validation.failures import last_error
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import SandboxLimits


class FolderLook:
    """Looks at folders."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        numbering: Numbering,
        limits: SandboxLimits,
        parse_manifest: Callable[..., Manifest],
    ) -> None:
        self._blobs = blobs
        self._numbering = numbering
        self._limits = limits
        self._parse_manifest = parse_manifest

    def look(self, drop: Drop, listing: Listing) -> DropOutcome:
        """What a folder with this listing comes to. A drop that is refused or waits says why.

        Raises ChangedMeanwhileError where a file is not what was listed any more, and UnavailableError.
        """
        with work_folder("drop") as folder:
            reading = _Reading(
                blobs=self._blobs,
                folder=folder.resolve(),
                listing=listing,
                seen=still_seen(drop, listing),
                named=drop.named,
            )
            try:
                return self._look(folder_place(drop.blob), drop, reading)
            except DropRefusedError as refusal:
                return reading.outcome(DropState.REFUSED, code=refusal.code, reason=str(refusal))
            except NotFoundError as error:
                raise ChangedMeanwhileError(drop.blob) from error
            except InvalidInputError as error:
                return reading.outcome(DropState.REFUSED, code=RefusalCode.UNSTORABLE, reason=last_error(error))

    def _look(self, model: ModelName, drop: Drop, reading: "_Reading") -> DropOutcome:
        listing = reading.listing
        check_size(listing)
        if listing.manifest is None:
            return reading.waits([MANIFEST_NAME])
        if reading.named is None:
            reading.named = self._names(reading)
        wanted = absent(reading.named, listing, signed=self._numbering.policy(model).signing.required)
        if not wanted:
            for name in (MANIFEST_NAME, SIGNATURE_FILE, *reading.named):
                if name in listing.files and name not in reading.seen:
                    reading.fetch(name)
        wanted += differing(reading.named, reading.seen)
        if wanted:
            return reading.waits(wanted)
        check_all_named(reading.named, listing)
        digest = content_digest({name: reading.seen[name].digest for name in listing.files})
        number = self._numbering.known(model, digest) or self._number(model, drop, digest, reading)
        return reading.outcome(DropState.REGISTERED, version=number, digest=digest)

    def _names(self, reading: "_Reading") -> dict[str, str]:
        """What the manifest names. Raises DropRefusedError."""
        manifest = self._parse_manifest(
            reading.fetch(MANIFEST_NAME), workdir=reading.new_folder("manifest"), limits=self._limits
        )
        return named_files(manifest)

    def _number(self, model: ModelName, drop: Drop, digest: str, reading: "_Reading") -> int:
        dropped = {name: reading.fetch(name) for name in reading.listing.files}
        content = Content(
            model=model,
            drop=drop.blob,
            digest=digest,
            filename=drop.blob.rstrip("/").rpartition("/")[2],
            dropped=dropped,
            sources={
                path: Source(info=reading.listing.files[name], digest=reading.seen[name].digest)
                for name, path in dropped.items()
            },
        )
        return self._numbering.number(content, reading.new_folder("parts"))


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What one look has read of a folder so far. `paths` has the files that lie in `folder`, under plain numbers."""

    blobs: BlobStore
    folder: Path
    listing: Listing
    seen: dict[str, SeenFile]
    named: dict[str, str] | None
    paths: dict[str, Path] = field(default_factory=dict)

    def fetch(self, name: str) -> Path:
        """Download a file, once."""
        if name not in self.paths:
            info = self.listing.files[name]
            path = self.folder / f"{len(self.paths):05d}"
            digest = self.blobs.download(
                BlobContainer.INCOMING, info.name, path, etag=info.etag, max_bytes=MAX_FILE_BYTES
            )
            found = SeenFile(etag=info.etag, digest=digest)
            if self.seen.setdefault(name, found) != found:
                raise IntegrityError(f"{info.name} holds other bytes than before under the ETag {info.etag}")
            self.paths[name] = path
        return self.paths[name]

    def new_folder(self, name: str) -> Path:
        """An empty folder for the sandbox to work in."""
        path = self.folder / name
        path.mkdir()
        return path

    def waits(self, wanted: list[str]) -> DropOutcome:
        """It is not complete."""
        return self.outcome(DropState.WAITING, waiting_for=tuple(said(wanted)))

    def outcome(
        self,
        state: DropState,
        *,
        code: str = "",
        reason: str = "",
        waiting_for: tuple[str, ...] = (),
        version: int | None = None,
        digest: str | None = None,
    ) -> DropOutcome:
        """An outcome with what was read."""
        return DropOutcome(
            state=state,
            code=code,
            reason=reason,
            waiting_for=waiting_for,
            version=version,
            digest=digest,
            files=dict(self.seen),
            named=self.named,
        )
