"""The verdicts on error and slow rates, in either mode."""

import pytest

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import GateMode, GateName, Gates, Triggers
from shared.rollout import progress
from shared.rollout.rates import advanced, errors_block, rate_verdict
from shared.sequential.excess import ExcessState
from shared.telemetry.window import VersionCounts
from tests.unit.rollout.evidence import CANDIDATE, STABLE, counted, judged, outcome, rollout, verdict

NOT_WORSE = Gates(mode=GateMode.NOT_WORSE)


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
    assert rate_verdict(GateName.ERROR_RATE, both, block, gates, 100).verdict.outcome is Outcome.PASS
    assert rate_verdict(GateName.ERROR_RATE, alone, block, gates, 100).is_proof


def test_an_excess_within_the_harm_that_is_allowed_proves_nothing() -> None:
    counts = {CANDIDATE: counted(20_000, errors=400), STABLE: counted(20_000, errors=200)}
    assert outcome(rollout(counts), GateName.ERROR_RATE) is Outcome.FAIL
    assert outcome(rollout(counts, gates=Gates(error_harm=0.02)), GateName.ERROR_RATE) is Outcome.PASS


def test_only_the_tests_of_the_mode_are_run_and_those_of_another_are_kept() -> None:
    counts = counted(100, errors=1), counted(900, errors=9)
    lenient = advanced({}, *counts, Gates())
    assert set(lenient) == {progress.TestName.ERRORS_WORSE, progress.TestName.SLOW_WORSE}
    strict = advanced(lenient, *counts, NOT_WORSE)
    assert set(strict) == set(progress.TestName)
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
