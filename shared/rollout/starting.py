"""Starting rollouts, by command and by policy: at once, in place of the active one, or when that is over.

A start is one conditional change of the endpoint, made under the version and the policy as they stand within it. What
waits and then cannot begin any more waits no longer, and the endpoint says why.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, ConflictError, InvalidInputError
from shared.core.ids import VersionNumber
from shared.core.messages import RolloutCommand
from shared.core.tracing import current_traceparent
from shared.registry.documents import Model, ModelVersion
from shared.registry.rollout_policy import Strategy, WhenBusy
from shared.rollout import admission, approvers, blocks, starts, steps
from shared.rollout.documents import Rollout, Target, automatic_command_id, rollout_id_of
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.history import History
from shared.store.repository import Repository

_log = logging.getLogger(__name__)


class Registry(Protocol):
    """Models and their versions."""

    def model(self, name: str) -> Model:
        """A model. Raises NotFoundError."""
        ...

    def version(self, name: str, number: VersionNumber) -> ModelVersion:
        """A version. Raises NotFoundError."""
        ...

    def note_refused_start(self, version: ModelVersion, reason: str) -> None:
        """Note that policy will not start a version's rollout."""
        ...


class _Start(NamedTuple):
    """What there is to begin: a version and its model as they stand, and the rollout that this comes to."""

    version: ModelVersion
    model: Model
    rollout: Rollout


class Starting:
    """Carries out start commands."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        registry: Registry,
        history: History,
        blocked: Callable[[Endpoint, datetime], str],
        clock: Clock,
    ) -> None:
        """`blocked` tells why no candidate of an endpoint may get more traffic at a time."""
        self._endpoints = endpoints
        self._registry = registry
        self._history = history
        self._blocked = blocked
        self._clock = clock

    def start(self, command: RolloutCommand) -> Rollout | None:
        """Start a rollout, once; again, answer with it. None: it waits, or there was nothing to do.

        Raises NotFoundError, ConflictError where the state of the version or the endpoint does not allow it,
        InvalidInputError for a command that says too little.
        """
        if command.version is None:
            raise ConflictError("a start command needs a version")
        if command.force and not command.reason.strip():
            raise InvalidInputError("a start by force needs a reason, which goes into the audit: say why")
        blocks.check_override(command)
        approvers.check_named(command)
        version = self._registry.version(command.endpoint, VersionNumber(command.version))
        try:
            if command.command_id == automatic_command_id(version.model, version.version):
                return self._start_by_policy(command, version)
            return self._start_by_command(command, version)
        except ChangedMeanwhileError:
            # It says nothing of the version: the start is tried again.
            raise
        except ConflictError as error:
            self._drop_queued(command, str(error))
            raise

    def _start_by_policy(self, command: RolloutCommand, version: ModelVersion) -> Rollout | None:
        rollout_id = rollout_id_of(command.command_id, version.version)

        def is_answered(endpoint: Endpoint) -> bool:
            return self._history.has_begun(endpoint, rollout_id)

        self._check_state(version, is_answered)
        if self._is_held(version, self._registry.model(version.model)):
            return None

        def begin(endpoint: Endpoint, start: _Start) -> bool:
            number, rollout = start.version.version, start.rollout
            if self._is_held(start.version, start.model):
                return False
            if self._history.has_rolled_out(endpoint, number) or admission.is_overtaken(endpoint, number):
                return endpoint.queued_command is None and admission.unqueue(endpoint, number)
            if endpoint.is_quarantined(number) or number in endpoint.withdrawn:
                return admission.unqueue(endpoint, number)
            if endpoint.active and rollout.policy.when_busy is not WhenBusy.SUPERSEDE:
                return admission.queue(endpoint, number, rollout.started_at)
            return self._begin_by_policy(endpoint, start)

        endpoint = self._change(command, version, begin, is_answered)
        if endpoint.refused and endpoint.refused.version == version.version:
            self._registry.note_refused_start(version, endpoint.refused.reason)
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return endpoint.rollout
        return None

    def _begin_by_policy(self, endpoint: Endpoint, start: _Start) -> bool:
        number, rollout = start.version.version, start.rollout
        broken = self._broken_callers(endpoint, start.version)
        refused = starts.unsigned(start.version, start.model.policy.signing) or (broken and broken.sentence)
        refused = refused or admission.not_apart(endpoint, rollout.policy)
        if refused:
            return admission.refuse(endpoint, number, refused, rollout.started_at)
        if self._blocked(endpoint, rollout.started_at):
            return False
        if endpoint.queued_command and admission.is_gateway_to_hear(
            endpoint, rollout.policy.placement, rollout.started_at
        ):
            # What somebody asked for would come next: nothing is ended for that by policy. The sweep asks again.
            return False
        is_new = endpoint.active is not None or endpoint.queued_version != number
        return self._begin(endpoint, rollout) or is_new

    def _is_held(self, version: ModelVersion, model: Model) -> bool:
        held = version.rollout_refused or starts.lacking_approvals(version, model.policy.rollout)
        if held:
            _log.info("the rollout of version %s of %s does not begin: %s", version.version, version.model, held)
        return bool(held)

    def _start_by_command(self, command: RolloutCommand, version: ModelVersion) -> Rollout | None:
        rollout_id = rollout_id_of(command.command_id, version.version)

        def is_answered(endpoint: Endpoint) -> bool:
            if self._history.has_begun(endpoint, rollout_id):
                return True
            return endpoint.has_heard(command) and not admission.is_queued(endpoint, command)

        def begin(endpoint: Endpoint, start: _Start) -> bool:
            is_queued = admission.is_queued(endpoint, command)
            return self._begin_by_command(endpoint, start, command, is_queued=is_queued)

        self._check_state(version, is_answered)
        endpoint = self._change(command, version, begin, is_answered)
        if not self._history.has_begun(endpoint, rollout_id):
            return None
        return self._history.rollout(endpoint, rollout_id)

    def _begin_by_command(self, endpoint: Endpoint, start: _Start, command: RolloutCommand, *, is_queued: bool) -> bool:
        rollout, policy, number = start.rollout, start.model.policy, start.version.version
        now, when_busy = rollout.started_at, policy.rollout.when_busy
        approvers.check_starter(command, policy.rollout)
        if endpoint.active and (is_queued or when_busy is WhenBusy.QUEUE):
            admission.check_fit(endpoint, number)
            endpoint.hear(command)
            return admission.queue(endpoint, number, now, command)
        admission.check_free(endpoint, number, supersedes=when_busy is WhenBusy.SUPERSEDE)
        blocked = self._blocked(endpoint, now)
        if blocked and is_queued and not command.override:
            return False
        blocks.check_open(blocked, command)
        lacking = starts.lacking_approvals(start.version, policy.rollout) or starts.unsigned(
            start.version, policy.signing
        )
        if lacking:
            raise ConflictError(lacking)
        broken = self._broken_callers(endpoint, start.version)
        if broken and not command.force:
            raise ConflictError(f"{broken.sentence}: start it with force and a reason if its callers are ready")
        if not_apart := admission.not_apart(endpoint, rollout.policy):
            raise ConflictError(not_apart)
        is_new = endpoint.active is not None or not is_queued
        endpoint.hear(command)
        if not self._begin(endpoint, rollout.model_copy(update={"forced": bool(broken)}), command):
            return is_new
        if broken:
            steps.record_force(endpoint, broken.differences, now)
        blocks.record_override(endpoint, rollout, command, now, blocked)
        return True

    def _begin(self, endpoint: Endpoint, rollout: Rollout, command: RolloutCommand | None = None) -> bool:
        """Begin a rollout in place of the active one. Whether it began: it waits where its pods may still be sent what
        they had before, until the Gateway has heard that they have it no longer.
        """
        now, version = rollout.started_at, rollout.candidate.version
        waits = admission.is_gateway_to_hear(endpoint, rollout.policy.placement, now)
        if endpoint.active:
            steps.supersede(endpoint, endpoint.active, version, now)
        if waits:
            admission.queue(endpoint, version, now, command)
            return False
        steps.begin(endpoint, rollout, now)
        return True

    def _check_state(self, version: ModelVersion, is_answered: Callable[[Endpoint], bool]) -> None:
        """Raise ConflictError for a version whose rollout cannot begin: of a start that had its effect nothing is asked
        any more.
        """
        endpoint = self._endpoints.find(version.model, ENDPOINT_ID)
        if endpoint is None or not is_answered(endpoint):
            starts.check_state(version)

    def _change(
        self,
        command: RolloutCommand,
        version: ModelVersion,
        begin: Callable[[Endpoint, _Start], bool],
        is_answered: Callable[[Endpoint], bool],
    ) -> Endpoint:
        """Change the endpoint, looking at the version and the policy after it was read.

        Whoever archives the version changes the endpoint first, so that none begins that is archived meanwhile. What
        else is decided between this look and the save (an approval, a policy, a finding) counts as decided after the
        start: approvals only grow, a rollout keeps the policy that it began under, and a finding ends it.
        """
        now = self._clock.now()

        def change(endpoint: Endpoint) -> bool:
            if is_answered(endpoint):
                return False
            current = self._registry.version(version.model, VersionNumber(version.version))
            starts.check_state(current)
            model = self._registry.model(version.model)
            rollout = rollout_of(command, current, model, now)
            shadows = self._shadows(endpoint, command, model)
            return begin(endpoint, _Start(current, model, rollout.model_copy(update={"shadows": shadows})))

        self._endpoints.find_or_create(Endpoint(endpoint=version.model))
        return self._endpoints.change(version.model, ENDPOINT_ID, change)

    def _drop_queued(self, command: RolloutCommand, reason: str) -> None:
        """Have what waits for its turn, and cannot begin any more, wait no longer."""
        endpoint = self._endpoints.find(command.endpoint, ENDPOINT_ID)
        version, now = command.version, self._clock.now()
        if endpoint is None or version is None or endpoint.queued_version != version:
            return

        def drop(current: Endpoint) -> bool:
            is_automatic = command.command_id == automatic_command_id(current.endpoint, version)
            is_meant = admission.is_queued(current, command) or (is_automatic and current.queued_command is None)
            return bool(is_meant and not current.active and admission.refuse(current, version, reason, now))

        self._endpoints.change(command.endpoint, ENDPOINT_ID, drop)

    def _shadows(self, endpoint: Endpoint, command: RolloutCommand, model: Model) -> tuple[Target, ...]:
        """The further versions that are to get copies of requests. Raises ConflictError, InvalidInputError."""
        if not command.shadows:
            return ()
        if model.policy.rollout.strategy is not Strategy.SHADOW:
            raise InvalidInputError(
                f"further shadows go with the strategy shadow alone: that of {model.model} is "
                f"{model.policy.rollout.strategy}"
            )
        if len({*command.shadows, command.version}) <= len(command.shadows):
            raise InvalidInputError(f"versions {command.shadows} are not all different, or one is the candidate")
        found = []
        for number in command.shadows:
            shadow = self._registry.version(endpoint.endpoint, VersionNumber(number))
            starts.check_state(shadow)
            admission.check_fit(endpoint, number)
            unsigned = starts.unsigned(shadow, model.policy.signing)
            if unsigned:
                raise ConflictError(unsigned)
            found.append(target_of(shadow, model))
        return tuple(found)

    def _broken_callers(self, endpoint: Endpoint, candidate: ModelVersion) -> starts.BrokenCallers | None:
        """How a candidate breaks the callers of the version that is stable in this state of the endpoint."""
        if endpoint.stable is None:
            return None
        stable = self._registry.version(endpoint.endpoint, VersionNumber(endpoint.stable.version))
        return starts.broken_callers(stable, candidate)


def rollout_of(command: RolloutCommand, version: ModelVersion, model: Model, now: datetime) -> Rollout:
    """The rollout that a start command comes to under the model's policy of now."""
    policy = model.policy.rollout
    is_automatic = command.command_id == automatic_command_id(version.model, version.version)
    return Rollout(
        rollout_id=rollout_id_of(command.command_id, version.version),
        command_id=command.command_id,
        candidate=target_of(version, model),
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
        trace=(version.trace if is_automatic else None) or current_traceparent(),
    )


def target_of(version: ModelVersion, model: Model) -> Target:
    """A version as the plan is to name it."""
    return Target(
        version=version.version,
        artifact_digest=version.artifact_digest,
        size_bytes=version.artifact_size_bytes,
        golden_digest=version.golden_digest,
        profile_digest=version.profile_digest,
        model_file=version.model_file,
        external=tuple(version.external),
        signing=starts.signing_under(model.policy.signing, version),
        allow_nan=model.policy.validation.allow_nan,
    )
