"""What keeps any candidate from getting more traffic: freeze windows, and a spent error budget. Rollbacks go on.

Blocked are starts, advances, promotions, approvals and raised weights. Rollbacks, aborts and the watch period are not,
nor is a rollout that was started with an override. Every override stands in the audit, with who, why, and what it
passed.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from shared.budgets.sums import RequestSums, why_spent
from shared.core.errors import ConflictError, InvalidInputError, UnavailableError
from shared.core.messages import RolloutCommand
from shared.registry.rollout_policy import FreezeWindow, RolloutPolicy, Weekday
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint


def why_blocked(policy: RolloutPolicy, now: datetime, sums: RequestSums | None = None) -> str:
    """Why no candidate may get more traffic now, in words; empty where it may. `sums` is what its endpoint counted."""
    reasons = [f"freeze window {window.name} is on" for window in policy.freezes if is_frozen(window, now)]
    if policy.error_budget and (spent := why_spent(policy.error_budget, sums, now)):
        reasons.append(spent)
    return "; ".join(reasons)


def unreadable(error: ValidationError | UnavailableError) -> str:
    """Why no candidate may get more traffic where the policy or the endpoint's request sums cannot be read."""
    if isinstance(error, UnavailableError):
        return f"what blocks the endpoint cannot be read now: {error}"
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    return f"what blocks the endpoint cannot be read: the stored {error.title} is damaged at {where}: {first['msg']}"


def check_override(command: RolloutCommand) -> None:
    """Raise InvalidInputError for an override without a reason."""
    if command.override and not command.reason.strip():
        raise InvalidInputError("an override needs a reason, which goes into the audit: say why")


def check_open(blocked: str, command: RolloutCommand) -> None:
    """Raise ConflictError where a command may not give a candidate traffic, InvalidInputError for a bare override."""
    if blocked and not command.override:
        raise ConflictError(f"{blocked}: wait, or give the command with override and a reason")
    check_override(command)


def pass_block(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand, now: datetime, blocked: str) -> None:
    """Let a command through what blocks it, on record. Raises as `check_open` does."""
    check_open(blocked, command)
    if blocked:
        record_override(endpoint, rollout, command, now, blocked)


def record_override(endpoint: Endpoint, rollout: Rollout, command: RolloutCommand, now: datetime, blocked: str) -> None:
    """Put an override on record: who, why, and what it passed, which is empty for a start that nothing blocks yet.

    A command without an override leaves no record.
    """
    if not command.override:
        return
    endpoint.record(
        "block_overridden",
        now,
        rollout_id=rollout.rollout_id,
        version=rollout.candidate.version,
        command=command.command,
        command_id=command.command_id,
        blocked=blocked,
        by=command.requested_by,
        reason=command.reason,
    )


def is_frozen(window: FreezeWindow, now: datetime) -> bool:
    """Whether a time is in a freeze window."""
    if window.since is not None and window.until is not None:
        return window.since <= now < window.until
    local = now.astimezone(ZoneInfo(window.timezone))
    start, end = _minutes(window.start), _minutes(window.end)
    minute = local.hour * 60 + local.minute
    days = list(Weekday)
    if start < end:
        return days[local.weekday()] in window.days and start <= minute < end
    yesterday = days[(local - timedelta(days=1)).weekday()]
    return (days[local.weekday()] in window.days and minute >= start) or (yesterday in window.days and minute < end)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
