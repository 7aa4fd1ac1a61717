"""A retention plan, and the document of its run.

The plan says what would be done and why everything else stays. Its id is a digest of what it would do: the same id, the
same deeds. A run's document holds what runs are listed by and stays small; its deeds lie in a blob.
"""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of
from shared.registry.policy import RetentionPolicy
from shared.store.aggregate import Aggregate
from shared.store.ports import BlobContainer, Container

MAX_SPARED = 100


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedVersion(_Part):
    """A version to archive."""

    version: int
    state: str
    reason: str


class KeptVersion(_Part):
    """A version that stays as it is, and all that keeps it."""

    version: int
    state: str
    reasons: tuple[str, ...]


class PlannedBlob(_Part):
    """A blob to delete, in this state of it alone."""

    container: BlobContainer
    name: str
    etag: str
    size_bytes: int
    reason: str


class Deeds(_Part):
    """What a plan does."""

    archive: tuple[PlannedVersion, ...] = ()
    delete: tuple[PlannedBlob, ...] = ()

    @property
    def size_bytes(self) -> int:
        """How much its blobs hold together."""
        return sum(blob.size_bytes for blob in self.delete)

    def plan_id(self, model: str) -> str:
        """The digest of what is done, and to which model."""
        return digest_of(
            {
                "model": model,
                "archive": [version.version for version in self.archive],
                "delete": [[blob.container.value, blob.name, blob.etag] for blob in self.delete],
            }
        )


class RetentionPlan(_Part):
    """What retention would do to a model now, and why it leaves the rest."""

    model: str
    policy: RetentionPolicy
    deeds: Deeds
    keep: tuple[KeptVersion, ...]
    is_partial: bool = False
    """Whether there is more to do than one plan holds: run it, and make another."""

    @property
    def plan_id(self) -> str:
        """The digest of what it does."""
        return self.deeds.plan_id(self.model)


class RunState(StrEnum):
    """Where a run stands. It only ever goes on to the next."""

    ARCHIVING = "archiving"
    """Its versions are being archived."""
    WAITING = "waiting"
    """Its versions are archived; its blobs are deleted once nothing that began before can still want them."""
    DONE = "done"

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self is RunState.DONE


class RetentionRun(Aggregate):
    """A plan being carried out."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["retention_run"] = "retention_run"
    model: str
    plan_id: str
    versions: list[int]
    """Those that it archives."""
    blobs: int
    """How many blobs it deletes."""
    size_bytes: int
    """How much they hold together."""
    state: RunState = RunState.ARCHIVING
    requested_by: str
    started_at: AwareDatetime
    delete_after: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    archived: list[int] = Field(default_factory=list)
    held: dict[int, str] = Field(default_factory=dict)
    """Why each version that it was to archive was not."""
    deleted: int = 0
    """How many of its blobs are gone."""
    deleted_bytes: int = 0
    spared: list[str] = Field(default_factory=list)
    """What it was to archive or delete and did not, and why, in sentences: up to `MAX_SPARED`, then how many more."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"retention_run:{self.model}:{self.id.removeprefix('retention-')}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model


def run_id(plan_id: str) -> str:
    """The id of a plan's run."""
    return f"retention-{plan_id[:32]}"
