"""Rollouts: commands and ticks. The one writer of endpoints.

Each command or tick is one conditional change of the endpoint's document; the plan, the audit events and the next tick
leave through its outbox. A command or tick that comes again finds its effect and does nothing.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.core.clock import Clock
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError
from shared.core.ids import EndpointName, ModelName, VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, RolloutTick
from shared.registry.alias_service import AliasService
from shared.registry.documents import Model, ModelVersion, VersionState
from shared.registry.rollout_policy import WhenBusy
from shared.registry.service import RegistryService
from shared.rollout import blocks, commands, starts, steps, ticks
from shared.rollout.documents import (
    ENDPOINT_ID,
    Endpoint,
    Rollout,
    RolloutRecord,
    Target,
    automatic_command_id,
    rollout_id_of,
)
from shared.rollout.queries import MetricsStores, QueryAnswer, ask
from shared.store.ports import BlobStore, Container, DocumentStore
from shared.store.repository import AggregatePage, Repository
from shared.telemetry.evidence import windows_after

_log = logging.getLogger(__name__)


class _Start(NamedTuple):
    """What there is to begin: a version and its model as they stand, and the rollout that this comes to."""

    version: ModelVersion
    model: Model
    rollout: Rollout


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
    ) -> None:
        """`stores` answer the queries of gates."""
        self._stores = stores or {}
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

    def rollouts(self, name: EndpointName) -> list[Rollout]:
        """The endpoint's rollouts, in the order of their start. Raises NotFoundError."""
        endpoint = self.endpoint(name)
        found = {record.rollout.rollout_id: record.rollout for record in self._records(name)}
        if endpoint.rollout:
            found[endpoint.rollout.rollout_id] = endpoint.rollout
        return sorted(found.values(), key=lambda rollout: rollout.started_at)

    def rollout(self, name: EndpointName, rollout_id: str) -> Rollout:
        """One rollout of an endpoint. Raises NotFoundError."""
        endpoint = self.endpoint(name)
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return endpoint.rollout
        for record in steps.records_waiting(endpoint):
            if record.id == rollout_id:
                return record.rollout
        stored = self._documents.get(Container.ENDPOINTS, name, rollout_id)
        if stored is None or stored.body["kind"] != "rollout":
            raise NotFoundError(f"rollout {rollout_id} of endpoint {name}")
        return RolloutRecord.model_validate(stored.body).rollout

    def handle(self, command: RolloutCommand) -> Rollout | None:
        """Carry out a command once; again, answer with its rollout. None: it was queued, or there was nothing to do.

        Raises NotFoundError for an endpoint, version or rollout that does not exist, ConflictError where the state of
        the endpoint or the version does not allow it, InvalidInputError for a command that says too little.
        """
        if command.command is CommandKind.START:
            return self._start(command)
        return self._command(command)

    def tick(self, message: RolloutTick) -> None:
        """Look at the evidence and move the rollout. A stale tick changes nothing."""
        endpoint = self._endpoints.find(message.endpoint, ENDPOINT_ID)
        if endpoint is None or not _is_next_tick(endpoint, message):
            _log.info("tick %s of %s is stale", message.tick, message.rollout_id)
            return
        looked_at = endpoint.rollout
        assert looked_at is not None  # noqa: S101 - _is_next_tick has seen it
        now = self._clock.now()
        marks = {pod: seen.sequence for pod, seen in looked_at.progress.pods.items()}
        windows = list(windows_after(self._blobs, endpoint.endpoint, marks, looked_at.started_at, now))
        answers = self._ask(endpoint, looked_at, now)

        def apply(current: Endpoint) -> bool:
            if not _is_next_tick(current, message):
                return False
            rollout = current.rollout
            assert rollout is not None  # noqa: S101 - _is_next_tick has seen it
            rollout.tick = message.tick
            rollout.progress = ticks.took_in(rollout, windows, current.generation)
            ticks.confirm_rollback(current, rollout, now)
            if rollout.state.is_over:
                return True
            candidate = self._registry.version(current.endpoint, VersionNumber(rollout.candidate.version))
            blocked = "" if rollout.overridden else self._blocked(current, now)
            ticks.look(current, rollout, now, altered=candidate.altered, blocked=blocked, answers=answers)
            return True

        self._endpoints.change(message.endpoint, ENDPOINT_ID, apply)

    def clear_quarantine(self, name: EndpointName, version: int, *, by: str, reason: str) -> Endpoint:
        """Let rollouts of a version that failed begin again. Raises NotFoundError, InvalidInputError."""
        if not by.strip() or not reason.strip():
            raise InvalidInputError("clearing a quarantine needs a name and a reason, which go into the audit")
        now = self._clock.now()
        return self._endpoints.change(
            name, ENDPOINT_ID, lambda endpoint: steps.clear_quarantine(endpoint, version, now, by=by, reason=reason)
        )

    def _ask(self, endpoint: Endpoint, rollout: Rollout, now: datetime) -> dict[str, QueryAnswer]:
        """What the queries of the rollout's gates come to."""
        if rollout.state.is_over or rollout.stage_started_at is None:
            return {}
        return {
            query.name: ask(query, self._stores, endpoint.endpoint, rollout, now) for query in rollout.gates.queries
        }

    def _blocked(self, endpoint: Endpoint, now: datetime) -> str:
        """Why no candidate of the endpoint may get more traffic now, in words; empty where it may."""
        policy = self._registry.model(endpoint.endpoint).policy.rollout
        return blocks.why_blocked(policy, now)

    def _command(self, command: RolloutCommand) -> Rollout:
        now = self._clock.now()

        def change(endpoint: Endpoint) -> bool:
            altered = blocked = author = ""
            if endpoint.active:
                candidate = self._registry.version(endpoint.endpoint, VersionNumber(endpoint.active.candidate.version))
                altered, author = candidate.altered, candidate.author
                blocked = "" if endpoint.active.overridden else self._blocked(endpoint, now)
            return commands.apply(endpoint, command, now, altered=altered, blocked=blocked, author=author)

        endpoint = self._endpoints.change(command.endpoint, ENDPOINT_ID, change)
        assert endpoint.rollout is not None  # noqa: S101 - a command without one was refused
        return endpoint.rollout

    def resend_overdue(self, grace: timedelta) -> int:
        """Send again each tick, queued start and call for an alias that is overdue by more than `grace`. How many."""
        sent, now = 0, self._clock.now()

        def resend(endpoint: Endpoint) -> bool:
            if not steps.is_overdue(endpoint, now, grace):
                return False
            if endpoint.ticking:
                steps.schedule(endpoint, endpoint.ticking, now)
            else:
                steps.send_queued(endpoint, now)
            return True

        for endpoint in list(self._endpoints.where()):
            if steps.is_overdue(endpoint, now, grace):
                self._endpoints.change(endpoint.endpoint, ENDPOINT_ID, resend)
                sent += 1
            sent += self._call_aliases_again(endpoint, now, grace)
        return sent

    def answers_automatic_start(self, version: ModelVersion) -> bool:
        """Whether the automatic start of a version has had its effect: begun, queued, or overtaken by a newer one."""
        endpoint = self._endpoints.find(version.model, ENDPOINT_ID)
        if endpoint is None:
            return False
        return (
            self._has_rolled_out(endpoint, version.version)
            or endpoint.queued_version == version.version
            or steps.is_overtaken(endpoint, version.version)
        )

    def archive(self, name: ModelName, number: VersionNumber, *, by: str, reason: str) -> ModelVersion:
        """Take a version out of use for good; again, answer the version as it stands.

        Raises NotFoundError; ConflictError where it serves, rolls out, waits to, or has an alias. The endpoint first
        lets no rollout of it begin, then the version is archived: a start that overlaps is either seen here, or sees
        this. So with aliases, which are looked at before and after, as AliasService looks at the version. What a crash
        leaves in between only refuses starts, until the command is given again.
        """
        version = self._registry.version(name, number)
        if version.state is VersionState.ARCHIVED:
            return version
        self._check_no_alias(name, number)
        if version.state is VersionState.REJECTED:
            return self._archive(version, by=by, reason=reason)
        self._endpoints.find_or_create(Endpoint(endpoint=name))
        self._endpoints.change(name, ENDPOINT_ID, lambda endpoint: steps.withdraw(endpoint, number))
        try:
            archived = self._archive(version, by=by, reason=reason)
        except ConflictError:
            self._forget_withdrawn(name, number)
            raise
        self._forget_withdrawn(name, number)
        return archived

    def _archive(self, version: ModelVersion, *, by: str, reason: str) -> ModelVersion:
        name, number = ModelName(version.model), VersionNumber(version.version)
        archived = self._registry.mark_archived(name, number, by=by, reason=reason)
        try:
            self._check_no_alias(name, number)
        except ConflictError as conflict:
            self._registry.take_back_archiving(name, number, reason=str(conflict))
            raise
        return archived

    def _forget_withdrawn(self, name: ModelName, number: VersionNumber) -> None:
        self._endpoints.change(name, ENDPOINT_ID, lambda endpoint: steps.forget_withdrawn(endpoint, number))

    def _check_no_alias(self, name: ModelName, number: VersionNumber) -> None:
        aliases = self._aliases.named(name).get(number)
        if aliases:
            raise ConflictError(
                f"version {number} of {name} has the alias {' and '.join(aliases)}: move that first to archive it"
            )

    def _call_aliases_again(self, endpoint: Endpoint, now: datetime, grace: timedelta) -> int:
        due = [call.move for call in endpoint.alias_calls if now - call.sent_at > grace]
        if not due:
            return 0
        heard = {(move.alias, move.generation) for move in due if self._aliases.has_heard(move)}
        self._endpoints.change(
            endpoint.endpoint, ENDPOINT_ID, lambda current: steps.call_again(current, heard, now, grace)
        )
        return len(due) - len(heard)

    def _start(self, command: RolloutCommand) -> Rollout | None:
        if command.version is None:
            raise ConflictError("a start command needs a version")
        if command.force and not command.reason.strip():
            raise InvalidInputError("a start by force needs a reason, which goes into the audit: say why")
        blocks.check_override(command)
        version = self._registry.version(command.endpoint, VersionNumber(command.version))
        starts.check_state(version)
        if command.command_id == automatic_command_id(version.model, version.version):
            return self._start_by_policy(command, version)
        return self._start_by_command(command, version)

    def _start_by_policy(self, command: RolloutCommand, version: ModelVersion) -> Rollout | None:
        if self._is_held(version, self._registry.model(version.model)):
            return None

        def begin(endpoint: Endpoint, start: _Start) -> bool:
            number, rollout = start.version.version, start.rollout
            if self._is_held(start.version, start.model):
                return False
            if self._has_rolled_out(endpoint, number) or steps.is_overtaken(endpoint, number):
                return steps.unqueue(endpoint, number)
            if endpoint.active and rollout.policy.when_busy is not WhenBusy.SUPERSEDE:
                return steps.queue(endpoint, number, rollout.started_at)
            if endpoint.is_quarantined(number) or number in endpoint.withdrawn:
                return steps.unqueue(endpoint, number)
            return self._begin_by_policy(endpoint, start)

        endpoint = self._change_to_start(command, version, begin)
        if endpoint.refused and endpoint.refused.version == version.version:
            self._registry.note_refused_start(version, endpoint.refused.reason)
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id_of(command.command_id, version.version):
            return endpoint.rollout
        return None

    def _begin_by_policy(self, endpoint: Endpoint, start: _Start) -> bool:
        number, rollout = start.version.version, start.rollout
        broken = self._broken_callers(endpoint, start.version)
        refused = starts.unsigned(start.version, start.model.policy.signing) or (broken and broken.sentence)
        if refused:
            return steps.refuse(endpoint, number, refused, rollout.started_at)
        if self._blocked(endpoint, rollout.started_at):
            return False
        if endpoint.active:
            steps.supersede(endpoint, endpoint.active, number, rollout.started_at)
        steps.begin(endpoint, rollout, rollout.started_at)
        return True

    def _is_held(self, version: ModelVersion, model: Model) -> bool:
        held = version.rollout_refused or starts.lacking_approvals(version, model.policy.rollout)
        if held:
            _log.info("the rollout of version %s of %s does not begin: %s", version.version, version.model, held)
        return bool(held)

    def _start_by_command(self, command: RolloutCommand, version: ModelVersion) -> Rollout | None:
        def begin(endpoint: Endpoint, start: _Start) -> bool:
            rollout, policy = start.rollout, start.model.policy
            if self._has_begun(endpoint, rollout.rollout_id):
                return False
            number = start.version.version
            if endpoint.active and policy.rollout.when_busy is WhenBusy.QUEUE:
                return steps.queue(endpoint, number, rollout.started_at, command)
            supersedes = policy.rollout.when_busy is WhenBusy.SUPERSEDE
            steps.check_free(endpoint, number, supersedes=supersedes)
            blocked = self._blocked(endpoint, rollout.started_at)
            blocks.check_open(blocked, command)
            lacking = starts.lacking_approvals(start.version, policy.rollout) or starts.unsigned(
                start.version, policy.signing
            )
            if lacking:
                raise ConflictError(lacking)
            broken = self._broken_callers(endpoint, start.version)
            if broken and not command.force:
                raise ConflictError(f"{broken.sentence}: start it with force and a reason if its callers are ready")
            if endpoint.active:
                steps.supersede(endpoint, endpoint.active, number, rollout.started_at)
            steps.begin(endpoint, rollout.model_copy(update={"forced": bool(broken)}), rollout.started_at)
            if broken:
                steps.record_force(endpoint, broken.differences, rollout.started_at)
            blocks.record_override(endpoint, rollout, command, rollout.started_at, blocked)
            return True

        endpoint = self._change_to_start(command, version, begin)
        rollout_id = rollout_id_of(command.command_id, version.version)
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return endpoint.rollout
        if endpoint.queued_command and endpoint.queued_command.command_id == command.command_id:
            return None
        return self.rollout(EndpointName(command.endpoint), rollout_id)

    def _change_to_start(
        self, command: RolloutCommand, version: ModelVersion, begin: Callable[[Endpoint, _Start], bool]
    ) -> Endpoint:
        """Change the endpoint, looking at the version and the policy after it was read.

        Whoever archives the version changes the endpoint first, so that none begins that is archived meanwhile. What
        else is decided between this look and the save (an approval, a policy, a finding) counts as decided after the
        start: approvals only grow, a rollout keeps the policy that it began under, and a finding ends it.
        """
        now = self._clock.now()

        def change(endpoint: Endpoint) -> bool:
            current = self._registry.version(version.model, VersionNumber(version.version))
            starts.check_state(current)
            model = self._registry.model(version.model)
            return begin(endpoint, _Start(current, model, _rollout_of(command, current, model, now)))

        self._endpoints.find_or_create(Endpoint(endpoint=version.model))
        return self._endpoints.change(version.model, ENDPOINT_ID, change)

    def _broken_callers(self, endpoint: Endpoint, candidate: ModelVersion) -> starts.BrokenCallers | None:
        """How a candidate breaks the callers of the version that is stable in this state of the endpoint."""
        if endpoint.stable is None:
            return None
        stable = self._registry.version(endpoint.endpoint, VersionNumber(endpoint.stable.version))
        return starts.broken_callers(stable, candidate)

    def _has_begun(self, endpoint: Endpoint, rollout_id: str) -> bool:
        """Whether a start command has had its rollout, under way or over."""
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return True
        if any(record.id == rollout_id for record in steps.records_waiting(endpoint)):
            return True
        return self._documents.get(Container.ENDPOINTS, endpoint.endpoint, rollout_id) is not None

    def _has_rolled_out(self, endpoint: Endpoint, version: int) -> bool:
        """Whether a version has had a rollout, by policy or by hand: then policy starts no other."""
        if endpoint.rollout and endpoint.rollout.candidate.version == version:
            return True
        if any(record.version == version for record in steps.records_waiting(endpoint)):
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
    rollout = endpoint.ticking
    return rollout is not None and rollout.rollout_id == message.rollout_id and message.tick == rollout.tick + 1


def _rollout_of(command: RolloutCommand, version: ModelVersion, model: Model, now: datetime) -> Rollout:
    policy = model.policy.rollout
    return Rollout(
        rollout_id=rollout_id_of(command.command_id, version.version),
        command_id=command.command_id,
        candidate=Target(
            version=version.version,
            artifact_digest=version.artifact_digest,
            size_bytes=version.artifact_size_bytes,
            golden_digest=version.golden_digest,
            model_file=version.model_file,
            external=tuple(version.external),
            signing=starts.signing_under(model.policy.signing, version),
            allow_nan=model.policy.validation.allow_nan,
        ),
        stable=None,
        policy=policy,
        policy_version=model.policy_version,
        serving=model.policy.serving,
        started_at=now,
        published_at=now,
        next_tick_at=now + timedelta(seconds=policy.tick_s),
        requested_by=command.requested_by,
        reason=command.reason,
        overridden=command.override,
    )
