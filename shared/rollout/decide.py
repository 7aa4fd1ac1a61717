"""What a tick concludes: a pure function of the rollout, with its progress, and the time.

Nothing is promoted without a PASS, or a named person: evidence that is missing or inconclusive holds the stage, and
takes the rollout back, or holds it, when the stage has lasted as long as the policy allows. A candidate that errs on
every request has no latencies at all, so a FAIL outweighs an INCONCLUSIVE. What a pod's own guard took out of traffic
is proven worse, or hangs: one such report ends the rollout at once, and so does what a sequential test proves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from shared.core.verdict import Outcome, Verdict, joined
from shared.registry.drift_policy import Following
from shared.registry.rollout_policy import GateName, Otherwise, Strategy
from shared.rollout.convergence import SENT_S, Convergence, convergence, fresh, unavailable
from shared.rollout.documents import Rollout
from shared.rollout.findings import DriftEvidence
from shared.rollout.gates import judge
from shared.rollout.losses import losses
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.queries import QueryAnswer
from shared.rollout.rates import Judged
from shared.rollout.rollbacks import Trigger
from shared.rollout.schedule import ends_without_promotion, is_held_open
from shared.rollout.standing import least_s, most_s
from shared.rollout.traffic import unheard
from shared.routing.plan import FULL_WEIGHT_BP

_MEMORY, _MEMORY_CHECKS = "trigger_memory", 2
"""No chance enters into a full memory, but a load of something else may fill it for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do: an event for the state machine, or None to hold; the verdicts behind it; and why."""

    event: RolloutEvent | None = None
    trigger: Trigger | None = None
    """With FAIL: what called for it."""
    is_settled: bool = False
    """Whether the pods have applied the stage's plan: its time begins, where it has not begun."""
    verdicts: tuple[Verdict, ...] = ()
    failed_checks: int = 0
    errored_checks: int = 0
    reason: str


def decide(
    rollout: Rollout,
    now: datetime,
    *,
    altered: str = "",
    blocked: str = "",
    answers: Mapping[str, QueryAnswer] | None = None,
) -> Decision:
    """Decide a tick of an active rollout, whose progress holds what the tick took in.

    `altered` says what of the candidate's stored parts is not what was registered: such a one is taken back at once.
    `blocked` says why no candidate may get more traffic now. `answers` holds those of the queries, by name.
    """
    version = rollout.candidate.version
    if altered:
        return _failed(rollout, Trigger.ALTERED, f"version {version} was altered: {altered}")
    if tripped := rollout.progress.tripped(version):
        said = f"version {version} was taken out of traffic by a pod's own guard: {tripped}"
        verdict = Verdict(check="guard", outcome=Outcome.FAIL, sentence=said)
        return replace(_failed(rollout, Trigger.GUARD, said), verdicts=(verdict,))
    if rollout.state is RolloutState.LOADING:
        return _loading(rollout, now, blocked)
    decision = _in_stage(rollout, now, blocked, answers or {})
    return _drifting(rollout, decision, rollout.drift, now) if rollout.drift else decision


def onward(rollout: Rollout) -> RolloutEvent:
    """The event by which a rollout goes on from where it stands, to its next stage or its end."""
    following = rollout.next_stage
    if rollout.stage is not None and following >= len(rollout.stages) and ends_without_promotion(rollout.policy):
        return RolloutEvent.CONCLUDE
    if not rollout.is_approved(following):
        return RolloutEvent.WAIT
    if following < len(rollout.stages):
        return RolloutEvent.LOADED if rollout.state is RolloutState.LOADING else RolloutEvent.ADVANCE
    return to_all_traffic(rollout)


def to_all_traffic(rollout: Rollout) -> RolloutEvent:
    """The event by which the candidate takes over."""
    is_watched = rollout.stable is not None and rollout.policy.watch_s > 0
    return RolloutEvent.SWITCH if is_watched and rollout.state is not RolloutState.WATCHING else RolloutEvent.COMPLETE


def missing_pods(rollout: Rollout, now: datetime) -> str:
    """Why no more pods may get the candidate, in words: more are missing than the policy allows for."""
    if rollout.policy.strategy is not Strategy.ROLLING:
        return ""
    missing = unavailable(_convergence(rollout, now), rollout.pods, now)
    if len(missing) <= rollout.policy.max_unavailable:
        return ""
    named = ", ".join(missing[:5])
    return f"{len(missing)} pods are silent or failing ({named}), max_unavailable is {rollout.policy.max_unavailable}"


def _failed(rollout: Rollout, trigger: Trigger, reason: str) -> Decision:
    return Decision(
        event=RolloutEvent.FAIL, trigger=trigger, failed_checks=rollout.failed_checks, reason=reason, is_settled=False
    )


def _convergence(rollout: Rollout, now: datetime) -> Convergence:
    """How far the pods are with the plan in force and the candidate.

    A further shadow is waited for only while no pod has failed to load it: that is no fault of the candidate's.
    """
    pods = rollout.pods
    shadows = rollout.shadows if rollout.mirror_bp and not _waited(rollout, now) else ()
    unloadable = {version for name in fresh(pods, now) for version in pods[name].failed}
    versions = [rollout.candidate.version, *(s.version for s in shadows if s.version not in unloadable)]
    return convergence(
        pods,
        generation=rollout.progress.generation,
        versions=tuple(versions),
        slots=rollout.slots,
        slot=rollout.candidate.slot,
        quorum=rollout.policy.quorum,
        now=now,
    )


def _waited(rollout: Rollout, now: datetime) -> str:
    """How long the pods have been waited for, in words, where that is longer than the policy allows."""
    since = max(rollout.published_at, rollout.resumed_at or rollout.published_at)
    waited_s = (now - since).total_seconds()
    return f"after {waited_s:.0f} s " if waited_s > rollout.policy.load_timeout_s else ""


def _drifting(rollout: Rollout, decision: Decision, drift: DriftEvidence, now: datetime) -> Decision:
    """What becomes of a decision where watching found that the candidate drifts from stable.

    One that is watched with all traffic is not held for longer than a stage without a conclusion may last.
    """
    if decision.event is RolloutEvent.FAIL:
        return decision
    said = f"{drift.sentence} (report {drift.report_id})"
    is_excused = rollout.drift_excused == drift.since and drift.following is Following.HOLD
    verdict = Verdict(check="drift", outcome=Outcome.FAIL, sentence=said, advisory=is_excused)
    decision = replace(decision, verdicts=(*decision.verdicts, verdict))
    if drift.following is Following.ROLL_BACK:
        return replace(decision, event=RolloutEvent.FAIL, trigger=Trigger.DATA_DRIFT, reason=said)
    if is_excused:
        return decision
    began_at = rollout.stage_started_at
    if rollout.state is RolloutState.WATCHING and began_at and (now - began_at).total_seconds() > most_s(rollout):
        lasted_s = (now - began_at).total_seconds()
        return _unconcluded(rollout, replace(decision, event=None, reason=f"watched for {lasted_s:.0f} s: {said}"))
    held = RolloutEvent.HOLD if rollout.state is RolloutState.PROGRESSING else None
    return replace(decision, event=held, reason=said)


def _loading(rollout: Rollout, now: datetime, blocked: str) -> Decision:
    """Before the first stage: the candidate has no traffic, and the quorum of the pods must have it ready."""
    found = _convergence(rollout, now)
    lost = losses(rollout)
    if not _is_applied(rollout, found) or lost.are_too_many:
        late = f"{lost.sentence}; " if lost.are_too_many else _waited(rollout, now)
        if (found.failing or late) and rollout.policy.on_load_failure is Otherwise.ABORT:
            return _failed(rollout, Trigger.LOADING, late + found.sentence)
        return Decision(reason=late + found.sentence)
    if blocked:
        return Decision(reason=f"{found.sentence}; {blocked}")
    verdict = Verdict(check="convergence", outcome=Outcome.PASS, sentence=found.sentence, n=len(found.reporting))
    return Decision(event=onward(rollout), verdicts=(verdict,), reason=found.sentence)


def _is_applied(rollout: Rollout, found: Convergence) -> bool:
    """Whether the quorum has the candidate ready; where a pod's failure to load it ends the rollout, none may fail."""
    return found.is_reached and not (found.failing and rollout.policy.on_load_failure is Otherwise.ABORT)


def _unapplied(rollout: Rollout, found: Convergence, held: Decision, now: datetime) -> Decision:
    """The pods have not applied the stage's plan: its time has not begun."""
    late = _waited(rollout, now)
    held = replace(held, reason=late + found.sentence)
    if not (found.failing or late):
        return held
    if rollout.policy.on_load_failure is Otherwise.ABORT:
        return replace(held, event=RolloutEvent.FAIL, trigger=Trigger.LOADING)
    return replace(held, event=RolloutEvent.HOLD) if rollout.state is RolloutState.PROGRESSING else held


def _in_stage(rollout: Rollout, now: datetime, blocked: str, answers: Mapping[str, QueryAnswer]) -> Decision:
    judged = judge(rollout, answers, now)
    verdicts = tuple(one.verdict for one in judged)
    outcome = joined(verdicts)
    worst = next((v.sentence for v in verdicts if v.outcome is outcome and not v.advisory), "no gate has spoken")
    held = Decision(verdicts=verdicts, failed_checks=rollout.failed_checks, reason=worst)
    if outcome is Outcome.FAIL:
        # Whether or not all pods have applied the plan: those that have show that it fails.
        return _failing(rollout, judged, held)
    errored = rollout.errored_checks + 1 if outcome is Outcome.ERROR else 0
    held = replace(held, errored_checks=errored, failed_checks=0 if outcome is Outcome.PASS else held.failed_checks)
    started_at = rollout.stage_started_at
    if started_at is None:
        found = _convergence(rollout, now)
        if not _is_applied(rollout, found):
            return _unapplied(rollout, found, held, now)
        if (said := _still_sends(rollout, now)) and _is_stable_asked(rollout):
            return replace(held, reason=said)
        started_at, held = now, replace(held, is_settled=True)
    return _without_failure(rollout, outcome, held, now, (now - started_at).total_seconds(), blocked)


def _still_sends(rollout: Rollout, now: datetime) -> str:
    """That stable's pods were sent requests within a minute although it has no share any more, in words: the Gateway
    has not heard, and the candidate has less than all traffic.
    """
    sent = unheard(rollout, now) if rollout.weight_bp else ()
    if not sent or rollout.stable is None:
        return ""
    return f"the Gateway still sends requests to version {rollout.stable.version} (pod {sent[0]})"


def _not_yet_heard(rollout: Rollout, now: datetime) -> str:
    """That it is too early to tell whether the Gateway sends a candidate with all traffic all requests, in words."""
    is_drawn = rollout.weight_bp == FULL_WEIGHT_BP and len(rollout.slots) > 1
    if not is_drawn or (now - rollout.published_at).total_seconds() >= SENT_S:
        return ""
    return f"whether the Gateway has heard shows {SENT_S:g} s after the plan was published"


def _is_stable_asked(rollout: Rollout) -> bool:
    """Whether the tick took in requests of stable under the plan in force."""
    counts = rollout.progress.block.get(rollout.stable.version) if rollout.stable else None
    return counts is not None and counts.requests > 0


def _without_failure(
    rollout: Rollout, outcome: Outcome, held: Decision, now: datetime, lasted_s: float, blocked: str
) -> Decision:
    """What a tick concludes of a stage that has lasted so long, and in which nothing failed."""
    if rollout.state.is_halted or (is_held_open(rollout.policy) and rollout.state is RolloutState.PROGRESSING):
        return held
    if outcome is Outcome.PASS and lasted_s >= least_s(rollout):
        return _passed(rollout, held, now, blocked)
    if outcome is Outcome.ERROR:
        return _errored(rollout, held)
    if outcome is Outcome.INCONCLUSIVE and lasted_s > most_s(rollout):
        return _unconcluded(rollout, replace(held, reason=f"no conclusion after {lasted_s:.0f} s: {held.reason}"))
    return held


def _passed(rollout: Rollout, held: Decision, now: datetime, blocked: str) -> Decision:
    is_watching = rollout.state is RolloutState.WATCHING
    # What passes may be what pods told that have fallen silent since.
    found = _convergence(rollout, now)
    if not found.is_reached:
        return replace(held, reason=f"all gates pass; {found.sentence}")
    if hindered := "" if is_watching else blocked or missing_pods(rollout, now):
        return replace(held, reason=f"all gates pass; {hindered}")
    event = to_all_traffic(rollout) if is_watching else onward(rollout)
    if event is RolloutEvent.COMPLETE and (said := _still_sends(rollout, now) or _not_yet_heard(rollout, now)):
        return replace(held, reason=f"all gates pass; {said}")
    return replace(held, event=event, reason=f"all gates pass: {held.reason}")


def _unconcluded(rollout: Rollout, held: Decision) -> Decision:
    if rollout.policy.on_inconclusive is Otherwise.ABORT:
        return replace(held, event=RolloutEvent.FAIL, trigger=Trigger.NO_CONCLUSION)
    return replace(held, event=RolloutEvent.HOLD) if rollout.state is RolloutState.PROGRESSING else held


def _failing(rollout: Rollout, judged: list[Judged], held: Decision) -> Decision:
    worst = next(one for one in judged if one.verdict.outcome is Outcome.FAIL and not one.verdict.advisory)
    proof = next((one for one in judged if one.is_proof), None)
    failed, limit = rollout.failed_checks + 1, _failure_limit(rollout, judged)
    if proof is not None:
        return replace(
            held,
            event=RolloutEvent.FAIL,
            trigger=_trigger_of(proof.verdict.check),
            failed_checks=failed,
            reason=proof.verdict.sentence,
        )
    said = worst.verdict.sentence
    if failed >= limit:
        return replace(
            held,
            event=RolloutEvent.FAIL,
            trigger=_trigger_of(worst.verdict.check),
            failed_checks=failed,
            reason=f"{failed} failed checks without a pass between: {said}",
        )
    return replace(held, failed_checks=failed, reason=f"failed check {failed} of {limit}: {said}")


def _failure_limit(rollout: Rollout, judged: list[Judged]) -> int:
    """How many failed checks without a pass between end the rollout."""
    is_full = any(one.verdict.check == _MEMORY and one.verdict.outcome is Outcome.FAIL for one in judged)
    limit = rollout.policy.failure_limit
    return min(limit, _MEMORY_CHECKS) if is_full else limit


def _errored(rollout: Rollout, held: Decision) -> Decision:
    """A gate could not be asked. That says nothing against the candidate: it takes nothing back, nor lets it go on."""
    errored = held.errored_checks
    if errored < rollout.policy.error_limit:
        return held
    held = replace(held, reason=f"{errored} ticks in a row: {held.reason}")
    return replace(held, event=RolloutEvent.HOLD) if rollout.state is RolloutState.PROGRESSING else held


_TRIGGERS = {
    GateName.ERROR_RATE: Trigger.ERROR_RATE,
    GateName.SLOW_RATE: Trigger.LATENCY,
    GateName.P99_MS: Trigger.LATENCY,
    GateName.PREDICTION_PSI: Trigger.PREDICTION_DRIFT,
    GateName.DISAGREEMENT: Trigger.DISAGREEMENT,
    GateName.FEEDBACK: Trigger.FEEDBACK,
    GateName.SMOKE: Trigger.ERROR_RATE,
    "trigger_error_rate": Trigger.ERROR_RATE,
    "trigger_p99_ms": Trigger.LATENCY,
    _MEMORY: Trigger.MEMORY,
    "trigger_health": Trigger.HEALTH,
    "trigger_prediction_psi": Trigger.PREDICTION_DRIFT,
}


def _trigger_of(check: str) -> Trigger:
    return _TRIGGERS.get(check, Trigger.QUERY)
