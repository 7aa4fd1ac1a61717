"""Timer triggers: each occurrence calls the function once, over all hosts of one id and over restarts.

The state of a timer is the blob `azure-webjobs-hosts/timers/<host id>/<function>/status`: `Last`, `Next` and
`LastUpdated` as Azure writes them, and a claim of our own (`ClaimedBy`, `ClaimedUntil`). When `Next` comes:

1. the occurrence is claimed by a conditional write; of two hosts one wins, the other looks again later;
2. the function is called, and the claim renewed while it runs, so that calls never overlap;
3. `Last`, the new `Next` and the end of the claim are written in one conditional write, whether or not it failed.

`Next` moves only after the call. So a host that dies in a call leaves the occurrence due: once its claim has lapsed,
the next host to look makes it up, with `IsPastDue`. So does a host that starts after an occurrence was missed; several
missed ones are made up by one call. Occurrences that come while a call runs are skipped, as in Azure.

Claims compare the clocks of the hosts, which share a machine. A host that stalls for longer than its claim can see its
occurrence made by another as well: at least once, as everywhere.
"""

import asyncio
import json
import logging
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient

from local.host.bindings import Function
from local.host.invocations import Invoker
from local.host.protos import TypedData
from local.host.schedules import Schedule
from local.host.settings import AppSettings
from local.host.storage import HOSTS_CONTAINER, Storage, in_thread, pause

_log = logging.getLogger("host.timers")

_LOOK_AGAIN_S = 0.5
_LONGEST_SLEEP_S = 30.0
_OUTAGE_PAUSE_S = 2.0
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerTrigger:
    """A function with a timer trigger. `monitored` timers make up what was missed while no host ran."""

    function: Function
    schedule: Schedule
    run_on_startup: bool
    monitored: bool

    @classmethod
    def of(cls, function: Function, settings: AppSettings) -> "TimerTrigger":
        """Read a timer trigger's declaration. Raises HostStartError."""
        fields = function.trigger.fields
        text = settings.resolve(str(fields.get("schedule", "")), function=function.name)
        return cls(
            function=function,
            schedule=Schedule(text, function=function.name),
            run_on_startup=bool(fields.get("runOnStartup") or False),
            monitored=fields.get("useMonitor") is not False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A timer's stored state. `updated` is the moment from which `next` was reckoned."""

    last: datetime
    next: datetime
    updated: datetime
    claimed_by: str = ""
    claimed_until: datetime = _NEVER

    def to_json(self) -> dict[str, str]:
        """As it is stored, and, but for the claim, as the function is told of it."""
        stored = {
            "Last": self.last.isoformat(),
            "Next": self.next.isoformat(),
            "LastUpdated": self.updated.isoformat(),
        }
        if self.claimed_by:
            stored |= {"ClaimedBy": self.claimed_by, "ClaimedUntil": self.claimed_until.isoformat()}
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, str]) -> "Status":
        """Read what is stored. Raises ValueError or KeyError."""
        return cls(
            last=datetime.fromisoformat(stored["Last"]),
            next=datetime.fromisoformat(stored["Next"]),
            updated=datetime.fromisoformat(stored["LastUpdated"]),
            claimed_by=stored.get("ClaimedBy", ""),
            claimed_until=datetime.fromisoformat(stored["ClaimedUntil"]) if "ClaimedUntil" in stored else _NEVER,
        )


class TimerListener:
    """Follows one timer's schedule."""

    def __init__(
        self, trigger: TimerTrigger, *, storage: Storage, host_id: str, claim_s: float, invoker: Invoker
    ) -> None:
        self._trigger = trigger
        self._claim = timedelta(seconds=claim_s)
        self._invoker = invoker
        self._me = uuid.uuid4().hex
        self._store = _StatusStore(
            storage.blobs.get_blob_client(HOSTS_CONTAINER, f"timers/{host_id}/{trigger.function.name}/status")
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow the schedule until the host stops; a call in work is finished first."""
        armed, since = False, _now()
        on_startup = self._trigger.run_on_startup
        while not stopping.is_set():
            try:
                if not armed:
                    await in_thread(self._arm)
                    armed = True
                on_startup = await self._turn(stopping, since=since, now_at_once=on_startup)
            except (ResourceModifiedError, ResourceNotFoundError):
                # Another host was first, or somebody removed the status: look at what stands there now.
                armed = False
                await pause(stopping, _LOOK_AGAIN_S)
            except AzureError as error:
                _log.warning("timer %s cannot reach its storage, trying on: %s", self._trigger.function.name, error)
                await pause(stopping, _OUTAGE_PAUSE_S)
                since = _now()

    def _arm(self) -> None:
        """Create the status of a new timer; reckon `Next` anew where the schedule changed or nothing is made up."""
        now = _now()
        found = self._store.load()
        if found is None:
            self._store.create(Status(last=_NEVER, next=self._trigger.schedule.after(now), updated=now))
            return
        status, etag = found
        if not self._trigger.monitored and status.next <= now and status.claimed_until <= now:
            self._store.replace(replace(status, next=self._trigger.schedule.after(now), updated=now), etag)
        elif self._trigger.schedule.after(status.updated) != status.next:
            self._store.replace(replace(status, next=self._trigger.schedule.after(status.updated)), etag)

    async def _turn(self, stopping: asyncio.Event, *, since: datetime, now_at_once: bool) -> bool:
        """Wait for the next occurrence and make it, or find that another host does.

        It is past due where it was so before this host followed the schedule, `since` when it does without a break, or
        while a claim held of a host that died or was stopped. Returns whether a call is still to be made at once, for
        `runOnStartup`.
        """
        status = await self._load()
        while not now_at_once and (wait_s := (status.next - _now()).total_seconds()) > 0:
            # In slices, as the clock may be set meanwhile.
            if await pause(stopping, min(wait_s, _LONGEST_SLEEP_S)):
                return now_at_once
        claimed = await in_thread(self._take_claim, due_at_once=now_at_once)
        if claimed is None:
            await pause(stopping, _LOOK_AGAIN_S)
            return now_at_once
        status, etag, held_until = claimed
        await self._call(status, etag, past_due=status.next <= max(since, held_until))
        return False

    async def _load(self) -> Status:
        found = await in_thread(self._store.load)
        if found is None:
            raise ResourceNotFoundError("the timer's status blob is gone")
        return found[0]

    def _take_claim(self, *, due_at_once: bool) -> tuple[Status, str, datetime] | None:
        """Claim the occurrence that is due; until when a claim held that did not end with its call. None where there is
        none, or another host has it.
        """
        found = self._store.load()
        now = _now()
        if found is None:
            raise ResourceNotFoundError("the timer's status blob is gone")
        status, etag = found
        if status.next > now and not due_at_once:
            return None
        if status.claimed_by not in {"", self._me} and status.claimed_until > now:
            return None
        claimed = replace(status, claimed_by=self._me, claimed_until=now + self._claim)
        return claimed, self._store.replace(claimed, etag), status.claimed_until

    async def _call(self, status: Status, etag: str, *, past_due: bool) -> None:
        started = _now()
        done = asyncio.Event()
        renewal = asyncio.create_task(self._renew(status, etag, done))
        shown = replace(status, claimed_by="").to_json()
        payload = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": shown, "IsPastDue": past_due}
        try:
            await self._invoker.call(self._trigger.function, TypedData(json=json.dumps(payload)), {})
        except asyncio.CancelledError:
            # The host ends before the call did: the occurrence stays due, for the next host to make at once.
            done.set()
            etag = await renewal
            await in_thread(self._store.replace, replace(status, claimed_until=_now()), etag)
            raise
        done.set()
        etag = await renewal
        now = _now()
        finished = Status(last=started, next=self._trigger.schedule.after(now), updated=now)
        await in_thread(self._store.replace, finished, etag)

    async def _renew(self, status: Status, etag: str, done: asyncio.Event) -> str:
        while not await pause(done, self._claim.total_seconds() / 3):
            try:
                etag = await in_thread(self._store.replace, replace(status, claimed_until=_now() + self._claim), etag)
            except AzureError as error:
                _log.warning("timer %s: its claim is not renewed: %s", self._trigger.function.name, error)
        return etag


class _StatusStore:
    """The status blob. A status that cannot be read counts as absent and is written anew."""

    def __init__(self, blob: BlobClient) -> None:
        self._blob = blob

    def load(self) -> tuple[Status, str] | None:
        try:
            download = self._blob.download_blob()
            stored = json.loads(download.readall())
        except ResourceNotFoundError:
            return None
        except ValueError:
            stored = {}
        etag = str(download.properties.etag)
        try:
            return Status.from_json(stored), etag
        except (ValueError, KeyError, TypeError):
            _log.warning("%s does not hold a timer's status: it is begun anew", self._blob.blob_name)
            self._blob.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)
            return None

    def create(self, status: Status) -> None:
        try:
            self._blob.upload_blob(json.dumps(status.to_json()), overwrite=False)
        except ResourceExistsError:
            return

    def replace(self, status: Status, etag: str) -> str:
        """Write a status where the stored one is still that of `etag`; the new ETag. Raises ResourceModifiedError."""
        written = self._blob.upload_blob(
            json.dumps(status.to_json()), overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified
        )
        return str(written["etag"])


def _now() -> datetime:
    return datetime.now(UTC)
