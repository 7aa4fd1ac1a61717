"""Folder drops: what lies in a folder, what it still lacks, and when to look at it again. Pure: nothing is read here.

A folder is complete when its manifest names every other file with its SHA-256, and all are there and hold that. The
manifest is its commit marker; the signature file, which is made over the manifest too, is the one that it cannot name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shared.core.canonical import digest_of
from shared.registration.documents import Drop, DropState, SeenFile
from shared.registry.manifest import MANIFEST_NAME, MAX_FILES, MAX_MANIFEST_BYTES, Manifest
from shared.routing.plan import MAX_FILE_BYTES
from shared.signing.bundle import SIGNATURE_FILE
from shared.store.ports import BlobInfo
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt

_MLFLOW_NAME = "MLmodel"
MAX_FOLDER_BYTES = 2 * MAX_FILE_BYTES
_MAX_SAID = 20
_SHOWN_DIGITS = 12
_DIRECTORY = "hdi_isfolder"
"""Storage with a hierarchical namespace lists directories as empty blobs with this in their metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What lies in a folder: its files, by their names within it."""

    files: Mapping[str, BlobInfo]

    @classmethod
    def of(cls, drop: str, infos: Iterable[BlobInfo]) -> "Listing":
        """The listing of a folder drop from what storage lists under its name."""
        return cls(files={info.name.removeprefix(drop): info for info in infos if not is_directory(info)})

    @property
    def digest(self) -> str:
        """A digest of the names and ETags: it changes with any file."""
        return digest_of({name: info.etag for name, info in self.files.items()})

    @property
    def manifest(self) -> BlobInfo | None:
        """The manifest, where it is there."""
        return self.files.get(MANIFEST_NAME)


def is_directory(info: BlobInfo) -> bool:
    """Whether a blob only marks a directory."""
    return info.size_bytes == 0 and (info.name.endswith("/") or info.metadata.get(_DIRECTORY) == "true")


def needs_look(drop: Drop, listing: Listing) -> bool:
    """Whether a drop whose last look ended may come to another end now, for what lies there.

    What was registered stays so when its files are cleared away, and a manifest that was refused can only be cured by
    another one.
    """
    if drop.listing == listing.digest or not listing.files:
        return False
    match drop.state:
        case DropState.REGISTERED:
            seen = {name: file.etag for name, file in drop.files.items()}
            return any(seen.get(name) != info.etag for name, info in listing.files.items())
        case DropState.REFUSED if drop.code == RefusalCode.BAD_MANIFEST:
            return listing.manifest is not None and listing.manifest.etag != drop.etag
        case _:
            return True


def named_files(manifest: Manifest) -> dict[str, str]:
    """The files that a manifest names, with their SHA-256. Raises DropRefusedError where it leaves out one it uses."""
    named = {name: digest.removeprefix("sha256:") for name, digest in manifest.files.items()}
    for own in (MANIFEST_NAME, SIGNATURE_FILE):
        if own in named:
            raise DropRefusedError(
                RefusalCode.BAD_MANIFEST,
                f"{MANIFEST_NAME} names {own} under `files`: leave it out, for no file can hold its own digest"
                if own == MANIFEST_NAME
                else f"{MANIFEST_NAME} names {own} under `files`: leave it out, for it is made over the manifest",
            )
    # Where there is an MLmodel, it is that which tells the model's file.
    model = None if _MLFLOW_NAME in named else manifest.model
    used = (model, manifest.validation, manifest.reference)
    missing = sorted({name for name in used if name is not None and name not in named})
    if missing:
        raise DropRefusedError(
            RefusalCode.BAD_MANIFEST,
            f"{MANIFEST_NAME} gives no digest of {_listed(missing)}: under `files`, name every other file of the "
            "folder with its SHA-256",
        )
    return named


def absent(named: Mapping[str, str], listing: Listing, *, signed: bool) -> list[str]:
    """The files that are still to come, by name. `signed` asks for a signature, too."""
    wanted = [*named, SIGNATURE_FILE] if signed else [*named]
    return [name for name in wanted if name not in listing.files]


def differing(named: Mapping[str, str], seen: Mapping[str, SeenFile]) -> list[str]:
    """The files that hold something else than the manifest says, each in words."""
    return [
        f"{name} with the SHA-256 {digest[:_SHOWN_DIGITS]}…: it holds {seen[name].digest[:_SHOWN_DIGITS]}…"
        for name, digest in named.items()
        if name in seen and seen[name].digest != digest
    ]


def still_seen(drop: Drop, listing: Listing) -> dict[str, SeenFile]:
    """What was read of the folder's files before, where it is still what lies there."""
    return {
        name: file
        for name, file in drop.files.items()
        if name in listing.files and listing.files[name].etag == file.etag
    }


def check_size(listing: Listing) -> None:
    """Before anything is read. Raises DropRefusedError."""
    if len(listing.files) > MAX_FILES:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"the folder holds more than {MAX_FILES} files: drop a zip bundle, or fewer files"
        )
    for name, info in listing.files.items():
        if info.size_bytes > MAX_FILE_BYTES:
            raise DropRefusedError(
                RefusalCode.TOO_LARGE,
                f"{excerpt(name, 100)!r} has {info.size_bytes} bytes: a file may have at most {MAX_FILE_BYTES}",
            )
    if listing.manifest and listing.manifest.size_bytes > MAX_MANIFEST_BYTES:
        raise DropRefusedError(
            RefusalCode.BAD_MANIFEST,
            f"{MANIFEST_NAME} has {listing.manifest.size_bytes} bytes: at most {MAX_MANIFEST_BYTES} are read",
        )
    total_bytes = sum(info.size_bytes for info in listing.files.values())
    if total_bytes > MAX_FOLDER_BYTES:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"the folder holds {total_bytes} bytes: at most {MAX_FOLDER_BYTES} are allowed"
        )


def check_all_named(named: Mapping[str, str], listing: Listing) -> None:
    """Every file must be named. Raises DropRefusedError."""
    stray = sorted(set(listing.files) - set(named) - {MANIFEST_NAME, SIGNATURE_FILE})
    if stray:
        raise DropRefusedError(
            RefusalCode.UNEXPECTED_FILE,
            f"the folder holds {_listed(stray)}, which its {MANIFEST_NAME} does not name: name or remove it",
        )


def content_digest(files: Mapping[str, str]) -> str:
    """The digest of a folder's content from the SHA-256 of each file: the same files, the same digest."""
    return digest_of(dict(files))


def said(wanted: list[str]) -> list[str]:
    """What a drop waits for, cut to what a document and an audit event should hold."""
    more = len(wanted) - _MAX_SAID
    return [*wanted[:_MAX_SAID], f"and {more} more"] if more > 0 else wanted


def _listed(names: list[str]) -> str:
    return ", ".join(repr(excerpt(name, 60)) for name in names[:5]) + (" and more" if len(names) > 5 else "")
