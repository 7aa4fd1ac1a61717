"""Rollouts: commands and ticks. The one writer of endpoints.

Each command or tick is one conditional change of the endpoint's document; the plan, the audit events and the next tick
leave through its outbox. A command or tick that comes again finds its effect and does nothing.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from pydantic import ValidationError

from shared.budgets.sums import SUMS_ID, RequestSums
from shared.core import tracing
from shared.core.clock import Clock
from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.ids import EndpointName, ModelName, VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, RolloutTick
from shared.registry.alias_service import AliasService
from shared.registry.documents import ModelVersion, VersionState
from shared.registry.service import RegistryService
from shared.rollout import admission, alias_calls, blocks, commands, late, overrides, reverts, ticks
from shared.rollout.archiving import Archiving
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.findings import DriftEvidence, DriftFindings
from shared.rollout.history import History
from shared.rollout.machine import RolloutState
from shared.rollout.progress import FORGOTTEN
from shared.rollout.publishing import schedule
from shared.rollout.queries import MetricsStores, QueryAnswer, ask_all
from shared.rollout.rollbacks import Rollback
from shared.rollout.starting import Starting
from shared.routing.plan import Role
from shared.store.ports import BlobStore, Container, DocumentStore
from shared.store.repository import AggregatePage, Repository
from shared.store.unreadable import Unreadable, leaving_out
from shared.telemetry.evidence import windows_after

_LATENESS = timedelta(minutes=10)
"""A window that is written later than this after the tick that should have read it is left out."""
_BEFORE_ROLLBACK = timedelta(minutes=1)
"""Once a rollout is over nothing older than this before its end or rollback says whether the pods applied that."""

_TAKES_BACK = frozenset({CommandKind.REJECT, CommandKind.ABORT, CommandKind.ROLLBACK})
"""Commands that are carried out whatever can be read of the candidate and of what blocks it."""

_log = logging.getLogger(__name__)


class RolloutService:
    """Carries out rollout commands and ticks, and tells how endpoints stand."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        registry: RegistryService,
        aliases: AliasService,
        documents: DocumentStore,
        blobs: BlobStore,
        clock: Clock,
        stores: MetricsStores | None = None,
        findings: DriftFindings | None = None,
    ) -> None:
        """`stores` answer the queries of gates; `findings` tell what watching found of candidates."""
        self._findings = findings
        self._stores: MetricsStores = {} if stores is None else stores
        self._history = History(documents)
        self._starting = Starting(
            endpoints=endpoints, registry=registry, history=self._history, blocked=self._blocked, clock=clock
        )
        self._archiving = Archiving(endpoints=endpoints, versions=registry, aliases=aliases)
        self._endpoints = endpoints
        self._registry = registry
        self._aliases = aliases
        self._documents = documents
        self._blobs = blobs
        self._clock = clock

    def endpoint(self, name: EndpointName) -> Endpoint:
        """An endpoint as it stands. Raises NotFoundError."""
        found = self._endpoints.find(name, ENDPOINT_ID)
        if found is None:
            raise NotFoundError(f"endpoint {name}", hint="it comes to be with the first rollout of its model")
        return found

    def endpoints(self, continuation: str | None = None) -> AggregatePage[Endpoint]:
        """A page of all endpoints."""
        return self._endpoints.page(continuation=continuation)

    def rollouts(self, name: EndpointName, unreadable: list[Unreadable] | None = None) -> list[Rollout]:
        """The endpoint's rollouts, in the order of their start. Raises NotFoundError."""
        return self._history.rollouts(self.endpoint(name), unreadable)

    def rollout(self, name: EndpointName, rollout_id: str) -> Rollout:
        """One rollout of an endpoint. Raises NotFoundError."""
        return self._history.rollout(self.endpoint(name), rollout_id)

    def rollbacks(self, name: EndpointName, unreadable: list[Unreadable] | None = None) -> list[Rollback]:
        """The endpoint's rollbacks, in their order. Raises NotFoundError."""
        return self._history.rollbacks(self.endpoint(name), unreadable)

    def rollbacks_of_all(
        self, endpoints: Sequence[Endpoint], unreadable: list[Unreadable]
    ) -> dict[str, list[Rollback]]:
        """The rollbacks of each of several endpoints by its name, in their order, as far as they can be read."""
        return self._history.rollbacks_of_all(endpoints, unreadable)

    def handle(self, command: RolloutCommand) -> Rollout | None:
        """Carry out a command once; again, answer with its rollout. None: it was queued, or there was nothing to do.

        Raises NotFoundError for an endpoint, version or rollout that does not exist, ConflictError where the state of
        the endpoint or the version does not allow it, InvalidInputError for a command that says too little.
        """
        if command.command is CommandKind.START:
            return self._starting.start(command)
        return self._command(command)

    def tick(self, message: RolloutTick) -> None:
        """Look at the evidence and move the rollout. A stale tick changes nothing."""
        endpoint = self._endpoints.find(message.endpoint, ENDPOINT_ID)
        if endpoint is None or not _is_next_tick(endpoint, message):
            _log.info("tick %s of %s is stale", message.tick, message.rollout_id)
            return
        looked_at = endpoint.rollout
        assert looked_at is not None  # noqa: S101 - _is_next_tick has seen it
        tracing.learn(version=looked_at.candidate.version)
        now = self._clock.now()
        progress = looked_at.progress
        marks = {pod: seen.sequence for pod, seen in progress.pods.items()}
        since = max(looked_at.started_at, (progress.looked_at or looked_at.started_at) - _LATENESS, now - FORGOTTEN)
        if looked_at.state.is_over and looked_at.feedback_until is None:
            # It may have been over for months, and the pods have written windows ever since.
            since = max(since, _taken_at(endpoint) - _BEFORE_ROLLBACK)
        earliest = max(looked_at.started_at, now - FORGOTTEN)
        windows = list(windows_after(self._blobs, endpoint.endpoint, marks, since, now, earliest=earliest))
        answers = self._ask(endpoint, looked_at, now)
        drift = self._drift(endpoint.endpoint, looked_at)

        def apply(current: Endpoint) -> bool:
            if not _is_next_tick(current, message):
                return False
            rollout = current.rollout
            assert rollout is not None  # noqa: S101 - _is_next_tick has seen it
            rollout.tick = message.tick
            rollout.progress = ticks.took_in(rollout, windows, current.generation, now=now)
            overrides.put_on_record(current, rollout, now)
            ticks.confirm_rollback(current, rollout, now)
            ticks.confirm_unapplied(current, rollout, now)
            if rollout.state.is_over:
                late.look(current, rollout, now, partial(self._unfit, current))
                return True
            candidate = self._registry.version(current.endpoint, VersionNumber(rollout.candidate.version))
            blocked = "" if rollout.overridden else self._blocked(current, now)
            unfit = partial(self._unfit, current)
            rollout.drift = drift
            ticks.look(current, rollout, now, altered=candidate.altered, blocked=blocked, answers=answers, unfit=unfit)
            return True

        self._endpoints.change(message.endpoint, ENDPOINT_ID, apply)

    def clear_quarantine(self, name: EndpointName, version: int, *, by: str, reason: str) -> Endpoint:
        """Let rollouts of a version that failed begin again. Raises NotFoundError, InvalidInputError."""
        if not by.strip() or not reason.strip():
            raise InvalidInputError("clearing a quarantine needs a name and a reason, which go into the audit")
        now = self._clock.now()
        return self._endpoints.change(
            name, ENDPOINT_ID, lambda endpoint: reverts.clear_quarantine(endpoint, version, now, by=by, reason=reason)
        )

    def _ask(self, endpoint: Endpoint, rollout: Rollout, now: datetime) -> dict[str, QueryAnswer]:
        """What the queries of the rollout's gates come to."""
        if rollout.state.is_over or rollout.state is RolloutState.LOADING:
            return {}
        return ask_all(rollout.gates.queries, self._stores, endpoint.endpoint, rollout, now)

    def _blocked(self, endpoint: Endpoint, now: datetime) -> str:
        """Why no candidate of the endpoint may get more traffic now, in words; empty where it may.

        What cannot be read blocks, and keeps nobody from taking a candidate back.
        """
        try:
            return self._why_blocked(endpoint, now)
        except (ValidationError, UnavailableError) as error:
            found = blocks.unreadable(error)
            _log.warning("endpoint %s: %s", endpoint.endpoint, found)
            return found

    def _why_blocked(self, endpoint: Endpoint, now: datetime) -> str:
        policy = self._registry.model(endpoint.endpoint).policy.rollout
        sums = None
        if policy.error_budget and (stored := self._documents.get(Container.ENDPOINTS, endpoint.endpoint, SUMS_ID)):
            sums = RequestSums.model_validate(stored.body)
        elif endpoint.stable is None:
            # Nothing serves there yet, and nothing is counted of an endpoint that has no document.
            sums = RequestSums(endpoint=endpoint.endpoint, since=now, whole_at=now)
        return blocks.why_blocked(policy, now, sums)

    def _drift(self, endpoint: str, rollout: Rollout) -> DriftEvidence | None:
        """What watching found; where that cannot be told, what it had found at the last tick."""
        role = Role.SHADOW if rollout.mirror_bp else Role.CANDIDATE
        if self._findings is None:
            return None
        try:
            return self._findings.of_candidate(endpoint, rollout.candidate.version, role, since=rollout.started_at)
        except UnavailableError as error:
            _log.warning("what watching found of %s cannot be told: %s", endpoint, error)
            return rollout.drift

    def _command(self, command: RolloutCommand) -> Rollout:
        now = self._clock.now()

        def change(endpoint: Endpoint) -> bool:
            altered = author = ""
            if endpoint.active and command.command not in _TAKES_BACK:
                candidate = self._registry.version(endpoint.endpoint, VersionNumber(endpoint.active.candidate.version))
                altered, author = candidate.altered, candidate.author

            def blocked() -> str:
                return "" if endpoint.active and endpoint.active.overridden else self._blocked(endpoint, now)

            unfit = self._unfit(endpoint) if command.command is CommandKind.ROLLBACK else frozenset()
            return commands.apply(endpoint, command, now, altered=altered, blocked=blocked, author=author, unfit=unfit)

        endpoint = self._endpoints.change(command.endpoint, ENDPOINT_ID, change)
        assert endpoint.rollout is not None  # noqa: S101 - a command without one was refused
        return self._history.rollout(endpoint, command.rollout_id or endpoint.rollout.rollout_id)

    def _unfit(self, endpoint: Endpoint) -> frozenset[int]:
        """The versions that served well and that nothing may go back to: a stored part of them is altered."""
        versions = (self._registry.version(endpoint.endpoint, VersionNumber(t.version)) for t in endpoint.good)
        return frozenset(found.version for found in versions if found.altered)

    def resend_overdue(self, grace: timedelta) -> int:
        """Send again each queued start and call for an alias that is overdue by more than `grace`, and each tick that
        is overdue (shared.rollout.admission). How many.
        """
        sent, now = 0, self._clock.now()

        def resend(endpoint: Endpoint) -> bool:
            if not admission.is_overdue(endpoint, now, grace):
                return False
            ticking = endpoint.ticking
            if ticking and admission.is_tick_overdue(endpoint, now, grace):
                schedule(endpoint, ticking, now)
            if admission.is_queue_overdue(endpoint, now, grace):
                admission.send_queued(endpoint, now)
            return True

        for endpoint in list(self._endpoints.readable()):
            if admission.is_overdue(endpoint, now, grace):
                self._endpoints.change(endpoint.endpoint, ENDPOINT_ID, resend)
                sent += 1
            with leaving_out(f"an alias of {endpoint.endpoint}"):
                sent += self._call_aliases_again(endpoint, now, grace)
        return sent

    def answers_automatic_start(self, version: ModelVersion) -> bool:
        """Whether the automatic start of a version has had its effect: begun, queued, or overtaken by a newer one."""
        endpoint = self._endpoints.find(version.model, ENDPOINT_ID)
        if endpoint is None:
            return False
        return (
            self._history.has_rolled_out(endpoint, version.version)
            or endpoint.queued_version == version.version
            or admission.is_overtaken(endpoint, version.version)
        )

    def archive(
        self, name: ModelName, number: VersionNumber, *, by: str, reason: str, only: VersionState | None = None
    ) -> ModelVersion:
        """Take a version out of use for good; again, answer the version as it stands.

        Raises NotFoundError; ConflictError where it serves, rolls out, waits to, would be rolled back to, has an alias,
        or is in another state than `only`, if that is given.
        """
        return self._archiving.archive(name, number, by=by, reason=reason, only=only)

    def _call_aliases_again(self, endpoint: Endpoint, now: datetime, grace: timedelta) -> int:
        due = [call.move for call in endpoint.alias_calls if now - call.sent_at > grace]
        if not due:
            return 0
        heard = {(move.alias, move.generation) for move in due if self._aliases.has_heard(move)}
        self._endpoints.change(
            endpoint.endpoint, ENDPOINT_ID, lambda current: alias_calls.call_again(current, heard, now, grace)
        )
        return len(due) - len(heard)


def _taken_at(endpoint: Endpoint) -> datetime:
    """Since when the pods of an endpoint whose rollout is over are to apply what takes traffic away."""
    found = [endpoint.rollback.detected_at] if endpoint.rollback else []
    return min([*found, *([endpoint.unapplied.at] if endpoint.unapplied else [])])


def _is_next_tick(endpoint: Endpoint, message: RolloutTick) -> bool:
    rollout = endpoint.ticking
    return rollout is not None and rollout.rollout_id == message.rollout_id and message.tick == rollout.tick + 1
