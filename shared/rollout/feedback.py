"""The gate over feedback: what came of the candidate's predictions beside what came of stable's, a business metric.

Feedback is late, by seconds or by weeks, and comes under whatever plan is in force by then. It is judged by the plan
under which its prediction was made: the versions' shares differ from plan to plan, and what came of all users changes
with time, so that sums over plans would show a difference that is none (Simpson's paradox). A block of the test is of
one plan and of what one tick, or several, took in; it waits until there is feedback on both versions.

A version harms whose mean is provably below stable's, over the whole rollout, and on while the candidate is watched
with all traffic: late feedback on what was answered before is held against stable's of then. That a mean is good enough
is asked of each stage by its own predictions.
"""

from collections.abc import Iterable

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import FeedbackGate, GateMode, GateName, Gates
from shared.rollout.documents import Rollout
from shared.rollout.progress import FeedbackRow, Progress, TestName, added_feedback
from shared.rollout.rates import Judged, going_on, level_of, stage_level_of, stands
from shared.routing.plan import Role
from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessState, ExcessTest
from shared.sequential.intervals import difference_interval, exceeds, rate_interval

_MAX_PLANS = 100
"""Of a rollout's plans, the latest whose feedback is waited for."""
LEAST_LEVEL = 0.01
"""Of the interval by which a mean is below the least that it may be."""


def fed(rollout: Rollout, progress: Progress) -> Progress:
    """The progress with the running tests advanced by the feedback that its latest tick took in.

    Feedback on what is neither arm's is dropped here: ids are not signed, and may tell of any number of versions; a
    document that outgrew its store could never be changed again.
    """
    of_stage, taken_in = (
        tuple(row for row in rows if _arm(rollout, row) is not None)
        for rows in (progress.feedback, progress.feedback_block)
    )
    waiting = added_feedback(row for row in (*progress.feedback_waiting, *taken_in) if _arm(rollout, row) is not None)
    plans = sorted({row.generation for row in waiting})[-_MAX_PLANS:]
    gate, tests, left = rollout.gates.feedback, dict(progress.tests), []
    for generation in plans:
        rows = [row for row in waiting if row.generation == generation]
        block = _block(rollout, rows)
        if gate is None or not block.has_both:
            left += rows
        else:
            tests |= _tests(tests, block, gate, rollout.gates, is_current=generation == progress.generation)
    found = {"tests": tests, "feedback": of_stage, "feedback_block": taken_in, "feedback_waiting": tuple(left)}
    return progress.model_copy(update=found)


def feedback_verdicts(rollout: Rollout, *, is_concurrent: bool) -> list[Judged]:
    """The gate's verdict, where the policy has one. `is_concurrent` is as in shared.rollout.traffic."""
    gate = rollout.gates.feedback
    if gate is None or rollout.stable is None:
        return []
    stage = _block(rollout, rollout.progress.feedback)
    level = level_of(rollout, _margins, goes_on=True)
    outcome, said, is_proof = _concluded(rollout, gate, stage, level, is_concurrent=is_concurrent)
    value = _mean(stage.candidate_failed, stage.candidate) - _mean(stage.stable_failed, stage.stable)
    limit = gate.harm if rollout.gates.mode is GateMode.NO_PROVEN_HARM else gate.margin
    interval = difference_interval(stage, confidence=1 - level) if stage.has_both else None
    verdict = Verdict(
        check=GateName.FEEDBACK,
        outcome=outcome,
        sentence=said
        if is_proof and stage == Block()
        else f"mean feedback {_compared(stage)} under the same plan: {said}",
        n=stage.candidate,
        value=value if stage.has_both else None,
        limit=0.0 - limit,
        interval=(-interval[1], -interval[0]) if interval else None,
    )
    return [Judged(verdict=verdict, is_proof=is_proof)]


def _concluded(
    rollout: Rollout, gate: FeedbackGate, stage: Block, level: float, *, is_concurrent: bool
) -> tuple[Outcome, str, bool]:
    """The outcome, why, and whether it is a proof."""
    tests = rollout.progress.tests
    worse = ExcessTest.of(tests[TestName.FEEDBACK_WORSE]) if TestName.FEEDBACK_WORSE in tests else None
    if worse and worse.proves(level):
        proven = f"more than {gate.harm:.2%} below stable" if gate.harm else "worse than stable"
        over = f"over the rollout's feedback, {_compared(worse.total)}"
        return Outcome.FAIL, f"{proven} is proven at level {level:.2g} {over} (p at most {worse.p_value:.2g})", True
    if gate.at_least is not None and (why := _below(stage, gate.at_least, is_concurrent=is_concurrent)):
        return Outcome.FAIL, why, False
    if is_concurrent and min(stage.candidate, stage.stable) < gate.min_feedback:
        had = f"the candidate has {stage.candidate} pieces of feedback with a value and stable {stage.stable}"
        return Outcome.INCONCLUSIVE, f"on predictions of this stage {had}: each needs {gate.min_feedback}", False
    if not is_concurrent and (lacking := _unheard(rollout, gate, stage, worse)):
        return Outcome.INCONCLUSIVE, lacking, False
    if not is_concurrent or rollout.gates.mode is GateMode.NO_PROVEN_HARM:
        return Outcome.PASS, f"no harm is proven at level {level:.2g}", False
    return *_not_worse(rollout, gate, stage), False


def _unheard(rollout: Rollout, gate: FeedbackGate, stage: Block, worse: ExcessTest | None) -> str:
    """What is lacking for a PASS without traffic for stable; empty where enough came while both had some, or where the
    candidate's own mean is held against a least one.
    """
    if gate.at_least is not None and stage.candidate >= gate.min_feedback:
        return ""
    gates = [rollout.policy.gates, *(one.gates for one in rollout.policy.stages if one.gates)]
    least = min((one.feedback.min_feedback for one in gates if one.feedback), default=gate.min_feedback)
    had = worse.total if worse else Block()
    if min(had.candidate, had.stable) >= least:
        return ""
    return (
        f"while both had traffic there were {had.candidate} pieces of feedback with a value on the candidate and "
        f"{had.stable} on stable: each needs {least}"
    )


def _not_worse(rollout: Rollout, gate: FeedbackGate, stage: Block) -> tuple[Outcome, str]:
    """Whether it is proven of this stage that the candidate is not worse, as its figures stand too."""
    claim, level = f"less than {gate.margin:.2%} below stable", stage_level_of(rollout)
    below = _mean(stage.stable_failed, stage.stable) - _mean(stage.candidate_failed, stage.candidate)
    test = rollout.progress.tests.get(TestName.FEEDBACK_NOT_WORSE)
    if below < gate.margin and test is not None and stands(test, level):
        return Outcome.PASS, f"{claim} is proven in this stage at level {level:.2g}"
    return Outcome.INCONCLUSIVE, f"that it is {claim} is not proven yet"


def _below(stage: Block, least: float, *, is_concurrent: bool) -> str:
    """Why the candidate's mean is below the least, beyond chance, and stable's is not; empty where that is not so."""
    if not exceeds(stage.candidate_failed, stage.candidate, 1 - least, level=LEAST_LEVEL):
        return ""
    if is_concurrent and stage.stable:
        highest = 1 - rate_interval(stage.stable_failed, stage.stable, confidence=1 - LEAST_LEVEL)[0]
        if highest < least:
            return ""
    return f"below the least of {least:.2%}, which is no chance"


def _tests(
    tests: dict[TestName, ExcessState], block: Block, gate: FeedbackGate, gates: Gates, *, is_current: bool
) -> dict[TestName, ExcessState]:
    asked = [(TestName.FEEDBACK_WORSE, Claim.WORSE, gate.harm)]
    if gates.mode is GateMode.NOT_WORSE and is_current:
        asked.append((TestName.FEEDBACK_NOT_WORSE, Claim.NOT_WORSE, gate.margin))
    found: dict[TestName, ExcessState] = {}
    for name, claim, margin in asked:
        test = going_on(tests.get(name), claim, margin)
        test.add(block)
        found[name] = test.state
    return found


def _margins(gates: Gates) -> tuple[float, float] | None:
    return (gates.feedback.harm, gates.feedback.margin) if gates.feedback else None


def _arm(rollout: Rollout, row: FeedbackRow) -> Role | None:
    """Whose predictions a row is of; None where the version was another thing to the endpoint, as after the end."""
    if (row.version, row.role) == (rollout.candidate.version, Role.CANDIDATE):
        return Role.CANDIDATE
    if rollout.stable is not None and (row.version, row.role) == (rollout.stable.version, Role.STABLE):
        return Role.STABLE
    return None


def _block(rollout: Rollout, rows: Iterable[FeedbackRow]) -> Block:
    """Feedback on both versions, what is not good taken for failed."""
    total = Block()
    for row in rows:
        arm, bad = _arm(rollout, row), row.count - row.good
        if arm is Role.CANDIDATE:
            total += Block(candidate=row.count, candidate_failed=bad)
        elif arm is Role.STABLE:
            total += Block(stable=row.count, stable_failed=bad)
    return total


def _mean(bad: int, count: int) -> float:
    return 1 - bad / count if count else 0.0


def _compared(total: Block) -> str:
    candidate, stable = _counted(total.candidate_failed, total.candidate), _counted(total.stable_failed, total.stable)
    return f"{candidate} for the candidate, {stable} for stable"


def _counted(bad: int, count: int) -> str:
    return f"{_mean(bad, count):.2%} of {count}" if count else "none yet"
