"""The steps that an endpoint takes: pure changes of its document, with what each calls for in its outbox.

Every step that changes who serves makes a new generation of the plan; what an alias is to name from then on is called
for under that generation, and the call is kept until it is heard: calls that come late or twice are told by it.
"""

from datetime import datetime, timedelta
from typing import Any

from shared.core.errors import ConflictError, NotFoundError
from shared.core.messages import CommandKind, MoveAlias, RolloutCommand, RolloutTick
from shared.registry.aliases import CHALLENGER, CHAMPION, PRODUCTION
from shared.registry.rollout_policy import Strategy
from shared.rollout.convergence import chosen
from shared.rollout.documents import (
    AliasCall,
    Endpoint,
    RefusedStart,
    Rollout,
    RolloutRecord,
    Target,
    automatic_command_id,
)
from shared.rollout.machine import RolloutEvent, RolloutState, next_state
from shared.rollout.rollbacks import Quarantine, Rollback, Trigger
from shared.routing.plan import plan_blob_name
from shared.store.aggregate import ArchiveEntry
from shared.store.ports import BlobContainer, Container

_GOOD_KEPT = 20
_CONFIRM = timedelta(seconds=2)
"""When the pods are first looked at for whether they have applied a rollback."""


def begin(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Begin a rollout."""
    endpoint.rollout = rollout.model_copy(update={"stable": endpoint.stable})
    unqueue(endpoint, rollout.candidate.version)
    endpoint.refused = None
    publish(endpoint)
    _call_alias(endpoint, endpoint.rollout, CHALLENGER, rollout.candidate.version, now)
    endpoint.record(
        "rollout_started",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stable=endpoint.stable.version if endpoint.stable else None,
        strategy=rollout.policy.strategy,
        policy_version=rollout.policy_version,
        generation=endpoint.generation,
        routes=_routes(endpoint),
        requested_by=rollout.requested_by,
        reason=rollout.reason,
    )
    schedule(endpoint, endpoint.rollout, rollout.next_tick_at)


def move(
    endpoint: Endpoint,
    rollout: Rollout,
    event: RolloutEvent,
    now: datetime,
    *,
    reason: str,
    by: str = "",
    trigger: Trigger = Trigger.MANUAL,
    weight_bp: int | None = None,
) -> None:
    """Move the rollout by an event. Raises ConflictError where its state does not allow that.

    `by` is who asked for it; empty where Slipway moves it by itself. `weight_bp` goes with SET_WEIGHT, `trigger` with
    FAIL and ROLLBACK.
    """
    before = rollout.state
    rollout.state = next_state(before, event)
    rollout.reason = reason
    rollout.failed_checks = rollout.errored_checks = 0
    _enter(rollout, event, now, weight_bp)
    if rollout.state is RolloutState.PROMOTED:
        _make_stable(endpoint, rollout.candidate)
    if event in {RolloutEvent.FAIL, RolloutEvent.ROLLBACK}:
        _quarantine(endpoint, rollout.candidate.version, reason, now, rollout.rollout_id)
        _leave_bad_stable(endpoint)
    if rollout.state.is_over:
        rollout.ended_at = now
    if event not in _KEEP_THE_PLAN:
        rollout.published_at = now
        publish(endpoint)
    if event in {RolloutEvent.FAIL, RolloutEvent.ROLLBACK}:
        endpoint.rollback = _rollback(endpoint, rollout, trigger, now, by=by, reason=reason)
        schedule(endpoint, rollout, now + _CONFIRM)
    if rollout.state.is_over:
        _end(endpoint, rollout, now)
    endpoint.record(
        _KINDS.get(event, f"rollout_{rollout.state}"),
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stage=rollout.stage,
        weight_bp=rollout.weight_bp,
        generation=endpoint.generation,
        routes=_routes(endpoint),
        by=by,
        reason=reason,
        verdicts=[verdict.model_dump(mode="json") for verdict in rollout.verdicts],
    )


_KEEP_THE_PLAN = {RolloutEvent.WAIT, RolloutEvent.HOLD, RolloutEvent.PAUSE, RolloutEvent.RESUME}
_KINDS = {
    RolloutEvent.LOADED: "stage_started",
    RolloutEvent.ADVANCE: "stage_started",
    RolloutEvent.WAIT: "approval_awaited",
    RolloutEvent.RESUME: "rollout_resumed",
    RolloutEvent.SET_WEIGHT: "weight_set",
}


def _enter(rollout: Rollout, event: RolloutEvent, now: datetime, weight_bp: int | None) -> None:
    """Set what belongs to the state that an event led to."""
    match event:
        case RolloutEvent.LOADED | RolloutEvent.ADVANCE:
            rollout.stage, rollout.set_weight_bp = rollout.next_stage, None
            rollout.stage_started_at = rollout.halted_at = None
        case RolloutEvent.SWITCH:
            rollout.set_weight_bp = rollout.stage_started_at = rollout.halted_at = None
        case RolloutEvent.SET_WEIGHT:
            rollout.set_weight_bp, rollout.stage_started_at = weight_bp, None
        case RolloutEvent.WAIT | RolloutEvent.HOLD | RolloutEvent.PAUSE:
            rollout.halted_at = now
        case RolloutEvent.RESUME:
            # What it waited counts for nothing: the stage lasts as long again.
            rollout.halted_at = None
            rollout.stage_started_at = rollout.stage_started_at and now
    if rollout.policy.strategy is Strategy.ROLLING:
        reporting = tuple(rollout.progress.pods)
        rollout.rolled = chosen(reporting, rollout.weight_bp, rollout.rollout_id)


def _make_stable(endpoint: Endpoint, target: Target) -> None:
    endpoint.stable = target
    endpoint.good = [*(t for t in endpoint.good if t.version != target.version), target][-_GOOD_KEPT:]


def _quarantine(endpoint: Endpoint, version: int, reason: str, now: datetime, rollout_id: str | None) -> None:
    found = Quarantine(version=version, reason=reason, at=now, rollout_id=rollout_id)
    endpoint.quarantined = [*(q for q in endpoint.quarantined if q.version != version), found]
    endpoint.good = [t for t in endpoint.good if t.version != version]


def _leave_bad_stable(endpoint: Endpoint) -> None:
    """Where stable itself was found to fail: the last known good version takes its place."""
    stable = endpoint.stable
    if stable is not None and endpoint.is_quarantined(stable.version):
        endpoint.stable = endpoint.last_good(but=stable.version) or stable


def _rollback(
    endpoint: Endpoint, rollout: Rollout, trigger: Trigger, now: datetime, *, by: str, reason: str
) -> Rollback:
    return Rollback(
        rollback_id=f"rollback-{endpoint.generation:06d}",
        rollout_id=rollout.rollout_id,
        trigger=trigger,
        from_version=rollout.candidate.version,
        to_version=endpoint.stable.version if endpoint.stable else None,
        generation=endpoint.generation,
        fault_at=rollout.failing_since or now,
        detected_at=now,
        by=by or "slipway",
        reason=reason,
    )


def _end(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    endpoint.archive(
        Container.ENDPOINTS,
        RolloutRecord(
            id=rollout.rollout_id, endpoint=endpoint.endpoint, version=rollout.candidate.version, rollout=rollout
        ).model_dump(mode="json"),
    )
    send_queued(endpoint, now)
    _call_aliases_at_end(endpoint, rollout, now)


def revert(endpoint: Endpoint, to: Target, now: datetime, *, by: str, reason: str) -> None:
    """Take the stable version, which fails, out of service for an earlier one. No rollout is under way."""
    bad = endpoint.stable
    assert bad is not None  # noqa: S101 - the caller has seen it
    _quarantine(endpoint, bad.version, reason, now, None)
    _make_stable(endpoint, to)
    publish(endpoint)
    endpoint.rollback = Rollback(
        rollback_id=f"rollback-{endpoint.generation:06d}",
        rollout_id=None,
        trigger=Trigger.MANUAL,
        from_version=bad.version,
        to_version=to.version,
        generation=endpoint.generation,
        fault_at=now,
        detected_at=now,
        by=by,
        reason=reason,
    )
    rollout = endpoint.rollout
    assert rollout is not None  # noqa: S101 - whatever is stable had a rollout
    schedule(endpoint, rollout, now + _CONFIRM)
    for alias in (CHAMPION, PRODUCTION):
        _call_alias(endpoint, rollout, alias, to.version, now)
    endpoint.record(
        "endpoint_reverted",
        now,
        version=to.version,
        from_version=bad.version,
        generation=endpoint.generation,
        routes=_routes(endpoint),
        by=by,
        reason=reason,
    )


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


def refuse(endpoint: Endpoint, version: int, reason: str, now: datetime) -> bool:
    """Note that policy does not start a version's rollout. Whether anything changed."""
    changed = unqueue(endpoint, version)
    if endpoint.refused and endpoint.refused.version == version:
        return changed
    endpoint.refused = RefusedStart(version=version, reason=reason, at=now)
    endpoint.record("rollout_refused", now, version=version, reason=reason)
    return True


def queue(endpoint: Endpoint, version: int, now: datetime, command: RolloutCommand | None = None) -> bool:
    """Have a version wait for the end of the active rollout. Whether anything changed. `command`: who asked for it."""
    if endpoint.queued_version == version:
        return False
    endpoint.queued_version, endpoint.queued_command = version, command
    endpoint.record("rollout_queued", now, version=version)
    return True


def unqueue(endpoint: Endpoint, version: int) -> bool:
    """Have a version wait no longer. Whether anything changed."""
    if endpoint.queued_version != version:
        return False
    endpoint.queued_version = endpoint.queued_command = None
    return True


def supersede(endpoint: Endpoint, rollout: Rollout, version: int, now: datetime) -> None:
    """Abort the active rollout for another version's."""
    reason = f"superseded by the rollout of version {version}"
    move(endpoint, rollout, RolloutEvent.ABORT, now, reason=reason)


def send_queued(endpoint: Endpoint, now: datetime) -> None:
    """Ask for the start of the queued version. It stays queued until it begins, lest the command be lost."""
    if endpoint.queued_version is None:
        return
    automatic = RolloutCommand(
        command=CommandKind.START,
        command_id=automatic_command_id(endpoint.endpoint, endpoint.queued_version),
        endpoint=endpoint.endpoint,
        version=endpoint.queued_version,
        requested_by="policy",
        reason=f"queued until the rollout before it was over at {now.isoformat()}",
    )
    endpoint.send(endpoint.queued_command or automatic)


def schedule(endpoint: Endpoint, rollout: Rollout, at: datetime) -> None:
    """Ask for the rollout's next tick."""
    rollout.next_tick_at = at
    endpoint.send(
        RolloutTick(endpoint=endpoint.endpoint, rollout_id=rollout.rollout_id, tick=rollout.tick + 1), not_before=at
    )


def publish(endpoint: Endpoint) -> None:
    """Publish the plan as its next generation."""
    endpoint.generation += 1
    plan = endpoint.plan()
    assert plan is not None  # noqa: S101 - the generation is not 0
    endpoint.publish(
        BlobContainer.ROUTES,
        plan_blob_name(endpoint.endpoint),
        plan.model_dump(mode="json"),
        generation=endpoint.generation,
    )


def call_again(endpoint: Endpoint, heard: set[tuple[str, int]], now: datetime, grace: timedelta) -> bool:
    """Of the calls for aliases older than `grace`, forget those that were heard and send the others again.

    `heard` names alias and generation. Answers whether anything changed.
    """
    due = [call for call in endpoint.alias_calls if now - call.sent_at > grace]
    if not due:
        return False
    kept = [call for call in endpoint.alias_calls if call not in due]
    for call in due:
        if (call.move.alias, call.move.generation) not in heard:
            endpoint.send(call.move)
            kept.append(call.model_copy(update={"sent_at": now}))
    endpoint.alias_calls = sorted(kept, key=lambda call: call.move.generation)
    return True


def clear_quarantine(endpoint: Endpoint, version: int, now: datetime, *, by: str, reason: str) -> bool:
    """Let rollouts of a version that failed begin again. Raises NotFoundError."""
    if not endpoint.is_quarantined(version):
        raise NotFoundError(f"version {version} in quarantine on endpoint {endpoint.endpoint}")
    endpoint.quarantined = [found for found in endpoint.quarantined if found.version != version]
    endpoint.record("quarantine_cleared", now, version=version, by=by, reason=reason)
    return True


def withdraw(endpoint: Endpoint, version: int) -> bool:
    """Let no rollout of a version begin any more. Whether anything changed. Raises ConflictError where it is in use."""
    use = use_of(endpoint, version)
    if use:
        raise ConflictError(f"version {version} of {endpoint.endpoint} {use}: it cannot be archived")
    if version in endpoint.withdrawn:
        return False
    endpoint.withdrawn = [*endpoint.withdrawn, version]
    return True


def forget_withdrawn(endpoint: Endpoint, version: int) -> bool:
    """Forget that a version is just being archived. Whether anything changed."""
    if version not in endpoint.withdrawn:
        return False
    endpoint.withdrawn = [other for other in endpoint.withdrawn if other != version]
    return True


def use_of(endpoint: Endpoint, version: int) -> str:
    """What an endpoint needs a version for, in words; empty where it does not."""
    if endpoint.stable and endpoint.stable.version == version:
        return "serves"
    if endpoint.active and endpoint.active.candidate.version == version:
        return "is being rolled out"
    return "waits for its rollout" if endpoint.queued_version == version else ""


def check_free(endpoint: Endpoint, version: int, *, supersedes: bool = False) -> None:
    """Raise ConflictError where a rollout of the version by command cannot begin; it may supersede another."""
    if endpoint.active and not supersedes:
        raise ConflictError(
            f"rollout {endpoint.active.rollout_id} of version {endpoint.active.candidate.version} is under way on "
            f"endpoint {endpoint.endpoint}: promote or abort it first"
        )
    if endpoint.stable and endpoint.stable.version == version:
        raise ConflictError(f"version {version} is the stable version of {endpoint.endpoint} already")
    if version in endpoint.withdrawn:
        raise ConflictError(f"version {version} of {endpoint.endpoint} is being archived: roll out another one")
    check_not_quarantined(endpoint, version)


def check_not_quarantined(endpoint: Endpoint, version: int) -> None:
    """Raise ConflictError for a version that failed, and that nobody cleared since."""
    found = next((q for q in endpoint.quarantined if q.version == version), None)
    if found:
        raise ConflictError(
            f"version {version} of {endpoint.endpoint} is quarantined since {found.at.isoformat()}: {found.reason}; "
            f"clear it first if it is fit: slipway quarantine clear {endpoint.endpoint} {version}"
        )


def is_overtaken(endpoint: Endpoint, version: int) -> bool:
    """Whether an automatic start of the version would take its endpoint back in time."""
    newest = [endpoint.stable.version if endpoint.stable else 0, endpoint.queued_version or 0]
    if endpoint.rollout:
        newest.append(endpoint.rollout.candidate.version)
    return version < max(newest)


def is_overdue(endpoint: Endpoint, now: datetime, grace: timedelta) -> bool:
    """Whether a tick, or the start of what is queued, should have come long ago."""
    ticking = endpoint.ticking
    if ticking:
        return now - ticking.next_tick_at > grace
    ended_at = endpoint.rollout.ended_at if endpoint.rollout else None
    return endpoint.queued_version is not None and ended_at is not None and now - ended_at > grace


def records_waiting(endpoint: Endpoint) -> list[RolloutRecord]:
    """The archived rollouts that are still in the endpoint's outbox."""
    return [RolloutRecord.model_validate(entry.body) for entry in endpoint.outbox if isinstance(entry, ArchiveEntry)]


def _routes(endpoint: Endpoint) -> list[dict[str, Any]]:
    """What the audit keeps of the plan in force: which content served which share of the traffic."""
    plan = endpoint.plan()
    named = {"version", "role", "weight_bp", "mirror_bp", "artifact_digest"}
    return [route.model_dump(mode="json", include=named) for route in plan.routes] if plan else []


def _call_aliases_at_end(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    version = rollout.candidate.version
    if rollout.state is RolloutState.PROMOTED:
        for alias in (CHAMPION, PRODUCTION):
            _call_alias(endpoint, rollout, alias, version, now)
    _call_alias(endpoint, rollout, CHALLENGER, None, now, only_from=version)


def _call_alias(
    endpoint: Endpoint,
    rollout: Rollout,
    alias: str,
    version: int | None,
    now: datetime,
    *,
    only_from: int | None = None,
) -> None:
    call = MoveAlias(
        model=endpoint.endpoint,
        alias=alias,
        version=version,
        only_from=only_from,
        generation=endpoint.generation,
        rollout_id=rollout.rollout_id,
        at=now,
        reason=rollout.reason,
    )
    endpoint.send(call)
    endpoint.alias_calls = [*endpoint.alias_calls, AliasCall(move=call, sent_at=now)]
