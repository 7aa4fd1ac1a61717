"""What validation finds. In this process; test_sandbox.py does it in the sandbox's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper
from pydantic import ValidationError

from shared.core.verdict import Outcome, Verdict
from shared.registry.policy import ValidationPolicy
from shared.validation.report import ValidationReport
from shared.validation.wire import Stage
from tests.unit.validation.drops import checked, endless, forest, one_node, onnx_model, said, scorer, scorer_rows
from tests.unit.validation.planted import judged, sound

RELAXED = ValidationPolicy(require_validation_data=False)


def test_a_good_model_is_accepted_with_what_was_measured(tmp_path: Path) -> None:
    model, rows, accuracy = forest()
    report = checked(tmp_path, model, rows, metrics={"accuracy": round(accuracy, 3)})
    assert report.accepted
    assert report.outcome is Outcome.PASS
    assert report.rows == 797
    assert report.metrics["accuracy"] == accuracy
    assert report.signature is not None
    assert [(s.name, s.datatype, s.shape) for s in report.signature.inputs] == [("X", "FP32", (-1, 64))]
    assert [s.datatype for s in report.signature.outputs] == ["INT64", "FP32"]
    assert report.has_golden
    of_the_file = ["size", "onnx", "load", "data", "memory", "run"]
    of_the_answers = ["accuracy", "precision", "recall", "claims", "slices"]
    of_the_machine = ["repeats", "batch_against_single", "outlier"]
    of_the_machine += ["nan", "infinity", "extremes", "empty_batch", "latency"]
    assert [v.check for v in report.verdicts] == [*of_the_file, *of_the_answers, *of_the_machine, "golden", "profile"]
    assert set(report.versions) == {"numpy", "onnx", "onnxruntime"}
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report
    json.dumps(report.model_dump(mode="json"), allow_nan=False)


def test_a_model_below_a_threshold_is_rejected_with_the_numbers(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(100, right=0.81))
    assert report.outcome is Outcome.FAIL
    assert said(report, "accuracy") == "fail: accuracy 0.81 on 100 rows is below the limit 0.85"
    (verdict,) = (v for v in report.verdicts if v.check == "accuracy")
    assert (verdict.n, verdict.value, verdict.limit) == (100, 0.81, 0.85)
    assert not report.has_golden


@pytest.mark.parametrize("claimed", [{"rtol": 0.5}, {"atol": 0.5}])
def test_a_tolerance_beyond_the_policys_fails_and_both_are_named(tmp_path: Path, claimed: dict[str, float]) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(), tolerances={"scores": claimed})
    assert report.outcome is Outcome.FAIL
    sentence = said(report, "tolerance")
    assert "0.5" in sentence
    assert "for the output 'scores', beyond the policy's max_rtol 0.001 and max_atol 0.0001" in sentence


def test_a_tolerance_that_the_release_manager_allows_passes(tmp_path: Path) -> None:
    policy = ValidationPolicy(max_rtol=0.5, max_atol=0.5)
    report = checked(tmp_path, scorer(), scorer_rows(), policy=policy, tolerances={"scores": {"rtol": 0.5, "atol": 0}})
    assert report.accepted
    assert said(report, "tolerance").startswith("pass: the manifest's 1 tolerances are within")


def test_a_model_at_a_threshold_passes(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(100, right=0.85))
    assert said(report, "accuracy") == "pass: accuracy 0.85 on 100 rows is not below the limit 0.85"
    assert report.accepted


@pytest.mark.parametrize(
    ("stage", "outcome", "check"),
    [(Stage.MEASURING, Outcome.FAIL, "measuring"), (Stage.CHAMPION, Outcome.ERROR, "champion")],
)
def test_what_no_check_foresees_is_a_verdict_of_its_stage(
    tmp_path: Path, stage: Stage, outcome: Outcome, check: str
) -> None:
    """A fault that comes again each time would else be tried again and again."""

    def begin(begun: Stage) -> None:
        if begun is stage:
            raise RuntimeError("no such thing")

    report = judged(sound(), tmp_path, begin=begin)
    assert report.outcome is outcome
    assert said(report, check) == f"{outcome}: RuntimeError while {stage}, which no check foresees: no such thing"
    assert report.verdicts[-1].check == check


@pytest.mark.parametrize("error", [MemoryError, OSError, ImportError])
def test_what_speaks_of_this_machine_is_raised(tmp_path: Path, error: type[Exception]) -> None:
    def begin(_: Stage) -> None:
        raise error

    with pytest.raises(error):
        judged(sound(), tmp_path, begin=begin)


def test_wide_answers_are_held_of_fewer_rows_and_the_sentence_says_so(tmp_path: Path) -> None:
    model = scorer()
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
            helper.make_node("Cast", ["most"], ["flag"], to=Type.BOOL),
            helper.make_node("Expand", ["flag", "width"], ["wide"]),
        ]
    )
    model.graph.initializer.append(helper.make_tensor("width", Type.INT64, [2], [1, 39_997]))
    model.graph.output.append(helper.make_tensor_value_info("wide", Type.BOOL, ["rows", 39_997]))
    report = checked(tmp_path, model, scorer_rows(600))
    # 500 rows' answers are 20,000,000 values; whole batches of them are run.
    assert said(report, "run") == "pass: the model answers each of 448 rows, a sample of 600 (seed 17)"


def test_memory_is_judged_by_loading_where_no_batch_can_be_made_up(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Type.FLOAT, ["rows", "any"])],
        [("y", Type.FLOAT, ["rows", "any"])],
    )
    policy = ValidationPolicy(require_validation_data=False, max_memory_bytes=1)
    sentence = said(checked(tmp_path, model, policy=policy), "memory")
    assert sentence.startswith("fail: ")
    assert sentence.endswith("; by loading alone, for no batch can be made up to run it on")


def test_a_limit_on_gaps_wants_a_protected_column(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(), policy=ValidationPolicy(fairness_gap=0.1))
    assert report.outcome is Outcome.INCONCLUSIVE
    assert "the manifest names no column of them" in said(report, "fairness")


def test_a_policy_may_require_reference_data(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    policy = ValidationPolicy(require_reference_data=True)
    report = checked(tmp_path / "a", scorer(), scorer_rows(), policy=policy)
    assert report.outcome is Outcome.INCONCLUSIVE
    assert said(report, "reference").startswith("inconclusive: there is no reference data, which the policy requires")
    assert checked(tmp_path / "b", scorer(), scorer_rows(), policy=policy, reference={"x": X}).accepted


def test_a_column_that_the_policy_names_is_measured_whatever_the_manifest_says(tmp_path: Path) -> None:
    policy = ValidationPolicy(slices=("region",), accuracy=0.5, precision=0.5, recall=0.5)
    rows = scorer_rows(600, right=0.75)  # the first quarter is wrong
    region = np.where(np.arange(600) < 150, "south", "north")
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    report = checked(tmp_path / "with", scorer(), {**rows, "region": region}, policy=policy)
    assert said(report, "slices").startswith("fail: ")
    assert report.outcome is Outcome.FAIL
    report = checked(tmp_path / "without", scorer(), rows, policy=policy)
    assert report.outcome is Outcome.INCONCLUSIVE
    assert said(report, "slices").startswith("inconclusive: the policy has 'region' measured, which the validation")


def test_rows_are_run_again_in_a_second_session(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows())
    assert said(report, "repeats").startswith("pass: the same 128 rows run again and in a second session give")


def test_a_verdict_points_to_no_empty_list(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(20), slices=["x[0]"], protected=["x[1]"])
    for verdict in report.verdicts:
        if verdict.check in {"slices", "fairness"}:
            assert verdict.outcome is Outcome.INCONCLUSIVE
            assert verdict.evidence is None


def test_claims_that_differ_are_said_and_weigh_nothing(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(), metrics={"accuracy": 0.5, "recall": 0.996, "auc": 0.9})
    assert said(report, "claims") == ("fail: accuracy is claimed as 0.5 and measured as 1; not measured here: auc")
    assert report.accepted


def test_without_data_a_policy_that_wants_some_accepts_nothing(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer())
    assert report.outcome is Outcome.INCONCLUSIVE
    assert not report.accepted
    assert "which the policy requires" in said(report, "metrics")


def test_without_data_a_policy_that_wants_none_accepts_the_file(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), policy=RELAXED)
    assert report.accepted
    assert "the model alone was checked" in said(report, "metrics")
    assert report.has_golden


def test_a_model_that_is_too_large_is_not_even_read(tmp_path: Path) -> None:
    report = checked(tmp_path, b"no model", policy=ValidationPolicy(max_size_bytes=7))
    assert [v.check for v in report.verdicts] == ["size"]
    assert said(report, "size") == "fail: the model has 8 bytes, above the limit of 7"


def test_a_file_that_is_no_model_fails_the_file_check(tmp_path: Path) -> None:
    assert said(checked(tmp_path, b"no model"), "onnx").startswith("fail: not an ONNX model")


def test_a_custom_operator_fails_and_is_named(tmp_path: Path) -> None:
    model = one_node("Launder", domain="evil.ops")
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    report = checked(tmp_path, model)
    assert "fail: the operator evil.ops::Launder is a custom one: use operators of ai.onnx" in said(report, "onnx")


def test_an_opset_that_the_runtime_does_not_know_fails(tmp_path: Path) -> None:
    model = one_node("Neg")
    model.opset_import[0].version = onnx.defs.onnx_opset_version()
    report = checked(tmp_path, model)
    assert f"the opset {model.opset_import[0].version} of ai.onnx is not among" in said(report, "onnx")
    assert report.signature is None


def test_what_the_runtime_says_of_a_model_is_told_to_its_end_and_names_no_place_of_ours(tmp_path: Path) -> None:
    """The same drop gives the same sentence, wherever it is looked at."""
    odd = onnx_model(
        [helper.make_node("Odd", ["x"], ["y"], domain="com.microsoft")],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 3])],
        domains={"com.microsoft": 1},
    )
    unknown, complex_numbers = one_node("Odd"), one_node("Identity")
    complex_numbers.graph.input[0].type.tensor_type.elem_type = Type.COMPLEX64
    complex_numbers.graph.output[0].type.tensor_type.elem_type = Type.COMPLEX64
    for number, (model, check, wanted) in enumerate(
        (
            (odd, "load", "Fatal error: com.microsoft:Odd(-1) is not a registered function/op"),
            (unknown, "onnx", "No Op registered for Odd with domain_version of 17"),
            (complex_numbers, "load", "tensor(complex64) is not currently registered or supported"),
            (tree_of(feature=7), "run", "One path in the graph requests feature 7 but input tensor has 3 features."),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        sentence = said(checked(folder, model, scorer_rows()), check)
        assert wanted in sentence
        assert str(tmp_path) not in sentence
        assert "onnxruntime_src" not in sentence


def tree_of(*, feature: int) -> onnx.ModelProto:
    """A tree of one split, by a feature that need not be there."""
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[feature, 0, 0],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    return onnx_model(
        [tree],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 1])],
        domains={"ai.onnx.ml": 3},
    )


def test_what_is_no_tensor_is_told_of_with_advice_that_fits(tmp_path: Path) -> None:
    split = onnx_model(
        [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)], [("x", Type.FLOAT, ["rows", 3])], []
    )
    split.graph.output.append(helper.make_tensor_sequence_value_info("y", Type.FLOAT, None))
    assert said(checked(tmp_path, split), "load") == (
        "fail: the output 'y' is a seq(tensor(float)) and no tensor: export the model with plain tensors"
    )


def test_a_classifier_with_zipmap_is_told_how_to_be_exported(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = scorer_rows()
    model = to_onnx(LogisticRegression().fit(rows["x"], rows["label"]), rows["x"][:1])
    assert "zipmap=False" in said(checked(tmp_path, model), "load")


def changed(**changes: Any) -> dict[str, Any]:
    arrays = scorer_rows() | changes
    return {name: array for name, array in arrays.items() if array is not None}


X = scorer_rows()["x"]
WITH_NAN = np.where(np.arange(150).reshape(50, 3) % 60 == 1, np.float32("nan"), X)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (changed(x=X.astype("U")), "the input 'x' takes FP32"),
        (changed(x=X[:, :2]), "the input 'x' takes rows of the shape [3]"),
        (changed(label=None), "no label array 'label'"),
        (changed(x=WITH_NAN), "the feature 'x' holds NaN in 3 of 50 rows, first in row 0"),
        (changed(x=X[:0], label=np.zeros(0, "i8")), "no rows"),
        (changed(x=X[:9]), "differ in rows"),
        (changed(label=np.full(50, np.nan)), "the label of row 0 is not a finite number"),
        ({}, "not a readable zip archive"),
    ],
)
def test_data_that_does_not_fit_the_model_fails_and_says_how(
    tmp_path: Path, rows: Mapping[str, Any], sentence: str
) -> None:
    report = checked(tmp_path, scorer(), rows)
    assert said(report, "data").startswith("fail: ")
    assert sentence in said(report, "data")
    assert report.verdicts[-1].check == "data"


def test_names_of_any_length_leave_a_sentence_that_can_be_stored(tmp_path: Path) -> None:
    name = "x" * 5_000
    model = onnx_model(
        [helper.make_node("Neg", [name], ["y"])],
        [(name, Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 3])],
    )
    report = checked(tmp_path, model, {name: np.zeros((4, 2), dtype="f4"), "label": np.zeros(4, dtype=np.int64)})
    assert "the input 'xxx" in said(report, "data")
    assert max(len(verdict.sentence) for verdict in report.verdicts) <= 500


def test_nan_may_stand_where_the_policy_allows_it(tmp_path: Path) -> None:
    model = onnx_model(
        [
            helper.make_node("IsNaN", ["x"], ["nan"]),
            helper.make_node("Where", ["nan", "zero", "x"], ["scores"]),
        ],
        [("x", Type.FLOAT, ["rows", 3])],
        [("scores", Type.FLOAT, ["rows", 3])],
        constants=[helper.make_tensor("zero", Type.FLOAT, [], [0.0])],
    )
    rows = {"x": WITH_NAN, "label": np.nan_to_num(WITH_NAN).argmax(axis=1)}
    report = checked(tmp_path, model, rows, policy=ValidationPolicy(allow_nan=True))
    assert report.accepted, report
    assert b'"NaN"' in (tmp_path / "work" / "golden.json").read_bytes()


def test_reference_data_must_fit_too_and_needs_no_labels(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    report = checked(tmp_path / "a", scorer(), scorer_rows(), reference={"x": X})
    assert said(report, "reference") == "pass: 50 rows that fit the model's inputs"
    report = checked(tmp_path / "b", scorer(), scorer_rows(), reference={"x": X[:, :1]})
    assert said(report, "reference").startswith("fail: the input 'x' takes rows of the shape [3]")


def test_outputs_that_are_nan_fail(tmp_path: Path) -> None:
    rows = changed(x=np.abs(X) * np.where(np.arange(50) % 10 == 3, -1, 1)[:, None].astype("f4"))
    assert "the output 'y' holds NaN for 5 of 50 rows, first for row 3" in said(
        checked(tmp_path, one_node("Log"), rows), "run"
    )


def test_a_model_that_fails_on_its_data_fails(tmp_path: Path) -> None:
    table = helper.make_tensor("table", Type.FLOAT, [3, 2], [float(i) for i in range(6)])
    model = onnx_model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [("i", Type.INT64, ["rows"])],
        [("y", Type.FLOAT, ["rows", 2])],
        constants=[table],
    )
    report = checked(tmp_path, model, {"i": [0, 1, 2, 7], "label": [1, 1, 1, 1]})
    assert "fail: the model does not run" in said(report, "run")
    assert "out of" in said(report, "run")


def test_a_model_that_answers_a_batch_as_one_fails(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, [1, 3])],
    )
    assert "the output 'y' has the shape [1, 3] for 50 rows" in said(checked(tmp_path, model, scorer_rows()), "run")


def test_a_model_without_rows_is_checked_call_by_call_and_no_data_fits_it(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Mul", ["x", "gain"], ["y"])],
        [("x", Type.FLOAT, ["rows", 3]), ("gain", Type.FLOAT, [])],
        [("y", Type.FLOAT, ["rows", 3])],
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    report = checked(tmp_path / "a", model, policy=RELAXED)
    assert report.accepted
    assert report.has_golden
    assert "not tried: the input 'gain' is a single value and has no rows" in said(report, "robustness")
    data = {"x": np.ones((50, 3), "f4"), "gain": np.ones(50, "f4"), "label": np.zeros(50, "i8")}
    assert checked(tmp_path / "b", model, data).outcome is Outcome.FAIL


def test_a_model_of_fixed_batches_wants_whole_ones(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert checked(tmp_path / "a", scorer(rows=10), scorer_rows(50)).accepted
    assert "exactly 10 rows at once, and 45" in said(checked(tmp_path / "b", scorer(rows=10), scorer_rows(45)), "data")


def test_text_in_and_text_out_is_measured(tmp_path: Path) -> None:
    words = np.array([["cat"], ["dog"], ["cat"], ["hän"]])
    model = onnx_model(
        [
            helper.make_node(
                "LabelEncoder",
                ["word"],
                ["sound"],
                domain="ai.onnx.ml",
                keys_strings=["cat", "dog"],
                values_strings=["miau", "wuff"],
                default_string="?",
            )
        ],
        [("word", Type.STRING, ["rows", 1])],
        [("sound", Type.STRING, ["rows", 1])],
        domains={"ai.onnx.ml": 2},
    )
    label = np.array(["miau", "wuff", "wuff", "?"])
    report = checked(
        tmp_path, model, {"word": words, "label": label}, policy=ValidationPolicy(accuracy=0.7, recall=0.7, min_rows=4)
    )
    assert report.metrics["accuracy"] == 0.75
    assert report.accepted, report
    golden = json.loads((tmp_path / "work" / "golden.json").read_bytes())
    assert golden["cases"][3] == {
        "inputs": [{"name": "word", "datatype": "BYTES", "shape": [1, 1], "data": ["hän"]}],
        "outputs": [{"name": "sound", "datatype": "BYTES", "shape": [1, 1], "data": ["?"]}],
    }


def test_labels_of_another_kind_than_the_predictions_fail(tmp_path: Path) -> None:
    rows = changed(label=np.array(["a", "b"] * 25))
    report = checked(tmp_path, scorer(), rows)
    assert "fail: the labels are text and the output 'scores' gives whole numbers" in said(report, "metrics")


def test_one_column_of_probabilities_is_cut_at_one_half(tmp_path: Path) -> None:
    x = np.array([[-3.0], [3.0], [1.0], [-1.0]], dtype="f4")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    report = checked(tmp_path / "a", one_node("Sigmoid", width=1), {"x": x, "label": [False, True, True, False]})
    assert report.metrics["accuracy"] == 1.0
    report = checked(tmp_path / "b", one_node("Neg", width=1), {"x": x, "label": [0, 1, 1, 0]})
    assert "neither classes nor scores per class nor probabilities" in said(report, "metrics")


def test_the_manifest_may_name_the_output_and_the_labels(tmp_path: Path) -> None:
    model, rows, _ = forest()
    for name, output, outcome in (("a", "probabilities", "accuracy"), ("b", "scores", "metrics")):
        (tmp_path / name).mkdir()
        report = checked(tmp_path / name, model, rows, prediction=output)
        assert any(v.check == outcome for v in report.verdicts)
    assert "the manifest names the output 'scores' and the model has 'label', 'probabilities'" in said(
        report, "metrics"
    )
    (tmp_path / "c").mkdir()
    named = {"x": X, "truth": scorer_rows()["label"]}
    assert checked(tmp_path / "c", scorer(), named, label="truth").accepted


def test_regression_is_measured_and_limited_by_r2(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 40, dtype="f4").reshape(40, 1)
    rows = {"x": x, "label": (-x[:, 0] + 0.1).astype("f8")}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    good = checked(tmp_path / "a", one_node("Neg", width=1), rows, task="regression")
    assert good.accepted
    assert good.metrics["mae"] == pytest.approx(0.1, abs=1e-6)
    bad = checked(tmp_path / "b", one_node("Identity", width=1), rows, task="regression")
    assert "r2 -" in said(bad, "r2")
    assert bad.outcome is Outcome.FAIL
    one = checked(tmp_path / "c", one_node("Neg", width=1), {"x": x[:1], "label": [1.0]}, task="regression")
    assert said(one, "r2").startswith("inconclusive: r2 cannot be computed on 1 rows")


def test_numbers_too_large_to_measure_fail_and_leave_no_infinity(tmp_path: Path) -> None:
    x = np.full((4, 1), 1e38, dtype="f4")
    report = checked(tmp_path, one_node("Neg", width=1), {"x": x, "label": [1e300] * 4}, task="regression")
    assert "too large to measure" in said(report, "metrics")
    assert report.metrics == {}


def test_a_policy_without_limits_says_so(tmp_path: Path) -> None:
    policy = ValidationPolicy(accuracy=None, precision=None, recall=None)
    report = checked(tmp_path, scorer(), scorer_rows(50, right=0.1), policy=policy)
    assert said(report, "metrics") == "pass: measured on 50 rows; the policy sets no limits"
    assert report.accepted


def test_every_datatype_is_named_as_the_protocol_names_it(tmp_path: Path) -> None:
    types = {
        "BOOL": Type.BOOL, "UINT8": Type.UINT8, "UINT16": Type.UINT16, "UINT32": Type.UINT32, "UINT64": Type.UINT64,
        "INT8": Type.INT8, "INT16": Type.INT16, "INT32": Type.INT32, "INT64": Type.INT64,
        "FP16": Type.FLOAT16, "FP32": Type.FLOAT, "FP64": Type.DOUBLE, "BYTES": Type.STRING,
    }  # fmt: skip
    model = onnx_model(
        [helper.make_node("Identity", [f"i{name}"], [name]) for name in types],
        [(f"i{name}", kind, ["rows", 2]) for name, kind in types.items()],
        [(name, kind, ["rows", 2]) for name, kind in types.items()],
    )
    report = checked(tmp_path, model, policy=RELAXED)
    assert report.signature is not None
    assert {spec.name: spec.datatype for spec in report.signature.outputs} == {name: name for name in types}
    assert report.has_golden


def test_a_type_that_cannot_be_served_fails_to_load(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Type.BFLOAT16, ["rows", 2])],
        [("y", Type.BFLOAT16, ["rows", 2])],
    )
    assert "bfloat16" in said(checked(tmp_path, model), "load")


def test_a_loop_without_end_is_itself_a_valid_file(tmp_path: Path) -> None:
    """So that the tests of the sandbox's limits show the limits, and not the checker."""
    (tmp_path / "m").write_bytes(endless().SerializeToString())
    onnx.checker.check_model(str(tmp_path / "m"), full_check=True)


def test_a_report_must_be_coherent() -> None:
    verdict = Verdict(check="size", outcome=Outcome.FAIL, sentence="too large")
    with pytest.raises(ValidationError, match="the verdicts join to fail"):
        ValidationReport(outcome=Outcome.PASS, verdicts=(verdict,))
    infinite = verdict.model_copy(update={"value": float("inf")})
    with pytest.raises(ValidationError, match="not finite"):
        ValidationReport(outcome=Outcome.FAIL, verdicts=(infinite,))
    with pytest.raises(ValidationError):
        ValidationReport(outcome=Outcome.FAIL, verdicts=(verdict,), metrics={"accuracy": float("nan")})
