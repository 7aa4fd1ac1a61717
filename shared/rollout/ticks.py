"""What a tick does to the endpoint: takes the evidence in, carries the decision out, and keeps what it saw.

Each tick's evidence and decision are published as a blob of the reports container, from which decisions can be
replayed, under another policy too.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from shared.rollout import steps
from shared.rollout.convergence import convergence
from shared.rollout.decide import Decision
from shared.rollout.documents import Endpoint, Rollout
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.progress import Progress, taken
from shared.rollout.rates import advanced
from shared.rollout.rollbacks import RollbackRecord, Trigger
from shared.store.ports import Container
from shared.telemetry.window import VersionCounts, Window

CONFIRM_TICK_S = 2.0
"""How often pods are looked at until they have applied a rollback."""
_GIVE_UP_S = 3_600.0


def took_in(rollout: Rollout, windows: Iterable[Window], generation: int) -> Progress:
    """The rollout's progress with windows taken in, and its running tests advanced by one block."""
    progress = taken(rollout.progress, windows, generation)
    if rollout.stable is None or not rollout.weight_bp or rollout.state is RolloutState.WATCHING:
        return progress
    candidate, stable = (
        progress.block.get(version, VersionCounts()) for version in (rollout.candidate.version, rollout.stable.version)
    )
    return progress.model_copy(update={"tests": advanced(progress.tests, candidate, stable, rollout.gates)})


def apply(endpoint: Endpoint, rollout: Rollout, decision: Decision, now: datetime) -> None:
    """Carry out what a tick decided, and ask for the next tick."""
    rollout.verdicts = list(decision.verdicts)
    if decision.failed_checks > rollout.failed_checks:
        rollout.failing_since = rollout.failing_since or now
        endpoint.record(
            "check_failed",
            now,
            rollout_id=rollout.rollout_id,
            failed_checks=decision.failed_checks,
            verdicts=[verdict.model_dump(mode="json") for verdict in decision.verdicts],
        )
    elif not decision.failed_checks:
        rollout.failing_since = None
    rollout.failed_checks, rollout.errored_checks = decision.failed_checks, decision.errored_checks
    if decision.is_settled and rollout.stage_started_at is None:
        rollout.stage_started_at = now
    if decision.event is RolloutEvent.FAIL:
        trigger = decision.trigger or Trigger.NO_CONCLUSION
        steps.move(endpoint, rollout, RolloutEvent.FAIL, now, reason=decision.reason, trigger=trigger)
    elif decision.event:
        steps.move(endpoint, rollout, decision.event, now, reason=decision.reason)
    else:
        rollout.reason = decision.reason
    if not rollout.state.is_over:
        steps.schedule(endpoint, rollout, now + timedelta(seconds=rollout.policy.tick_s))


def confirm_rollback(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """See whether the pods have applied the latest rollback; if so, or if it takes too long, put it on record.

    `rollout` is that which is looked at: the one that was rolled back, or one that began since.
    """
    rollback = endpoint.rollback
    if rollback is None:
        return
    found = convergence(rollout.progress.pods, generation=rollback.generation, versions=(), quorum=1.0, now=now)
    waited_s = (now - rollback.detected_at).total_seconds()
    if not found.is_reached and waited_s < _GIVE_UP_S:
        if rollout.state.is_over:
            steps.schedule(endpoint, rollout, now + timedelta(seconds=CONFIRM_TICK_S))
        return
    if found.is_reached:
        rollback = rollback.model_copy(update={"zero_traffic_at": now})
    record = RollbackRecord(id=rollback.rollback_id, endpoint=endpoint.endpoint, rollback=rollback)
    endpoint.archive(Container.ENDPOINTS, record.model_dump(mode="json"))
    endpoint.rollback = None
