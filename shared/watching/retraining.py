"""Requests for retraining: one for one cause, with a cooldown and a budget. Pure changes of one document a model.

A request stands for whatever is wrong with a version until it is over: no second one is made meanwhile, nor for an
alarm that began before it was over. What the cooldown or the budget holds back is asked for later, if it still holds.
"""

from datetime import datetime, timedelta

from shared.core.canonical import digest_of
from shared.core.errors import ConflictError, NotFoundError
from shared.core.messages import RequestRetraining
from shared.registry.drift_policy import RetrainingPolicy
from shared.watching.documents import Alarm, Episode, Retraining, RetrainingRequest, RetrainingState

BUDGET_OF = timedelta(days=30)
_KEPT = 1_000
_NEXT = {
    RetrainingState.OPEN: {RetrainingState.TAKEN, RetrainingState.DONE, RetrainingState.REFUSED},
    RetrainingState.TAKEN: {RetrainingState.OPEN, RetrainingState.DONE, RetrainingState.REFUSED},
    RetrainingState.DONE: set(),
    RetrainingState.REFUSED: set(),
}


def request_id(model: str, version: int, alarm: Alarm, episode: Episode) -> str:
    """The id of the request that a cause leads to: the same cause, the same request."""
    cause = [model, version, alarm.value, sorted(episode.features), episode.since.isoformat()]
    return f"retraining-{digest_of(cause)[:32]}"


def held_back(book: Retraining, policy: RetrainingPolicy, version: int, episode: Episode, now: datetime) -> str:
    """Why an alarm leads to no request now, in words; empty where it does."""
    if not policy.enabled:
        return "the policy asks for no retraining"
    for request in reversed(book.requests):
        if request.version == version and (not request.state.is_over or request.changed_at >= episode.since):
            return f"{request.request_id} stands for it"
    latest = max((request.at for request in book.requests), default=None)
    cooldown = timedelta(hours=policy.cooldown_h)
    if latest is not None and now - latest < cooldown:
        return f"the cooldown of {policy.cooldown_h:g} hours lasts until {latest + cooldown:%Y-%m-%d %H:%M}"
    recent = [request.at for request in book.requests if now - request.at < BUDGET_OF]
    if len(recent) >= policy.most_in_30_days:
        return f"the budget of {policy.most_in_30_days} in 30 days is spent until {min(recent) + BUDGET_OF:%Y-%m-%d}"
    return ""


def ask(
    book: Retraining, policy: RetrainingPolicy, version: int, alarm: Alarm, episode: Episode, now: datetime
) -> bool:
    """Make the request that an alarm leads to, if it leads to one. Whether it did."""
    if held_back(book, policy, version, episode, now):
        return False
    request = RetrainingRequest(
        request_id=request_id(book.model, version, alarm, episode),
        version=version,
        alarm=alarm,
        features=episode.features,
        sentence=episode.sentence,
        report_id=episode.report_id,
        episode_since=episode.since,
        at=now,
        changed_at=now,
    )
    book.requests = [*book.requests, request][-_KEPT:]
    book.record("retraining_requested", now, **request.model_dump(mode="json", exclude={"at", "changed_at"}))
    book.send(
        RequestRetraining(
            model=book.model,
            version=version,
            request_id=request.request_id,
            reason=request.sentence,
            report_id=request.report_id,
        )
    )
    return True


def mark(book: Retraining, identity: str, state: RetrainingState, now: datetime, *, by: str, reason: str) -> bool:
    """Say how a request stands. False where it stands so. Raises NotFoundError, or ConflictError where it is over."""
    found = next((request for request in book.requests if request.request_id == identity), None)
    if found is None:
        raise NotFoundError(f"the request {identity[:100]} for retraining of {book.model}")
    if found.state is state:
        return False
    if state not in _NEXT[found.state]:
        raise ConflictError(f"{identity} is {found.state}, and cannot become {state}: a new alarm makes a new request")
    changed = found.model_copy(update={"state": state, "changed_at": now, "by": by, "reason": reason})
    book.requests = [changed if request is found else request for request in book.requests]
    book.record("retraining_marked", now, request_id=identity, state=state, by=by, reason=reason)
    return True
