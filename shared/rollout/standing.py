"""How a rollout stands, for people: what it waits for, how far the pods are, and the time that it will still take.

Pure, and of no effect: decisions are `shared.rollout.decide`'s alone. Times left are the least that is still to come
where every gate passes; what a person or evidence holds has none.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.core.verdict import Outcome, joined
from shared.registry.rollout_policy import Otherwise
from shared.rollout.convergence import Convergence, convergence
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.schedule import ends_without_promotion, is_held_open
from shared.rollout.traffic import unheard


class Waiting(StrEnum):
    """What a rollout waits for."""

    PODS = "pods"
    """That the pods that report have applied the plan, or have the candidate ready."""
    TIME = "time"
    """The least time of its stage."""
    EVIDENCE = "evidence"
    """That every gate passes."""
    TICK = "tick"
    """The next tick: nothing else is lacking, or what the reason says blocks it."""
    APPROVAL = "approval"
    """That somebody approves of what comes next."""
    PERSON = "person"
    """That somebody says how it goes on."""
    NOTHING = "nothing"
    """It is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a rollout stands at a moment."""

    waiting: Waiting
    sentence: str
    """What it waits for, in words."""
    convergence: Convergence | None
    """How far the pods have applied the plan in force; None once it is over and what ended it is applied."""
    stage_age_s: float | None
    """Since its stage's time began, or since its plan was published where the pods have not applied that yet."""
    stage_limit_s: float | None
    """The longest that the stage, or the loading, may last before it is ended or held.

    None where nothing bounds it, and where it passes, but a freeze window or an error budget blocks what comes next.
    """
    stage_left_s: float | None
    """At least this long until the stage can end by itself."""
    left_s: float | None
    """At least this long until the rollout is over."""


def standing(endpoint: Endpoint, rollout: Rollout, now: datetime) -> Standing:
    """How a rollout of an endpoint, under way or over, stands."""
    is_unapplied = bool(endpoint.active or endpoint.rollback or endpoint.unapplied)
    pods = _convergence(endpoint, rollout, now) if is_unapplied and _is_latest(endpoint, rollout) else None
    waiting, sentence = _waiting(endpoint, rollout, now, pods)
    if rollout.state.is_over:
        return Standing(
            waiting=waiting,
            sentence=sentence,
            convergence=pods,
            stage_age_s=None,
            stage_limit_s=None,
            stage_left_s=None,
            left_s=None,
        )
    return Standing(
        waiting=waiting,
        sentence=sentence,
        convergence=pods,
        stage_age_s=max(0.0, (now - _began_at(rollout)).total_seconds()),
        stage_limit_s=None if _is_blocked(rollout, pods) or _is_unheard(rollout, now) else _limit_s(rollout),
        stage_left_s=_stage_left_s(rollout, now),
        left_s=_left_s(rollout, now),
    )


def least_s(rollout: Rollout) -> float:
    """The least time of the stage that a rollout is in; of the watch period where it has all traffic."""
    if rollout.current:
        return rollout.current.duration_s
    return rollout.policy.watch_s if rollout.state is RolloutState.WATCHING else 0.0


def most_s(rollout: Rollout) -> float:
    """The most time of the stage that a rollout is in, without a conclusion."""
    stage, policy = rollout.current, rollout.policy
    if stage is None:
        return max(policy.max_stage_s, policy.watch_s)
    return policy.max_stage_s if stage.max_duration_s is None else stage.max_duration_s


def is_watched_without_end(rollout: Rollout, now: datetime) -> bool:
    """Whether a candidate with all traffic is watched, and nothing has said for too long that it is fit to be stable.

    A gate cannot be asked, or nothing is concluded and policy takes nothing back for that: somebody must say what is
    to be. It becomes stable by itself only if every gate passes yet.
    """
    if rollout.state is not RolloutState.WATCHING or joined(rollout.verdicts) is Outcome.PASS:
        return False
    began_at, policy = rollout.stage_started_at, rollout.policy
    is_late = began_at is not None and (now - began_at).total_seconds() > most_s(rollout)
    return rollout.errored_checks >= policy.error_limit or (is_late and policy.on_inconclusive is Otherwise.HOLD)


def _began_at(rollout: Rollout) -> datetime:
    """When the stage's time began; where it has not, since when the pods have been waited for."""
    asked_at = rollout.published_at if rollout.resumed_at is None else max(rollout.published_at, rollout.resumed_at)
    return rollout.stage_started_at or asked_at


def _convergence(endpoint: Endpoint, rollout: Rollout, now: datetime) -> Convergence:
    targets = () if rollout.state.is_over else (rollout.candidate, *(rollout.shadows if rollout.mirror_bp else ()))
    slots = endpoint.slots
    return convergence(
        {name: seen for name, seen in rollout.progress.pods.items() if seen.slot in slots},
        generation=endpoint.generation,
        slots=slots,
        slot=endpoint.stable.slot if rollout.state.is_over and endpoint.stable else rollout.candidate.slot,
        versions=tuple(target.version for target in targets),
        quorum=rollout.policy.quorum,
        now=now,
    )


def _waiting(endpoint: Endpoint, rollout: Rollout, now: datetime, pods: Convergence | None) -> tuple[Waiting, str]:
    endpoint_name = endpoint.endpoint
    match rollout.state:
        case RolloutState.AWAITING:
            switch = rollout.next_stage >= len(rollout.stages)
            what = "the switch to all traffic" if switch else f"stage {rollout.next_stage + 1} of {len(rollout.stages)}"
            return Waiting.APPROVAL, f"somebody to approve of {what}, or to reject it"
        case RolloutState.PAUSED:
            return Waiting.PERSON, f"somebody to resume it: slipway rollout resume {endpoint_name}"
        case RolloutState.HELD:
            said = f"somebody to say how it goes on: slipway rollout resume, skip or abort {endpoint_name}"
            return Waiting.PERSON, said
        case _ if rollout.state.is_over:
            if pods is not None:
                ended = "stable's former pods" if rollout.state is RolloutState.PROMOTED else "the candidate"
                what = "rollback" if endpoint.rollback else f"plan that gives {ended} no traffic"
                return Waiting.PODS, f"the pods to apply the {what}: {pods.sentence}"
            back = rollout.reverted
            after = f", and was taken back since for version {back.to_version}: {back.reason}" if back else ""
            if rollout.feedback_until is not None and _is_latest(endpoint, rollout):
                after = f"; late feedback may take it back until {rollout.feedback_until:%Y-%m-%d %H:%M} UTC"
            return Waiting.NOTHING, f"nothing: it is {rollout.state}{after}"
        case _:
            return _waiting_by_itself(rollout, now, pods)


def _is_latest(endpoint: Endpoint, rollout: Rollout) -> bool:
    return endpoint.rollout is not None and endpoint.rollout.rollout_id == rollout.rollout_id


def _waiting_by_itself(rollout: Rollout, now: datetime, pods: Convergence | None) -> tuple[Waiting, str]:
    """What a rollout that goes on without anybody's word waits for."""
    if rollout.stage_started_at is None:
        said = f"the pods to apply the plan: {pods.sentence if pods else 'none has reported'}"
        return Waiting.PODS, f"the Gateway to hear it: {rollout.reason}" if _is_unheard(rollout, now) else said
    if is_held_open(rollout.policy) and rollout.state is RolloutState.PROGRESSING:
        return Waiting.PERSON, "somebody to end it: a split is held open"
    if is_watched_without_end(rollout, now):
        return Waiting.PERSON, f"somebody to promote it or to take it back, or that every gate passes: {rollout.reason}"
    unsure = [v for v in rollout.verdicts if not v.advisory and v.outcome is not Outcome.PASS]
    if rollout.verdicts and unsure:
        worst = joined(rollout.verdicts)
        sentence = next(v.sentence for v in unsure if v.outcome is worst)
        return Waiting.EVIDENCE, f"every gate to pass: {sentence}"
    left_s = _stage_left_s(rollout, now) or 0.0
    if left_s > 0:
        what = "watch period" if rollout.state is RolloutState.WATCHING else "stage"
        return Waiting.TIME, f"its {what}'s least time, {left_s:.0f} s more"
    return Waiting.TICK, f"the next tick; {rollout.reason}" if rollout.reason else "the next tick"


def _is_blocked(rollout: Rollout, pods: Convergence | None) -> bool:
    """Whether a freeze window or an error budget is all that keeps it where it is, however long that lasts."""
    if not rollout.blocked:
        return False
    if rollout.state is RolloutState.LOADING:
        return pods is not None and pods.is_reached
    return (
        rollout.state is RolloutState.PROGRESSING
        and rollout.stage_started_at is not None
        and joined(rollout.verdicts) is Outcome.PASS
    )


def _is_unheard(rollout: Rollout, now: datetime) -> bool:
    """Whether the pods have applied that a candidate has all traffic, and it waits for the Gateway, however long that
    lasts.
    """
    return rollout.state is RolloutState.WATCHING and rollout.stage_started_at is None and bool(unheard(rollout, now))


def _limit_s(rollout: Rollout) -> float | None:
    if rollout.state.is_halted:
        return None
    if rollout.stage_started_at is None:
        return rollout.policy.load_timeout_s
    if is_held_open(rollout.policy) and rollout.state is RolloutState.PROGRESSING:
        return None
    return most_s(rollout)


def _stage_left_s(rollout: Rollout, now: datetime) -> float | None:
    if rollout.state.is_halted or rollout.state is RolloutState.LOADING:
        return None
    if rollout.stage_started_at is None:
        return least_s(rollout)
    return max(0.0, least_s(rollout) - (now - rollout.stage_started_at).total_seconds())


def _left_s(rollout: Rollout, now: datetime) -> float | None:
    if rollout.state.is_halted or is_held_open(rollout.policy):
        return None
    in_stage_s = _stage_left_s(rollout, now) or 0.0
    if rollout.state is RolloutState.WATCHING:
        return in_stage_s
    # Without a stable version there is nothing to compare with: the candidate becomes stable once it is loaded.
    if rollout.stable is None:
        return 0.0
    to_come_s = sum(stage.duration_s for stage in rollout.stages[rollout.next_stage :])
    watch_s = 0.0 if ends_without_promotion(rollout.policy) else rollout.policy.watch_s
    return in_stage_s + to_come_s + watch_s
