"""What a tick concludes: a pure function of the rollout, the evidence and the time.

Nothing is promoted without a PASS: evidence that is missing or inconclusive holds the stage, and ends the rollout when
the stage has lasted as long as the policy allows. A candidate that errs on every request has no latencies at all, so a
FAIL outweighs an INCONCLUSIVE. What a pod's own guard took out of traffic is proven worse, or hangs: one such report
ends the rollout at once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.core.verdict import Outcome, Verdict, joined
from shared.registry.policy import Strategy
from shared.rollout.documents import Rollout
from shared.rollout.gates import gate_verdicts
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.telemetry.evidence import Evidence

FRESH_S = 30.0
"""A pod whose latest window ended longer ago than this is not waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do: an event for the state machine, or None to hold; the verdicts behind it; and why."""

    event: RolloutEvent | None
    verdicts: tuple[Verdict, ...] = ()
    failed_checks: int = 0
    reason: str


def decide(rollout: Rollout, evidence: Evidence, now: datetime, *, altered: str = "") -> Decision:
    """Decide a tick of an active rollout. `evidence` is that of the plan generation in force.

    `altered` says what of the candidate's stored parts is not what was registered: such a one is taken back at once.
    """
    if altered:
        return Decision(event=RolloutEvent.FAIL, reason=f"version {rollout.candidate.version} was altered: {altered}")
    if rollout.candidate.version in evidence.tripped:
        return _tripped(rollout, evidence.tripped[rollout.candidate.version])
    if rollout.state is RolloutState.LOADING:
        return _decide_loading(rollout, evidence, now)
    return _decide_stage(rollout, evidence, now)


def _tripped(rollout: Rollout, why: str) -> Decision:
    sentence = f"version {rollout.candidate.version} was taken out of traffic by a pod's own guard: {why}"
    verdict = Verdict(check="guard", outcome=Outcome.FAIL, sentence=sentence)
    return Decision(event=RolloutEvent.FAIL, verdicts=(verdict,), failed_checks=rollout.failed_checks, reason=sentence)


def _decide_loading(rollout: Rollout, evidence: Evidence, now: datetime) -> Decision:
    version = rollout.candidate.version
    fresh = [w for w in evidence.pods.values() if now - w.ended_at <= timedelta(seconds=FRESH_S)]
    for window in fresh:
        if window.generation >= evidence.generation and version in window.failed:
            reason = f"pod {window.pod} cannot load version {version}: {window.failed[version]}"
            return Decision(event=RolloutEvent.FAIL, reason=reason)
    ready = [w for w in fresh if w.generation >= evidence.generation and version in w.loaded]
    if fresh and len(ready) == len(fresh):
        direct = rollout.stable is None or rollout.policy.strategy is Strategy.ALL_AT_ONCE
        return Decision(
            event=RolloutEvent.COMPLETE if direct else RolloutEvent.LOADED,
            reason=f"{len(ready)} of {len(fresh)} pods that report have version {version} ready",
        )
    waited_s = (now - rollout.started_at).total_seconds()
    if waited_s > rollout.policy.load_timeout_s:
        reason = f"after {waited_s:.0f} s {len(ready)} of {len(fresh)} pods that report have version {version} ready"
        return Decision(event=RolloutEvent.FAIL, reason=reason)
    return Decision(event=None, reason=f"{len(ready)} of {len(fresh)} pods that report have version {version} ready")


def _decide_stage(rollout: Rollout, evidence: Evidence, now: datetime) -> Decision:
    if rollout.stage is None or rollout.stage_started_at is None or rollout.stable is None:
        raise ValueError(f"rollout {rollout.rollout_id} is progressing without a stage or a stable version")
    policy, stage = rollout.policy, rollout.policy.stages[rollout.stage]
    verdicts = tuple(gate_verdicts(policy, evidence.of(rollout.candidate.version), evidence.of(rollout.stable.version)))
    outcome = joined(verdicts)
    worst = next(verdict.sentence for verdict in verdicts if verdict.outcome is outcome)
    lasted_s = (now - rollout.stage_started_at).total_seconds()

    def decision(event: RolloutEvent | None, reason: str, failed_checks: int = 0) -> Decision:
        return Decision(event=event, verdicts=verdicts, failed_checks=failed_checks, reason=reason)

    if outcome is Outcome.FAIL:
        failed = rollout.failed_checks + 1
        if failed >= policy.failure_limit:
            return decision(RolloutEvent.FAIL, f"{failed} failed checks in a row: {worst}", failed)
        return decision(None, f"failed check {failed} of {policy.failure_limit}: {worst}", failed)
    if outcome is Outcome.PASS and lasted_s >= stage.duration_s:
        is_last = rollout.stage + 1 == len(policy.stages)
        return decision(RolloutEvent.COMPLETE if is_last else RolloutEvent.ADVANCE, f"all gates pass: {worst}")
    failed = 0 if outcome is Outcome.PASS else rollout.failed_checks
    if lasted_s > policy.max_stage_s:
        return decision(RolloutEvent.FAIL, f"no conclusion after {lasted_s:.0f} s: {worst}", failed)
    return decision(None, worst, failed)
