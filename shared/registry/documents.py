"""The registry's documents: a model, its versions and its policies."""

import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Manifest
from shared.registry.policy import Policy
from shared.registry.signature import Signature
from shared.routing.plan import ArtifactFile, Signing
from shared.store.aggregate import Aggregate, ArchiveEntry
from shared.store.ports import Container

MODEL_ID = "model"


class Model(Aggregate):
    """A model: its policy, and which version number each dropped content has."""

    container: ClassVar[Container] = Container.MODELS

    id: str = MODEL_ID
    kind: Literal["model"] = "model"
    model: str
    policy: Policy = Policy()
    policy_version: int = 0
    """Counts the policies that were set; 0 is the default one. The body of each is kept as a PolicyRecord."""
    latest_version: int = 0
    versions: dict[str, int] = Field(default_factory=dict)
    """The version number of each drop's digest."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"model:{self.model}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    def number_for(self, digest: str, now: datetime) -> tuple[int, bool]:
        """The version number of a content, and whether it was given just now."""
        if digest in self.versions:
            return self.versions[digest], False
        self.latest_version += 1
        self.versions = {**self.versions, digest: self.latest_version}
        self.record("version_numbered", now, version=self.latest_version, digest=digest)
        return self.latest_version, True

    def set_policy(self, policy: Policy, now: datetime, *, by: str, reason: str = "") -> None:
        """Make a policy the one in force, under the next number."""
        self.policy = policy
        self.policy_version += 1
        record = PolicyRecord(
            id=policy_id(self.policy_version),
            model=self.model,
            policy_version=self.policy_version,
            policy=policy.model_dump(mode="json"),
            by=by,
            reason=reason,
            at=now,
        )
        self.archive(Container.MODELS, record.model_dump(mode="json"))
        self.record("policy_set", now, policy_version=self.policy_version, policy=record.policy, by=by, reason=reason)


class PolicyRecord(BaseModel):
    """A policy as it was set, archived as a document. Its body is kept as it was: it is never read by later rules."""

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: Literal["policy_version"] = "policy_version"
    model: str
    policy_version: int
    policy: dict[str, Any]
    by: str
    reason: str = ""
    at: AwareDatetime


class VersionState(StrEnum):
    """Where a version stands in its life."""

    REGISTERED = "registered"
    """Known; nothing was checked yet."""
    VALIDATING = "validating"
    """Its validation has begun and not ended."""
    VALIDATED = "validated"
    REJECTED = "rejected"
    ARCHIVED = "archived"
    """Out of use, for good. Its artifacts may be deleted."""

    @property
    def is_undecided(self) -> bool:
        """Whether its validation is still to conclude."""
        return self in {VersionState.REGISTERED, VersionState.VALIDATING}


class ValidationSummary(BaseModel):
    """What validation concluded; the whole report is the blob `report_blob` of the reports container."""

    model_config = ConfigDict(extra="forbid")

    outcome: Outcome
    verdicts: list[Verdict]
    metrics: dict[str, float]
    report_blob: str
    policy_version: int = 0
    """The number of the policy that it was held against."""


class Approval(BaseModel):
    """That somebody agrees to a version's rollout. Who it was is a claim: all callers share the app's key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str
    reason: str
    at: AwareDatetime
    command_id: str


class BeforeArchiving(BaseModel):
    """What a version was when it was archived."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: VersionState
    rollout_pending: bool


class ModelVersion(Aggregate):
    """A version of a model: what was dropped, the parts it had, and what validation concluded."""

    container: ClassVar[Container] = Container.MODELS

    id: str
    kind: Literal["version"] = "version"
    model: str
    version: int
    state: VersionState = VersionState.REGISTERED
    drop: str
    """The blob that it came from, in the `incoming` container; a folder with a slash at the end."""
    digest: str
    """SHA-256 of that blob, or a digest over it and the blob's metadata where these describe the model; of a folder,
    a digest over those of its files, by their names."""
    artifact_digest: str
    """SHA-256 of the ONNX file."""
    artifact_size_bytes: int
    """The size of the ONNX file alone."""
    model_file: str = "model.onnx"
    """The ONNX file's name within the drop."""
    external: list[ArtifactFile] = Field(default_factory=list)
    """The files that hold tensors of the model, under the names that the model knows them by."""
    signing: Signing | None = None
    """The drop's cryptographic signature, verified at intake. None where it came without one."""
    signed_by: str = ""
    """The SHA-256 fingerprint of the trusted key that it verified under."""
    validation_digest: str | None = None
    reference_digest: str | None = None
    golden_digest: str | None = None
    profile_digest: str | None = None
    """SHA-256 of the reference profile that its traffic is counted by; None where validation left none."""
    performance_digest: str | None = None
    """SHA-256 of the model that estimates its performance without labels; None where validation left none."""
    signature: Signature | None = None
    """What it takes and gives, as validation saw it."""
    manifest: Manifest
    registered_at: AwareDatetime
    decided_at: AwareDatetime | None = None
    attempts: int = 0
    """How often its validation was begun."""
    attempted_at: AwareDatetime
    failures: int = 0
    """How many attempts ended in an error that was not an outage. An attempt whose process was killed is none."""
    last_error: str = ""
    asked_at: AwareDatetime | None = None
    """When the sweep last asked for what is missing: its validation, or the start of its rollout."""
    validation: ValidationSummary | None = None
    approvals: list[Approval] = Field(default_factory=list)
    rollout_pending: bool = False
    """Whether a rollout was asked for by policy and has not been seen to begin."""
    altered: str = ""
    """What of its stored parts is not what was registered any more, in a sentence. Such a version cannot roll out."""
    rollout_refused: str = ""
    """Why policy will not start its rollout; it can still be started by command."""
    archived_at: AwareDatetime | None = None
    before_archiving: BeforeArchiving | None = None
    """What it was when it was archived, for an archiving that is taken back."""
    trace: str | None = None
    """The `traceparent` of its registration: what is done for it by itself goes on in that trace."""

    @property
    def parent_trace(self) -> str | None:
        """See Aggregate."""
        return self.trace

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"version:{self.model}:{self.version}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model

    def is_overdue(self, now: datetime, grace: timedelta) -> bool:
        """Whether neither an attempt nor a message for one is so recent that it may still come to something."""
        return now - max(at for at in (self.attempted_at, self.asked_at) if at) > grace

    @property
    def author(self) -> str:
        """Who made it, as its manifest says; empty where that says nothing."""
        return self.manifest.author.strip()

    def approvals_missing(self, wanted: int) -> int:
        """How many approvals it lacks of those that its policy wants."""
        return max(0, wanted - len(self.approvals))


def policy_id(policy_version: int) -> str:
    """The id of a policy's document: its order is the order of the numbers."""
    return f"policy-{policy_version:09d}"


def version_id(version: int) -> str:
    """The id of a version's document: its order is the order of the numbers."""
    return f"version-{version:09d}"


def is_same_person(one: str, other: str) -> bool:
    """Whether two names are one person's.

    Capitals, spaces, Unicode's forms and characters that cannot be seen (category Cf) do not tell people apart.
    """
    return _person(one) == _person(other)


def waiting_records(aggregate: Aggregate, kind: str) -> list[dict[str, Any]]:
    """The archived documents of a kind that are still in an aggregate's outbox, in the order of their making."""
    entries = [entry.body for entry in aggregate.outbox if isinstance(entry, ArchiveEntry)]
    return [body for body in entries if body.get("kind") == kind]


def version_facts(version: ModelVersion) -> dict[str, Any]:
    """What the audit says of a version when it is registered."""
    return version.model_dump(
        mode="json",
        include={
            "version",
            "drop",
            "digest",
            "artifact_digest",
            "artifact_size_bytes",
            "model_file",
            "external",
            "signing",
            "signed_by",
            "validation_digest",
            "reference_digest",
            "manifest",
        },
    )


def _person(name: str) -> str:
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen.casefold()).split())
