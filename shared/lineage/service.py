"""Answers where a prediction came from: its id, held against the registry, the rollouts and the audit, in one call.

Reads alone; nothing is stored for a prediction. What an id claims and the records contradict is a ConflictError.
"""

from datetime import datetime

from pydantic import ValidationError

from shared.audit.chain import AuditEvent, Problem, problems_of
from shared.audit.service import AuditService
from shared.core.clock import Clock
from shared.core.errors import IntegrityError, NotFoundError
from shared.core.ids import VersionNumber
from shared.lineage.assembly import Found, lineage_of
from shared.lineage.claims import Publication, check_claim, promotion_of, publication_of
from shared.lineage.documents import Lineage
from shared.registry.alias_service import AliasService
from shared.registry.aliases import CHALLENGER, CHAMPION, PRODUCTION, AliasName
from shared.registry.documents import ModelVersion
from shared.registry.service import RegistryService
from shared.rollout.endpoint import Endpoint
from shared.rollout.service import RolloutService
from shared.routing.prediction import PredictionId
from shared.store.aggregate import Aggregate, AuditEntry

_FOLLOWING = (CHAMPION, CHALLENGER, PRODUCTION)


class LineageService:
    """Looks up predictions."""

    def __init__(
        self,
        *,
        registry: RegistryService,
        aliases: AliasService,
        rollouts: RolloutService,
        audit: AuditService,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._aliases = aliases
        self._rollouts = rollouts
        self._audit = audit
        self._clock = clock

    def lineage(self, claim: PredictionId) -> Lineage:
        """A prediction's lineage.

        Raises NotFoundError where the endpoint, its generation or the version does not exist, ConflictError where the
        records contradict the id, IntegrityError where the audit lacks a generation that was published.
        """
        endpoint = self._rollouts.endpoint(claim.endpoint)
        if claim.generation > endpoint.generation:
            raise NotFoundError(
                f"generation {claim.generation} of endpoint {claim.endpoint}",
                hint=f"the latest is {endpoint.generation}; no server that Slipway told what to serve gave this id",
            )
        version = self._registry.version(claim.endpoint, VersionNumber(claim.version))
        try:
            return self._lineage(claim, endpoint, version)
        except (KeyError, ValidationError) as error:
            raise IntegrityError(
                f"an event of the audit stream {endpoint.stream} is not what was written: "
                f"`slipway audit verify {endpoint.stream}` shows which"
            ) from error

    def _lineage(self, claim: PredictionId, endpoint: Endpoint, version: ModelVersion) -> Lineage:
        events, problems = self._stream(endpoint)
        publication = publication_of(events, claim.generation)
        if publication is None:
            raise IntegrityError(
                f"generation {claim.generation} of endpoint {claim.endpoint} was published, and its audit stream "
                f"tells nothing of it: `slipway audit verify {endpoint.stream}` shows where the stream is broken"
            )
        check_claim(claim, publication, self._clock.now())
        version_events, version_problems = self._stream(version)
        found = Found(
            claim=claim,
            publication=publication,
            promotion=promotion_of(events, claim.version, publication),
            rollout=self._rollouts.rollout(claim.endpoint, str(publication.event.data["rollout_id"])),
            version=version,
            version_events=version_events,
            aliases=self._aliases_then(claim, publication),
            problems=[*problems, *version_problems],
        )
        return lineage_of(found)

    def _stream(self, subject: Aggregate) -> tuple[list[AuditEvent], list[Problem]]:
        """A stream's events, delivered or waiting, up to where its subject stood, and what is wrong with them."""
        waiting = {entry.event.seq: entry.event for entry in subject.outbox if isinstance(entry, AuditEntry)}
        try:
            delivered = self._audit.events(subject.stream)
        except NotFoundError:
            delivered = []
        # The subject was read before: what it was waiting to deliver is in one of the two, what came later in none.
        known = waiting | {event.seq: event for event in delivered if event.seq <= subject.audit.seq}
        events = [known[seq] for seq in sorted(known)]
        return events, problems_of(subject.stream, events, subject.audit)

    def _aliases_then(self, claim: PredictionId, publication: Publication) -> list[str]:
        # An id tells whole seconds, and clocks differ: what the generation's own step called for holds under it.
        when = min(max(claim.at, publication.event.at), self._clock.now())
        names = {alias.alias for alias in self._aliases.aliases(claim.endpoint)} | set(_FOLLOWING)
        return sorted(name for name in names if self._named(claim, name, when) == claim.version)

    def _named(self, claim: PredictionId, name: str, when: datetime) -> int | None:
        try:
            move = self._aliases.at(claim.endpoint, AliasName(name), when)
        except NotFoundError:
            return None
        return move.version if move else None
