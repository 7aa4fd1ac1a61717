"""The steps of a rollout: pure changes of the endpoint's document, with what each calls for in its outbox.

Every step that changes who serves makes a new generation of the plan; the others leave the plan as it is.
"""

from datetime import datetime

from shared.registry.rollout_policy import Strategy
from shared.rollout import late
from shared.rollout.admission import send_queued, slot_for, unqueue
from shared.rollout.alias_calls import call_challenger, call_champion, call_off_challenger
from shared.rollout.convergence import chosen, fresh
from shared.rollout.documents import Rollout, RolloutRecord, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutEvent, RolloutState, next_state
from shared.rollout.progress import Progress
from shared.rollout.publishing import publish, routes_of, schedule
from shared.rollout.rates import of_next_stage
from shared.rollout.reverts import (
    leave_bad_stable,
    make_stable,
    note_rollback,
    note_unapplied,
    put_in_place,
    quarantine,
)
from shared.rollout.rollbacks import Trigger
from shared.store.ports import Container

_KEEP_THE_PLAN = {RolloutEvent.WAIT, RolloutEvent.HOLD, RolloutEvent.PAUSE, RolloutEvent.RESUME}
_TAKE_BACK = {RolloutEvent.FAIL, RolloutEvent.ROLLBACK}
_TAKE_AWAY = {RolloutEvent.ABORT, RolloutEvent.CONCLUDE}
_KINDS = {
    RolloutEvent.LOADED: "stage_started",
    RolloutEvent.ADVANCE: "stage_started",
    RolloutEvent.WAIT: "approval_awaited",
    RolloutEvent.RESUME: "rollout_resumed",
    RolloutEvent.SET_WEIGHT: "weight_set",
}


def begin(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Begin a rollout, the candidate in the pods that policy places it in."""
    progress = Progress(first_generation=endpoint.generation + 1)
    candidate = rollout.candidate.in_slot(slot_for(rollout.policy.placement, endpoint.stable))
    changed = {"stable": endpoint.stable, "candidate": candidate, "progress": progress}
    endpoint.rollout = rollout.model_copy(update=changed)
    unqueue(endpoint, rollout.candidate.version)
    endpoint.refused = None
    publish(endpoint)
    call_challenger(endpoint, endpoint.rollout, now)
    endpoint.record(
        "rollout_started",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stable=endpoint.stable.version if endpoint.stable else None,
        strategy=rollout.policy.strategy,
        policy_version=rollout.policy_version,
        generation=endpoint.generation,
        routes=routes_of(endpoint),
        requested_by=rollout.requested_by,
        reason=rollout.reason,
    )
    schedule(endpoint, endpoint.rollout, rollout.next_tick_at)


def record_force(endpoint: Endpoint, differences: tuple[str, ...], now: datetime) -> None:
    """Put on record that the rollout that has just begun breaks stable's callers, and how."""
    rollout = endpoint.active
    assert rollout is not None  # noqa: S101 - the caller has begun it
    endpoint.record(
        "rollout_forced",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stable=endpoint.stable.version if endpoint.stable else None,
        differences=list(differences),
        requested_by=rollout.requested_by,
        reason=rollout.reason,
    )


def move(
    endpoint: Endpoint,
    rollout: Rollout,
    event: RolloutEvent,
    now: datetime,
    *,
    reason: str,
    by: str = "",
    trigger: Trigger = Trigger.MANUAL,
    fault_at: datetime | None = None,
    weight_bp: int | None = None,
    to: Target | None = None,
) -> None:
    """Move the rollout by an event. Raises ConflictError where its state does not allow that.

    `by` is who asked for it; empty where Slipway moves it by itself. `weight_bp` goes with SET_WEIGHT, `trigger` and
    `fault_at`, since when it fails, with FAIL and ROLLBACK; so does `to`, a known good version that is to serve in
    place of stable, which then fails too.
    """
    stable, had_traffic = endpoint.stable, _had_traffic(rollout)
    rollout.state = next_state(rollout.state, event)
    rollout.reason = reason
    _enter(rollout, event, now, weight_bp)
    if rollout.state is RolloutState.PROMOTED:
        make_stable(endpoint, rollout.candidate)
        rollout.feedback_until = late.listens_until(rollout, now)
    if event in _TAKE_BACK:
        _take_back(endpoint, rollout, to, now, reason)
    if rollout.state.is_over:
        rollout.ended_at = now
    if event not in _KEEP_THE_PLAN:
        rollout.published_at = now
        publish(endpoint)
    if event in _TAKE_BACK:
        note_rollback(
            endpoint,
            now,
            rollout_id=rollout.rollout_id,
            trigger=trigger,
            from_version=rollout.candidate.version,
            fault_at=fault_at or rollout.failing_since or now,
            by=by,
            reason=reason,
        )
    elif (event in _TAKE_AWAY and had_traffic) or _leaves_pods(endpoint, stable):
        note_unapplied(endpoint, rollout, now)
    if rollout.state.is_over:
        _end(endpoint, rollout, now)
    if endpoint.stable is not None and endpoint.stable != stable:
        call_champion(endpoint, rollout, endpoint.stable.version, now)
    endpoint.record(
        _KINDS.get(event, f"rollout_{rollout.state}"),
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stage=rollout.stage,
        weight_bp=rollout.weight_bp,
        generation=endpoint.generation,
        routes=routes_of(endpoint),
        by=by,
        reason=reason,
        verdicts=[verdict.model_dump(mode="json") for verdict in rollout.verdicts],
    )


def replace_gone(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Have other pods in place of those of a rolling stage that report no more, or where none did when it began.

    Otherwise the candidate would have less traffic than the stage says, or none. The stage's time goes on: a candidate
    that ends one pod after the other comes to an end too.
    """
    if rollout.policy.strategy is not Strategy.ROLLING or rollout.state is not RolloutState.PROGRESSING:
        return
    reporting = fresh(rollout.pods, now)
    if not reporting or (rollout.rolled and set(rollout.rolled) <= set(reporting)):
        return
    pods = chosen(reporting, rollout.weight_bp, rollout.rollout_id, keep=rollout.rolled)
    if pods == rollout.rolled:
        return
    gone = sorted(set(rollout.rolled) - set(reporting))
    rollout.rolled = pods
    rollout.published_at = now
    publish(endpoint)
    endpoint.record(
        "pods_replaced",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        gone=gone,
        pods=list(rollout.rolled),
        generation=endpoint.generation,
        routes=routes_of(endpoint),
    )


def supersede(endpoint: Endpoint, rollout: Rollout, version: int, now: datetime) -> None:
    """Abort the active rollout for another version's."""
    reason = f"superseded by the rollout of version {version}"
    move(endpoint, rollout, RolloutEvent.ABORT, now, reason=reason)


def _enter(rollout: Rollout, event: RolloutEvent, now: datetime, weight_bp: int | None) -> None:
    """Set what belongs to the state that an event led to."""
    match event:
        case RolloutEvent.LOADED | RolloutEvent.ADVANCE:
            given_bp, rollout.stage = rollout.set_weight_bp or 0, rollout.next_stage
            # Whoever has the candidate keeps it: a stage takes back nothing of what somebody gave it before.
            rollout.set_weight_bp = given_bp if given_bp > rollout.stages[rollout.stage].weight_bp else None
            _begin_stage(rollout, now)
        case RolloutEvent.SWITCH:
            rollout.set_weight_bp = None
            _begin_stage(rollout, now)
        case RolloutEvent.SET_WEIGHT:
            # A candidate that fails goes on failing, and a rollout that waits for somebody goes on waiting.
            kept = rollout.halted_at, rollout.failed_checks, rollout.failing_since
            rollout.set_weight_bp = weight_bp
            _begin_stage(rollout, now)
            rollout.halted_at, rollout.failed_checks, rollout.failing_since = kept
        case RolloutEvent.WAIT | RolloutEvent.HOLD | RolloutEvent.PAUSE:
            rollout.halted_at = now
        case RolloutEvent.RESUME:
            # What it waited counts for nothing: the stage lasts as long again.
            rollout.halted_at, rollout.resumed_at = None, now
            rollout.drift_excused = rollout.drift.since if rollout.drift else rollout.drift_excused
            rollout.stage_started_at = rollout.stage_started_at and now
            rollout.errored_checks = 0


def _begin_stage(rollout: Rollout, now: datetime) -> None:
    """Forget what was counted of the plan before, and choose the pods of a rolling one."""
    rollout.stage_started_at = rollout.halted_at = rollout.resumed_at = rollout.failing_since = None
    rollout.failed_checks = rollout.errored_checks = 0
    rollout.progress = rollout.progress.model_copy(update={"tests": of_next_stage(rollout.progress.tests)})
    if rollout.policy.strategy is Strategy.ROLLING:
        # As the latest tick saw them: since then nobody has looked.
        reporting = fresh(rollout.pods, rollout.progress.looked_at or now)
        rollout.rolled = chosen(reporting, rollout.weight_bp, rollout.rollout_id, keep=rollout.rolled)


def _had_traffic(rollout: Rollout) -> bool:
    """Whether the candidate may be sent requests as the rollout stands, or copies.

    In pods of its own it may be whatever share a stage has by now: the Gateway may not have heard of the latest.
    """
    return bool(rollout.weight_bp or rollout.mirror_bp or (len(rollout.slots) > 1 and rollout.stage is not None))


def _leaves_pods(endpoint: Endpoint, before: Target | None) -> bool:
    """Whether another version became stable in other pods than the one before."""
    return before is not None and endpoint.stable is not None and endpoint.stable.slot is not before.slot


def _take_back(endpoint: Endpoint, rollout: Rollout, to: Target | None, now: datetime, reason: str) -> None:
    quarantine(endpoint, rollout.candidate.version, reason, now, rollout.rollout_id)
    if to is not None and endpoint.stable is not None and to.version != endpoint.stable.version:
        quarantine(endpoint, endpoint.stable.version, reason, now, rollout.rollout_id)
        put_in_place(endpoint, to)
    leave_bad_stable(endpoint)


def _end(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Archive the rollout, but for what each pod said last, and let what waits begin."""
    kept = rollout.model_copy(update={"progress": rollout.progress.without_pods()})
    record = RolloutRecord(
        id=rollout.rollout_id, endpoint=endpoint.endpoint, version=rollout.candidate.version, rollout=kept
    )
    endpoint.archive(Container.ENDPOINTS, record.model_dump(mode="json"))
    send_queued(endpoint, now)
    call_off_challenger(endpoint, rollout, now)
