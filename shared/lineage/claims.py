"""What an id claims, held against what the audit says was published. Pure: no clock, no store.

Whoever shows an id may have made it up. It is borne out where its generation was published before its time and gave
its version the role that it names; what the records speak against is refused with what they say instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.audit.chain import AuditEvent
from shared.core.errors import ConflictError
from shared.lineage.documents import RouteThen
from shared.routing.plan import Role
from shared.routing.prediction import PredictionId, Reason

CLOCK_SKEW = timedelta(minutes=5)
"""How far a pod's clock may be from that of the functions before a time counts as a contradiction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A generation of an endpoint's plan, as the audit tells of it."""

    event: AuditEvent
    """The step that made it."""
    routes: tuple[RouteThen, ...]
    """Empty where the event does not hold them: an earlier Slipway recorded it."""
    superseded_at: datetime | None


def publication_of(events: Sequence[AuditEvent], generation: int) -> Publication | None:
    """A generation among the events of an endpoint, which are in their order. None where no event tells of it."""
    published = [event for event in events if "generation" in event.data]
    for event, following in zip(published, [*published[1:], None], strict=False):
        if event.data["generation"] == generation:
            return Publication(
                event=event,
                routes=tuple(RouteThen.model_validate(route) for route in event.data.get("routes", ())),
                superseded_at=following.at if following else None,
            )
    return None


def promotion_of(events: Sequence[AuditEvent], version: int, publication: Publication) -> AuditEvent | None:
    """The event that had made a version stable when a generation was published; None where it was not stable."""
    until = [event for event in events if event.seq <= publication.event.seq and event.kind == "rollout_promoted"]
    latest = until[-1] if until else None
    return latest if latest is not None and latest.data.get("version") == version else None


def check_claim(claim: PredictionId, publication: Publication, now: datetime) -> None:
    """Raise ConflictError, saying what is on record, where an id contradicts it."""
    named = f"generation {claim.generation} of endpoint {claim.endpoint}"
    published_at = publication.event.at
    if claim.at + CLOCK_SKEW < published_at:
        raise ConflictError(
            f"the id says that {named} answered at {_said(claim.at)}, and it was published at {_said(published_at)}"
        )
    if claim.at > now + CLOCK_SKEW:
        raise ConflictError(f"the id says that {named} answered at {_said(claim.at)}, which is still to come")
    if not publication.routes:
        return
    route = next((route for route in publication.routes if route.version == claim.version), None)
    if route is None or route.role is not claim.role:
        served = " and ".join(f"version {r.version} as {r.role} ({r.weight_bp} bp)" for r in publication.routes)
        raise ConflictError(f"version {claim.version} did not serve as {claim.role} under {named}, which held {served}")
    if claim.reason is Reason.ASSIGNED and route.role is Role.CANDIDATE and route.weight_bp == 0:
        raise ConflictError(f"version {claim.version} was given nobody under {named}: its share was 0")
    if claim.reason is not Reason.PINNED and route.role is Role.SHADOW:
        raise ConflictError(f"version {claim.version} was a shadow under {named}: it answers nobody unless it is named")
    if claim.reason is Reason.FALLBACK and route.role is not Role.STABLE:
        raise ConflictError(f"version {claim.version} was {route.role} under {named}: stable alone answers for others")


def _said(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
