"""The steps that an endpoint takes: pure changes of its document, with what each calls for in its outbox.

Every step that changes who serves makes a new generation of the plan; what an alias is to name from then on is called
for under that generation, and the call is kept until it is heard: calls that come late or twice are told by it.
"""

from datetime import datetime, timedelta
from typing import Any

from shared.core.errors import ConflictError
from shared.core.messages import CommandKind, MoveAlias, RolloutCommand, RolloutTick
from shared.registry.aliases import CHALLENGER, CHAMPION, PRODUCTION
from shared.rollout.documents import (
    AliasCall,
    Endpoint,
    RefusedStart,
    Rollout,
    RolloutRecord,
    automatic_command_id,
)
from shared.rollout.machine import RolloutEvent, RolloutState, next_state
from shared.routing.plan import plan_blob_name
from shared.store.aggregate import ArchiveEntry
from shared.store.ports import BlobContainer, Container


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


def move(endpoint: Endpoint, rollout: Rollout, event: RolloutEvent, now: datetime, *, reason: str) -> None:
    """Move the rollout by an event. Raises ConflictError where its state does not allow that."""
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
        send_queued(endpoint, now)
        kind = f"rollout_{rollout.state}"
    else:
        rollout.stage = 0 if rollout.stage is None else rollout.stage + 1
        rollout.stage_started_at = now
        kind = "stage_started"
    publish(endpoint)
    if rollout.state.is_over:
        _call_aliases_at_end(endpoint, rollout, now)
    endpoint.record(
        kind,
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        stage=rollout.stage,
        weight_bp=rollout.weight_bp,
        generation=endpoint.generation,
        routes=_routes(endpoint),
        reason=reason,
        verdicts=[verdict.model_dump(mode="json") for verdict in rollout.verdicts],
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


def queue(endpoint: Endpoint, version: int, now: datetime) -> bool:
    """Have a version wait for the end of the active rollout. Whether anything changed."""
    if endpoint.queued_version == version:
        return False
    endpoint.queued_version = version
    endpoint.record("rollout_queued", now, version=version)
    return True


def unqueue(endpoint: Endpoint, version: int) -> bool:
    """Have a version wait no longer. Whether anything changed."""
    if endpoint.queued_version != version:
        return False
    endpoint.queued_version = None
    return True


def send_queued(endpoint: Endpoint, now: datetime) -> None:
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


def check_free(endpoint: Endpoint, version: int) -> None:
    """Raise ConflictError where a rollout of the version by command cannot begin."""
    if endpoint.active:
        raise ConflictError(
            f"rollout {endpoint.active.rollout_id} of version {endpoint.active.candidate.version} is under way on "
            f"endpoint {endpoint.endpoint}: promote or abort it first"
        )
    if endpoint.stable and endpoint.stable.version == version:
        raise ConflictError(f"version {version} is the stable version of {endpoint.endpoint} already")
    if version in endpoint.withdrawn:
        raise ConflictError(f"version {version} of {endpoint.endpoint} is being archived: roll out another one")


def is_overtaken(endpoint: Endpoint, version: int) -> bool:
    """Whether an automatic start of the version would take its endpoint back in time."""
    newest = [endpoint.stable.version if endpoint.stable else 0, endpoint.queued_version or 0]
    if endpoint.rollout:
        newest.append(endpoint.rollout.candidate.version)
    return version < max(newest)


def is_overdue(endpoint: Endpoint, now: datetime, grace: timedelta) -> bool:
    """Whether a tick, or the start of what is queued, should have come long ago."""
    if endpoint.active:
        return now - endpoint.active.next_tick_at > grace
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
