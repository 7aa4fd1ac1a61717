"""What aliases are to name from an endpoint's steps on: called for under the plan's generation, and kept until heard.

Calls that come late or twice are told by their generation.
"""

from datetime import datetime, timedelta

from shared.core.messages import MoveAlias
from shared.registry.aliases import CHALLENGER, CHAMPION, PRODUCTION
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import AliasCall, Endpoint


def call_challenger(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """The candidate of a rollout that begins is the challenger."""
    _call(endpoint, rollout, CHALLENGER, rollout.candidate.version, now)


def call_off_challenger(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """Once its rollout is over it is the challenger no more."""
    _call(endpoint, rollout, CHALLENGER, None, now, only_from=rollout.candidate.version)


def call_champion(endpoint: Endpoint, rollout: Rollout, version: int, now: datetime, *, reason: str = "") -> None:
    """The version that becomes stable is the champion and in production; `reason` is why, else the rollout's."""
    for alias in (CHAMPION, PRODUCTION):
        _call(endpoint, rollout, alias, version, now, reason=reason)


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


def _call(
    endpoint: Endpoint,
    rollout: Rollout,
    alias: str,
    version: int | None,
    now: datetime,
    *,
    only_from: int | None = None,
    reason: str = "",
) -> None:
    call = MoveAlias(
        model=endpoint.endpoint,
        alias=alias,
        version=version,
        only_from=only_from,
        generation=endpoint.generation,
        rollout_id=rollout.rollout_id,
        at=now,
        reason=reason or rollout.reason,
    )
    endpoint.send(call)
    endpoint.alias_calls = [*endpoint.alias_calls, AliasCall(move=call, sent_at=now)]
