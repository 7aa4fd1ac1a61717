"""Golden rows: what they are made of, and that they can be made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto as Type
from onnx import helper

from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.golden import spread_over
from shared.validation.wire import GOLDEN_FILE, MAX_GOLDEN_BYTES
from tests.unit.validation.drops import checked, forest, npz, one_node, onnx_model, said, scorer, scorer_rows

RELAXED = ValidationPolicy(require_validation_data=False)


def golden(folder: Path) -> dict[str, Any]:
    """The file's content, which has no NaN or Infinity outside of strings."""
    text = (folder / "work" / "golden.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    return content


def test_the_file_has_the_form_that_the_server_reads(tmp_path: Path) -> None:
    rows = scorer_rows(40)
    checked(tmp_path, scorer(), rows)
    file = golden(tmp_path)
    assert {name: file[name] for name in file if name != "cases"} == {
        "schema_version": 2,
        "tolerances": {"scores": {"rtol": 1e-4, "atol": 1e-5}},
        "runtime": f"onnxruntime {onnxruntime.__version__}",
    }
    assert len(file["cases"]) == 16
    for case in file["cases"]:
        (taken,), (given,) = case["inputs"], case["outputs"]
        assert (taken["name"], taken["datatype"], taken["shape"]) == ("x", "FP32", [1, 3])
        assert taken["data"] in rows["x"].astype(float).tolist()
        assert (given["name"], given["datatype"], given["shape"]) == ("scores", "FP32", [1, 3])
        scores = np.exp(taken["data"]) / np.exp(taken["data"]).sum()
        assert np.allclose(given["data"], scores, rtol=1e-4)


def test_few_rows_give_a_case_each(tmp_path: Path) -> None:
    checked(tmp_path, scorer(), scorer_rows(5), policy=ValidationPolicy(min_rows=5))
    assert len(golden(tmp_path)["cases"]) == 5


def test_the_same_drop_gives_the_same_bytes(tmp_path: Path) -> None:
    model, rows, _ = forest()
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        checked(tmp_path / name, model, rows)
        made.append((tmp_path / name / "work" / "golden.json").read_bytes())
    assert made[0] == made[1]


def test_cases_are_spread_over_the_classes_that_are_predicted(tmp_path: Path) -> None:
    x = scorer_rows(300)["x"]
    x[:, 0] += np.where(np.arange(300) == 150, 9, 5)  # class 0 wins nearly everywhere
    x[[40, 250], 1] += 20
    x[[90], 2] += 20
    checked(tmp_path, scorer(), {"x": x, "label": x.argmax(axis=1)})
    cases = golden(tmp_path)["cases"]
    assert len(cases) == 16
    classes = [int(np.argmax(case["outputs"][0]["data"])) for case in cases]
    assert {classes.count(1), classes.count(2)} == {2, 1}


def test_rows_are_spread_over_classes_or_over_the_range_of_numbers() -> None:
    rare = np.zeros(1_000, dtype=np.int64)
    rare[[17, 900]] = 1
    taken = spread_over(rare, 1_000)
    assert {17, 900} <= set(taken.tolist())
    assert len(taken) == 16
    numbers = np.random.default_rng(0).normal(size=500)
    taken = spread_over(numbers, 500)
    assert {int(numbers.argmin()), int(numbers.argmax())} <= set(taken.tolist())
    assert spread_over(None, 3).tolist() == [0, 1, 2]
    many = spread_over(np.arange(100), 100)
    assert (many[0], many[-1], len(many)) == (0, 99, 16)


def test_a_tolerance_of_the_manifest_stands_in_the_file(tmp_path: Path) -> None:
    policy = ValidationPolicy(max_rtol=0.02, max_atol=0.5)
    checked(tmp_path, scorer(), scorer_rows(40), policy=policy, tolerances={"scores": {"rtol": 0.02, "atol": 0.5}})
    assert golden(tmp_path)["tolerances"] == {"scores": {"rtol": 0.02, "atol": 0.5}}


def test_a_tolerance_of_an_output_that_is_not_there_fails(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(40), tolerances={"score": {"rtol": 0.02}})
    assert said(report, "load") == "fail: the manifest's tolerances name 'score', which is no output of numbers"


def test_a_fixed_batch_is_one_case(tmp_path: Path) -> None:
    checked(tmp_path, scorer(rows=20), scorer_rows(60))
    cases = golden(tmp_path)["cases"]
    assert [case["inputs"][0]["shape"] for case in cases] == [[20, 3]] * 3


def test_numbers_that_are_not_finite_are_strings(tmp_path: Path) -> None:
    x = np.array([[np.inf, -np.inf, np.nan]] * 20, dtype="f4")
    policy = ValidationPolicy(allow_nan=True, accuracy=None, precision=None, recall=None)
    model = onnx_model(
        [
            helper.make_node("IsNaN", ["x"], ["nan"]),
            helper.make_node("Where", ["nan", "zero", "x"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
            helper.make_node("Identity", ["x"], ["y"]),
        ],
        [("x", Type.FLOAT, ["rows", 3])],
        [("class", Type.INT64, ["rows"]), ("y", Type.FLOAT, ["rows", 3])],
        constants=[helper.make_tensor("zero", Type.FLOAT, [], [0.0])],
    )
    report = checked(tmp_path, model, {"x": x, "label": [0] * 20}, policy=policy)
    assert report.accepted, report
    case, *_ = golden(tmp_path)["cases"]
    assert case["outputs"][1]["data"] == ["Infinity", "-Infinity", "NaN"]


def test_a_model_that_answers_by_chance_gets_none_and_is_not_accepted(tmp_path: Path) -> None:
    chance = [
        helper.make_node("RandomUniformLike", ["x"], ["noise"]),
        helper.make_node("Mul", ["noise", "small"], ["some"]),
        helper.make_node("Add", ["x", "some"], ["scores"]),
    ]
    model = onnx_model(
        chance,
        [("x", Type.FLOAT, ["rows", 3])],
        [("scores", Type.FLOAT, ["rows", 3])],
        constants=[helper.make_tensor("small", Type.FLOAT, [], [0.001])],
    )
    policy = ValidationPolicy(accuracy=0.5, precision=0.5, recall=0.5)
    report = checked(tmp_path, model, scorer_rows(), policy=policy)
    assert said(report, "repeats").startswith("fail: the same 128 rows run again and in a second session give other")
    assert [v.check for v in report.verdicts if v.outcome is Outcome.FAIL and not v.advisory] == ["repeats"]
    assert not report.has_golden
    assert not (tmp_path / "work" / GOLDEN_FILE).exists()


def test_without_data_inputs_are_made_up_from_the_signature(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), policy=RELAXED)
    assert report.has_golden
    (case,) = golden(tmp_path)["cases"]
    assert case["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [-1.0, 0.0, 1.0]}]


def test_inputs_that_cannot_be_made_up_are_skipped_with_a_sentence(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [("x", Type.FLOAT, ["rows", "any", 3])],
        [("y", Type.FLOAT, ["rows", "any", 3])],
    )
    report = checked(tmp_path, model, policy=RELAXED)
    assert report.accepted
    assert not report.has_golden
    assert "the input 'x' has the shape [-1, -1, 3], which does not say what to fill in" in said(report, "golden")


def test_a_model_that_fails_on_made_up_inputs_is_skipped_with_a_sentence(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["halves", 6])],
        constants=[helper.make_tensor("shape", Type.INT64, [2], [-1, 6])],
    )
    report = checked(tmp_path, model, policy=RELAXED)
    assert report.accepted
    assert "no golden rows: on made-up inputs the model does not run" in said(report, "golden")


def test_golden_rows_stay_below_their_limit(tmp_path: Path) -> None:
    width = 40_000
    x = np.random.default_rng(1).normal(size=(20, width)).astype("f4")
    (tmp_path / "a").mkdir()
    report = checked(tmp_path / "a", one_node("Neg", width=width), npz({"x": x, "label": (-x).argmax(axis=1)}))
    assert report.has_golden
    size_bytes = (tmp_path / "a" / "work" / "golden.json").stat().st_size
    assert MAX_GOLDEN_BYTES / 2 < size_bytes <= MAX_GOLDEN_BYTES
    assert 1 <= len(golden(tmp_path / "a")["cases"]) < 16
