"""The registration's document: a drop, and what became of it."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of_bytes
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

NO_MODEL = "-"
"""The partition of drops whose path does not name a model."""

_TURN_ON_POLICY = frozenset({"unsigned", "unknown_key"})
"""The codes of refusals that another policy would take back."""


class DropState(StrEnum):
    """What became of a drop."""

    RECEIVED = "received"
    """Seen; its registration has begun and not ended."""
    WAITING = "waiting"
    """A folder that is not complete yet: `waiting_for` says what it lacks."""
    REGISTERED = "registered"
    REFUSED = "refused"

    @property
    def is_end(self) -> bool:
        """Whether it stays so until what was dropped changes."""
        return self in {DropState.REGISTERED, DropState.REFUSED}


class SeenFile(BaseModel):
    """A file of a folder drop that was read: its content (ETag) and the SHA-256 of that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    etag: str
    digest: str


class DropOutcome(BaseModel):
    """What a look at a drop came to. `files` and `named` are what it read of a folder; `digest` is of all it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: DropState
    code: str = ""
    reason: str = ""
    waiting_for: tuple[str, ...] = ()
    version: int | None = None
    digest: str | None = None
    files: dict[str, SeenFile] = Field(default_factory=dict)
    named: dict[str, str] | None = None


class Drop(Aggregate):
    """What was dropped: a blob in one state of its content (its ETag), or a folder of blobs.

    A folder `<model>/<folder>/` is one drop for good; `etag` is that of its manifest when it was last looked at, and
    what is put into it after its end opens it again.
    """

    container: ClassVar[Container] = Container.MODELS

    id: str
    kind: Literal["drop"] = "drop"
    model: str
    blob: str
    etag: str
    state: DropState = DropState.RECEIVED
    code: str = ""
    reason: str = ""
    waiting_for: list[str] = Field(default_factory=list)
    """What a folder lacks, in words."""
    listing: str = ""
    """A digest of a folder's names and ETags when it was last looked at."""
    files: dict[str, SeenFile] = Field(default_factory=dict)
    """What a folder's files were found to hold, so that waiting reads none twice."""
    named: dict[str, str] | None = None
    """The files that a folder's manifest names, with their SHA-256. None until that manifest was parsed."""
    version: int | None = None
    policy_version: int = 0
    """The number of the policy under which it was last looked at."""
    seen_at: AwareDatetime
    attempts: int = 0
    """How often its registration was begun."""
    attempted_at: AwareDatetime
    """When its registration was last begun, or was first found wanting."""
    failures: int = 0
    """How many attempts ended in an error that was not an outage. An attempt whose process was killed is none."""
    last_error: str = ""
    asked_at: AwareDatetime | None = None
    """When the sweep last asked for its registration."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"drop:{self.id.removeprefix('drop-')}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    @property
    def turns_on_policy(self) -> bool:
        """Whether it waits, or was refused, for what another policy might not ask."""
        return self.state is DropState.WAITING or (self.state is DropState.REFUSED and self.code in _TURN_ON_POLICY)

    def begin(self, now: datetime, *, policy_version: int, listing: str = "", manifest_etag: str | None = None) -> None:
        """Begin an attempt; for a folder with this listing, and with the ETag of the manifest in it."""
        if self.state.is_end:
            self.record("drop_opened_again", now, blob=self.blob, was=self.state, version=self.version)
            self.code, self.reason, self.version = "", "", None
            self.failures, self.last_error = 0, ""
        if manifest_etag is not None and manifest_etag != self.etag:
            self.etag, self.named = manifest_etag, None
        self.state, self.listing, self.policy_version = DropState.RECEIVED, listing, policy_version
        self.attempts += 1
        self.attempted_at = now

    def conclude(self, now: datetime, outcome: DropOutcome) -> None:
        """End an attempt. The audit tells of waiting only where it waits for something else than before."""
        waits_on = outcome.state is DropState.WAITING and list(outcome.waiting_for) == self.waiting_for
        self.state, self.code, self.reason, self.version = outcome.state, outcome.code, outcome.reason, outcome.version
        self.waiting_for, self.files, self.named = list(outcome.waiting_for), outcome.files, outcome.named
        if outcome.state is DropState.WAITING:
            # A look that went well clears what went wrong before it: only failures in a row end a drop.
            self.failures, self.last_error = 0, ""
            if not waits_on:
                self.record("drop_waiting", now, blob=self.blob, waiting_for=self.waiting_for)
            return
        self.record(
            f"drop_{outcome.state}",
            now,
            blob=self.blob,
            code=outcome.code,
            reason=outcome.reason,
            version=outcome.version,
            digest=outcome.digest,
        )

    def fail(self, error: str) -> None:
        """Note an attempt that ended in an error."""
        self.failures += 1
        self.last_error = error

    def is_overdue(self, now: datetime, grace: timedelta) -> bool:
        """Whether neither an attempt nor a message for one is so recent that it may still come to something."""
        return now - max(at for at in (self.attempted_at, self.asked_at) if at) > grace


def drop_id(blob: str, etag: str) -> str:
    """The id of a drop's document: the same content at the same place is the same drop."""
    return f"drop-{digest_of_bytes(f'{blob}\0{etag}'.encode())[:32]}"
