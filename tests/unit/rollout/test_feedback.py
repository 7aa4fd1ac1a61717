"""The verdict on feedback, and what it is made of."""

import numpy as np
import pytest
from scipy import stats

from benchmarks import gates_feedback
from benchmarks.gates import CHANCE, LEVEL
from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome
from shared.registry.margins import check_margins
from shared.registry.rollout_policy import FeedbackGate, GateMode, GateName, Gates, RolloutPolicy, Stage
from shared.rollout import progress
from shared.rollout.documents import Rollout
from shared.rollout.feedback import fed, feedback_verdicts
from shared.rollout.gates import judge
from shared.rollout.progress import FeedbackRow, Progress, counts_of, taken
from shared.sequential.excess import ExcessTest
from tests.unit.rollout.evidence import CANDIDATE, NOW, STABLE, counted, outcome, rollout, verdict, watching, window

GATES = Gates(feedback=FeedbackGate())
COUNTS = {CANDIDATE: counted(1_000), STABLE: counted(9_000)}
WORSE = progress.TestName.FEEDBACK_WORSE


def row(version: int, count: int, good: int, *, generation: int = 3, role: str = "") -> FeedbackRow:
    role = role or ("candidate" if version == CANDIDATE else "stable")
    return FeedbackRow(generation=generation, version=version, role=role, count=count, good=good)


def with_feedback(*rows: FeedbackRow, gates: Gates = GATES, found: Rollout | None = None) -> Rollout:
    """A rollout under generation 3 to which this feedback came, a tenth of it in each of ten ticks."""
    found = found or rollout(COUNTS, gates=gates)
    current = tuple(one for one in rows if one.generation == 3)
    for _ in range(10):
        tenth = tuple(one.model_copy(update={"count": one.count // 10, "good": one.good // 10}) for one in rows)
        found.progress = fed(found, found.progress.model_copy(update={"feedback": current, "feedback_block": tenth}))
    return found


def test_equal_feedback_passes_and_worse_is_a_proof() -> None:
    equal = with_feedback(row(CANDIDATE, 1_000, 300), row(STABLE, 9_000, 2_700))
    assert outcome(equal, GateName.FEEDBACK) is Outcome.PASS
    worse = with_feedback(row(CANDIDATE, 1_000, 200), row(STABLE, 9_000, 2_700))
    found = verdict(worse, GateName.FEEDBACK)
    assert found.outcome is Outcome.FAIL
    assert found.value == pytest.approx(-0.1)
    assert found.interval is not None
    assert found.interval[0] < -0.1 < found.interval[1] < 0.0
    assert next(one for one in judge(worse, {}, NOW) if one.verdict.check == GateName.FEEDBACK).is_proof


def test_without_the_gate_nothing_is_said_and_the_rates_keep_their_half_of_the_level() -> None:
    bad = {CANDIDATE: counted(1_000, errors=200), STABLE: counted(9_000)}
    without, beside = rollout(bad), rollout(bad, gates=GATES)
    assert feedback_verdicts(without, is_concurrent=True) == []
    assert "at level 0.025," in verdict(without, GateName.ERROR_RATE).sentence
    assert "at level 0.017," in verdict(beside, GateName.ERROR_RATE).sentence
    by_stage = (Stage(weight_bp=1_000, duration_s=60), Stage(weight_bp=5_000, duration_s=60, gates=GATES))
    assert "at level 0.017," in verdict(rollout(bad, policy={"stages": by_stage}), GateName.ERROR_RATE).sentence


@pytest.mark.parametrize(("candidate", "stable"), [(99, 9_000), (1_000, 99), (0, 0)])
def test_too_little_feedback_concludes_nothing(candidate: int, stable: int) -> None:
    found = with_feedback(row(CANDIDATE, candidate, candidate // 3), row(STABLE, stable, stable // 3))
    assert outcome(found, GateName.FEEDBACK) is Outcome.INCONCLUSIVE
    wanted = f"the candidate has {candidate} pieces of feedback with a value and stable {stable}: each needs 100"
    assert wanted in verdict(found, GateName.FEEDBACK).sentence


def test_what_a_stage_needs_must_be_of_its_own_predictions() -> None:
    earlier = [row(CANDIDATE, 1_000, 300, generation=2), row(STABLE, 1_000, 300, generation=2)]
    found = with_feedback(*earlier, row(CANDIDATE, 10, 3), row(STABLE, 90, 30))
    assert outcome(found, GateName.FEEDBACK) is Outcome.INCONCLUSIVE
    assert ExcessTest.of(found.progress.tests[WORSE]).total.candidate == 1_010


def test_feedback_waits_for_that_on_the_other_version_under_the_same_plan() -> None:
    found = with_feedback(row(CANDIDATE, 100, 30), row(STABLE, 900, 270, generation=2))
    assert WORSE not in found.progress.tests
    assert len(found.progress.feedback_waiting) == 2
    found = with_feedback(row(STABLE, 900, 270), found=found)
    total = ExcessTest.of(found.progress.tests[WORSE]).total
    assert (total.candidate, total.stable) == (100, 90)
    assert [(one.generation, one.count) for one in found.progress.feedback_waiting] == [(2, 900), (3, 810)]


def test_what_a_version_answered_in_another_role_is_not_compared() -> None:
    found = with_feedback(row(CANDIDATE, 100, 0, role="stable"), row(STABLE, 900, 270), row(7, 100, 0))
    assert WORSE not in found.progress.tests
    assert [one.version for one in found.progress.feedback_waiting] == [STABLE]


def test_ids_that_are_made_up_make_no_document_grow() -> None:
    made_up = [row(version, 1, 1, role=role) for version in range(10, 2_000) for role in ("stable", "candidate")]
    found = with_feedback(row(CANDIDATE, 1_000, 300), *made_up, row(STABLE, 9_000, 2_700))
    taken_in = found.progress.feedback, found.progress.feedback_block, found.progress.feedback_waiting
    assert [[one.version for one in rows] for rows in taken_in] == [[CANDIDATE, STABLE], [CANDIDATE, STABLE], []]
    assert outcome(found, GateName.FEEDBACK) is Outcome.PASS


def test_of_a_watched_candidate_harm_is_asked_and_that_there_was_feedback() -> None:
    both = {CANDIDATE: counted(1_000), STABLE: counted(9_000)}
    found = watching(counted(1_000), both, gates=GATES)
    assert outcome(found, GateName.FEEDBACK) is Outcome.INCONCLUSIVE
    few = [row(CANDIDATE, 90, 27, generation=2), row(STABLE, 9_000, 2_700, generation=2)]
    found = with_feedback(*few, found=found)
    assert outcome(found, GateName.FEEDBACK) is Outcome.INCONCLUSIVE
    found = with_feedback(*few, found=found)
    assert outcome(found, GateName.FEEDBACK) is Outcome.PASS
    late = with_feedback(row(CANDIDATE, 1_000, 200, generation=2), row(STABLE, 9_000, 2_700, generation=2), found=found)
    assert outcome(late, GateName.FEEDBACK) is Outcome.FAIL


def test_a_proof_tells_the_means_that_it_is_of_where_this_stage_has_no_feedback() -> None:
    earlier = row(CANDIDATE, 1_000, 200, generation=2), row(STABLE, 9_000, 2_700, generation=2)
    found = watching(counted(1_000), {CANDIDATE: counted(1_000), STABLE: counted(9_000)}, gates=GATES)
    said = verdict(with_feedback(*earlier, found=found), GateName.FEEDBACK).sentence
    assert "none yet" not in said
    assert "20.00% of 1000 for the candidate, 30.00% of 9000 for stable" in said


def test_a_watched_candidate_may_be_held_against_a_least_mean_alone() -> None:
    found = watching(counted(1_000), {}, gates=Gates(feedback=FeedbackGate(at_least=0.25)))
    assert outcome(with_feedback(row(CANDIDATE, 90, 30), found=found), GateName.FEEDBACK) is Outcome.INCONCLUSIVE
    assert outcome(with_feedback(row(CANDIDATE, 1_000, 300), found=found), GateName.FEEDBACK) is Outcome.PASS


def test_only_what_the_rollouts_plans_assigned_is_taken_in_and_each_window_once() -> None:
    began = Progress(first_generation=2, generation=3)
    good = counts_of(row(CANDIDATE, 10, 4), NOW)
    others = [
        good.model_copy(update={"generation": 1}),
        good.model_copy(update={"generation": 4}),
        good.model_copy(update={"reason": "fallback"}),
        good.model_copy(update={"reason": "pinned"}),
        good.model_copy(update={"reason": "by_user"}),
        good.model_copy(update={"valued": 0, "good": 0}),
    ]
    told = window(1, 3, {}).model_copy(update={"feedback": [good, good, *others]})
    late = window(2, 2, {}).model_copy(update={"feedback": [good.model_copy(update={"generation": 2})]})
    once = taken(began, [told, late, told], 3)
    assert once.feedback == (row(CANDIDATE, 20, 8),)
    assert once.feedback_block == (row(CANDIDATE, 10, 4, generation=2), row(CANDIDATE, 20, 8))
    again = taken(once, [told], 3)
    assert (again.feedback, again.feedback_block) == (once.feedback, ())
    assert taken(once, [], 4).feedback == ()


def test_no_margin_is_refused_in_mode_not_worse() -> None:
    gates = Gates(mode=GateMode.NOT_WORSE, feedback=FeedbackGate(margin=0.0))
    with pytest.raises(InvalidInputError, match=r"rollout\.gates\.feedback\.margin is 0"):
        check_margins(RolloutPolicy(gates=gates))
    check_margins(RolloutPolicy(gates=gates.model_copy(update={"dry_run": (GateName.FEEDBACK,)})))


@pytest.mark.parametrize("is_seasonal", [False, True])
def test_equal_versions_are_called_worse_no_more_often_than_the_level_says(*, is_seasonal: bool) -> None:
    """The short form of benchmarks/gates_feedback.py."""
    rollouts = 25
    setting = gates_feedback.Setting(mean=0.3, is_seasonal=is_seasonal)
    stages = tuple(Stage(weight_bp=share, duration_s=60) for share in (1_000, 5_000))
    ends = [gates_feedback.proven(setting, seed, gates_feedback.rollout(stages)) for seed in range(rollouts)]
    assert sum(by_plan for by_plan, _ in ends) <= stats.binom.ppf(1 - CHANCE, rollouts, LEVEL / 3)


def test_a_mean_a_tenth_lower_is_proven_in_some_thousands() -> None:
    took = [gates_feedback.needed(0.3, seed, each=200, share=0.1) for seed in range(12)]
    assert 500 < np.median(took) < 8_000
