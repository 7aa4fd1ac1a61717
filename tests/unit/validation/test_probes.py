"""What the probes observe of real sessions."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper
from onnxruntime.quantization import quantize_dynamic

from shared.registry.manifest import Tolerance
from shared.validation.datafile import Array
from shared.validation.model import LoadedModel, Rows, load
from shared.validation.probes.behaviour import STAGE, Observation, Probe, observe
from shared.validation.probes.inputs import extremes, made_up_rows, spread_rows, with_infinity, with_nan, with_outlier
from shared.validation.probes.timing import interleaved
from shared.validation.tolerance import Tolerances
from shared.validation.wire import Stage
from tests.unit.validation.drops import onnx_model, scorer
from tests.unit.validation.planted import answers_by_chance, rows_influence_each_other

ROWS = 16
BESIDE_S = 0.002


class Beside(LoadedModel):
    """A model beside whose every run something else happens."""

    def __init__(self, model: LoadedModel, happens: Callable[[], None]) -> None:
        self._model = model
        self._happens = happens

    def run(self, inputs: Rows) -> dict[str, Array]:
        """One call."""
        self._happens()
        return self._model.run(inputs)


def loaded(folder: Path, model: onnx.ModelProto) -> LoadedModel:
    """A session of the model."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return load(path)


def observed(model: LoadedModel, tolerances: Tolerances) -> tuple[dict[Probe, Observation], list[Stage]]:
    """What each probe saw, in one session, and the stages that began."""
    stages: list[Stage] = []
    batch = made_up_rows(model.signature, ROWS)
    rows = model.rows_at_once or ROWS
    found = observe(model, batch, rows, tolerances, measured=None, again=None, begin=stages.append)
    return {one.probe: one for one in found}, stages


def test_each_probe_begins_a_stage_of_its_own_before_it_is_tried(tmp_path: Path) -> None:
    found, stages = observed(loaded(tmp_path, scorer()), {})
    assert list(found) == list(Probe)
    assert stages == [STAGE[probe] for probe in Probe]
    assert len(set(stages)) == len(Probe)


def test_a_model_that_does_not_repeat_itself_is_seen_in_one_session_and_not_compared_further(tmp_path: Path) -> None:
    found, _ = observed(loaded(tmp_path, answers_by_chance().model), {})
    assert found[Probe.REPEATS].differences[0].differing > 0
    for probe in (Probe.BATCH_AGAINST_SINGLE, Probe.OUTLIER):
        assert found[probe].skipped == "the model does not even repeat itself"


def test_rows_that_influence_each_other_are_seen(tmp_path: Path) -> None:
    found, _ = observed(loaded(tmp_path, rows_influence_each_other().model), {})
    assert not found[Probe.REPEATS].differences[0].differing
    assert found[Probe.BATCH_AGAINST_SINGLE].differences[0].differing > 0


def test_where_the_graph_fixes_its_rows_another_order_tells_whether_they_influence_each_other(tmp_path: Path) -> None:
    found, _ = observed(loaded(tmp_path, scorer(rows=4)), {})
    assert found[Probe.BATCH_AGAINST_SINGLE].rows == 4
    assert not found[Probe.BATCH_AGAINST_SINGLE].differences[0].differing
    assert found[Probe.EMPTY_BATCH].skipped == "the graph fixes 4 rows"
    summed = onnx_model(
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [("x", Type.FLOAT, [4, 3])],
        [("y", Type.FLOAT, [4, 3])],
        constants=[helper.make_tensor("axis", Type.INT64, [], [0])],
    )
    found, _ = observed(loaded(tmp_path, summed), {})
    assert found[Probe.BATCH_AGAINST_SINGLE].differences[0].differing > 0


def test_rows_that_are_alike_tell_of_dynamic_quantisation_beside_an_outlier(tmp_path: Path) -> None:
    plain, quantised = tmp_path / "plain.onnx", tmp_path / "quantised.onnx"
    random = np.random.default_rng(0)
    linear = onnx_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 2])],
        constants=[helper.make_tensor("w", Type.FLOAT, [3, 2], random.normal(size=6))],
    )
    onnx.save(linear, plain)
    quantize_dynamic(plain, quantised)
    alike = {"x": random.integers(0, 2, size=(ROWS, 3)).astype(np.float32)}
    tolerances = {"y": Tolerance()}
    for path, is_seen in ((plain, False), (quantised, True)):
        seen = observe(load(path), alike, ROWS, tolerances, measured=None, again=None, begin=lambda _: None)
        found = {one.probe: one for one in seen}
        assert not found[Probe.BATCH_AGAINST_SINGLE].differences[0].differing
        assert found[Probe.OUTLIER].rows == ROWS - 1
        assert bool(found[Probe.OUTLIER].differences[0].differing) is is_seen


def test_an_outlier_stands_in_the_last_row_and_is_no_greater_than_its_type_holds() -> None:
    base: Rows = {
        "x": np.array([[1, -2, np.inf], [0, 0, 0]], dtype=np.float32),
        "h": np.array([3000, 1], dtype=np.float16),
        "n": np.ones((2, 1), dtype=np.int64),
    }
    beside = with_outlier(base)
    assert beside is not None
    assert beside["x"].tolist() == [[1, -2, np.inf], [60, -60, 60]]
    assert beside["h"].tolist() == [3000, 65504]
    assert np.array_equal(beside["n"], base["n"])
    assert base["x"][1].tolist() == [0, 0, 0]
    assert with_outlier({"n": base["n"]}) is None


def test_a_model_that_refuses_an_outlier_is_told_apart_from_one_whose_rows_change(tmp_path: Path) -> None:
    model = onnx_model(
        [
            helper.make_node("Cast", ["x"], ["at"], to=Type.INT64),
            helper.make_node("Gather", ["table", "at"], ["y"]),
        ],
        [("x", Type.FLOAT, ["rows", 1])],
        [("y", Type.FLOAT, ["rows", 1])],
        constants=[helper.make_tensor("table", Type.FLOAT, [2], [5.0, 6.0])],
    )
    found, _ = observed(loaded(tmp_path, model), {})
    assert found[Probe.OUTLIER].refused == ("beside an outlier",)
    assert "out of" in found[Probe.OUTLIER].error


def test_an_index_out_of_its_table_is_an_error_that_is_told(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [("ids", Type.INT64, ["rows", 1])],
        [("y", Type.FLOAT, ["rows", 1, 2])],
        constants=[helper.make_tensor("table", Type.FLOAT, [3, 2], [float(i) for i in range(6)])],
    )
    found, _ = observed(loaded(tmp_path, model), {})
    assert found[Probe.EXTREMES].refused == ("the largest whole numbers", "the smallest whole numbers")
    assert "out of" in found[Probe.EXTREMES].error
    assert found[Probe.NAN].skipped == "the model takes no real numbers"
    assert not found[Probe.EMPTY_BATCH].refused


def test_text_may_be_empty_long_and_unusual(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Identity", ["words"], ["y"])],
        [("words", Type.STRING, ["rows", 1])],
        [("y", Type.STRING, ["rows", 1])],
    )
    found, _ = observed(loaded(tmp_path, model), {})
    assert found[Probe.OUTLIER].skipped == "the model takes no real numbers"
    assert found[Probe.EXTREMES].tried == ("empty text", "text of 10000 characters", "unusual characters")
    assert not found[Probe.EXTREMES].refused


def test_nan_and_infinities_stand_in_whole_rows_and_in_single_values() -> None:
    base: Rows = {"x": np.ones((5, 3), dtype=np.float32), "n": np.ones((5, 1), dtype=np.int64)}
    nan, infinite = with_nan(base, 5), with_infinity(base, 5)
    assert nan is not None
    assert infinite is not None
    several, ones = nan["x"].astype(np.float64), infinite["x"].astype(np.float64)
    assert np.isnan(several).sum(axis=1).tolist() == [3, 1, 1, 1, 1]
    assert np.isposinf(ones).sum(axis=1).tolist() == [3, 0, 1, 0, 1]
    assert np.isneginf(ones).sum(axis=1).tolist() == [0, 3, 0, 1, 0]
    assert np.array_equal(nan["n"], base["n"])
    assert (base["x"] == 1).all()


def test_an_input_of_no_columns_has_nothing_unexpected_in_it() -> None:
    base: Rows = {"none": np.ones((5, 0), dtype=np.float32), "deep": np.ones((5, 3, 0), dtype=np.float32)}
    tried = [with_nan(base, 5), with_infinity(base, 5), with_outlier(base), *(rows for _, rows in extremes(base))]
    assert [{name: array.shape for name, array in (rows or {}).items()} for rows in tried] == [
        {"none": (5, 0), "deep": (5, 3, 0)} for _ in tried
    ]


def test_extremes_are_those_of_the_type() -> None:
    base: Rows = {"h": np.ones((2, 1), dtype=np.float16), "b": np.ones((2, 1), dtype=np.uint8)}
    found = dict(extremes(base))
    assert found["the largest real numbers"]["h"].tolist() == [[65504.0]] * 2
    assert found["1e+30"]["h"].tolist() == [[65504.0]] * 2
    assert found["the smallest whole numbers"]["b"].tolist() == [[0]] * 2
    assert found["-1"]["b"].tolist() == [[0]] * 2


@pytest.mark.parametrize(("rows", "wanted"), [(3, 8), (8, 8), (1_000, 8)])
def test_rows_are_spread_over_the_data_and_come_again_where_there_are_few(rows: int, wanted: int) -> None:
    taken = spread_rows({"x": np.arange(rows)}, rows, wanted)["x"]
    assert len(taken) == wanted
    assert (taken[0], taken[-1]) == (0, rows - 1)
    assert np.array_equal(taken, np.sort(taken))


def test_both_models_are_timed_as_often_and_in_the_same_cycles(tmp_path: Path) -> None:
    model = loaded(tmp_path, scorer())
    calls = [{"x": np.zeros((1, 3), dtype=np.float32)}] * 2
    timings = interleaved(model, model, calls, rows_a_call=1, budget_s=0.02)
    assert timings.champion_ns is not None
    assert timings.candidate_ns.shape == timings.champion_ns.shape
    assert timings.candidate_ns.size <= 4_000
    assert (timings.candidate_ns > 0).all()
    alone = interleaved(model, None, calls, rows_a_call=1, budget_s=0.02)
    assert alone.champion_ns is None


def test_while_a_call_is_kept_off_the_processor_its_time_stands_still(tmp_path: Path) -> None:
    model = Beside(loaded(tmp_path, scorer()), lambda: time.sleep(BESIDE_S))
    timings = interleaved(model, None, [{"x": np.zeros((1, 3), dtype=np.float32)}], rows_a_call=1, budget_s=0.02)
    assert timings.candidate_ns.mean() / 1e9 < BESIDE_S / 2


def test_a_session_runs_in_the_thread_that_calls_it_alone(tmp_path: Path) -> None:
    """Timings are of that thread."""

    def threads() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    before = threads()
    model = loaded(tmp_path, scorer())
    model.run({"x": np.zeros((1, 3), dtype=np.float32)})
    assert threads() <= before
