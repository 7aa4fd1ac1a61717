"""The book of drops: begins and ends their attempts, each by one conditional write that looks at what stands there."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from shared.core.clock import Clock
from shared.core.errors import AlreadyExistsError
from shared.registration.documents import Drop, DropOutcome, DropState, drop_id
from shared.registration.folders import Listing, needs_look
from shared.registration.places import partition_of
from shared.store.repository import AggregatePage, Repository
from shared.validation.failures import last_error

_log = logging.getLogger(__name__)


class DropBook:
    """The documents of drops."""

    def __init__(self, drops: Repository[Drop], clock: Clock) -> None:
        self._drops = drops
        self._clock = clock

    def page(self, partition: str, continuation: str | None) -> AggregatePage[Drop]:
        """A page of the drops of a partition."""
        return self._drops.page(partition=partition, continuation=continuation)

    def find_folder(self, name: str) -> Drop | None:
        """The document of a folder, where it has one."""
        return self._drops.find(partition_of(name), drop_id(name, ""))

    def undecided(self) -> list[Drop]:
        """The drops that have not ended, as far as they can be read."""
        return [drop for state in DropState if not state.is_end for drop in self._drops.readable(state=state.value)]

    def begin_file(self, blob: str, etag: str, policy_version: int) -> Drop:
        """Begin an attempt at a blob in this state, unless it has ended: then the drop is handed out as it is."""
        return self._begin(
            _new(blob, etag, self._clock.now()),
            lambda drop: _is_open(drop, policy_version),
            lambda drop, now: drop.begin(now, policy_version=policy_version),
        )

    def begin_folder(self, name: str, listing: Listing, policy_version: int) -> Drop:
        """Begin an attempt at a folder, unless there is nothing new to it: then the drop is handed out as it is."""
        etag = listing.manifest.etag if listing.manifest else ""
        return self._begin(
            _new(name, "", self._clock.now()),
            lambda drop: _is_open(drop, policy_version) or needs_look(drop, listing),
            lambda drop, now: drop.begin(
                now, policy_version=policy_version, listing=listing.digest, manifest_etag=etag
            ),
        )

    def end(self, drop: Drop, outcome: DropOutcome) -> Drop:
        """End an attempt, and return what then stands."""
        now = self._clock.now()

        def end(current: Drop) -> bool:
            if not _is_of(current, drop):
                return False
            current.conclude(now, outcome)
            return True

        return self._drops.change(drop.partition, drop.id, end)

    def fail(self, drop: Drop, error: Exception) -> Drop:
        """Note an attempt that ended in an error, and return what then stands."""
        _log.warning("registering %s failed", drop.blob, exc_info=error)

        def note(current: Drop) -> bool:
            if not _is_of(current, drop):
                return False
            current.fail(last_error(error))
            return True

        return self._drops.change(drop.partition, drop.id, note)

    def ask(self, name: str, etag: str, grace: timedelta, is_undone: Callable[[Drop], bool]) -> bool:
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

    def _begin(self, new: Drop, is_due: Callable[[Drop], bool], begin: Callable[[Drop, datetime], None]) -> Drop:
        now = self._clock.now()

        def start(drop: Drop) -> bool:
            if not is_due(drop):
                return False
            begin(drop, now)
            return True

        self._drops.find_or_create(new)
        return self._drops.change(new.partition, new.id, start)


def _new(name: str, etag: str, now: datetime) -> Drop:
    """The document of a drop that is seen for the first time."""
    return Drop(id=drop_id(name, etag), model=partition_of(name), blob=name, etag=etag, seen_at=now, attempted_at=now)


def _is_of(current: Drop, drop: Drop) -> bool:
    """Whether what stands is still of the attempt that began with `drop`. Another one may have ended, or begun at a
    later state of the folder or under another policy, whose end it is then.
    """
    return not current.state.is_end and (current.listing, current.policy_version) == (drop.listing, drop.policy_version)


def _is_open(drop: Drop, policy_version: int) -> bool:
    """Whether it has not ended, or ended for what a policy asked that is not in force any more."""
    return drop.state is DropState.RECEIVED or (drop.turns_on_policy and drop.policy_version != policy_version)
