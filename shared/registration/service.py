"""Registration: takes drops in, and tells what became of them.

A drop is registered once, however often its event comes and whatever dies on the way: its id is its place (and, of a
file, its ETag), its version's number belongs to its digest, and each step first looks for the effect of the step. A
folder is one drop for good; each event of a file in it is a reason to look at all of it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, islice
from pathlib import Path

from shared.core.clock import Clock
from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError, InvalidInputError, NotFoundError
from shared.core.messages import RegisterDrop
from shared.core.workdir import work_folder
from shared.registration.documents import NO_MODEL, Drop, DropOutcome, DropState, drop_id
from shared.registration.folders import MAX_FILES, Listing, is_directory, needs_look
from shared.registration.looking import FolderLook
from shared.registration.numbering import Content, Numbering, Source
from shared.registration.places import drop_of, file_place, is_folder, partition_of
from shared.registry.documents import Model, ModelVersion
from shared.registry.manifest import Manifest
from shared.routing.plan import MAX_FILE_BYTES
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.store.repository import AggregatePage, Repository
from shared.validation.failures import MAX_FAILURES, is_failure, last_error
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
        self._drops = drops
        self._blobs = blobs
        self._clock = clock
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
        drop = self._register_folder(name) if is_folder(name) else self._register_file(name)
        if drop is None:
            _log.info("drop %s is gone", name)
        return drop

    def drops(self, name: str, continuation: str | None = None) -> AggregatePage[Drop]:
        """A page of what was dropped for a model; `-` for drops whose place does not name one."""
        return self._drops.page(partition=name, continuation=continuation)

    def missed_drops(self, grace: timedelta) -> Iterator[RegisterDrop]:
        """A message for each drop whose registration has not ended, nor begun or been asked for within `grace`.

        So for folders that hold something else than when they were looked at. Drops whose blobs are gone meanwhile are
        ended.
        """
        self._end_gone(grace)
        for name, infos in groupby(self._blobs.list(BlobContainer.INCOMING), key=lambda info: drop_of(info.name)):
            if is_folder(name):
                missed = self._is_missed_folder(name, infos, grace)
            else:
                missed = self._is_missed_file(next(infos), grace)
            if missed:
                yield RegisterDrop(blob=name)

    def _is_missed_file(self, info: BlobInfo, grace: timedelta) -> bool:
        if self._clock.now() - info.last_modified <= grace or is_directory(info):
            return False
        return self._asks(info.name, info.etag, grace, lambda drop: drop.state is DropState.RECEIVED)

    def _is_missed_folder(self, name: str, infos: Iterator[BlobInfo], grace: timedelta) -> bool:
        listing = Listing.of(name, islice(infos, MAX_FILES + 1))
        newest = max((info.last_modified for info in listing.files.values()), default=None)
        if newest is None or self._clock.now() - newest <= grace:
            return False
        return self._asks(name, "", grace, lambda drop: drop.state is DropState.RECEIVED or needs_look(drop, listing))

    def _asks(self, name: str, etag: str, grace: timedelta, is_undone: Callable[[Drop], bool]) -> bool:
        """Whether to ask for a drop's registration, which its document then notes. One of several sweeps asks."""
        now = self._clock.now()
        asked = False

        def ask(drop: Drop) -> bool:
            nonlocal asked
            asked = is_undone(drop) and drop.is_overdue(now, grace)
            if asked:
                drop.asked_at = now
            return asked

        fresh = _new(name, etag, now)
        fresh.asked_at = now
        drop = self._drops.find(fresh.partition, fresh.id)
        if drop is None:
            with suppress(AlreadyExistsError):
                self._drops.create(fresh)
                return True
        elif is_undone(drop) and drop.is_overdue(now, grace):
            self._drops.change(drop.partition, drop.id, ask)
        return asked

    def _end_gone(self, grace: timedelta) -> None:
        """End the drops whose blobs were deleted or overwritten: their registration can never end otherwise."""
        now = self._clock.now()
        undecided = [drop for state in DropState if not state.is_end for drop in self._drops.where(state=state.value)]
        for drop in undecided:
            if now - drop.attempted_at <= grace:
                continue
            how = self._gone(drop)
            if how is not None:
                reason = f"{drop.blob} was {how} before its registration ended"
                self._end(drop, _refused(RefusalCode.GONE, reason))

    def _gone(self, drop: Drop) -> str | None:
        """How what a drop was taken from went, or None where it is there."""
        if is_folder(drop.blob):
            return None if self._listing(drop.blob).files else "deleted"
        info, _ = self._look_up(drop.blob)
        if info is None:
            return "deleted"
        return None if info.etag == drop.etag else "overwritten, which is a drop of its own,"

    def _register_folder(self, name: str) -> Drop | None:
        """Look until the folder is what was looked at: what changes meanwhile may have no other event."""
        for attempt in range(1, _LOOKS + 1):
            listing = self._listing(name)
            drop = self._begin_folder(name, listing)
            if drop is None or drop.state is not DropState.RECEIVED:
                return drop
            try:
                drop = self._attempt(drop, partial(self._look.look, drop, listing))
            except ChangedMeanwhileError:
                if attempt == _LOOKS:
                    raise
        return drop

    def _register_file(self, blob: str) -> Drop | None:
        info, unreadable = self._look_up(blob)
        if info is None and unreadable is None:
            return None
        if info is not None and is_directory(info):
            return None
        now = self._clock.now()
        drop = self._begin(_new(blob, info.etag if info else "", now))
        if drop.state is not DropState.RECEIVED:
            return drop
        if info is None or unreadable is not None:
            code = RefusalCode.BAD_NAME if "/" in blob and drop.model == NO_MODEL else RefusalCode.BAD_PLACE
            return self._end(drop, _refused(code, str(unreadable)))
        return self._attempt(drop, partial(self._take_in, drop, info))

    def _look_up(self, blob: str) -> tuple[BlobInfo | None, InvalidInputError | None]:
        """The blob as it stands, and the error where storage does not read blobs of such a name."""
        try:
            return self._blobs.info(BlobContainer.INCOMING, blob), None
        except InvalidInputError as error:
            # Names come in order, so the first one with the whole name as its prefix is the name itself, if any.
            first = next(iter(self._blobs.list(BlobContainer.INCOMING, blob)), None)
            return (first if first and first.name == blob else None), error

    def _listing(self, name: str) -> Listing:
        return Listing.of(name, islice(self._blobs.list(BlobContainer.INCOMING, name), MAX_FILES + 1))

    def _take_in(self, drop: Drop, info: BlobInfo) -> DropOutcome:
        """Read, inspect and store a drop that is one file."""
        name, filename = file_place(drop.blob)
        with work_folder("drop") as folder:
            path = (folder / "drop").resolve()
            digest = self._download(info, path)
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
                    sources={path: Source(info=info, digest=digest)},
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
            return self._end(drop, _outcome_of(drop, look))
        except Exception as error:
            if not is_failure(error):
                raise
            drop = self._note_failure(drop, error)
            if drop.failures < MAX_FAILURES:
                raise
        reason = f"registration failed {drop.failures} times; the last time: {drop.last_error}"
        return self._end(drop, _refused(RefusalCode.GAVE_UP, reason))

    def _begin(self, new: Drop) -> Drop:
        now = self._clock.now()

        def begin(drop: Drop) -> bool:
            if drop.state is not DropState.RECEIVED:
                return False
            drop.begin(now)
            return True

        self._drops.find_or_create(new)
        return self._drops.change(new.partition, new.id, begin)

    def _begin_folder(self, name: str, listing: Listing) -> Drop | None:
        now = self._clock.now()
        new = _new(name, "", now)
        drop = self._drops.find(new.partition, new.id)
        if not listing.files:
            if drop is not None and not drop.state.is_end:
                return self._end(drop, _refused(RefusalCode.GONE, f"{name} was deleted before its registration ended"))
            return drop
        manifest_etag = listing.manifest.etag if listing.manifest else ""

        def begin(drop: Drop) -> bool:
            if drop.state is not DropState.RECEIVED and not needs_look(drop, listing):
                return False
            drop.begin(now, listing=listing.digest, manifest_etag=manifest_etag)
            return True

        if drop is None:
            self._drops.find_or_create(new)
        return self._drops.change(new.partition, new.id, begin)

    def _end(self, drop: Drop, outcome: DropOutcome) -> Drop:
        now = self._clock.now()

        def end(current: Drop) -> bool:
            # Another attempt may have ended, or begun at a later state of the folder, whose end it is then.
            if current.state.is_end or current.listing != drop.listing:
                return False
            current.conclude(now, outcome)
            return True

        return self._drops.change(drop.partition, drop.id, end)

    def _note_failure(self, drop: Drop, error: Exception) -> Drop:
        _log.warning("registering %s failed", drop.blob, exc_info=error)

        def note(current: Drop) -> bool:
            current.fail(last_error(error))
            return True

        return self._drops.change(drop.partition, drop.id, note)


def _new(name: str, etag: str, now: datetime) -> Drop:
    """The document of a drop that is seen for the first time."""
    return Drop(id=drop_id(name, etag), model=partition_of(name), blob=name, etag=etag, seen_at=now, attempted_at=now)


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
