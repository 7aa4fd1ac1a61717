"""Taking a version back because it fails: it is quarantined, a known good version serves in its place, and the rollback
is on record once the pods have applied it. Pure changes of the endpoint.
"""

from datetime import datetime, timedelta

from shared.core.errors import NotFoundError
from shared.rollout.alias_calls import call_champion
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.publishing import publish, routes_of, schedule
from shared.rollout.rollbacks import Quarantine, Reverted, Rollback, RollbackRecord, Trigger, Unapplied
from shared.store.ports import Container

CONFIRM_TICK_S = 2.0
"""How soon, and how often, the pods are looked at for whether they have applied a rollback."""
_GOOD_KEPT = 20


def put_in_place(endpoint: Endpoint, target: Target) -> None:
    """Have a known good version serve in place of stable, in stable's pods.

    They load it beside what fails and go on with that until they have, as pods always do: no request finds none ready,
    and the Gateway has nothing to hear. In other pods it would be sent requests before it is loaded.
    """
    make_stable(endpoint, target.in_slot(endpoint.stable.slot) if endpoint.stable else target)


def make_stable(endpoint: Endpoint, target: Target) -> None:
    """Have a version serve, which makes it the last known good one."""
    endpoint.stable = target
    endpoint.good = [*(t for t in endpoint.good if t.version != target.version), target][-_GOOD_KEPT:]


def quarantine(endpoint: Endpoint, version: int, reason: str, now: datetime, rollout_id: str | None) -> None:
    """Let no rollout of a version begin, nor a rollback to it, until somebody clears it."""
    found = Quarantine(version=version, reason=reason, at=now, rollout_id=rollout_id)
    endpoint.quarantined = [*(q for q in endpoint.quarantined if q.version != version), found]
    endpoint.good = [t for t in endpoint.good if t.version != version]
    endpoint.record("version_quarantined", now, version=version, rollout_id=rollout_id, reason=reason)


def clear_quarantine(endpoint: Endpoint, version: int, now: datetime, *, by: str, reason: str) -> bool:
    """Let rollouts of a version that failed begin again. Raises NotFoundError."""
    if not endpoint.is_quarantined(version):
        raise NotFoundError(f"version {version} in quarantine on endpoint {endpoint.endpoint}")
    endpoint.quarantined = [found for found in endpoint.quarantined if found.version != version]
    endpoint.record("quarantine_cleared", now, version=version, by=by, reason=reason)
    return True


def leave_bad_stable(endpoint: Endpoint) -> None:
    """Where stable itself is known to fail, have the last known good version serve. Without one stable stays."""
    stable = endpoint.stable
    if stable is not None and endpoint.is_quarantined(stable.version):
        found = endpoint.last_good(but=stable.version)
        if found is not None:
            put_in_place(endpoint, found)


def better_than_stable(endpoint: Endpoint, candidate: int, unfit: frozenset[int]) -> Target | None:
    """The last known good version besides a candidate, where stable is among the `unfit`; None where stable is fit.

    Nothing may go back to what is unfit.
    """
    stable = endpoint.stable
    if stable is None or stable.version not in unfit:
        return None
    return next((target for target in reversed(endpoint.good) if target.version not in {candidate, *unfit}), None)


def note_rollback(
    endpoint: Endpoint,
    now: datetime,
    *,
    rollout_id: str | None,
    trigger: Trigger,
    from_version: int,
    fault_at: datetime,
    by: str,
    reason: str,
) -> None:
    """Note a rollback that the plan in force carries out, to be confirmed by the pods.

    One before it that they have not confirmed is put on record as it stands.
    """
    if endpoint.rollback is not None:
        put_on_record(endpoint, endpoint.rollback)
    endpoint.rollback = Rollback(
        rollback_id=f"rollback-{endpoint.generation:06d}",
        rollout_id=rollout_id,
        trigger=trigger,
        from_version=from_version,
        to_version=endpoint.stable.version if endpoint.stable else None,
        generation=endpoint.generation,
        fault_at=min(fault_at, now),
        detected_at=now,
        by=by or "slipway",
        reason=reason,
    )
    # Whoever applies this has applied what came before it.
    endpoint.unapplied = None
    assert endpoint.rollout is not None  # noqa: S101 - what is taken back was rolled out
    schedule(endpoint, endpoint.rollout, now + timedelta(seconds=CONFIRM_TICK_S))


def note_unapplied(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Note that the plan in force takes traffic from a candidate without a fault, to be confirmed by the pods."""
    endpoint.unapplied = Unapplied(generation=endpoint.generation, at=now)
    schedule(endpoint, rollout, now + timedelta(seconds=CONFIRM_TICK_S))


def put_on_record(endpoint: Endpoint, rollback: Rollback) -> None:
    """Archive a rollback; nothing waits for it any more."""
    record = RollbackRecord(id=rollback.rollback_id, endpoint=endpoint.endpoint, rollback=rollback)
    endpoint.archive(Container.ENDPOINTS, record.model_dump(mode="json"))
    endpoint.rollback = None


def revert(
    endpoint: Endpoint, to: Target, now: datetime, *, by: str, reason: str, trigger: Trigger = Trigger.MANUAL
) -> None:
    """Take the stable version, which fails, out of service for an earlier one. No rollout is under way."""
    bad, rollout = endpoint.stable, endpoint.rollout
    assert bad is not None and rollout is not None  # noqa: PT018, S101 - whatever is stable had a rollout
    quarantine(endpoint, bad.version, reason, now, None)
    put_in_place(endpoint, to)
    rollout.feedback_until = None
    publish(endpoint)
    note_rollback(
        endpoint,
        now,
        rollout_id=None,
        trigger=trigger,
        from_version=bad.version,
        fault_at=now,
        by=by,
        reason=reason,
    )
    if rollout.state is RolloutState.PROMOTED and rollout.candidate.version == bad.version:
        rollout.reverted = Reverted(to_version=to.version, at=now, by=by or "slipway", reason=reason)
    call_champion(endpoint, rollout, to.version, now, reason=reason)
    endpoint.record(
        "endpoint_reverted",
        now,
        version=to.version,
        from_version=bad.version,
        generation=endpoint.generation,
        routes=routes_of(endpoint),
        trigger=trigger,
        by=by,
        reason=reason,
    )
