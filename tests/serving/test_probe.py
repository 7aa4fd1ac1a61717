"""Which models may have requests run together: those that tell rows apart whatever stands beside them."""

from pathlib import Path

import numpy as np
import pytest
from aks_serving.model import Model
from aks_serving.probe import rows_are_independent
from aks_serving.tensors import Feeds
from onnx import TensorProto, helper

from tests.serving import models

WEIGHTS = np.array([[1, -1], [0.5, -0.5], [-1, 1], [0.25, -0.25]], np.float32)
ALIKE = [{"x": np.array([[1, 2, 0.5, k / 16]], np.float32)} for k in range(16)]
VARIED = [{"x": np.array([[k - 8, 1, 3 - k, 2]], np.float32)} for k in range(16)]


def linear(*, quantised: bool, probabilities: bool) -> Model:
    """Labels, and scores where wanted, of four numbers a row; `quantised` by the range of all rows of a run."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"]),
    ]
    nodes = nodes if quantised else [helper.make_node("Identity", ["x"], ["back"])]
    nodes += [
        helper.make_node("MatMul", ["back", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    outputs: list[tuple[str, int, list[int | str | None]]] = [("label", TensorProto.INT64, ["n"])]
    if probabilities:
        outputs.append(("scores", TensorProto.FLOAT, ["n", 2]))
    data = models.graph(nodes, [("x", TensorProto.FLOAT, ["n", 4])], outputs, {"w": WEIGHTS})
    return Model(version=1, digest=models.digest(data), data=data)


@pytest.mark.parametrize("golden", [(), ALIKE, VARIED], ids=["none", "alike", "varied"])
@pytest.mark.parametrize("probabilities", [True, False])
def test_a_model_that_quantises_by_the_range_of_all_rows_is_not_batched(
    golden: list[Feeds],
    probabilities: bool,  # noqa: FBT001
) -> None:
    assert rows_are_independent(linear(quantised=True, probabilities=probabilities), golden) is False
    assert rows_are_independent(linear(quantised=False, probabilities=probabilities), golden) is True


@pytest.mark.parametrize("chunk_bytes", [16, 64])
def test_an_operator_is_found_wherever_it_stands_in_a_file(
    chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aks_serving.model._CHUNK_BYTES", chunk_bytes)
    for length in range(chunk_bytes + 8):
        for quantises in (True, False):
            nodes = [helper.make_node("DynamicQuantizeLinear" if quantises else "Identity", ["x"], ["y"])]
            nodes[0].doc_string = "d" * length
            nodes[0].output.extend(["scale", "zero"] * quantises)
            kind = TensorProto.UINT8 if quantises else TensorProto.FLOAT
            path = tmp_path / "model.onnx"
            path.write_bytes(models.graph(nodes, [("x", TensorProto.FLOAT, ["n", 1])], [("y", kind, ["n", 1])]))
            assert Model(version=1, digest="", data=path).quantises_by_range is quantises
            assert Model(version=1, digest="", data=path.read_bytes()).quantises_by_range is quantises


def test_rows_that_are_all_the_same_do_not_hide_what_a_mean_over_them_takes_off() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    data = models.graph(nodes, [("x", TensorProto.FLOAT, ["n", 2])], [("y", TensorProto.FLOAT, ["n", 2])])
    model = Model(version=1, digest=models.digest(data), data=data)
    assert rows_are_independent(model, [{"x": np.ones((4, 2), np.float32)}]) is False


def picking(dtype: int, rows: int) -> Model:
    """A table looked up by the whole number that stands in a row; it raises beyond `rows`."""
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["found"], axis=0),
        helper.make_node("Squeeze", ["found", "axes"], ["y"]),
    ]
    constants = {"table": np.arange(rows, dtype=np.float32).reshape(-1, 1), "axes": np.array([1])}
    data = models.graph(nodes, [("x", dtype, ["n", 1])], [("y", TensorProto.FLOAT, ["n", 1])], constants)
    return Model(version=1, digest=models.digest(data), data=data)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.INT64])
def test_a_model_that_takes_no_strange_numbers_is_judged_by_those_that_it_takes(dtype: int) -> None:
    kind = np.float32 if dtype == TensorProto.FLOAT else np.int64
    golden = [{"x": np.array([[k]], kind)} for k in range(5, 9)]
    assert rows_are_independent(picking(dtype, 9), golden) is True


def test_texts_and_half_floats_stand_beside_loud_rows() -> None:
    data = models.graph(
        [helper.make_node("Identity", ["t"], ["u"]), helper.make_node("Neg", ["x"], ["y"])],
        [("t", TensorProto.STRING, ["n", 1]), ("x", TensorProto.FLOAT16, ["n", 2])],
        [("u", TensorProto.STRING, ["n", 1]), ("y", TensorProto.FLOAT16, ["n", 2])],
    )
    model = Model(version=1, digest=models.digest(data), data=data)
    golden = [
        {"t": np.array([[str(k)]], object), "x": np.array([[k, np.nan if k == 2 else np.inf]], np.float16)}
        for k in range(4)
    ]
    assert rows_are_independent(model, golden) is True
