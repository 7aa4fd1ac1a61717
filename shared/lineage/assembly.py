"""Puts a prediction's lineage together from the records that were found. Pure.

What two records tell differently is told as a problem: the answer gives what the documents say, and the audit's chains
say whether that is what was written.
"""

from dataclasses import dataclass
from typing import Any

from shared.audit.chain import AuditEvent, Problem
from shared.lineage.claims import Publication
from shared.lineage.documents import (
    AuditFound,
    Claim,
    Data,
    GenerationThen,
    Lineage,
    Made,
    RolloutThen,
    Validated,
    decision_of,
    reference_to,
)
from shared.registry.documents import ModelVersion, version_facts
from shared.rollout.documents import Rollout
from shared.routing.prediction import PredictionId

_AUDITED = ("drop", "digest", "artifact_digest", "validation_digest", "reference_digest", "signed_by")
"""What the registration's event holds of a version for good."""
_TOLD = frozenset(
    {
        "version_registered",
        "version_validated",
        "version_rejected",
        "version_approved",
        "version_archived",
        "version_revived",
        "artifact_altered",
        "artifact_restored",
    }
)
"""The events of a version that an answer refers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found of a prediction. The events are those of the version's stream, `problems` those of all streams."""

    claim: PredictionId
    publication: Publication
    promotion: AuditEvent | None
    rollout: Rollout
    version: ModelVersion
    version_events: list[AuditEvent]
    aliases: list[str]
    problems: list[Problem]


def lineage_of(found: Found) -> Lineage:
    """The lineage that these records come to."""
    claim, promotion = found.claim, found.promotion
    problems = [*found.problems, *_contradictions(found)]
    told = [event for event in found.version_events if event.kind in _TOLD]
    decisions = {event.seq: event for event in (promotion, found.publication.event) if event is not None}
    return Lineage(
        prediction_id=str(claim),
        prediction=Claim(
            endpoint=claim.endpoint,
            version=claim.version,
            generation=claim.generation,
            role=claim.role,
            reason=claim.reason,
            pod=claim.pod,
            at=claim.at,
            count=claim.count,
        ),
        version=_made(found.version),
        generation=_generation(found.publication, found.rollout),
        promotion=decision_of(promotion) if promotion else None,
        aliases=found.aliases,
        audit=AuditFound(
            verified=not problems,
            problems=problems,
            references=[reference_to(event) for event in (*told, *(decisions[seq] for seq in sorted(decisions)))],
        ),
    )


def _made(version: ModelVersion) -> Made:
    return Made(
        model=version.model,
        version=version.version,
        state=version.state,
        altered=version.altered,
        drop=version.drop,
        digest=version.digest,
        artifact_digest=version.artifact_digest,
        artifact_size_bytes=version.artifact_size_bytes,
        model_file=version.model_file,
        external=version.external,
        registered_at=version.registered_at,
        signed_by=version.signed_by,
        signature_digest=version.signing.digest if version.signing else None,
        manifest=version.manifest,
        data=Data(
            training_data_version=version.manifest.training_data_version,
            validation_digest=version.validation_digest,
            reference_digest=version.reference_digest,
            golden_digest=version.golden_digest,
            profile_digest=version.profile_digest,
            performance_digest=version.performance_digest,
        ),
        validation=_validated(version),
        approvals=version.approvals,
    )


def _validated(version: ModelVersion) -> Validated | None:
    if version.validation is None:
        return None
    return Validated(
        outcome=version.validation.outcome,
        decided_at=version.decided_at,
        metrics=version.validation.metrics,
        policy_version=version.validation.policy_version,
        report=f"/api/models/{version.model}/versions/{version.version}/report",
    )


def _generation(publication: Publication, rollout: Rollout) -> GenerationThen:
    event = publication.event
    return GenerationThen(
        generation=event.data["generation"],
        published_at=event.at,
        superseded_at=publication.superseded_at,
        routes=list(publication.routes),
        rollout=RolloutThen(
            rollout_id=rollout.rollout_id,
            version=rollout.candidate.version,
            stable=rollout.stable.version if rollout.stable else None,
            strategy=rollout.policy.strategy,
            stage=event.data.get("stage"),
            stages=len(rollout.policy.stages),
            weight_bp=event.data.get("weight_bp", 0),
            policy_version=rollout.policy_version,
            forced=rollout.forced,
            requested_by=rollout.requested_by,
            started_at=rollout.started_at,
            state=rollout.state,
        ),
        decision=decision_of(event),
    )


def _contradictions(found: Found) -> list[Problem]:
    """What the version's document says otherwise than the audit of its registration and of the plan."""
    version, publication = found.version, found.publication
    problems = []
    registered = next((event for event in found.version_events if event.kind == "version_registered"), None)
    if registered is None:
        problems.append(Problem(stream=version.stream, seq=0, problem="no event tells of its registration"))
    else:
        facts: dict[str, Any] = version_facts(version)
        problems += [
            Problem(
                stream=version.stream,
                seq=registered.seq,
                problem=f"it was registered with the {name} {registered.data.get(name)!r}, and its document has "
                f"{facts[name]!r}",
            )
            for name in _AUDITED
            if registered.data.get(name) != facts[name]
        ]
    problems += [
        Problem(
            stream=publication.event.stream,
            seq=publication.event.seq,
            problem=f"the plan named the artifact {route.artifact_digest} as version {route.version}, whose document "
            f"has {version.artifact_digest}",
        )
        for route in publication.routes
        if route.version == version.version and route.artifact_digest != version.artifact_digest
    ]
    return problems
