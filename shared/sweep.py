"""The sweep: does again whatever a lost event or a crash left undone.

It looks at state, never at events: undelivered outboxes, drops without an end, versions without a verdict, asked-for
rollouts that did not begin, overdue ticks. It sends the message that should have come; the handlers do the work.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from shared.core.clock import Clock
from shared.core.errors import SlipwayError
from shared.core.messages import QUEUE_OF, CommandKind, RegisterDrop, RolloutCommand, ValidateVersion
from shared.core.tracing import stamped
from shared.registration.service import RegistrationService
from shared.registry.documents import ModelVersion, version_id
from shared.registry.service import RegistryService
from shared.rollout.documents import automatic_command_id
from shared.rollout.service import RolloutService
from shared.store.ports import QueueSender
from shared.store.repository import Repository
from shared.store.unreadable import leaving_out

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How much a sweep found undone."""

    outboxes: int
    drops: int
    validations: int
    starts: int
    ticks: int


class Outboxes(Protocol):
    """The outboxes of the aggregates of one type."""

    def deliver_outboxes(self) -> int:
        """Deliver those that wait; how many there were."""
        ...


class SweepService:
    """Sweeps. Several at once do no harm: what they send twice has its effect once."""

    def __init__(
        self,
        *,
        outboxes: Iterable[Outboxes],
        versions: Repository[ModelVersion],
        registry: RegistryService,
        registration: RegistrationService,
        rollouts: RolloutService,
        queues: QueueSender,
        clock: Clock,
        grace: timedelta,
    ) -> None:
        self._outboxes = tuple(outboxes)
        self._versions = versions
        self._registry = registry
        self._registration = registration
        self._rollouts = rollouts
        self._queues = queues
        self._clock = clock
        self._grace = grace

    def sweep(self) -> Swept:
        """Sweep once. What fails keeps nothing else from being swept, and is raised together at the end."""
        failures: list[Exception] = []

        def part(do: Callable[[], int]) -> int:
            try:
                return do()
            except SlipwayError as error:
                failures.append(error)
                return 0

        swept = Swept(
            outboxes=sum(part(outboxes.deliver_outboxes) for outboxes in self._outboxes),
            ticks=part(lambda: self._rollouts.resend_overdue(self._grace)),
            drops=part(lambda: self._send(self._registration.missed_drops(self._grace))),
            validations=part(lambda: self._send(self._registry.missed_validations(self._grace))),
            starts=part(self._settle_starts),
        )
        _log.info("swept: %s", swept)
        if failures:
            raise ExceptionGroup("the sweep could not do all", failures)
        return swept

    def _settle_starts(self) -> int:
        """Ask again for each automatic rollout that did not begin; note those that did."""
        count = 0
        for version in list(self._versions.readable(rollout_pending=True)):
            with leaving_out(f"the endpoint of {version.model}"):
                count += self._settle_start(version)
        return count

    def _settle_start(self, version: ModelVersion) -> int:
        if self._rollouts.answers_automatic_start(version):
            self._versions.change(version.partition, version.id, _settle)
            return 0
        if not self._is_due(version):
            return 0
        self._versions.change(version.partition, version.id, self._note_asked)
        command = RolloutCommand(
            command=CommandKind.START,
            command_id=automatic_command_id(version.model, version.version),
            endpoint=version.model,
            version=version.version,
            requested_by="policy",
        )
        return self._send([command])

    def _is_due(self, version: ModelVersion) -> bool:
        last = max((at for at in (version.decided_at, version.asked_at) if at), default=version.registered_at)
        return self._clock.now() - last > self._grace

    def _note_asked(self, version: ModelVersion) -> bool:
        version.asked_at = self._clock.now()
        return True

    def _send(self, messages: Iterable[RegisterDrop | ValidateVersion | RolloutCommand]) -> int:
        count = 0
        for message in messages:
            body, trace = message.model_dump(mode="json"), self._trace_of(message)
            # Without one it begins its own, rather than share this sweep's with all others.
            self._queues.send(QUEUE_OF[type(message)], json.dumps(stamped(body, trace) if trace else body))
            count += 1
        return count

    def _trace_of(self, message: RegisterDrop | ValidateVersion | RolloutCommand) -> str | None:
        """The trace of the version that a message is about: what is done again belongs to where it was begun."""
        if isinstance(message, RegisterDrop) or message.version is None:
            return None
        model = message.model if isinstance(message, ValidateVersion) else message.endpoint
        version = self._versions.find(model, version_id(message.version))
        return version.trace if version else None


def _settle(version: ModelVersion) -> bool:
    version.rollout_pending = False
    return True
