"""Tensors in files of their own: what is followed, and how the runtime gets to load it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as Type
from onnx import helper

from shared.validation.external import check_external, external_files, link_external
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


def check(*tensors: onnx.TensorProto, **sizes: int) -> set[str]:
    files = {f"{name}.bin": size for name, size in sizes.items()}
    return check_external(product(*tensors), files)


def refused(*tensors: onnx.TensorProto, **sizes: int) -> str:
    with pytest.raises(DropRefusedError) as caught:
        check(*tensors, **sizes)
    assert caught.value.code is RefusalCode.EXTERNAL_DATA
    return str(caught.value)


def test_the_files_of_tensors_are_found_wherever_the_format_allows_a_tensor() -> None:
    def lying(name: str) -> onnx.TensorProto:
        return external(name, (2,), location=f"{name}.bin", offset=4)

    def constant(name: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=lying(name))

    sparse = onnx.SparseTensorProto(
        values=lying("values"), indices=external("i", (2,), Type.INT64, location="i.bin"), dims=[9]
    )
    branch = helper.make_graph([constant("deep")], "branch", [], [], initializer=[lying("branch")])
    choice = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    function = helper.make_function("test", "F", [], [], [constant("body")], [helper.make_opsetid("", 17)])
    function.attribute_proto.append(helper.make_attribute("default", lying("default")))
    model = product(lying("w"))
    model.graph.node.append(choice)
    model.graph.node.append(helper.make_node("Constant", [], ["s"], sparse_value=sparse))
    model.graph.node.append(helper.make_node("Odd", [], ["o"], tensors=[lying("listed")], graphs=[branch]))
    model.functions.append(function)
    model.training_info.add().algorithm.initializer.append(lying("training"))
    names = {"w", "values", "deep", "branch", "body", "default", "listed", "training"}
    assert external_files(model).keys() == {f"{name}.bin" for name in names | {"i"}}
    assert external_files(model)["w.bin"] == [(4, 8)]
    assert external_files(model)["i.bin"] == [(0, 16)]


@pytest.mark.parametrize(
    ("data_type", "length"), [(Type.FLOAT, 60), (Type.INT4, 8), (Type.BOOL, 15), (Type.DOUBLE, 120), (Type.UINT2, 4)]
)
def test_a_tensor_takes_what_its_shape_and_type_say(data_type: int, length: int) -> None:
    tensor = external("w", (3, 5), data_type, location="w.bin", offset=7, length=length)
    assert external_files(product(tensor)) == {"w.bin": [(7, length)]}
    assert check(tensor, w=length + 7) == {"w.bin"}
    assert f"wants {length} bytes from byte 7 of 'w.bin', which has {length + 6}" in refused(tensor, w=length + 6)
    tensor.external_data[2].value = str(length + 1)
    assert f"has {length + 1} bytes there, and its shape [3, 5] takes {length}" in refused(tensor, w=1_000)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "its location '' is no plain relative name"),
        ({"location": ""}, "is no plain relative name"),
        ({"location": "/etc/passwd"}, "'/etc/passwd' is no plain relative name"),
        ({"location": "../w.bin"}, "'../w.bin' is no plain relative name"),
        ({"location": "a/../../w.bin"}, "is no plain relative name"),
        ({"location": "a/./w.bin"}, "is no plain relative name"),
        ({"location": "a//w.bin"}, "is no plain relative name"),
        ({"location": "a/b/c/d/w.bin"}, "is no plain relative name"),
        ({"location": "a\\..\\w.bin"}, "is no plain relative name"),
        ({"location": "C:w.bin"}, "is no plain relative name"),
        ({"location": "file:w.bin"}, "is no plain relative name"),
        ({"location": "w.bin\0"}, "is no plain relative name"),
        ({"location": "w.bin\n"}, "is no plain relative name"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "is no plain relative name"),
        ({"location": "w" * 129}, "is no plain relative name"),
        ({"location": "other.bin"}, "'other.bin' is no file of the drop that may hold tensors"),
        ({"location": "w.bin", "offset": "-1"}, "its offset '-1' is no number of bytes"),
        ({"location": "w.bin", "offset": "0x10"}, "its offset '0x10' is no number of bytes"),
        ({"location": "w.bin", "offset": "\u0661"}, "is no number of bytes"),
        ({"location": "w.bin", "offset": "9" * 19}, "is no number of bytes"),
        ({"location": "w.bin", "offset": 2**59}, f"wants 48 bytes from byte {2**59} of 'w.bin', which has 48"),
        ({"location": "w.bin", "offset": 1}, "wants 48 bytes from byte 1 of 'w.bin', which has 48: the file is cut"),
        ({"location": "w.bin", "length": 0}, "has 0 bytes there, and its shape [3, 4] takes 48"),
        ({"location": "w.bin", "length": ""}, "its length '' is no number of bytes"),
        ({"location": "w.bin", "basepath": "/"}, "its entry 'basepath' is unknown or stands twice"),
    ],
)
def test_a_location_that_leads_out_of_the_drop_is_refused(entries: dict[str, Any], said: str) -> None:
    sentence = refused(external("w", (3, 4), **entries), w=48)
    assert sentence.startswith("the tensor 'w' lies in a file of its own: ")
    assert said in sentence


def test_an_entry_that_stands_twice_is_refused() -> None:
    tensor = external("w", (3, 4), location="w.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "'location' is unknown or stands twice" in refused(tensor, w=48)


def test_values_inside_and_outside_of_the_model_are_refused() -> None:
    both = external("w", (3, 4), location="w.bin")
    both.raw_data = bytes(48)
    unsaid = external("w", (3, 4), location="w.bin")
    unsaid.data_location = Type.DEFAULT
    for tensor in (both, unsaid):
        assert "has values inside the model as well" in refused(tensor, w=48)


@pytest.mark.parametrize(
    ("dims", "data_type", "said"),
    [
        ((3, -4), Type.FLOAT, "its shape [3, -4] has a negative side"),
        ((1,) * 65, Type.FLOAT, "or too many"),
        ((3, 4), Type.STRING, "its type 8 cannot lie outside the model"),
        ((3, 4), 99, "its type 99 cannot lie outside the model"),
        ((2**62, 2**62), Type.FLOAT, f"wants {2**126} bytes"),
    ],
)
def test_a_shape_or_type_that_cannot_lie_there_is_refused(dims: tuple[int, ...], data_type: int, said: str) -> None:
    assert said in refused(external("w", dims, data_type, location="w.bin"), w=48)


def test_tensors_may_share_all_their_bytes_and_not_some() -> None:
    first = external("w", (3, 4), location="w.bin")
    assert check(first, external("tied", (4, 3), location="w.bin"), w=48) == {"w.bin"}
    assert check(first, external("next", (1,), location="w.bin", offset=48), w=52) == {"w.bin"}
    for offset, side in ((4, 1), (0, 4), (44, 2)):
        sentence = refused(external("v", (side,), location="w.bin", offset=offset), first, w=100)
        assert "overlap with those of" in sentence


def test_tensors_that_share_bytes_over_and_over_are_refused_by_what_they_would_take() -> None:
    tensors = [external(f"w{i}", (5_000_000,), location="w.bin") for i in range(3)]
    assert check(*tensors[:2], w=20_000_000) == {"w.bin"}
    assert "take 60000000 bytes, and their files hold 20000000" in refused(*tensors, w=20_000_000)
