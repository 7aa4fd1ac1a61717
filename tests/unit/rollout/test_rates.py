"""The verdicts on error and slow rates, in either mode."""

from typing import Any

import pytest

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import GateMode, GateName, Gates, Stage, Triggers
from shared.rollout import progress, steps
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutEvent
from shared.rollout.rates import advanced, errors_block, rate_verdict
from shared.sequential.excess import ExcessState, ExcessTest
from shared.telemetry.window import VersionCounts
from tests.unit.rollout.evidence import CANDIDATE, NOW, STABLE, counted, judged, outcome, rollout, target, verdict

NOT_WORSE = Gates(mode=GateMode.NOT_WORSE)


def with_tests(tests: dict[progress.TestName, ExcessState], **changes: Any) -> Rollout:
    """A rollout whose tests stand so."""
    found = rollout(**changes)
    found.progress = found.progress.model_copy(update={"tests": tests})
    return found


def at_ms(requests: int, slow: float) -> VersionCounts:
    return counted(requests, ms={5.0: 1 - slow, 900.0: slow})


@pytest.mark.parametrize(
    ("gate", "good", "bad"),
    [
        (GateName.ERROR_RATE, counted(20_000, errors=20), counted(20_000, errors=600)),
        (GateName.SLOW_RATE, at_ms(20_000, 0.001), at_ms(20_000, 0.03)),
    ],
)
@pytest.mark.parametrize("mode", GateMode)
def test_an_equal_candidate_passes_and_one_that_is_proven_worse_ends_the_rollout_at_once(
    gate: GateName, good: VersionCounts, bad: VersionCounts, mode: GateMode
) -> None:
    gates = Gates(mode=mode)
    equal, worse = (
        rollout({CANDIDATE: good, STABLE: good}, gates=gates),
        rollout({CANDIDATE: bad, STABLE: good}, gates=gates),
    )
    assert outcome(equal, gate) is Outcome.PASS
    found = judged(worse, gate)
    assert (found.verdict.outcome, found.is_proof) == (Outcome.FAIL, True)
    assert "worse than stable is proven at level 0.025" in found.verdict.sentence


def test_what_is_neither_proven_passes_one_mode_and_not_the_other() -> None:
    # Two of 200 requests failed: not proven worse, and not proven within a hundredth of stable.
    counts = {CANDIDATE: counted(200, errors=2), STABLE: counted(1_800, errors=2)}
    lenient, strict = rollout(counts), rollout(counts, gates=NOT_WORSE)
    assert outcome(lenient, GateName.ERROR_RATE) is Outcome.PASS
    found = verdict(strict, GateName.ERROR_RATE)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.sentence.endswith("that it is less than 1.00% above stable is not proven yet")
    assert (verdict(lenient, GateName.ERROR_RATE).limit, found.limit) == (0.0, 0.01)


@pytest.mark.parametrize("gates", [Gates(), NOT_WORSE])
@pytest.mark.parametrize(("candidate", "stable"), [(99, 10_000), (10_000, 99), (0, 10_000), (0, 0)])
def test_a_side_with_too_few_requests_in_the_stage_is_inconclusive(gates: Gates, candidate: int, stable: int) -> None:
    found = rollout({CANDIDATE: counted(candidate), STABLE: counted(stable)}, gates=gates)
    for gate in (GateName.ERROR_RATE, GateName.SLOW_RATE):
        assert outcome(found, gate) is Outcome.INCONCLUSIVE
        assert "each needs 100" in verdict(found, gate).sentence


def test_a_proof_needs_no_least_number_of_requests() -> None:
    found = judged(rollout({CANDIDATE: counted(30, errors=30), STABLE: counted(270)}), GateName.ERROR_RATE)
    assert (found.verdict.outcome, found.is_proof, found.verdict.n) == (Outcome.FAIL, True, 30)


def test_the_value_is_the_difference_and_its_interval_holds_it() -> None:
    counts = {CANDIDATE: counted(4_000, errors=60), STABLE: counted(36_000, errors=360)}
    found = verdict(rollout(counts, triggers=Triggers(error_rate=None)), GateName.ERROR_RATE)
    assert found.value == pytest.approx(0.005)
    assert found.interval is not None
    assert -0.01 < found.interval[0] < 0.005 < found.interval[1] < 0.02
    assert found.sentence.startswith(
        "failed requests: 60 of 4000 (1.50%) for the candidate, 360 of 36000 (1.00%) for stable at the same time: "
    )


def test_an_outage_that_touches_both_proves_nothing_and_the_same_one_in_the_candidate_alone_does() -> None:
    gates, calm = Gates(), (counted(100), counted(900))
    both, alone = advanced({}, *calm, gates), advanced({}, *calm, gates)
    for _ in range(5):
        both = advanced(both, counted(100, errors=60), counted(900, errors=540), gates)
        alone = advanced(alone, counted(100, errors=60), counted(900), gates)
    block = errors_block(counted(600, errors=300), counted(5_400, errors=2_700))
    assert rate_verdict(with_tests(both), GateName.ERROR_RATE, block, 100).verdict.outcome is Outcome.PASS
    assert rate_verdict(with_tests(alone), GateName.ERROR_RATE, block, 100).is_proof


def test_an_excess_within_the_harm_that_is_allowed_proves_nothing() -> None:
    counts = {CANDIDATE: counted(20_000, errors=400), STABLE: counted(20_000, errors=200)}
    assert outcome(rollout(counts), GateName.ERROR_RATE) is Outcome.FAIL
    assert outcome(rollout(counts, gates=Gates(error_harm=0.02)), GateName.ERROR_RATE) is Outcome.PASS


def test_only_the_tests_of_the_mode_are_run_and_those_of_another_are_kept() -> None:
    counts = counted(100, errors=1), counted(900, errors=9)
    lenient = advanced({}, *counts, Gates())
    assert set(lenient) == {progress.TestName.ERRORS_WORSE, progress.TestName.SLOW_WORSE}
    strict = advanced(lenient, *counts, NOT_WORSE)
    names = progress.TestName
    assert set(strict) == set(names) - {names.FEEDBACK_WORSE, names.FEEDBACK_NOT_WORSE}
    again = advanced(strict, *counts, Gates())
    assert again[progress.TestName.ERRORS_NOT_WORSE] == strict[progress.TestName.ERRORS_NOT_WORSE]
    assert again[progress.TestName.ERRORS_WORSE].blocks == 3


def test_a_test_whose_margin_changes_or_that_other_code_wrote_begins_anew() -> None:
    counts = counted(100, errors=1), counted(900, errors=9)
    tests = advanced({}, *counts, Gates())
    assert advanced(tests, *counts, Gates(error_harm=0.01))[progress.TestName.ERRORS_WORSE].blocks == 1
    stale: dict[progress.TestName, ExcessState] = {
        name: state.model_copy(update={"log_stakes": (0.0,)}) for name, state in tests.items()
    }
    assert advanced(stale, *counts, Gates()) == tests


def test_a_season_over_stages_of_different_shares_moves_no_figure_of_equal_versions() -> None:
    # Calm while the candidate had a tenth, a bad hour while it has half: in all it fails 2.5 % to stable's 1.2 %.
    calm, bad = (counted(1_000, errors=2), counted(9_000, errors=18)), (counted(5_000, errors=145),) * 2
    tests = advanced(advanced({}, *calm, Gates()), *bad, Gates())
    found = rate_verdict(with_tests(tests), GateName.ERROR_RATE, errors_block(*bad), 100).verdict
    assert (found.outcome, found.value, found.n) == (Outcome.PASS, 0.0, 5_000)
    assert found.interval is not None
    assert found.interval[0] < 0.0 < found.interval[1]


def test_a_proof_from_before_the_stage_says_what_it_rests_on() -> None:
    tests = advanced({}, counted(1_000, errors=200), counted(9_000), Gates())
    found = rate_verdict(with_tests(tests), GateName.ERROR_RATE, errors_block(counted(3), counted(3)), 100)
    assert (found.is_proof, found.verdict.n) == (True, 3)
    assert "proven at level 0.025, over the rollout's 1000 requests of the candidate (p at most " in (
        found.verdict.sentence
    )


def staged(*harms: float) -> dict[str, Any]:
    gates = [Gates(error_harm=harm) for harm in harms]
    stages = [Stage(weight_bp=1_000 * (n + 1), duration_s=60, gates=each) for n, each in enumerate(gates)]
    return {"policy": {"stages": tuple(stages)}}


@pytest.mark.parametrize(
    ("harms", "tests"), [((0.0,), 1), ((0.0, 0.0, 0.0), 1), ((0.01, 0.0), 2), ((0.0, 0.01, 0.0), 3)]
)
def test_the_level_is_spent_once_also_where_stages_ask_for_other_margins(harms: tuple[float, ...], tests: int) -> None:
    found = rollout({CANDIDATE: counted(1_000, errors=200), STABLE: counted(9_000)}, **staged(*harms))
    assert f"proven at level {0.025 / tests:.2g}," in verdict(found, GateName.ERROR_RATE).sentence
    # The slow rate's margin is the same in all.
    slow = rollout({CANDIDATE: at_ms(1_000, 0.5), STABLE: at_ms(9_000, 0.0)}, **staged(*harms))
    assert "proven at level 0.025," in verdict(slow, GateName.SLOW_RATE).sentence


def test_evidence_that_is_enough_for_one_test_is_too_little_for_one_of_three() -> None:
    counts = {CANDIDATE: counted(300, errors=3), STABLE: counted(2_700)}
    one, three = rollout(counts, **staged(0.0, 0.0, 0.0)), rollout(counts, **staged(0.0, 0.01, 0.0))
    p_value = ExcessTest.of(one.progress.tests[progress.TestName.ERRORS_WORSE]).p_value
    assert 0.025 / 3 < p_value <= 0.025, p_value
    assert judged(one, GateName.ERROR_RATE).is_proof
    assert outcome(three, GateName.ERROR_RATE) is Outcome.PASS


TWO_STAGES = {"stages": tuple(Stage(weight_bp=weight_bp, duration_s=60) for weight_bp in (1_000, 5_000))}
EQUAL = counted(100), counted(900, errors=5)


def proven_in_the_first_stage() -> Rollout:
    """A rollout of two stages whose candidate was as good as stable for 40 ticks of the first."""
    found = rollout({CANDIDATE: counted(4_000), STABLE: counted(36_000, 200)}, gates=NOT_WORSE, policy=TWO_STAGES)
    tests: dict[progress.TestName, ExcessState] = {}
    for _ in range(40):
        tests = advanced(tests, *EQUAL, NOT_WORSE)
    found.progress = found.progress.model_copy(update={"tests": tests})
    return found


@pytest.mark.parametrize("event", [RolloutEvent.ADVANCE, RolloutEvent.SET_WEIGHT])
def test_that_a_candidate_is_not_worse_is_proven_of_each_stage_anew(event: RolloutEvent) -> None:
    found = proven_in_the_first_stage()
    assert "is proven in this stage at level 0.013" in verdict(found, GateName.ERROR_RATE).sentence
    steps.move(
        Endpoint(endpoint="digits", stable=target(STABLE), rollout=found),
        found,
        event,
        NOW,
        reason="so",
        weight_bp=5_000,
    )
    block = errors_block(counted(120), counted(120))
    tests = advanced(found.progress.tests, counted(120), counted(120), NOT_WORSE)
    found.progress = found.progress.model_copy(update={"tests": tests})
    assert rate_verdict(found, GateName.ERROR_RATE, block, 100).verdict.outcome is Outcome.INCONCLUSIVE
    # That it is worse is tested over the whole rollout.
    assert tests[progress.TestName.ERRORS_WORSE].blocks == 41
    for _ in range(40):
        tests = advanced(tests, counted(900, errors=5), counted(900, errors=5), NOT_WORSE)
    found.progress = found.progress.model_copy(update={"tests": tests})
    block = errors_block(counted(36_120, errors=200), counted(36_120, errors=200))
    assert rate_verdict(found, GateName.ERROR_RATE, block, 100).verdict.outcome is Outcome.PASS


def test_a_candidate_that_turns_bad_within_a_stage_passes_no_more_by_what_it_proved_before() -> None:
    found, tests = proven_in_the_first_stage(), proven_in_the_first_stage().progress.tests
    for _ in range(20):
        tests = advanced(tests, counted(100, errors=10), counted(900, errors=9), NOT_WORSE)
    found.progress = found.progress.model_copy(update={"tests": {n: s for n, s in tests.items() if "not" in n}})
    assert ExcessTest.of(tests[progress.TestName.ERRORS_NOT_WORSE]).proves(0.0125)
    # Neither by its stake alone, whatever was counted, nor by what was counted.
    few, all_of_it = counted(2_000, errors=10), counted(6_000, errors=200)
    for candidate, stable in ((few, counted(18_000, errors=180)), (all_of_it, counted(54_000, errors=380))):
        block = errors_block(candidate, stable)
        assert rate_verdict(found, GateName.ERROR_RATE, block, 100).verdict.outcome is Outcome.INCONCLUSIVE
    calm = proven_in_the_first_stage()
    block = errors_block(counted(400, errors=10), counted(3_600, errors=18))
    assert rate_verdict(calm, GateName.ERROR_RATE, block, 100).verdict.outcome is Outcome.INCONCLUSIVE
