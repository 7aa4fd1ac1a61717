"""Registration: takes drops in, and tells what became of them.

A drop is registered once, however often its event comes and whatever dies on the way: its id is its place (and, of a
file, its ETag), its version's number belongs to its digest, and each step first looks for the effect of the step. A
folder is one drop for good; each event of a file in it is a reason to look at all of it.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from shared.core.canonical import digest_of
from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, InvalidInputError, NotFoundError
from shared.core.messages import RegisterDrop
from shared.core.workdir import work_folder
from shared.registration.book import DropBook
from shared.registration.documents import NO_MODEL, Drop, DropOutcome, DropState
from shared.registration.folders import Listing, is_directory, needs_look
from shared.registration.incoming import Incoming
from shared.registration.looking import FolderLook
from shared.registration.numbering import Content, Numbering, Source
from shared.registration.places import drop_of, file_place, is_folder, partition_of
from shared.registration.turns import Turns
from shared.registry.documents import Model, ModelVersion
from shared.registry.manifest import Manifest
from shared.routing.plan import MAX_FILE_BYTES
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.store.repository import AggregatePage, Repository
from shared.store.unreadable import leaving_out
from shared.validation.failures import MAX_FAILURES, is_failure, last_error
from shared.validation.metadata import BLOB_PREFIX
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import Intake, SandboxLimits, read_manifest, run_intake

_LOOKS = 10
"""How often one call looks at a folder that changes while it looks; later changes have events of their own."""

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
        parse_manifest: Callable[..., Manifest] = read_manifest,
    ) -> None:
        self._book = DropBook(drops, clock)
        self._incoming = Incoming(blobs)
        self._blobs = blobs
        self._clock = clock
        self._turns = Turns()
        self._numbering = Numbering(
            models=models, versions=versions, blobs=blobs, clock=clock, limits=limits, intake=intake
        )
        self._look = FolderLook(blobs=blobs, numbering=self._numbering, limits=limits, parse_manifest=parse_manifest)

    def register(self, blob: str) -> Drop | None:
        """Take in the drop that `blob` of the incoming container is, or is a part of. None where nothing lies there.

        The drop's document tells what became of it: a version's number, what it waits for, or why it was refused. What
        fails MAX_FAILURES times is refused; until then the failure is raised. Raises UnavailableError;
        ChangedMeanwhileError where the blob is overwritten meanwhile, which is a drop of its own.
        """
        name = drop_of(blob)
        with self._turns.of(name):
            drop = self._register_folder(name) if is_folder(name) else self._register_file(name)
        if drop is None:
            _log.info("drop %s is gone", name)
        return drop

    def drops(self, name: str, continuation: str | None = None) -> AggregatePage[Drop]:
        """A page of what was dropped for a model; `-` for drops whose place does not name one."""
        return self._book.page(name, continuation)

    def missed_drops(self, grace: timedelta) -> Iterator[RegisterDrop]:
        """A message for each drop whose registration has not ended, nor begun or been asked for within `grace`.

        So for folders that hold something else than when they were looked at, and drops that another policy would end
        otherwise. Drops whose blobs are gone meanwhile are ended.
        """
        self._end_gone(grace)
        for name, found in self._incoming.all():
            infos = list(found.files.values()) if isinstance(found, Listing) else [found]
            newest = max((info.last_modified for info in infos if not is_directory(info)), default=None)
            if newest is None or self._clock.now() - newest <= grace:
                continue
            etag = "" if isinstance(found, Listing) else found.etag
            is_asked = False
            with leaving_out(f"the drop {name}"):
                is_asked = self._book.ask(name, etag, grace, partial(self._is_undone, found))
            if is_asked:
                yield RegisterDrop(blob=name)

    def _is_undone(self, found: BlobInfo | Listing, drop: Drop) -> bool:
        if drop.state is DropState.RECEIVED or (isinstance(found, Listing) and needs_look(drop, found)):
            return True
        return drop.turns_on_policy and drop.policy_version != self._numbering.policy_version(drop.model)

    def _end_gone(self, grace: timedelta) -> None:
        """End the drops whose blobs were deleted or overwritten: their registration can never end otherwise."""
        now = self._clock.now()
        for drop in self._book.undecided():
            if now - drop.attempted_at > grace and (how := self._gone(drop)):
                reason = f"{drop.blob} was {how} before its registration ended"
                self._book.end(drop, _refused(RefusalCode.GONE, reason))

    def _gone(self, drop: Drop) -> str | None:
        """How what a drop was taken from went, or None where it is there."""
        if is_folder(drop.blob):
            return None if self._incoming.folder(drop.blob).files else "deleted"
        info, _ = self._incoming.file(drop.blob)
        if info is None:
            return "deleted"
        return None if info.etag == drop.etag else "overwritten, which is a drop of its own,"

    def _register_folder(self, name: str) -> Drop | None:
        """Look until the folder is what was looked at: what changes meanwhile may have no other event."""
        for attempt in range(1, _LOOKS + 1):
            listing = self._incoming.folder(name)
            if not listing.files:
                return self._end_empty(name)
            drop = self._book.begin_folder(name, listing, self._numbering.policy_version(partition_of(name)))
            if drop.state is not DropState.RECEIVED:
                return drop
            try:
                drop = self._attempt(drop, partial(self._look.look, drop, listing))
            except ChangedMeanwhileError:
                if attempt == _LOOKS:
                    raise
        return drop

    def _end_empty(self, name: str) -> Drop | None:
        drop = self._book.find_folder(name)
        if drop is None or drop.state.is_end:
            return drop
        return self._book.end(drop, _refused(RefusalCode.GONE, f"{name} was deleted before its registration ended"))

    def _register_file(self, blob: str) -> Drop | None:
        info, unreadable = self._incoming.file(blob)
        if (info is None and unreadable is None) or (info is not None and is_directory(info)):
            return None
        policy_version = self._numbering.policy_version(partition_of(blob))
        drop = self._book.begin_file(blob, info.etag if info else "", policy_version)
        if drop.state is not DropState.RECEIVED:
            return drop
        if info is None or unreadable is not None:
            code = RefusalCode.BAD_NAME if "/" in blob and drop.model == NO_MODEL else RefusalCode.BAD_PLACE
            return self._book.end(drop, _refused(code, str(unreadable)))
        return self._attempt(drop, partial(self._take_in, drop, info))

    def _take_in(self, drop: Drop, info: BlobInfo) -> DropOutcome:
        """Read, inspect and store a drop that is one file."""
        name, filename = file_place(drop.blob)
        with work_folder("drop") as folder:
            path = (folder / "drop").resolve()
            file_digest = self._download(info, path)
            digest = _content_digest(file_digest, filename, info)
            number = self._numbering.known(name, digest)
            if number is None:
                workdir = folder / "parts"
                workdir.mkdir()
                content = Content(
                    model=name,
                    drop=drop.blob,
                    digest=digest,
                    filename=filename,
                    dropped=path,
                    sources={path: Source(info=info, digest=file_digest)},
                    metadata=info.metadata,
                )
                number = self._numbering.number(content, workdir)
        return DropOutcome(state=DropState.REGISTERED, version=number, digest=digest)

    def _download(self, info: BlobInfo, path: Path) -> str:
        try:
            return self._blobs.download(
                BlobContainer.INCOMING, info.name, path, etag=info.etag, max_bytes=MAX_FILE_BYTES
            )
        except InvalidInputError as error:
            raise DropRefusedError(RefusalCode.TOO_LARGE, str(error)) from error

    def _attempt(self, drop: Drop, look: Callable[[], DropOutcome]) -> Drop:
        """Look at a drop, and end the attempt with what was found, or with a failure too many."""
        try:
            return self._book.end(drop, _outcome_of(drop, look))
        except Exception as error:
            if not is_failure(error):
                raise
            drop = self._book.fail(drop, error)
            if drop.failures < MAX_FAILURES:
                raise
        reason = f"registration failed {drop.failures} times; the last time: {drop.last_error}"
        return self._book.end(drop, _refused(RefusalCode.GAVE_UP, reason))


def _content_digest(digest: str, filename: str, info: BlobInfo) -> str:
    """A file's digest; of a bare model whose blob's metadata stand for a manifest, one that covers these too."""
    said = {key: value for key, value in info.metadata.items() if key.startswith(BLOB_PREFIX)}
    if not said or not filename.lower().endswith(".onnx"):
        return digest
    return digest_of({"file": digest, "metadata": said})


def _refused(code: RefusalCode, reason: str) -> DropOutcome:
    return DropOutcome(state=DropState.REFUSED, code=code, reason=reason)


def _outcome_of(drop: Drop, look: Callable[[], DropOutcome]) -> DropOutcome:
    """What a look comes to; a refusal where it raises one."""
    try:
        return look()
    except DropRefusedError as refusal:
        return _refused(refusal.code, str(refusal))
    except NotFoundError:
        return _refused(RefusalCode.GONE, f"{drop.blob} was deleted before it was read")
    except InvalidInputError as error:
        return _refused(RefusalCode.UNSTORABLE, last_error(error))
