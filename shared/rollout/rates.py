"""The gates over error and slow rates: candidate against concurrent stable, by a test that may be looked at every tick.

Over the whole rollout, not a stage: a test that began anew with each stage would have as many chances to err. Where
stages ask for different margins it must begin anew; the level is then divided among as many tests as there can be. One
block a tick, of the windows that came since the last; shared.sequential has the test and what it takes for granted.

That the candidate is not worse is proven of each stage by itself, and must stand proven when it is asked: a null that
holds at every block is refuted by any time at which the candidate was well, and says nothing of what it does since.

The rates that a verdict tells, their difference and its interval are the stage's: over stages with different shares
of a time that changes, the totals of two equal versions differ.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import GateMode, GateName, Gates
from shared.rollout.documents import Rollout
from shared.rollout.progress import TestName
from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessState, ExcessTest
from shared.sequential.intervals import difference_interval
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import VersionCounts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A gate's verdict. A proof ends the rollout at once; any other FAIL is one failed check."""

    verdict: Verdict
    is_proof: bool = False


def advanced(
    tests: Mapping[TestName, ExcessState], candidate: VersionCounts, stable: VersionCounts, gates: Gates
) -> dict[TestName, ExcessState]:
    """The running tests after one more block. One whose margin the policy of the stage changes begins anew."""
    errors, slows = errors_block(candidate, stable), slow_block(candidate, stable, gates.slow_ms)
    asked = (
        (TestName.ERRORS_WORSE, errors, Claim.WORSE, gates.error_harm),
        (TestName.ERRORS_NOT_WORSE, errors, Claim.NOT_WORSE, gates.error_rate),
        (TestName.SLOW_WORSE, slows, Claim.WORSE, gates.slow_harm),
        (TestName.SLOW_NOT_WORSE, slows, Claim.NOT_WORSE, gates.slow_rate),
    )
    found = dict(tests)
    for name, block, claim, margin in asked:
        if claim is Claim.NOT_WORSE and gates.mode is not GateMode.NOT_WORSE:
            continue
        test = going_on(tests.get(name), claim, margin)
        test.add(block)
        found[name] = test.state
    return found


def of_next_stage(tests: Mapping[TestName, ExcessState]) -> dict[TestName, ExcessState]:
    """The running tests as a stage finds them that begins, or a share that somebody sets."""
    return {name: state for name, state in tests.items() if state.claim is Claim.WORSE}


def errors_block(candidate: VersionCounts, stable: VersionCounts) -> Block:
    """Requests and errors of both."""
    return Block(
        candidate=candidate.requests,
        candidate_failed=candidate.errors,
        stable=stable.requests,
        stable_failed=stable.errors,
    )


def slow_block(candidate: VersionCounts, stable: VersionCounts, slow_ms: float) -> Block:
    """Answers and slow answers of both."""
    return Block(
        candidate=sum(candidate.latency_ms.values()),
        candidate_failed=slow(candidate, slow_ms),
        stable=sum(stable.latency_ms.values()),
        stable_failed=slow(stable, slow_ms),
    )


def slow(counts: VersionCounts, slow_ms: float) -> int:
    """Answers in the buckets above that of a latency: within 2 % of it."""
    limit = bucket_index(slow_ms)
    return sum(count for bucket, count in counts.latency_ms.items() if bucket > limit)


def rate_verdict(rollout: Rollout, gate: GateName, stage: Block, min_requests: int) -> Judged:
    """The verdict on the error rate or the slow rate. `stage` holds the counts since the stage began."""
    gates, tests = rollout.gates, rollout.progress.tests
    worse_name, not_worse_name, harm, margin, what = _parts(gate, gates)
    level = level_of(rollout, lambda gates: _parts(gate, gates)[2:4])
    worse = ExcessTest.of(tests[worse_name]) if worse_name in tests else None
    value = _rate(stage.candidate_failed, stage.candidate) - _rate(stage.stable_failed, stage.stable)
    counted = (
        f"{what[0]} {_counted(stage.candidate_failed, stage.candidate)} for the candidate, "
        f"{_counted(stage.stable_failed, stage.stable)} for stable at the same time"
    )

    def judged(outcome: Outcome, said: str, *, is_proof: bool = False) -> Judged:
        verdict = Verdict(
            check=gate,
            outcome=outcome,
            sentence=f"{counted}: {said}",
            n=stage.candidate,
            value=value if stage.has_both else None,
            limit=harm if gates.mode is GateMode.NO_PROVEN_HARM else margin,
            interval=difference_interval(stage, confidence=1 - level) if stage.has_both else None,
        )
        return Judged(verdict=verdict, is_proof=is_proof)

    if worse and worse.proves(level):
        proven = f"more than {harm:.2%} above stable" if harm else "worse than stable"
        over = f"over the rollout's {worse.total.candidate} {what[1]} of the candidate"
        said = f"{proven} is proven at level {level:.2g}, {over} (p at most {worse.p_value:.2g})"
        return judged(Outcome.FAIL, said, is_proof=True)
    if min(stage.candidate, stage.stable) < min_requests:
        return judged(
            Outcome.INCONCLUSIVE,
            f"in this stage the candidate has {stage.candidate} {what[1]} and stable {stage.stable}: each needs "
            f"{min_requests}",
        )
    if gates.mode is GateMode.NO_PROVEN_HARM:
        return judged(Outcome.PASS, f"no harm is proven at level {level:.2g}")
    stage_level = stage_level_of(rollout)
    if value < margin and not_worse_name in tests and stands(tests[not_worse_name], stage_level):
        said = f"less than {margin:.2%} above stable is proven in this stage at level {stage_level:.2g}"
        return judged(Outcome.PASS, said)
    return judged(Outcome.INCONCLUSIVE, f"that it is less than {margin:.2%} above stable is not proven yet")


def level_of(rollout: Rollout, margins_of: Callable[[Gates], object], *, goes_on: bool = False) -> float:
    """The level at which a gate's test proves harm.

    The rollout's is divided among the gates that are tested so, and a gate's among the times that its stages can have
    the test begin, whether or not somebody skips some: with each change of its margins, which are None where it is not
    asked. One that `goes_on` does so after the last stage too, under the policy's own gates.
    """
    gates = [stage.gates or rollout.policy.gates for stage in rollout.stages if stage.weight_bp]
    margins = [margins_of(each) for each in (*gates, *([rollout.policy.gates] if goes_on else ()))]
    begun = len(list(groupby(each for each in margins if each is not None)))
    return rollout.gates.level / _tested(rollout) / max(1, begun)


def stage_level_of(rollout: Rollout) -> float:
    """The level at which each stage with traffic must prove by itself that the candidate is not worse, in a gate."""
    return rollout.gates.level / _tested(rollout) / max(1, sum(bool(stage.weight_bp) for stage in rollout.stages))


def _tested(rollout: Rollout) -> int:
    """How many gates are tested: the error rate, the slow rate, and feedback where any stage asks for it."""
    every = [rollout.policy.gates, *(stage.gates for stage in rollout.stages if stage.gates is not None)]
    return 2 + any(gates.feedback is not None for gates in every)


def stands(state: ExcessState, level: float) -> bool:
    """Whether a claim is proven by the stake as it stands now, not as it stood when the candidate was better."""
    return ExcessTest.of(state).log_evidence >= -math.log(level)


def _parts(gate: GateName, gates: Gates) -> tuple[TestName, TestName, float, float, tuple[str, str]]:
    if gate is GateName.ERROR_RATE:
        names = TestName.ERRORS_WORSE, TestName.ERRORS_NOT_WORSE
        return *names, gates.error_harm, gates.error_rate, ("failed requests:", "requests")
    names = TestName.SLOW_WORSE, TestName.SLOW_NOT_WORSE
    return *names, gates.slow_harm, gates.slow_rate, (f"answers slower than {gates.slow_ms:g} ms:", "answers")


def going_on(state: ExcessState | None, claim: Claim, margin: float) -> ExcessTest:
    """The test that goes on from a state; one with another margin begins anew."""
    if state is not None and state.margin == margin:
        try:
            return ExcessTest.of(state)
        except InvalidInputError as error:
            _log.warning("a running test begins anew: %s", error)
    return ExcessTest(claim=claim, margin=margin)


def _rate(failed: int, requests: int) -> float:
    return failed / requests if requests else 0.0


def _counted(failed: int, requests: int) -> str:
    return f"{failed} of {requests} ({_rate(failed, requests):.2%})"
