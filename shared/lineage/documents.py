"""What is known of a prediction: who answered it, from what that was made, and by which decision it had the traffic."""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.audit.chain import AuditEvent, Problem
from shared.core.verdict import Outcome, Verdict
from shared.registry.documents import Approval, VersionState
from shared.registry.manifest import Manifest
from shared.registry.rollout_policy import Strategy
from shared.rollout.machine import RolloutState
from shared.routing.plan import ArtifactFile, Role
from shared.routing.prediction import Reason


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(_Part):
    """The prediction's id, taken apart. It claims this; the rest of the answer is what the records say."""

    endpoint: str
    version: int
    generation: int
    role: Role
    reason: Reason
    pod: str
    at: AwareDatetime
    count: int


class Data(_Part):
    """The data behind a version: of the training data what the manifest claims, of the others their SHA-256."""

    training_data_version: str
    validation_digest: str | None
    reference_digest: str | None
    golden_digest: str | None
    profile_digest: str | None = None
    performance_digest: str | None = None


class Validated(_Part):
    """What validation concluded, and where its whole report is read: `report` is a path of the admin API."""

    outcome: Outcome
    decided_at: AwareDatetime | None
    metrics: dict[str, float]
    policy_version: int
    report: str


class Made(_Part):
    """A version, and where it came from.

    Storage does not tell who dropped it: `drop` is the blob, the manifest's author a claim, `signed_by` (SHA-256 of a
    trusted public key) a proof.
    """

    model: str
    version: int
    state: VersionState
    """What it is now."""
    altered: str
    """What of its stored parts is not what was registered any more; empty where nothing is known to be."""
    drop: str
    digest: str
    artifact_digest: str
    artifact_size_bytes: int
    model_file: str
    external: list[ArtifactFile]
    registered_at: AwareDatetime
    signed_by: str
    signature_digest: str | None
    manifest: Manifest
    data: Data
    validation: Validated | None
    approvals: list[Approval]


class RouteThen(_Part):
    """A version's place in a plan that was published."""

    version: int
    role: Role
    weight_bp: int
    mirror_bp: int = 0
    artifact_digest: str


class Decision(_Part):
    """A step of the rollout's state machine: its audit event, the sentence that says why, the verdicts behind it."""

    kind: str
    at: AwareDatetime
    reason: str
    verdicts: list[Verdict]
    stream: str
    seq: int
    hash: str


class RolloutThen(_Part):
    """The rollout of which a step made the generation. `stage` and `weight_bp` are as the step left them."""

    rollout_id: str
    version: int
    stable: int | None
    strategy: Strategy
    stage: int | None
    stages: int
    weight_bp: int
    policy_version: int
    forced: bool
    requested_by: str
    started_at: AwareDatetime
    state: RolloutState
    """How it stands now, or ended."""


class GenerationThen(_Part):
    """The plan that the answering pod served. Pods follow a new plan within seconds, or as storage lets them."""

    generation: int
    published_at: AwareDatetime
    superseded_at: AwareDatetime | None
    """When the next one was published."""
    routes: list[RouteThen]
    """Empty for a plan of which the audit does not hold them: it was published by an earlier Slipway."""
    rollout: RolloutThen
    decision: Decision


class AuditReference(_Part):
    """An audit event that the answer stands on."""

    stream: str
    seq: int
    kind: str
    at: AwareDatetime


class AuditFound(_Part):
    """The events that the answer stands on, and whether the chains that hold them verify."""

    verified: bool
    problems: list[Problem]
    references: list[AuditReference]


class Lineage(_Part):
    """A prediction's lineage."""

    prediction_id: str
    prediction: Claim
    version: Made
    generation: GenerationThen
    promotion: Decision | None
    """What made the version stable; None for a candidate."""
    aliases: list[str]
    """Those that named the version at that time."""
    audit: AuditFound


def decision_of(event: AuditEvent) -> Decision:
    """The decision that a rollout's audit event records."""
    return Decision(
        kind=event.kind,
        at=event.at,
        reason=str(event.data.get("reason", "")),
        verdicts=[Verdict.model_validate(verdict) for verdict in event.data.get("verdicts", ())],
        stream=event.stream,
        seq=event.seq,
        hash=event.hash,
    )


def reference_to(event: AuditEvent) -> AuditReference:
    """How the answer names an event."""
    return AuditReference(stream=event.stream, seq=event.seq, kind=event.kind, at=event.at)
