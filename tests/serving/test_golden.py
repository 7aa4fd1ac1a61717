"""Golden rows: what may differ, and how a difference is shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from aks_serving.errors import LoadCode, LoadError
from aks_serving.golden import replay
from aks_serving.model import Model

from shared.registry.manifest import Manifest, Task
from shared.validation.golden import golden_rows
from shared.validation.model import load
from shared.validation.tolerance import tolerances_of
from tests.serving import models
from tests.support.models import classifier

_EXACT = {"y": {"rtol": 0.0, "atol": 0.0}}


def _identity(datatype: str) -> Model:
    return Model(version=1, digest="0" * 64, data=models.identity(datatype, ["n", "m"]))


def _file(datatype: str, given: list[Any], recorded: list[Any], tolerances: dict[str, Any]) -> bytes:
    """The model gives back what it is given, where something else may be recorded."""
    tensors = [{"datatype": datatype, "shape": [1, len(data)], "data": data} for data in (given, recorded)]
    return models.golden2([({"x": tensors[0]}, {"y": tensors[1]})], tolerances, runtime="onnxruntime 0.9")


def _refusal(model: Model, file: bytes) -> str:
    with pytest.raises(LoadError) as caught:
        replay(model, file)
    assert caught.value.code is LoadCode.GOLDEN
    return str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "given", "recorded", "tolerance"),
    [
        ("FP32", [1.0, -2.0], [1.0, -2.0], None),
        ("FP32", [1.05, -2.1], [1.0, -2.0], {"rtol": 0.1, "atol": 0.0}),
        ("FP64", [0.005], [0.0], {"rtol": 0.0, "atol": 0.01}),
        ("FP32", ["NaN", "Infinity", "-Infinity"], ["NaN", "Infinity", "-Infinity"], None),
        ("FP16", [1.0], [1.5], {"rtol": 0.0, "atol": 0.5}),
        ("INT64", [9007199254740993], [9007199254740993], None),
        ("UINT8", [7], [8], {"rtol": 0.0, "atol": 1.0}),
        ("BYTES", ["a"], ["a"], {"rtol": 1.0, "atol": 1.0}),
        ("BOOL", [True], [True], None),
    ],
)
def test_an_output_within_its_tolerance_is_taken(
    datatype: str, given: list[Any], recorded: list[Any], tolerance: dict[str, float] | None
) -> None:
    tolerances = {} if tolerance is None else {"y": tolerance}
    (feeds,) = replay(_identity(datatype), _file(datatype, given, recorded, tolerances))
    assert list(feeds) == ["x"]


@pytest.mark.parametrize(
    ("datatype", "given", "recorded", "tolerance"),
    [
        ("FP32", [1.0000001], [1.0], None),
        ("FP32", [1.2], [1.0], {"rtol": 0.1, "atol": 0.0}),
        ("FP32", ["NaN"], [1.0], {"rtol": 1.0, "atol": 9.0}),
        ("FP32", ["Infinity"], ["-Infinity"], {"rtol": 1.0, "atol": 9.0}),
        ("FP32", ["Infinity"], [1.0], {"rtol": 1.0, "atol": 9.0}),
        ("INT64", [9007199254740993], [9007199254740992], None),
        ("UINT8", [6], [8], {"rtol": 0.0, "atol": 1.0}),
        ("BYTES", ["a"], ["b"], {"rtol": 1.0, "atol": 9.0}),
        ("BOOL", [True], [False], {"rtol": 1.0, "atol": 9.0}),
    ],
)
def test_an_output_beyond_its_tolerance_is_refused(
    datatype: str, given: list[Any], recorded: list[Any], tolerance: dict[str, float] | None
) -> None:
    tolerances = {"other": {"rtol": 1.0, "atol": 1e6}} if tolerance is None else {"y": tolerance}
    assert "output 'y' differs in 1 of 1 values" in _refusal(
        _identity(datatype), _file(datatype, given, recorded, tolerances)
    )


def test_a_difference_shows_the_worst_value_by_how_much_the_tolerance_and_both_runtimes() -> None:
    file = _file("FP32", [1.0, 5.0, 2.5, 9.0], [1.0, 4.5, 4.5, 9.0], {"y": {"rtol": 0.001, "atol": 0.25}})
    assert _refusal(_identity("FP32"), file) == (
        "golden: golden case 1 of 1: output 'y' differs in 2 of 4 values, most at [0, 2]: expected 4.5, found 2.5, "
        "off by 2 (rtol 0.001, atol 0.25); "
        f"recorded by onnxruntime 0.9, replayed by onnxruntime {onnxruntime.__version__}"
    )


def test_a_long_text_is_cut_in_the_difference() -> None:
    said = _refusal(_identity("BYTES"), _file("BYTES", ["a" * 5_000], ["b" * 5_000], {}))
    assert len(said) < 500


def test_the_first_version_of_the_file_has_one_tolerance_for_real_numbers_and_none_for_others() -> None:
    real = {"x": {"datatype": "FP32", "shape": [1, 1], "data": [1.00005]}}
    recorded = {"y": {"datatype": "FP32", "shape": [1, 1], "data": [1.0]}}
    assert replay(_identity("FP32"), models.golden([(real, recorded)]))
    recorded["y"]["data"] = [1.01]
    assert "(rtol 0.0001, atol 1e-05); recorded by a runtime that it does not name" in _refusal(
        _identity("FP32"), models.golden([(real, recorded)])
    )
    whole = {"datatype": "INT64", "shape": [1, 1]}
    off_by_one = models.golden([({"x": whole | {"data": [1_000_000]}}, {"y": whole | {"data": [1_000_001]}})])
    assert "differs in 1 of 1" in _refusal(_identity("INT64"), off_by_one)


def test_another_shape_type_or_output_is_a_difference() -> None:
    given = {"x": {"datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}}
    for recorded, said in (
        ({"y": {"datatype": "FP32", "shape": [2, 1], "data": [1.0, 2.0]}}, "is float32 of shape [1, 2], recorded as"),
        ({"y": {"datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]}}, "recorded as float64 [1, 2]"),
        ({"z": {"datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}}, "the model gives no such output"),
    ):
        assert said in _refusal(_identity("FP32"), models.golden2([(given, recorded)], _EXACT))


def test_a_case_on_which_the_model_fails_is_a_difference() -> None:
    model = Model(version=1, digest="0" * 64, data=models.picky(4))
    case = (
        {"x": {"datatype": "INT64", "shape": [1, 1], "data": [9]}},
        {"y": {"datatype": "FP32", "shape": [1, 1, 1], "data": [90.0]}},
    )
    said = _refusal(model, models.golden2([case], _EXACT))
    assert said.startswith("golden: golden case 1 of 1: ")
    assert "replayed by onnxruntime" in said


_GOOD = json.loads(_file("FP32", [1.0], [1.0], _EXACT))


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 3},
        {"schema_version": "2"},
        {"schema_version": 1},
        {"tolerances": {"y": {"rtol": -1.0, "atol": 0.0}}},
        {"tolerances": {"y": {"rtol": 0.0}}},
        {"tolerances": None},
        {"rtol": 1.0},
        {"runtime": None},
        {"cases": [{"inputs": []}]},
    ],
)
def test_a_file_of_another_form_is_refused(change: dict[str, Any]) -> None:
    assert replay(_identity("FP32"), json.dumps(_GOOD).encode())
    assert "the golden rows cannot be read" in _refusal(_identity("FP32"), json.dumps(_GOOD | change).encode())


def test_what_a_runtime_computes_otherwise_is_refused() -> None:
    """The same bytes in a runtime that rounds otherwise: here, a model that gives a neighbour of what was recorded."""
    neighbour = float(np.nextafter(np.float32(2.0), np.float32(3.0)))
    tensor = {"datatype": "FP32", "shape": [1, 1]}
    case = ({"x": tensor | {"data": [neighbour]}}, {"y": tensor | {"data": [2.0]}})
    assert "off by 2.38419e-07" in _refusal(_identity("FP32"), models.golden2([case], _EXACT))
    assert replay(_identity("FP32"), models.golden2([case], {"y": {"rtol": 1e-6, "atol": 0.0}}))


@pytest.mark.parametrize("made", [*models.ONNX_TYPE, "classifier"])
def test_what_validation_writes_is_read_and_replayed(tmp_path: Path, made: str) -> None:
    data = classifier() if made == "classifier" else models.identity(made, ["n", 2])
    (tmp_path / "model.onnx").write_bytes(data)
    judged = load(tmp_path / "model.onnx")
    tolerances = tolerances_of(judged.signature, Manifest(task=Task.CLASSIFICATION))
    order = np.arange(0, dtype=np.int64)
    file, cases = golden_rows(judged, None, order=order, tolerances=tolerances, runtime="onnxruntime 1")
    assert len(replay(Model(version=1, digest="0" * 64, data=data), file)) == cases > 0
