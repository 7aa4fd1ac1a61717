"""What keeps any candidate from getting more traffic: freeze windows, and a spent error budget. Rollbacks go on."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from shared.core.errors import ConflictError, InvalidInputError
from shared.core.messages import RolloutCommand
from shared.registry.rollout_policy import FreezeWindow, RolloutPolicy, Weekday


def why_blocked(policy: RolloutPolicy, now: datetime) -> str:
    """Why no candidate may get more traffic now, in words; empty where it may."""
    frozen = next((window for window in policy.freezes if is_frozen(window, now)), None)
    return f"freeze window {frozen.name} is on" if frozen else ""


def check_open(blocked: str, command: RolloutCommand) -> None:
    """Raise ConflictError where a command may not give a candidate traffic, InvalidInputError for a bare override."""
    if not blocked:
        return
    if not command.override:
        raise ConflictError(f"{blocked}: wait, or give the command with override and a reason")
    if not command.reason.strip():
        raise InvalidInputError("an override needs a reason, which goes into the audit: say why")


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
