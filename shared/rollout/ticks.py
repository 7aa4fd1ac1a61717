"""What a tick does to the endpoint: takes the evidence in, carries the decision out, and keeps what it saw.

Each tick's evidence and decision are published as a blob of the reports container, from which decisions can be
replayed, under another policy too.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from shared.rollout import tickrecord
from shared.rollout.convergence import FRESH_S, SENT_S, applied, fresh, lingering, still_sent
from shared.rollout.decide import Decision, decide, missing_pods
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.feedback import fed
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.progress import Progress, taken
from shared.rollout.publishing import schedule
from shared.rollout.queries import QueryAnswer
from shared.rollout.rates import advanced
from shared.rollout.reverts import CONFIRM_TICK_S, better_than_stable, put_on_record
from shared.rollout.rollbacks import Trigger
from shared.rollout.steps import move, replace_gone
from shared.rollout.traffic import idle_slots
from shared.routing.plan import FULL_WEIGHT_BP
from shared.telemetry.window import VersionCounts, Window

_SLOWLY_AFTER_S = 60.0
_SLOW_TICK_S = 20.0
"""How often pods are looked at that have not applied within a minute what takes traffic away: while each look is new
enough to tell who reports.
"""
_GIVE_UP_S = 3_600.0


def took_in(rollout: Rollout, windows: Iterable[Window], generation: int, *, now: datetime | None = None) -> Progress:
    """The rollout's progress with windows taken in, and its running tests advanced by one block."""
    progress = fed(rollout, taken(rollout.progress, windows, generation, now=now, idle=idle_slots(rollout)))
    if rollout.stable is None or rollout.state is RolloutState.WATCHING:
        return progress
    # With all traffic, what stable still has where the Gateway draws is what it was sent before that had heard.
    is_both = rollout.weight_bp < FULL_WEIGHT_BP or len(rollout.slots) == 1
    if is_both and progress.of(rollout.stable.version).requests:
        progress = progress.model_copy(update={"both": progress.counts})
    if not rollout.weight_bp:
        return progress
    candidate, stable = (
        progress.block.get(version, VersionCounts()) for version in (rollout.candidate.version, rollout.stable.version)
    )
    found: dict[str, object] = {"tests": advanced(progress.tests, candidate, stable, rollout.gates)}
    # Where the Gateway draws, what came before it heard of a share is not of that share.
    if rollout.weight_bp < FULL_WEIGHT_BP and len(rollout.slots) == 1:
        found["exposures"] = progress.exposures.and_more(candidate.requests, stable.requests, rollout.weight_bp)
    return progress.model_copy(update=found)


def look(
    endpoint: Endpoint,
    rollout: Rollout,
    now: datetime,
    *,
    altered: str = "",
    blocked: str = "",
    answers: Mapping[str, QueryAnswer] | None = None,
    unfit: Callable[[], frozenset[int]] = frozenset,
) -> None:
    """Decide a tick of an active rollout, whose evidence was taken in, carry it out, and keep what it saw.

    `unfit` tells to which versions nothing may go back; it is asked only where something is taken back.
    """
    decision = decide(rollout, now, altered=altered, blocked=blocked, answers=answers)
    decision = tickrecord.with_evidence(decision, endpoint, rollout)
    record = tickrecord.record_of(endpoint, rollout, now, decision, altered=altered, blocked=blocked, answers=answers)
    rollout.blocked = blocked
    apply(endpoint, rollout, decision, now, unfit=unfit)
    tickrecord.publish(endpoint, record.model_copy(update={"left": tickrecord.changing(rollout)}))


def apply(
    endpoint: Endpoint,
    rollout: Rollout,
    decision: Decision,
    now: datetime,
    *,
    unfit: Callable[[], frozenset[int]] = frozenset,
) -> None:
    """Carry out what a tick decided, and ask for the next tick. `unfit` is as in `look`."""
    rollout.verdicts = list(decision.verdicts)
    # The evidence begins with the windows that the tick took in, not with the tick.
    seen_since = min(rollout.progress.since or now, now)
    if decision.failed_checks > rollout.failed_checks:
        rollout.failing_since = rollout.failing_since or seen_since
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
        fault_at = rollout.failing_since or seen_since
        move(
            endpoint,
            rollout,
            RolloutEvent.FAIL,
            now,
            reason=decision.reason,
            trigger=trigger,
            fault_at=fault_at,
            to=better_than_stable(endpoint, rollout.candidate.version, unfit()),
        )
    elif decision.event:
        move(endpoint, rollout, decision.event, now, reason=decision.reason)
    else:
        rollout.reason = decision.reason
        if not missing_pods(rollout, now):
            replace_gone(endpoint, rollout, now)
    if not rollout.state.is_over:
        schedule(endpoint, rollout, now + timedelta(seconds=rollout.policy.tick_s))
    elif endpoint.ticking is not None and decision.event is not RolloutEvent.FAIL:
        # What was taken back before this rollout, which the pods have not been seen to apply.
        schedule(endpoint, rollout, now + timedelta(seconds=CONFIRM_TICK_S))


def confirm_rollback(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """See whether the pods have applied the latest rollback; if so, or if it takes too long, put it on record.

    `rollout` is that which is looked at: the one that was rolled back, or one that began since.
    """
    rollback = endpoint.rollback
    if rollback is None or _is_too_new(endpoint, rollout, now):
        return
    pods, waited_s = rollout.progress.pods, (now - rollback.detected_at).total_seconds()
    done = _applied(endpoint, rollout, rollback.generation, rollback.detected_at, now)
    if not done and waited_s < _GIVE_UP_S:
        _look_again(endpoint, rollout, now, waited_s)
        return
    if done:
        # What other pods were still sent meanwhile: the Gateway hears later than they.
        late = [seen.late_at for seen in pods.values() if seen.slot not in endpoint.slots and seen.late_at is not None]
        applied_at = max([*(pods[name].since or now for name in done), *late])
        zero_traffic_at = min(max(applied_at, rollback.detected_at), now)
        rollback = rollback.model_copy(update={"zero_traffic_at": zero_traffic_at})
    put_on_record(endpoint, rollback)


def confirm_unapplied(endpoint: Endpoint, rollout: Rollout, now: datetime) -> None:
    """See whether the pods have applied the end of a rollout; one that reports and has not is waited for for good.

    `rollout` is as in `confirm_rollback`; a rollback that is not confirmed comes first.
    """
    unapplied = endpoint.unapplied
    if unapplied is None or endpoint.rollback is not None or _is_too_new(endpoint, rollout, now):
        return
    pods, waited_s = rollout.progress.pods, (now - unapplied.at).total_seconds()
    is_applied = bool(_applied(endpoint, rollout, unapplied.generation, unapplied.at, now))
    if is_applied or (waited_s >= _GIVE_UP_S and not fresh(pods, now)):
        endpoint.unapplied = None
    else:
        _look_again(endpoint, rollout, now, waited_s)


def _applied(endpoint: Endpoint, rollout: Rollout, generation: int, since: datetime, now: datetime) -> tuple[str, ...]:
    """The pods that have applied a generation; none while one is to be waited for, or other pods are still sent what
    the generation, which is in force since then, takes from them.
    """
    slots, pods = endpoint.slots, rollout.progress.pods
    is_soon = (now - since).total_seconds() < SENT_S
    if still_sent(pods, slots, now) or (is_soon and lingering(pods, slots, now)):
        return ()
    return applied({name: seen for name, seen in pods.items() if seen.slot in slots}, generation, now)


def _look_again(endpoint: Endpoint, rollout: Rollout, now: datetime, waited_s: float) -> None:
    """Ask for another look at the pods after so long a wait; a rollout that is under way is looked at anyhow."""
    if rollout.state.is_over:
        pause_s = CONFIRM_TICK_S if waited_s < _SLOWLY_AFTER_S else _SLOW_TICK_S
        schedule(endpoint, rollout, now + timedelta(seconds=pause_s))


def _is_too_new(endpoint: Endpoint, rollout: Rollout, now: datetime) -> bool:
    """Whether a rollout has been under way for too short a time for every pod that reports, and for every one that the
    Gateway sends requests, to have been seen in it.
    """
    seen_s = SENT_S if endpoint.is_gated else FRESH_S
    return not rollout.state.is_over and (now - rollout.started_at).total_seconds() < seen_s
