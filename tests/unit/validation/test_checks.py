"""The checks of the machine, as pure functions: what evidence leads to what verdict."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.core.verdict import Outcome
from shared.registry.manifest import Manifest, Task, Tolerance
from shared.registry.policy import ValidationPolicy
from shared.registry.signature import Signature, SignatureChange, SignatureDiff, TensorSpec
from shared.validation.checks.data import data
from shared.validation.checks.latency import RESOLUTION, latency
from shared.validation.checks.load import bounded, memory, predicted_server_bytes, signature, signature_unusable
from shared.validation.checks.robustness import robustness
from shared.validation.details import LoadFigures
from shared.validation.probes.behaviour import Difference, Observation, Probe
from shared.validation.tolerance import differing, tolerances_of, unusable_tolerances, worst_distance

POLICY = ValidationPolicy(latency_floor_ms=0)
MS = 1_000_000


def durations(ms: float, *, seed: int, cycles: int = 60, calls: int = 10) -> NDArray[np.int64]:
    """Calls of about so many milliseconds, with a long tail."""
    random = np.random.default_rng(seed)
    return (ms * MS * random.lognormal(0, 0.2, size=(cycles, calls))).astype(np.int64)


def judged(candidate_ms: float, champion_ms: float | None, policy: ValidationPolicy = POLICY, seed: int = 0) -> str:
    """The latency check's outcome."""
    champion = None if champion_ms is None else durations(champion_ms, seed=1_000 + seed)
    _, verdict = latency(durations(candidate_ms, seed=seed), champion, rows_a_call=1, policy=policy)
    return str(verdict.outcome)


def test_a_model_three_times_slower_fails_and_the_ratio_is_told() -> None:
    figures, verdict = latency(durations(3, seed=1), durations(1, seed=2), rows_a_call=1, policy=POLICY)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.value == pytest.approx(3, rel=0.15)
    assert verdict.interval is not None
    assert verdict.interval[0] > 2
    assert verdict.limit == 2
    assert verdict.n == figures.calls == 600
    assert "ms of processor time over 600 calls" in verdict.sentence
    assert "proven to be above the limit of 2 times" in verdict.sentence
    assert [quantile.name for quantile in figures.quantiles] == ["p50", "p95", "p99"]


def test_an_interval_holds_the_true_ratio() -> None:
    """At 99 % for three quantiles together: of 20 samples more than two outside has a chance of about one in 10^3."""
    outside = 0
    for seed in range(20):
        figures, _ = latency(durations(2, seed=seed), durations(1, seed=500 + seed), rows_a_call=1, policy=POLICY)
        outside += any(not q.interval[0] <= 2 <= q.interval[1] for q in figures.quantiles if q.interval)
    assert outside <= 2


def test_the_intervals_of_three_quantiles_hold_together() -> None:
    """Each at a third of the error that all may have (Bonferroni): here by the very resamples, drawn anew."""
    candidate = durations(2, seed=1, calls=1)
    figures, _ = latency(candidate, np.full_like(candidate, MS), rows_a_call=1, policy=POLICY)
    cycles = len(candidate)
    draws = np.random.default_rng(20_261).multinomial(cycles, [1 / cycles] * cycles, size=1_000)
    ordered, order = np.sort(candidate[:, 0]), np.argsort(candidate[:, 0])
    medians = [np.repeat(ordered, draw[order])[cycles // 2 - 1] / MS for draw in draws]
    low, high = np.quantile(medians, [0.01 / 6, 1 - 0.01 / 6])
    assert figures.quantiles[0].interval == pytest.approx((low, high))


def test_the_same_model_does_not_fail_even_at_the_tightest_limit() -> None:
    strict = ValidationPolicy(latency_floor_ms=0, latency_ratio=1)
    assert {judged(1, 1, strict, seed) for seed in range(10)} == {"pass"}


def test_a_difference_too_small_to_tell_from_where_memory_lies_does_not_fail() -> None:
    strict = ValidationPolicy(latency_floor_ms=0, latency_ratio=1)
    assert judged(RESOLUTION * 0.99, 1, strict) == "pass"
    assert judged(RESOLUTION * 1.5, 1, strict) == "fail"


def test_below_the_floor_no_latency_is_too_long() -> None:
    assert judged(0.5, 0.05, ValidationPolicy(latency_floor_ms=10)) == "pass"
    assert judged(30, 3, ValidationPolicy(latency_floor_ms=10)) == "fail"


def test_a_quantile_above_the_limit_is_found_where_the_others_are_not() -> None:
    candidate = durations(1, seed=3)
    candidate[:, ::10] *= 8  # a tenth of its calls, in every cycle
    figures, verdict = latency(candidate, durations(1, seed=4), rows_a_call=1, policy=POLICY)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.sentence.startswith("p9")
    assert figures.quantiles[0].interval is not None
    assert figures.quantiles[0].interval[1] < 2


def test_a_burst_in_one_cycle_proves_nothing() -> None:
    candidate = durations(1, seed=5)
    candidate[7] *= 100
    _, verdict = latency(candidate, durations(1, seed=6), rows_a_call=1, policy=POLICY)
    assert verdict.outcome is Outcome.PASS


def test_a_clock_that_ticks_more_coarsely_than_calls_take_proves_nothing() -> None:
    still = np.zeros((60, 10), dtype=np.int64)
    ticking = still.copy()
    ticking[::10, 0] = 10 * MS
    for candidate in (still, ticking):
        _, verdict = latency(candidate, still, rows_a_call=1, policy=POLICY)
        assert verdict.outcome is Outcome.PASS


def test_without_a_champion_there_are_quantiles_and_no_limit() -> None:
    figures, verdict = latency(durations(1, seed=0), None, rows_a_call=4, policy=POLICY)
    assert (verdict.outcome, verdict.limit, verdict.value) == (Outcome.PASS, None, figures.quantiles[-1].candidate_ms)
    assert "no champion to hold it against" in verdict.sentence
    assert figures.rows_a_call == 4
    assert figures.quantiles[0].candidate_ms == pytest.approx(1, rel=0.1)


def test_without_a_limit_the_ratio_is_only_told() -> None:
    assert judged(9, 1, ValidationPolicy(latency_floor_ms=0, latency_ratio=None)) == "pass"


SPEC = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(
        TensorSpec(name="score", datatype="FP32", shape=(-1,)),
        TensorSpec(name="half", datatype="FP16", shape=(-1,)),
        TensorSpec(name="class", datatype="INT64", shape=(-1,)),
        TensorSpec(name="word", datatype="BYTES", shape=(-1,)),
    ),
)
MANIFEST = Manifest(task=Task.CLASSIFICATION, tolerances={"class": Tolerance(rtol=0, atol=1)})
TOLERANCES = tolerances_of(SPEC, MANIFEST)


def test_real_outputs_have_a_tolerance_and_others_one_that_is_declared() -> None:
    assert set(TOLERANCES) == {"score", "half", "class"}
    assert TOLERANCES["score"] == Tolerance()
    assert TOLERANCES["half"].rtol > Tolerance().rtol
    assert TOLERANCES["class"].atol == 1
    assert unusable_tolerances(SPEC, MANIFEST) == []
    named = MANIFEST.model_copy(update={"tolerances": {"word": Tolerance(), "nothing": Tolerance()}})
    assert unusable_tolerances(SPEC, named) == ["word", "nothing"]


def test_values_differ_beyond_their_tolerance() -> None:
    wanted = np.array([1.0, np.nan, np.inf, 100.0])
    found = np.array([1.0 + 5e-6, np.nan, np.inf, 100.02])
    assert differing(found, wanted, Tolerance()).tolist() == [False, False, False, True]
    assert differing(np.array(["a", "b"]), np.array(["a", "c"]), None).tolist() == [False, True]
    distance = worst_distance(found, wanted, Tolerance())
    assert distance is not None
    assert distance.found == pytest.approx(0.02)
    assert distance.allowed == pytest.approx(1e-5 + 1e-4 * 100)
    assert worst_distance(np.array(["a"]), np.array(["b"]), None) is None
    assert worst_distance(np.array([np.nan]), np.array([np.nan]), None) is None


def test_the_distance_told_is_the_one_furthest_beyond_its_tolerance() -> None:
    distance = worst_distance(np.array([1_000.05, 0.02]), np.array([1_000.0, 0.0]), Tolerance())
    assert distance is not None
    assert distance.found == pytest.approx(0.02)
    assert distance.allowed == pytest.approx(1e-5)


def test_what_differs_is_held_against_the_tolerance_there() -> None:
    differences = (
        Difference(output="score", differing=0, values=10, worst=0.4, allowed=0.5),
        Difference(output="class", differing=3, values=10, worst=0.3, allowed=0.1),
    )
    for probe in (Probe.REPEATS, Probe.BATCH_AGAINST_SINGLE):
        _, (verdict,) = robustness([Observation(probe=probe, rows=9, differences=differences)], TOLERANCES)
        assert (verdict.value, verdict.limit) == (0.3, 0.1)


def told(observation: Observation) -> tuple[str, str, bool, str]:
    """A probe's behaviour, and its verdict's outcome, weight and sentence."""
    (finding,), (verdict,) = robustness([observation], TOLERANCES)
    assert finding.probe == verdict.check == observation.probe.value
    assert verdict.evidence == "/details/robustness/0"
    return finding.behaviour, str(verdict.outcome), verdict.advisory, verdict.sentence


DIFFERS = (
    Difference(output="score", differing=0, values=10, worst=1e-9),
    Difference(output="class", differing=3, values=10, worst=2.0),
)
SAME = (Difference(output="score", differing=0, values=10, worst=1e-9),)


@pytest.mark.parametrize(
    ("observation", "wanted", "sentence"),
    [
        (
            Observation(probe=Probe.REPEATS, rows=9, differences=SAME),
            ("answers", "pass", False),
            "the same answers, within 1e-09",
        ),
        (
            Observation(probe=Probe.REPEATS, rows=9, differences=DIFFERS, sessions=2),
            ("differs", "fail", False),
            "in a second session give other answers: 3 of 10 values of the output 'class' differ, by up to 2",
        ),
        (
            Observation(probe=Probe.REPEATS, rows=9, refused=("the same rows again",), error="no"),
            ("refuses with an error", "fail", False),
            "the same 9 rows again are an error: no",
        ),
        (
            Observation(probe=Probe.BATCH_AGAINST_SINGLE, rows=9, differences=DIFFERS),
            ("differs", "fail", False),
            "declare `tolerances` in the manifest",
        ),
        (
            Observation(probe=Probe.BATCH_AGAINST_SINGLE, rows=9, refused=("2 at once",), error="no"),
            ("refuses with an error", "fail", False),
            "rows that are answered in a batch fail 2 at once: no",
        ),
        (
            Observation(probe=Probe.BATCH_AGAINST_SINGLE, skipped="the model takes one row at a time"),
            ("not tried", "pass", False),
            "the model takes one row at a time",
        ),
        (
            Observation(probe=Probe.OUTLIER, rows=9, differences=DIFFERS),
            ("differs", "fail", True),
            "as dynamic quantisation does",
        ),
        (
            Observation(probe=Probe.OUTLIER, rows=9, differences=SAME),
            ("answers", "pass", True),
            "9 rows keep their answers beside one of far greater numbers, within 1e-09",
        ),
        (
            Observation(probe=Probe.OUTLIER, rows=9, refused=("beside an outlier",), error="no"),
            ("refuses with an error", "pass", True),
            "are an error: no",
        ),
        (
            Observation(probe=Probe.OUTLIER, skipped="the model takes no real numbers"),
            ("not tried", "pass", True),
            "the model takes no real numbers",
        ),
        (
            Observation(probe=Probe.NAN, tried=("nan",), not_finite=("nan",)),
            ("answers with NaN", "pass", True),
            "rows with NaN get answers with NaN or infinities",
        ),
        (Observation(probe=Probe.INFINITY, tried=("infinity",)), ("answers", "pass", True), "get finite answers"),
        (
            Observation(probe=Probe.EXTREMES, tried=("1e+30", "0"), not_finite=("1e+30",)),
            ("answers with NaN", "fail", True),
            "extreme values get answers with NaN or infinities for 1e+30",
        ),
        (
            Observation(probe=Probe.EXTREMES, tried=("-1", "0"), refused=("-1",), error="out of bounds"),
            ("refuses with an error", "pass", True),
            "extreme values are an error for -1: out of bounds",
        ),
        (Observation(probe=Probe.EMPTY_BATCH), ("answers", "pass", True), "an empty batch gets an empty answer"),
        (
            Observation(probe=Probe.EMPTY_BATCH, wrong_rows="the output 'y' has the shape [1]"),
            ("answers with rows", "fail", True),
            "not empty: the output 'y' has the shape [1]",
        ),
    ],
)
def test_what_is_observed_is_told_and_only_repeats_and_batches_decide(
    observation: Observation, wanted: tuple[str, str, bool], sentence: str
) -> None:
    *found, said = told(observation)
    assert tuple(found) == wanted
    assert sentence in said


def test_memory_is_held_against_the_policy() -> None:
    figures = LoadFigures(
        load_s=1, resident_bytes=60, peak_bytes=90, predicted_server_bytes=3_000_000_000, ir_version=9
    )
    verdict = memory(figures, ValidationPolicy())
    assert (verdict.outcome, verdict.value, verdict.limit) == (Outcome.FAIL, 3e9, 2e9)
    assert verdict.sentence == "the version will take about 3 GB of a server's memory, above the limit of 2 GB"
    assert memory(figures, ValidationPolicy(max_memory_bytes=3_000_000_000)).outcome is Outcome.PASS


def test_a_server_holds_what_the_session_took_and_at_least_what_the_files_hold() -> None:
    assert predicted_server_bytes(grown_bytes=100, size_bytes=20) == 100
    assert predicted_server_bytes(grown_bytes=10, size_bytes=500) == 500


def test_a_graph_of_no_rows_cannot_be_asked_and_fails() -> None:
    free, empty = (TensorSpec(name="x", datatype="FP32", shape=(rows, 0)) for rows in (-1, 0))
    assert signature_unusable(Signature(inputs=(free,), outputs=(empty,))) is None
    found = signature_unusable(Signature(inputs=(free, empty), outputs=()))
    assert found is not None
    assert (found.outcome, found.sentence) == (
        Outcome.FAIL,
        "the graph fixes its rows at 0, which no request has: export it with a free first dimension",
    )
    scalar = TensorSpec(name="s", datatype="FP32", shape=())
    assert signature_unusable(Signature(inputs=(empty, scalar), outputs=())) is None, "it is called as a whole"


def test_a_signature_that_no_document_could_hold_fails() -> None:
    assert signature_unusable(SPEC) is None
    wide = Signature(
        inputs=tuple(TensorSpec(name="n" * 400 + str(i), datatype="FP32", shape=(-1,)) for i in range(1_000)),
        outputs=(),
    )
    verdict = signature_unusable(wide)
    assert verdict is not None
    assert verdict.outcome is Outcome.FAIL
    assert "1000 inputs and 0 outputs take" in verdict.sentence


@pytest.mark.parametrize(
    ("change", "outcome", "advisory"),
    [
        (SignatureChange.SAME, Outcome.PASS, False),
        (SignatureChange.WIDENING, Outcome.PASS, False),
        (SignatureChange.BREAKING, Outcome.FAIL, True),
    ],
)
def test_only_a_breaking_signature_is_spoken_against_and_as_advice(
    change: SignatureChange, outcome: Outcome, *, advisory: bool
) -> None:
    diff = SignatureDiff(change=change, differences=tuple(f"difference {i}" for i in range(7)))
    verdict = signature(diff, 3)
    assert (verdict.outcome, verdict.advisory, verdict.n) == (outcome, advisory, 7)
    assert "the champion, version 3, " in verdict.sentence
    assert "the champion" in signature(diff, None).sentence
    assert "the champion," not in signature(diff, None).sentence
    many = bounded(SignatureDiff(change=change, differences=("x" * 1_000,) * 500))
    assert len(many.differences) == 101
    assert max(map(len, many.differences)) == 300
    assert many.differences[-1] == "and 400 more"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_features_without_a_finite_number_are_told(value: float) -> None:
    matrix = np.array([[1.0, value], [2.0, value]], np.float32)
    policy = ValidationPolicy(allow_nan=True)
    found = data({"n": np.arange(2), "X": matrix}, 2, what="data", policy=policy)
    assert found.outcome is Outcome.PASS
    assert found.sentence.endswith("; the feature 'X' holds no finite number in 1 of 2 columns, first in column 1")
    matrix[0, 1] = 0.0
    assert data({"X": matrix}, 2, what="data", policy=policy).sentence == "2 rows that fit the model's inputs"
