"""The reference profile and the estimate of performance: from which rows they are made, and that neither decides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as Type
from onnx import helper

from shared.core.canonical import digest_of_bytes
from shared.core.verdict import Outcome
from shared.drift.performance import PerformanceModel
from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.telemetry.profile import ColumnSource, NumberFeature, Profile
from shared.validation.report import ValidationReport
from shared.validation.steps.profile import MAX_ROWS
from tests.unit.validation.drops import checked, npz, onnx_model, said, scorer, scorer_rows

RELAXED = ValidationPolicy(require_validation_data=False)
NAMES = ("age", "income", "debt")


def profile_in(folder: Path) -> Profile:
    """The profile that was left, which lies there under its own digest."""
    data = (folder / "work" / "profile.json").read_bytes()
    profile = Profile.model_validate_json(data)
    assert profile.id == digest_of_bytes(data)
    return profile


def estimate_in(folder: Path) -> PerformanceModel:
    return PerformanceModel.model_validate_json((folder / "work" / "performance.json").read_bytes())


def figures(report: ValidationReport) -> tuple[Any, ...]:
    found = report.details.profile
    assert found is not None
    return found.source, found.rows, found.total_rows, found.features


def picker(limit: int = 3) -> Any:
    """Gives back a class below the limit, and raises for another."""
    table = helper.make_tensor("table", Type.INT64, [limit], list(range(limit)))
    return onnx_model(
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        [("x", Type.INT64, ["rows", 1])],
        [("y", Type.INT64, ["rows", 1])],
        constants=[table],
    )


def test_it_is_made_from_the_reference_data_and_the_answers_to_them(tmp_path: Path) -> None:
    reference = scorer_rows(300)
    report = checked(
        tmp_path, scorer(), scorer_rows(60), reference={"x": reference["x"]}, feature_names=NAMES, policy=RELAXED
    )
    assert report.accepted, report.verdicts
    assert (report.has_profile, report.has_performance) == (True, False)
    assert figures(report) == ("reference", 300, 300, 6)
    profile = profile_in(tmp_path)
    assert [feature.name for feature in profile.features] == [
        *NAMES,
        "prediction",
        "confidence",
        "reconstruction error",
    ]
    assert profile.rows == 150
    age = profile.features[0]
    assert isinstance(age, NumberFeature)
    assert age.source == ColumnSource(input="x", place=0)
    assert min(reference["x"][:, 0]) < age.edges[0] < age.edges[-1] < max(reference["x"][:, 0])
    answers = profile.features[3]
    assert sum(answers.counts) == 150
    assert said(report, "profile") == (
        "pass: a reference profile of 6 features from 300 rows of the reference data; "
        "no estimate of performance: 60 labelled rows are too few"
    )


def test_without_reference_data_it_is_made_from_the_validation_data_and_says_so(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(400, right=0.9))
    assert figures(report) == ("validation", 400, 400, 6)
    assert said(report, "profile") == (
        "pass: a reference profile of 6 features from 400 rows of the validation data; "
        "an estimate of performance, fitted on 400 rows"
    )
    estimate = estimate_in(tmp_path)
    assert estimate.profile == profile_in(tmp_path).id
    assert (estimate.rows, estimate.level, estimate.low, estimate.high) == (400, 0.9, 0.0, 1.0)


def test_the_estimate_of_a_regression_is_of_its_absolute_errors(tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(300, 1)).astype(np.float32)
    model = onnx_model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [("x", Type.FLOAT, ["rows", 1])],
        [("y", Type.FLOAT, ["rows", 1])],
    )
    report = checked(tmp_path, model, {"x": x, "label": 0.5 - x}, task=Task.REGRESSION, policy=RELAXED)
    assert report.has_performance, report.verdicts
    assert estimate_in(tmp_path).level == pytest.approx(0.5)
    assert report.details.profile is not None
    assert report.details.profile.estimate_level == pytest.approx(0.5)


def test_of_large_data_a_sample_is_looked_at_and_stated(tmp_path: Path) -> None:
    rows = MAX_ROWS + 10_000
    reference = {"x": scorer_rows(rows)["x"]}
    report = checked(tmp_path, scorer(), scorer_rows(600), reference=reference, policy=RELAXED)
    assert figures(report) == ("reference", MAX_ROWS, rows, 6)
    assert f"from {MAX_ROWS} rows, a sample of {rows} (seed 17), of the reference data" in said(report, "profile")
    assert profile_in(tmp_path).rows == MAX_ROWS // 2


def test_the_same_drop_leaves_the_same_profile_and_estimate(tmp_path: Path) -> None:
    rows = scorer_rows(400, right=0.9)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        checked(tmp_path / name, scorer(), rows)
    for name in ("profile.json", "performance.json"):
        first, second = ((tmp_path / folder / "work" / name).read_bytes() for folder in ("one", "two"))
        assert first == second


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (None, "there is neither reference nor validation data"),
        (12, "12 rows of the validation data are too few"),
    ],
)
def test_where_it_cannot_be_made_the_version_is_accepted_and_the_report_says_why(
    tmp_path: Path, rows: int | None, why: str
) -> None:
    policy = ValidationPolicy(require_validation_data=False, min_rows=1, minimum={})
    report = checked(tmp_path, scorer(), None if rows is None else scorer_rows(rows), policy=policy)
    assert report.accepted, report.verdicts
    assert (report.has_profile, report.has_performance) == (False, False)
    assert said(report, "profile") == f"pass: no reference profile, so that no drift will be seen: {why}"
    assert not (tmp_path / "work" / "profile.json").exists()


def test_a_model_that_does_not_run_on_its_reference_data_has_none(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.int64).reshape(-1, 1) % 3
    reference = {"x": np.where(np.arange(60).reshape(-1, 1) == 50, 99, x)}
    report = checked(tmp_path, picker(), npz({"x": x, "label": x}), reference=reference, policy=RELAXED)
    assert not report.has_profile
    assert said(report, "profile").startswith("pass: no reference profile, so that no drift will be seen: the model")


def test_a_rejected_version_has_none(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(), scorer_rows(400, right=0.5))
    assert report.outcome is Outcome.FAIL
    assert not report.has_profile
    assert not (tmp_path / "work" / "profile.json").exists()


def test_a_model_of_fixed_batches_is_run_in_whole_ones(tmp_path: Path) -> None:
    report = checked(tmp_path, scorer(8), scorer_rows(64), reference={"x": scorer_rows(100)["x"]}, policy=RELAXED)
    assert figures(report)[:3] == ("reference", 96, 100)
