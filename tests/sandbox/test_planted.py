"""Each planted defect is found by its own check, and by no other; what is sound passes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper, numpy_helper

from shared.core.verdict import Outcome
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.validation.report import ValidationReport
from shared.validation.sandbox import SandboxLimits
from shared.validation.steps.data import chosen
from tests.unit.validation.drops import endless, one_node, onnx_model, said
from tests.unit.validation.planted import (
    DEFECTS,
    FEATURES,
    Planted,
    bad_in_one_slice,
    drifted,
    features,
    judged,
    labels,
    linear,
    sandboxed,
    sound,
    unfair,
    worse_than_the_champion,
)


def against(report: ValidationReport) -> list[str]:
    """The checks that speak against a version."""
    return [v.check for v in report.verdicts if v.outcome is not Outcome.PASS and not v.advisory]


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda plant: plant.__name__)
def test_a_defect_is_found_by_its_own_check(plant: Callable[[], Planted], tmp_path: Path) -> None:
    planted = plant()
    report = judged(planted, tmp_path)
    assert report.outcome is Outcome.FAIL
    assert planted.finds in against(report)
    # A version below one threshold is below others of its kind too.
    assert set(against(report)) - {"precision", "recall"} == {planted.finds}
    assert not report.has_golden


def test_a_sound_version_passes_and_is_compared_with_its_champion(tmp_path: Path) -> None:
    report = judged(sound(), tmp_path)
    assert report.accepted, [f"{v.check}: {v.sentence}" for v in report.verdicts]
    assert report.details.comparison[0].champion_version == 7
    assert report.details.latency is not None
    assert report.details.latency.quantiles[-1].champion_ms is not None
    assert report.details.signature is not None
    assert report.has_golden


@pytest.mark.long
@pytest.mark.parametrize("plant", [sound, *DEFECTS], ids=lambda plant: plant.__name__)
def test_a_defect_is_found_in_the_real_sandbox(plant: Callable[[], Planted], tmp_path: Path) -> None:
    planted = plant()
    report = sandboxed(planted, tmp_path)
    found = set(against(report)) - {"precision", "recall"}
    assert found == ({planted.finds} if planted.finds else set())


def test_the_clock_of_the_sandbox_resolves_single_calls(tmp_path: Path) -> None:
    """Under its limit on processor time some clocks move by ticks alone."""
    latency = sandboxed(sound(), tmp_path).details.latency
    assert latency is not None
    assert all(quantile.candidate_ms > 0 for quantile in latency.quantiles)


def test_one_report_tells_all_that_is_wrong(tmp_path: Path) -> None:
    slice_of, drift = bad_in_one_slice(), drifted()
    x = drift.rows["x"]
    label = labels(x)
    heavy = x[:, 3] > 0.5
    label[heavy] = (label[heavy] + 1) % 3
    planted = Planted(
        model=linear(),
        champion=worse_than_the_champion().model,
        rows={"x": x, "label": label},
        reference=drift.reference,
        finds=None,
        policy=ValidationPolicy(max_memory_bytes=64),
        manifest=slice_of.manifest,
    )
    assert {"memory", "accuracy", "slices", "reference_drift"} <= set(against(judged(planted, tmp_path)))


def test_every_verdict_points_to_figures_that_are_there(tmp_path: Path) -> None:
    """Of a report in which every section is filled."""
    fair = unfair()
    planted = Planted(
        model=linear(),
        champion=worse_than_the_champion().model,
        rows=fair.rows,
        reference={"x": features(seed=6)},
        finds=None,
        manifest={**fair.manifest, "metrics": {"accuracy": 1.0}, "slices": FEATURES[:2]},
    )
    report = judged(planted, tmp_path)
    document = report.model_dump(mode="json")
    sections = {name for name, value in document["details"].items() if value not in (None, [], 0)}
    assert sections == set(document["details"])
    pointed = [verdict for verdict in report.verdicts if verdict.evidence]
    for verdict in pointed:
        assert verdict.evidence is not None
        assert resolved(document, verdict.evidence) not in (None, [], {}), verdict
    without = {verdict.check for verdict in report.verdicts if not verdict.evidence}
    assert without <= {"size", "onnx", "data", "reference", "run", "golden"}


def resolved(document: Any, pointer: str) -> Any:
    """What a JSON pointer points to. Raises KeyError or IndexError where that is nothing."""
    value = document
    for part in parts(pointer):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def parts(pointer: str) -> Iterator[str]:
    """The parts of a JSON pointer (RFC 6901)."""
    assert pointer.startswith("/")
    for part in pointer[1:].split("/"):
        yield part.replace("~1", "/").replace("~0", "~")


def test_verdicts_with_a_limit_carry_what_was_measured(tmp_path: Path) -> None:
    report = judged(worse_than_the_champion(), tmp_path)
    for verdict in report.verdicts:
        if verdict.limit is not None:
            assert verdict.value is not None, verdict
    (verdict,) = (v for v in report.verdicts if v.check == "non_inferiority")
    assert verdict.n == 1_500
    assert verdict.interval is not None
    assert verdict.value is not None
    assert verdict.interval[0] <= verdict.value <= verdict.interval[1]


def test_a_breaking_signature_is_advice_and_says_what_breaks(tmp_path: Path) -> None:
    x = features()
    planted = Planted(model=linear(), champion=linear(name="z"), rows={"x": x, "label": labels(x)}, finds=None)
    report = judged(planted, tmp_path)
    assert report.accepted, against(report)
    assert said(report, "signature").startswith(
        "fail: the model breaks callers of the champion, version 7, so that its"
    )
    assert "the input 'z' is gone" in said(report, "signature")
    assert "not compared: the champion, version 7, takes the input 'z'" in said(report, "non_inferiority")


def test_a_champion_that_cannot_be_had_leaves_the_comparison_open(tmp_path: Path) -> None:
    planted = Planted(model=linear(), rows=sound().rows, finds=None)
    report = judged(planted, tmp_path, champion_unusable="cannot be had: artifact abc is gone")
    assert report.outcome is Outcome.INCONCLUSIVE
    assert against(report) == ["non_inferiority"]
    assert "the champion cannot be had: artifact abc is gone" in said(report, "non_inferiority")


def test_a_champion_that_does_not_load_leaves_the_comparison_open(tmp_path: Path) -> None:
    broken = linear()
    broken.graph.node[0].op_type = "Nothing"
    planted = Planted(model=linear(), champion=broken, rows=sound().rows, finds=None)
    report = judged(planted, tmp_path)
    assert against(report) == ["non_inferiority"]
    assert "the champion, version 7, does not load" in said(report, "non_inferiority")


def test_a_champion_of_another_task_leaves_the_comparison_open(tmp_path: Path) -> None:
    """A drop names its task itself: as advice, naming another one would switch the comparison off."""
    planted = sound()
    other = Manifest(task=Task.REGRESSION)
    report = judged(planted, tmp_path, champion_manifest=other)
    assert report.outcome is Outcome.INCONCLUSIVE
    assert against(report) == ["non_inferiority"]
    assert said(report, "non_inferiority") == (
        "inconclusive: not compared: the champion, version 7, does regression, and this version classification; name "
        "another version as champion, or set the policy's noninferiority_margin to null, and run `slipway revalidate`"
    )


def of_any_width(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, which does not say how many scores it gives."""
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    return model


def test_one_label_that_the_champion_does_not_know_switches_no_comparison_off(tmp_path: Path) -> None:
    worse = worse_than_the_champion()
    weights = numpy_helper.to_array(worse.model.graph.initializer[0])
    further = [helper.make_node("Pad", ["base", "pads", "least"], ["padded"])]
    constants = {"pads": np.array([0, 0, 0, 1]), "least": np.array(-99, dtype=np.float32)}
    fourth = of_any_width(linear(weights=weights, further=further, scores="padded", constants=constants))
    label = worse.rows["label"].copy()
    label[0] = 3
    planted = Planted(
        model=fourth, champion=of_any_width(linear()), rows={**worse.rows, "label": label}, finds="non_inferiority"
    )
    report = judged(planted, tmp_path)
    assert against(report) == ["non_inferiority"]
    assert said(report, "non_inferiority").startswith("fail: ")
    assert "; 1 rows that are foreign to the champion count as its errors" in said(report, "non_inferiority")


def test_one_row_that_the_champion_does_not_answer_switches_no_comparison_off(tmp_path: Path) -> None:
    further = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["most"], ["index"], to=Type.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"]),
        helper.make_node("Squeeze", ["nothing", "last"], ["flat"]),
        helper.make_node("Add", ["base", "flat"], ["moved"]),
    ]
    table = {"table": np.zeros((10, 1), dtype=np.float32), "last": np.array([2])}
    champion = linear(further=further, scores="moved", constants=table)
    worse = worse_than_the_champion()
    x = worse.rows["x"].copy()
    x[70] = 50  # beyond the table
    planted = Planted(model=worse.model, champion=champion, rows={**worse.rows, "x": x}, finds="non_inferiority")
    report = judged(planted, tmp_path)
    assert against(report) == ["non_inferiority"]
    assert said(report, "non_inferiority").startswith("fail: ")
    (found,) = report.details.comparison
    assert found.champion == 1_499 / 1_500


def test_rows_that_do_not_fill_the_champions_batches_switch_no_comparison_off(tmp_path: Path) -> None:
    champion = linear()
    champion.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    worse = worse_than_the_champion()
    report = judged(Planted(model=worse.model, champion=champion, rows=worse.rows, finds="non_inferiority"), tmp_path)
    assert against(report) == ["non_inferiority"]
    (found,) = report.details.comparison
    assert found.champion == 1.0


def test_a_champion_that_brings_the_sandbox_down_is_an_error_and_not_the_versions(tmp_path: Path) -> None:
    x = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)
    planted = Planted(model=one_node("Neg"), champion=endless(), rows={"x": x, "label": -x}, finds=None)
    planted = replace(planted, manifest={"task": "regression"})
    report = sandboxed(planted, tmp_path, limits=SandboxLimits(cpu_s=3))
    assert said(report, "sandbox").endswith("used more than 3 s of CPU time while running the champion")
    assert report.outcome is Outcome.ERROR


def test_a_champion_whose_answers_are_of_another_kind_is_not_compared(tmp_path: Path) -> None:
    report = judged(sound(), tmp_path, champion_manifest=Manifest(task=Task.CLASSIFICATION, prediction="none"))
    assert "gives answers that do not compare with these labels" in said(report, "non_inferiority")


def test_a_sample_is_the_same_each_time_and_in_the_rows_order() -> None:
    assert chosen(10, 10).tolist() == list(range(10))
    sample = chosen(1_000, 100)
    assert np.array_equal(sample, chosen(1_000, 100))
    assert len(set(sample.tolist())) == 100
    assert np.array_equal(sample, np.sort(sample))
    assert max(sample.tolist()) > 900  # of all rows, not the first
    assert set(chosen(1_000, 50).tolist()) <= set(sample.tolist())


@pytest.mark.long
def test_more_rows_than_are_looked_at_are_sampled_and_the_sentence_says_so(tmp_path: Path) -> None:
    x = features(200_600)
    report = judged(Planted(model=linear(), rows={"x": x, "label": labels(x)}, finds=None), tmp_path)
    assert report.rows == 200_600
    assert said(report, "run") == "pass: the model answers each of 200000 rows, a sample of 200600 (seed 17)"
    (verdict,) = (v for v in report.verdicts if v.check == "accuracy")
    assert verdict.n == 200_000


@pytest.mark.long
def test_a_probe_that_never_ends_is_named(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["more_out"]), helper.make_node("Neg", ["value"], ["value_out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", Type.INT64, []),
            helper.make_tensor_value_info("more", Type.BOOL, []),
            helper.make_tensor_value_info("value", Type.FLOAT, ["rows", 1]),
        ],
        [
            helper.make_tensor_value_info("more_out", Type.BOOL, []),
            helper.make_tensor_value_info("value_out", Type.FLOAT, ["rows", 1]),
        ],
    )
    model = onnx_model(
        [
            helper.make_node("ReduceMax", ["turns"], ["most"], keepdims=0),
            helper.make_node("Cast", ["turns"], ["value"], to=Type.FLOAT),
            helper.make_node("Loop", ["most", "go", "value"], ["y"], body=body),
        ],
        [("turns", Type.INT64, ["rows", 1])],
        [("y", Type.FLOAT, ["rows", 1])],
        constants=[helper.make_tensor("go", Type.BOOL, [], [True])],
    )
    rows = {"turns": np.full((60, 1), 4, dtype=np.int64), "label": np.full(60, 4.0)}
    planted = Planted(model=model, rows=rows, finds=None, manifest={"task": "regression"})
    report = sandboxed(planted, tmp_path, limits=SandboxLimits(cpu_s=6))
    assert against(report) == ["sandbox"]
    assert "used more than 6 s of CPU time while running rows of extreme values" in said(report, "sandbox")
