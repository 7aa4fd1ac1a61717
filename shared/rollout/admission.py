"""Which version may begin a rollout, which waits for its turn, and which must stay: pure changes of the endpoint.

One rollout is under way at a time. One version waits: what somebody asks for by command takes the place of what waited
before; what policy asks for never takes the place of what somebody asked for, and is asked for again by the sweep.
"""

from datetime import datetime, timedelta

from shared.core.errors import ConflictError
from shared.core.messages import CommandKind, RolloutCommand
from shared.core.slots import Slot
from shared.registry.rollout_policy import APART, Placement, RolloutPolicy
from shared.rollout.convergence import still_sent
from shared.rollout.documents import Target, automatic_command_id
from shared.rollout.endpoint import Endpoint, RefusedStart

_TICKS_MISSED = 3
_LEAST_OVERDUE_S = 60.0
_HEARD_S = 120.0
"""By then the Gateway has heard of a plan, as a rule."""


def check_free(endpoint: Endpoint, version: int, *, supersedes: bool = False) -> None:
    """Raise ConflictError where a rollout of the version by command cannot begin; it may supersede another's."""
    active = endpoint.active
    if active and (not supersedes or active.candidate.version == version):
        raise ConflictError(
            f"a rollout that is {active.state} does not hear {CommandKind.START}: {active.rollout_id} of version "
            f"{active.candidate.version} is under way on endpoint {endpoint.endpoint}: promote or abort it first"
        )
    check_fit(endpoint, version)


def check_fit(endpoint: Endpoint, version: int) -> None:
    """Raise ConflictError for a version of which no rollout may begin, whatever else is under way."""
    if endpoint.stable and endpoint.stable.version == version:
        back = endpoint.rollback
        do = f"; pods that cannot load it beside version {back.from_version} do so once restarted" if back else ""
        raise ConflictError(f"version {version} is the stable version of {endpoint.endpoint} already{do}")
    if version in endpoint.withdrawn:
        raise ConflictError(f"version {version} of {endpoint.endpoint} is being archived: roll out another one")
    found = next((q for q in endpoint.quarantined if q.version == version), None)
    if found:
        raise ConflictError(
            f"version {version} of {endpoint.endpoint} is quarantined since {found.at.isoformat()}: {found.reason}; "
            f"clear it first if it is fit: slipway quarantine clear {endpoint.endpoint} {version}"
        )


def slot_for(placement: Placement, stable: Target | None) -> Slot | None:
    """The pods that a candidate goes to. Of its own, those that stable has not."""
    if placement is Placement.SHARED:
        return None
    return stable.slot.other if stable is not None and stable.slot is not None else Slot.BLUE


def not_apart(endpoint: Endpoint, policy: RolloutPolicy) -> str:
    """Why no rollout begins, in words, where candidate and stable would be in different pods and the strategy needs
    them in one process; empty otherwise.
    """
    stable = endpoint.stable
    if stable is None or slot_for(policy.placement, stable) is stable.slot or policy.strategy in APART:
        return ""
    return (
        f"version {stable.version} of {endpoint.endpoint} is in pods of its own ({stable.slot}), and strategy "
        f"{policy.strategy} needs the candidate in the same process: bring a version to the shared pods first, by a "
        f"rollout with placement shared and one of {', '.join(sorted(APART))}"
    )


def is_gateway_to_hear(endpoint: Endpoint, placement: Placement, now: datetime) -> bool:
    """Whether a candidate's pods may still be sent requests for what they had: it would get traffic unlooked at.

    Pods that are not stable's had a version by a plan that the Gateway may not have heard the end of. A rollout that is
    under way counts as over. What other pods have not applied keeps no candidate waiting.
    """
    stable, last, slot = endpoint.stable, endpoint.rollout, slot_for(placement, endpoint.stable)
    if stable is None or last is None or slot is stable.slot or not endpoint.is_gated:
        return False
    progress = last.progress
    if not (endpoint.active or endpoint.rollback or endpoint.unapplied):
        return len(last.slots) > 1 and _is_recent(last.ended_at or now, now)
    # As the latest look saw the pods: the next one is not far off.
    looked_at = progress.looked_at or last.started_at
    if _is_recent((last.ended_at or now) if len(last.slots) > 1 else last.started_at, looked_at):
        return True
    return any(progress.pods[name].slot is slot for name in still_sent(progress.pods, endpoint.slots, looked_at))


def refuse(endpoint: Endpoint, version: int, reason: str, now: datetime) -> bool:
    """Note that a version's rollout does not start, nor wait any longer. Whether anything changed."""
    changed = unqueue(endpoint, version)
    if endpoint.refused and endpoint.refused.version == version and endpoint.refused.reason == reason:
        return changed
    endpoint.refused = RefusedStart(version=version, reason=reason, at=now)
    endpoint.record("rollout_refused", now, version=version, reason=reason)
    return True


def queue(endpoint: Endpoint, version: int, now: datetime, command: RolloutCommand | None = None) -> bool:
    """Have a version wait for the end of the active rollout. Whether anything changed. `command`: who asked for it."""
    if command is None and (endpoint.queued_command or endpoint.queued_version == version):
        return False
    if endpoint.queued_command and command and endpoint.queued_command.command_id == command.command_id:
        return False
    before = endpoint.queued_version
    endpoint.queued_version, endpoint.queued_command = version, command
    endpoint.record(
        "rollout_queued",
        now,
        version=version,
        instead_of=before,
        requested_by=command.requested_by if command else "policy",
    )
    return True


def unqueue(endpoint: Endpoint, version: int) -> bool:
    """Have a version wait no longer. Whether anything changed."""
    if endpoint.queued_version != version:
        return False
    endpoint.queued_version = endpoint.queued_command = None
    return True


def is_queued(endpoint: Endpoint, command: RolloutCommand) -> bool:
    """Whether it is this command's rollout that waits."""
    return endpoint.queued_command is not None and endpoint.queued_command.command_id == command.command_id


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


def is_overtaken(endpoint: Endpoint, version: int) -> bool:
    """Whether an automatic start of the version would take its endpoint back in time."""
    newest = [endpoint.stable.version if endpoint.stable else 0, endpoint.queued_version or 0]
    if endpoint.rollout:
        newest.append(endpoint.rollout.candidate.version)
    return version < max(newest)


def is_overdue(endpoint: Endpoint, now: datetime, grace: timedelta) -> bool:
    """Whether a tick, or the start of what is queued, should have come long ago."""
    return is_tick_overdue(endpoint, now, grace) or is_queue_overdue(endpoint, now, grace)


def is_tick_overdue(endpoint: Endpoint, now: datetime, grace: timedelta) -> bool:
    """Whether a tick should have come long ago: three of its rollout's, a minute at least, and `grace` at most.

    A tick that fails for want of storage is given up within half a minute, and without ticks no gate watches. To send
    one twice costs nothing: the second is stale.
    """
    ticking = endpoint.ticking
    if ticking is None:
        return False
    missed = timedelta(seconds=max(_TICKS_MISSED * ticking.policy.tick_s, _LEAST_OVERDUE_S))
    return now - ticking.next_tick_at > min(missed, grace)


def is_queue_overdue(endpoint: Endpoint, now: datetime, grace: timedelta) -> bool:
    """Whether the start of what is queued should have come long ago."""
    ended_at = endpoint.rollout.ended_at if endpoint.rollout and not endpoint.active else None
    return endpoint.queued_version is not None and ended_at is not None and now - ended_at > grace


def use_of(endpoint: Endpoint, version: int, *, is_altered: bool = False) -> str:
    """What an endpoint needs a version for, in words; empty where it does not. Nothing goes back to an altered one."""
    active = endpoint.active
    if endpoint.stable and endpoint.stable.version == version:
        return "serves"
    if active and active.candidate.version == version:
        return "is being rolled out"
    if active and any(shadow.version == version for shadow in active.shadows):
        return "is a shadow"
    if endpoint.queued_version == version:
        return "waits for its rollout"
    fallback = None if is_altered else endpoint.fallback
    return "is what a rollback would go back to" if fallback and fallback.version == version else ""


def withdraw(endpoint: Endpoint, version: int, *, is_altered: bool = False) -> bool:
    """Let no rollout of a version begin any more, nor a rollback to it. Whether anything changed.

    Raises ConflictError where it is in use.
    """
    use = use_of(endpoint, version, is_altered=is_altered)
    if use:
        raise ConflictError(f"version {version} of {endpoint.endpoint} {use}: it cannot be archived")
    if version in endpoint.withdrawn:
        return False
    endpoint.withdrawn = [*endpoint.withdrawn, version]
    endpoint.good = [target for target in endpoint.good if target.version != version]
    return True


def forget_withdrawn(endpoint: Endpoint, version: int) -> bool:
    """Forget that a version is just being archived. Whether anything changed."""
    if version not in endpoint.withdrawn:
        return False
    endpoint.withdrawn = [other for other in endpoint.withdrawn if other != version]
    return True


def _is_recent(since: datetime, now: datetime) -> bool:
    return (now - since).total_seconds() < _HEARD_S
