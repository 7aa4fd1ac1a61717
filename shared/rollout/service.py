"""Rollouts: commands and ticks. The one writer of endpoints.

Each command or tick is one conditional change of the endpoint's document; the plan, the audit events and the next tick
leave through its outbox. A command or tick that comes again finds its effect and does nothing.
"""

import logging
from datetime import datetime, timedelta

from shared.core.clock import Clock
from shared.core.errors import ConflictError, NotFoundError
from shared.core.ids import EndpointName, VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, RolloutTick
from shared.registry.documents import ModelVersion, VersionState
from shared.registry.service import RegistryService
from shared.rollout.decide import Decision, decide
from shared.rollout.documents import (
    ENDPOINT_ID,
    Endpoint,
    Rollout,
    RolloutRecord,
    Target,
    automatic_command_id,
    rollout_id_of,
)
from shared.rollout.machine import RolloutEvent, RolloutState, next_state
from shared.routing.plan import plan_blob_name
from shared.store.aggregate import ArchiveEntry
from shared.store.ports import BlobContainer, BlobStore, Container, DocumentStore
from shared.store.repository import AggregatePage, Repository
from shared.telemetry.evidence import evidence_of, windows_since

_log = logging.getLogger(__name__)


class RolloutService:
    """Carries out rollout commands and ticks, and tells how endpoints stand."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        registry: RegistryService,
        documents: DocumentStore,
        blobs: BlobStore,
        clock: Clock,
    ) -> None:
        self._endpoints = endpoints
        self._registry = registry
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

    def rollouts(self, name: EndpointName) -> list[Rollout]:
        """The endpoint's rollouts, in the order of their start. Raises NotFoundError."""
        endpoint = self.endpoint(name)
        found = {record.rollout.rollout_id: record.rollout for record in self._records(name)}
        if endpoint.rollout:
            found[endpoint.rollout.rollout_id] = endpoint.rollout
        return sorted(found.values(), key=lambda rollout: rollout.started_at)

    def rollout(self, name: EndpointName, rollout_id: str) -> Rollout:
        """One rollout of an endpoint. Raises NotFoundError."""
        for rollout in self.rollouts(name):
            if rollout.rollout_id == rollout_id:
                return rollout
        raise NotFoundError(f"rollout {rollout_id} of endpoint {name}")

    def handle(self, command: RolloutCommand) -> Rollout | None:
        """Carry out a command once; again, answer with its rollout. None: it was queued, or there was nothing to do.

        Raises NotFoundError for an endpoint, version or rollout that does not exist, ConflictError where the state of
        the endpoint or the version does not allow it.
        """
        match command.command:
            case CommandKind.START:
                return self._start(command)
            case CommandKind.PROMOTE:
                return self._end_by_command(command, RolloutEvent.PROMOTE)
            case CommandKind.ABORT:
                return self._end_by_command(command, RolloutEvent.ABORT)

    def tick(self, message: RolloutTick) -> None:
        """Look at the evidence and move the rollout. A stale tick changes nothing."""
        endpoint = self._endpoints.find(message.endpoint, ENDPOINT_ID)
        if endpoint is None or not _is_next_tick(endpoint, message):
            _log.info("tick %s of %s is stale", message.tick, message.rollout_id)
            return
        rollout = endpoint.active
        assert rollout is not None  # noqa: S101 - _is_next_tick has seen it
        now = self._clock.now()
        since = rollout.stage_started_at or rollout.started_at
        evidence = evidence_of(windows_since(self._blobs, endpoint.endpoint, since, now), endpoint.generation)
        decision = decide(rollout, evidence, now)

        def apply(current: Endpoint) -> bool:
            if not _is_next_tick(current, message):
                return False
            self._apply(current, decision, message.tick, now)
            return True

        self._endpoints.change(message.endpoint, ENDPOINT_ID, apply)

    def resend_overdue(self, grace: timedelta) -> int:
        """Send again each tick and each queued start that is overdue by more than `grace`. Returns how many."""
        sent, now = 0, self._clock.now()

        def resend(endpoint: Endpoint) -> bool:
            if not _is_overdue(endpoint, now, grace):
                return False
            if endpoint.active:
                _schedule(endpoint, endpoint.active, now)
            else:
                _send_queued(endpoint, now)
            return True

        for endpoint in list(self._endpoints.where()):
            if _is_overdue(endpoint, now, grace):
                self._endpoints.change(endpoint.endpoint, ENDPOINT_ID, resend)
                sent += 1
        return sent

    def answers_automatic_start(self, version: ModelVersion) -> bool:
        """Whether the automatic start of a version has had its effect: begun, queued, or overtaken by a newer one."""
        endpoint = self._endpoints.find(version.model, ENDPOINT_ID)
        if endpoint is None:
            return False
        return (
            self._has_rolled_out(endpoint, version.version)
            or endpoint.queued_version == version.version
            or _is_overtaken(endpoint, version.version)
        )

    def _start(self, command: RolloutCommand) -> Rollout | None:
        if command.version is None:
            raise ConflictError("a start command needs a version")
        version = self._registry.version(command.endpoint, VersionNumber(command.version))
        if version.state is not VersionState.VALIDATED:
            raise ConflictError(
                f"version {version.version} of {version.model} is {version.state}: only a validated one can roll out"
            )
        policy = self._registry.model(command.endpoint).policy.rollout
        automatic = command.command_id == automatic_command_id(version.model, version.version)
        now = self._clock.now()
        rollout = Rollout(
            rollout_id=rollout_id_of(command.command_id, version.version),
            command_id=command.command_id,
            candidate=Target(
                version=version.version,
                artifact_digest=version.artifact_digest,
                size_bytes=version.artifact_size_bytes,
                golden_digest=version.golden_digest,
                model_file=version.model_file,
                external=tuple(version.external),
                signing=version.signing,
            ),
            stable=None,
            policy=policy,
            started_at=now,
            next_tick_at=now + timedelta(seconds=policy.tick_s),
            requested_by=command.requested_by,
            reason=command.reason,
        )

        def begin_by_policy(endpoint: Endpoint) -> bool:
            if self._has_rolled_out(endpoint, version.version) or _is_overtaken(endpoint, version.version):
                return _unqueue(endpoint, version.version)
            if endpoint.active:
                return _queue(endpoint, version.version, now)
            _begin(endpoint, rollout, now)
            return True

        def begin_by_command(endpoint: Endpoint) -> bool:
            if self._has_begun(endpoint, rollout.rollout_id):
                return False
            _check_free(endpoint, version.version)
            _begin(endpoint, rollout, now)
            return True

        self._endpoints.find_or_create(Endpoint(endpoint=command.endpoint))
        begin = begin_by_policy if automatic else begin_by_command
        endpoint = self._endpoints.change(command.endpoint, ENDPOINT_ID, begin)
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout.rollout_id:
            return endpoint.rollout
        return None if automatic else self.rollout(EndpointName(command.endpoint), rollout.rollout_id)

    def _end_by_command(self, command: RolloutCommand, event: RolloutEvent) -> Rollout:
        now = self._clock.now()

        def end(endpoint: Endpoint) -> bool:
            rollout = endpoint.rollout
            if rollout is None or (command.rollout_id and rollout.rollout_id != command.rollout_id):
                raise NotFoundError(
                    f"rollout {command.rollout_id or ''} of endpoint {endpoint.endpoint}",
                    hint="only the latest one can be promoted or aborted",
                )
            if rollout.state is next_state(RolloutState.PROGRESSING, event) and rollout.ended_by == command.command_id:
                return False
            rollout.ended_by = command.command_id
            _move(endpoint, rollout, event, now, reason=command.reason or f"{event} by {command.requested_by}")
            return True

        endpoint = self._endpoints.change(command.endpoint, ENDPOINT_ID, end)
        if endpoint.rollout is None:
            raise NotFoundError(f"a rollout of endpoint {command.endpoint}")
        return endpoint.rollout

    def _apply(self, endpoint: Endpoint, decision: Decision, tick: int, now: datetime) -> None:
        rollout = endpoint.active
        assert rollout is not None  # noqa: S101 - the caller has seen it
        rollout.tick = tick
        rollout.verdicts = list(decision.verdicts)
        if decision.failed_checks > rollout.failed_checks:
            endpoint.record(
                "check_failed",
                now,
                rollout_id=rollout.rollout_id,
                failed_checks=decision.failed_checks,
                verdicts=[verdict.model_dump(mode="json") for verdict in decision.verdicts],
            )
        rollout.failed_checks = decision.failed_checks
        if decision.event:
            _move(endpoint, rollout, decision.event, now, reason=decision.reason)
        if not rollout.state.is_over:
            rollout.reason = decision.reason
            _schedule(endpoint, rollout, now + timedelta(seconds=rollout.policy.tick_s))

    def _has_begun(self, endpoint: Endpoint, rollout_id: str) -> bool:
        """Whether a start command has had its rollout, under way or over."""
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return True
        if any(record.id == rollout_id for record in _records_waiting(endpoint)):
            return True
        return self._documents.get(Container.ENDPOINTS, endpoint.endpoint, rollout_id) is not None

    def _has_rolled_out(self, endpoint: Endpoint, version: int) -> bool:
        """Whether a version has had a rollout, by policy or by hand: then policy starts no other."""
        if endpoint.rollout and endpoint.rollout.candidate.version == version:
            return True
        if any(record.version == version for record in _records_waiting(endpoint)):
            return True
        page = self._documents.query(
            Container.ENDPOINTS, partition=endpoint.endpoint, where={"kind": "rollout", "version": version}
        )
        return bool(page.items) or page.continuation is not None

    def _records(self, name: str) -> list[RolloutRecord]:
        continuation, records = None, []
        while True:
            page = self._documents.query(
                Container.ENDPOINTS, partition=name, where={"kind": "rollout"}, continuation=continuation
            )
            records += [RolloutRecord.model_validate(stored.body) for stored in page.items]
            if page.continuation is None:
                return records
            continuation = page.continuation


def _is_next_tick(endpoint: Endpoint, message: RolloutTick) -> bool:
    rollout = endpoint.active
    return rollout is not None and rollout.rollout_id == message.rollout_id and message.tick == rollout.tick + 1


def _is_overtaken(endpoint: Endpoint, version: int) -> bool:
    """Whether an automatic start of the version would take its endpoint back in time."""
    newest = [endpoint.stable.version if endpoint.stable else 0, endpoint.queued_version or 0]
    if endpoint.rollout:
        newest.append(endpoint.rollout.candidate.version)
    return version < max(newest)


def _records_waiting(endpoint: Endpoint) -> list[RolloutRecord]:
    """The archived rollouts that are still in the endpoint's outbox."""
    return [RolloutRecord.model_validate(entry.body) for entry in endpoint.outbox if isinstance(entry, ArchiveEntry)]


def _check_free(endpoint: Endpoint, version: int) -> None:
    if endpoint.active:
        raise ConflictError(
            f"rollout {endpoint.active.rollout_id} of version {endpoint.active.candidate.version} is under way on "
            f"endpoint {endpoint.endpoint}: promote or abort it first"
        )
    if endpoint.stable and endpoint.stable.version == version:
        raise ConflictError(f"version {version} is the stable version of {endpoint.endpoint} already")


def _begin(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    endpoint.rollout = rollout.model_copy(update={"stable": endpoint.stable})
    _unqueue(endpoint, rollout.candidate.version)
    _publish(endpoint)
    endpoint.record(
        "rollout_started",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stable=endpoint.stable.version if endpoint.stable else None,
        strategy=rollout.policy.strategy,
        generation=endpoint.generation,
        requested_by=rollout.requested_by,
        reason=rollout.reason,
    )
    _schedule(endpoint, endpoint.rollout, rollout.next_tick_at)


def _is_overdue(endpoint: Endpoint, now: datetime, grace: timedelta) -> bool:
    if endpoint.active:
        return now - endpoint.active.next_tick_at > grace
    ended_at = endpoint.rollout.ended_at if endpoint.rollout else None
    return endpoint.queued_version is not None and ended_at is not None and now - ended_at > grace


def _queue(endpoint: Endpoint, version: int, now: datetime) -> bool:
    if endpoint.queued_version == version:
        return False
    endpoint.queued_version = version
    endpoint.record("rollout_queued", now, version=version)
    return True


def _unqueue(endpoint: Endpoint, version: int) -> bool:
    if endpoint.queued_version != version:
        return False
    endpoint.queued_version = None
    return True


def _send_queued(endpoint: Endpoint, now: datetime) -> None:
    """Ask for the start of the queued version. It stays queued until it begins, lest the command be lost."""
    if endpoint.queued_version is None:
        return
    endpoint.send(
        RolloutCommand(
            command=CommandKind.START,
            command_id=automatic_command_id(endpoint.endpoint, endpoint.queued_version),
            endpoint=endpoint.endpoint,
            version=endpoint.queued_version,
            requested_by="policy",
            reason=f"queued until the rollout before it was over at {now.isoformat()}",
        )
    )


def _schedule(endpoint: Endpoint, rollout: Rollout, at: datetime) -> None:
    rollout.next_tick_at = at
    endpoint.send(
        RolloutTick(endpoint=endpoint.endpoint, rollout_id=rollout.rollout_id, tick=rollout.tick + 1), not_before=at
    )


def _publish(endpoint: Endpoint) -> None:
    endpoint.generation += 1
    plan = endpoint.plan()
    assert plan is not None  # noqa: S101 - the generation is not 0
    endpoint.publish(
        BlobContainer.ROUTES,
        plan_blob_name(endpoint.endpoint),
        plan.model_dump(mode="json"),
        generation=endpoint.generation,
    )


def _move(endpoint: Endpoint, rollout: Rollout, event: RolloutEvent, now: datetime, *, reason: str) -> None:
    rollout.state = next_state(rollout.state, event)
    rollout.reason = reason
    rollout.failed_checks = 0
    if rollout.state.is_over:
        rollout.ended_at = now
        if rollout.state is RolloutState.PROMOTED:
            endpoint.stable = rollout.candidate
        endpoint.archive(
            Container.ENDPOINTS,
            RolloutRecord(
                id=rollout.rollout_id, endpoint=endpoint.endpoint, version=rollout.candidate.version, rollout=rollout
            ).model_dump(mode="json"),
        )
        _send_queued(endpoint, now)
        kind = f"rollout_{rollout.state}"
    else:
        rollout.stage = 0 if rollout.stage is None else rollout.stage + 1
        rollout.stage_started_at = now
        kind = "stage_started"
    _publish(endpoint)
    endpoint.record(
        kind,
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stage=rollout.stage,
        weight_bp=rollout.weight_bp,
        generation=endpoint.generation,
        reason=reason,
        verdicts=[verdict.model_dump(mode="json") for verdict in rollout.verdicts],
    )
