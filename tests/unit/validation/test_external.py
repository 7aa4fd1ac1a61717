"""Tensors in files of their own: what is followed, and how the runtime gets to load it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as Type
from onnx import helper

from shared.validation.external import link_external
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.wire import ModelFiles
from tests.unit.validation.drops import onnx_model

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def external(name: str, dims: tuple[int, ...], data_type: int = Type.FLOAT, **entries: object) -> onnx.TensorProto:
    """A tensor whose values lie elsewhere, by these entries."""
    tensor = onnx.TensorProto(name=name, dims=dims, data_type=data_type, data_location=Type.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def product(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    """A model that multiplies `x` [rows, 3] with the first tensor, which lies elsewhere."""
    return onnx_model(
        [helper.make_node("MatMul", ["x", tensors[0].name], ["y"])],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 4])],
        constants=tensors,
    )


@pytest.mark.parametrize("location", ["weights.bin", "data/part-1/weights.bin"])
def test_the_runtime_loads_what_was_linked(tmp_path: Path, location: str) -> None:
    model = product(external("w", (3, 4), location=location, offset=0, length=48))
    (tmp_path / "stored-1").write_bytes(model.SerializeToString())
    (tmp_path / "stored-2").write_bytes(WEIGHTS.tobytes())
    files = ModelFiles(path=tmp_path / "stored-1", name="m.onnx", external={location: tmp_path / "stored-2"})
    session = ort.InferenceSession(str(link_external(files, tmp_path)), providers=["CPUExecutionProvider"])
    x = np.eye(3, dtype=np.float32)
    assert np.array_equal(session.run(None, {"x": x})[0], WEIGHTS)
    assert (tmp_path / "stored-2").stat().st_nlink == 2, "large files are not copied"


def test_a_model_without_external_data_stays_where_it_is(tmp_path: Path) -> None:
    assert link_external(ModelFiles(path=tmp_path / "m"), tmp_path) == tmp_path / "m"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../w", "/etc/passwd", "a/../w", "a//w", ".w", "", "model.onnx"])
def test_no_link_is_made_under_another_name_than_a_plain_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(DropRefusedError) as caught:
        link_external(ModelFiles(path=tmp_path / "m", external={name: tmp_path / "m"}), tmp_path)
    assert caught.value.code is RefusalCode.EXTERNAL_DATA
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
