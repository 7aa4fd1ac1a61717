"""What the walk over an ONNX file finds, refuses, and leaves out."""

import contextlib
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as Type
from onnx import helper, numpy_helper

from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.scan import ScanLimits, Scanned, scan_model
from tests.hostile import models
from tests.unit.validation.drops import forest, one_node, onnx_model, refusal, scorer


def scanned(folder: Path, content: bytes, limits: ScanLimits | None = None) -> Scanned:
    (folder / "m").write_bytes(content)
    return scan_model(folder / "m", limits)


def refused(folder: Path, content: bytes, limits: ScanLimits | None = None) -> tuple[str, str]:
    with pytest.raises(DropRefusedError) as caught:
        scanned(folder, content, limits)
    return refusal(caught.value)


def with_weights(*arrays: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> onnx.ModelProto:
    """Adds each array to the input, in turn."""
    names = ["x", *(f"v{number}" for number in range(len(arrays) - 1)), "y"]
    return onnx_model(
        [helper.make_node("Add", [names[n], f"w{n}"], [names[n + 1]]) for n in range(len(arrays))],
        [("x", Type.FLOAT, ["rows", 1])],
        [("y", Type.FLOAT, ["rows", "wide"])],
        constants=[numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(arrays)],
    )


def test_the_figures_are_those_of_the_model(tmp_path: Path) -> None:
    model = with_weights(np.zeros(3, np.float32), np.zeros((2, 100_000), np.float32))
    figures = scanned(tmp_path, model.SerializeToString()).figures
    assert figures.size_bytes == model.ByteSize()
    assert (figures.ir_version, figures.opsets) == (9, {"": 17})
    assert (figures.nodes, figures.initializers, figures.initializer_bytes) == (2, 2, 800_012)
    assert (figures.functions, figures.nesting, figures.domains) == (0, 1, frozenset({""}))


def test_nodes_of_subgraphs_and_functions_count(tmp_path: Path) -> None:
    assert scanned(tmp_path, models.huge_constant_in_a_branch()).figures.nodes == 2 + 2 * 2
    assert scanned(tmp_path, models.huge_constant_in_a_branch()).figures.nesting == 2
    figures = scanned(tmp_path, models.function_chain(5)).figures
    assert (figures.functions, figures.nodes) == (5, 1 + 4 * 2 + 1)


def test_the_skeleton_is_the_model_without_the_values_of_large_tensors(tmp_path: Path) -> None:
    model = with_weights(np.ones(3, np.float32), np.ones((2, 100_000), np.float32), np.ones(100_000, np.float32))
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(50_000, np.float32)))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", Type.FLOAT, [50_000])],
    )
    model.graph.node.append(helper.make_node("If", ["go"], ["z"], then_branch=branch, else_branch=branch))
    skeleton = scanned(tmp_path, model.SerializeToString()).skeleton
    for tensor in (model.graph.initializer[1], model.graph.initializer[2]):
        tensor.ClearField("raw_data")
    for attribute in model.graph.node[3].attribute:
        attribute.g.node[0].attribute[0].t.ClearField("raw_data")
    assert onnx.ModelProto.FromString(skeleton) == model
    assert len(skeleton) < 1_500


def test_a_model_of_small_tensors_is_its_own_skeleton(tmp_path: Path) -> None:
    assert scanned(tmp_path, forest()[0]).skeleton == forest()[0]


def test_values_that_are_not_raw_are_left_out_as_well(tmp_path: Path) -> None:
    model = one_node("Neg")
    model.graph.initializer.append(helper.make_tensor("w", Type.FLOAT, [50_000], [0.5] * 50_000))
    model.graph.initializer.append(helper.make_tensor("v", Type.INT64, [100_000], [1] * 100_000))
    found = scanned(tmp_path, model.SerializeToString())
    assert found.figures.initializer_bytes == 4 * 50_000 + 8 * 100_000
    assert len(found.skeleton) < 500


@pytest.mark.parametrize(
    ("limits", "content", "said"),
    [
        (ScanLimits(nodes=1), models.function_chain(2), "more than 1 nodes"),
        (ScanLimits(initializers=1), models.same_initializer_twice(), "more than 1 initializers"),
        (ScanLimits(functions=2), models.function_chain(3), "more than 2 functions"),
        (ScanLimits(nesting=3), models.nested_ifs(3), "nest more than 3 deep"),
        (ScanLimits(nesting=3), models.nested_types(3), "nests more than 3 deep"),
        (ScanLimits(ends=0), scorer().SerializeToString(), "1 inputs and 1 outputs"),
        (ScanLimits(shape_elements=2), scorer().SerializeToString(), "the value 'x' has the shape [1, 3]"),
        (ScanLimits(name_bytes=5), scorer().SerializeToString(), "a name of 6 bytes"),
        (ScanLimits(fields=20), scorer().SerializeToString(), "more than 20 fields"),
        (ScanLimits(dense_bytes=2**39, shape_elements=2**40), models.sparse_giant(), "unfolds to 1099511627776 bytes"),
    ],
)
def test_each_limit_holds_and_is_named(tmp_path: Path, limits: ScanLimits, content: bytes, said: str) -> None:
    code, sentence = refused(tmp_path, content, limits)
    assert code == RefusalCode.TOO_LARGE
    assert said in sentence


@pytest.mark.parametrize(
    ("limits", "content"),
    [
        (ScanLimits(nodes=4), models.function_chain(2)),
        (ScanLimits(nesting=4), models.nested_ifs(3)),
        (ScanLimits(nesting=4), models.nested_types(3)),
        (ScanLimits(shape_elements=3, name_bytes=7, ends=1), scorer().SerializeToString()),
    ],
)
def test_what_is_at_its_limit_passes(tmp_path: Path, limits: ScanLimits, content: bytes) -> None:
    scanned(tmp_path, content, limits)


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (models.tensor(2, 3, raw=bytes(24)), True),
        (models.tensor(2, 3, raw=bytes(23)), False),
        (models.tensor(2, 3, raw=bytes(25)), False),
        (models.tensor(raw=bytes(4)), True),
        (models.tensor(0, raw=b""), True),
        (models.tensor(3, kind=Type.INT4, raw=bytes(2)), True),
        (models.tensor(3, kind=Type.INT4, raw=bytes(1)), False),
        (models.tensor(2, kind=Type.COMPLEX128, raw=bytes(32)), True),
        (models.tensor(2, kind=Type.BOOL, raw=bytes(2)), True),
        (models.tensor(1, kind=Type.STRING, raw=b""), False),
    ],
)
def test_a_tensor_holds_what_its_shape_takes(tmp_path: Path, content: bytes, *, fits: bool) -> None:
    if fits:
        scanned(tmp_path, models.with_tensor(content))
    else:
        assert refused(tmp_path, models.with_tensor(content))[0] == RefusalCode.NOT_ONNX


@pytest.mark.parametrize(
    "kind", [Type.FLOAT, Type.DOUBLE, Type.INT64, Type.UINT64, Type.INT8, Type.BOOL, Type.COMPLEX64]
)
def test_a_tensor_of_typed_values_is_as_long_as_the_library_writes_it(tmp_path: Path, kind: int) -> None:
    tensor = helper.make_tensor("w", kind, [5], [1, 0, 1, 1, 0])
    scanned(tmp_path, models.with_tensor(tensor.SerializeToString()))
    tensor.dims[0] = 6
    assert "holds" in refused(tmp_path, models.with_tensor(tensor.SerializeToString()))[1]


def test_text_and_values_that_are_not_packed_count_too(tmp_path: Path) -> None:
    text = models.whole(1, 2) + models.whole(2, Type.STRING) + models.held(6, "a") + models.held(6, "b")
    scanned(tmp_path, models.with_tensor(text))
    assert "2 texts" in refused(tmp_path, models.with_tensor(text + models.whole(1, 2)))[1]
    unpacked = models.whole(1, 3) + models.whole(2, Type.INT64) + models.whole(7, 5) * 3
    scanned(tmp_path, models.with_tensor(unpacked))
    assert "holds" in refused(tmp_path, models.with_tensor(unpacked + models.whole(1, 2)))[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (models.of_versions(ir_version=-1), "its IR version is -1"),
        (models.of_versions(opset=-1), "the opset of '' is -1"),
    ],
)
def test_a_version_is_no_negative_number(tmp_path: Path, content: bytes, said: str) -> None:
    code, sentence = refused(tmp_path, content)
    assert code == RefusalCode.NOT_ONNX
    assert said in sentence


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_get_an_answer(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for bytes_of in (content, models.written(content), models.with_tensor(content)):
        with contextlib.suppress(DropRefusedError):
            scanned(folder, bytes_of)


def test_no_library_is_loaded_for_the_walk(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(forest()[0])
    code = (
        "import sys, pathlib\n"
        "from shared.validation.scan import scan_model\n"
        "scan_model(pathlib.Path(sys.argv[1]))\n"
        "print({'numpy', 'onnx', 'onnxruntime', 'google'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"


def test_a_large_model_is_walked_in_little_memory(tmp_path: Path) -> None:
    """Half a gigabyte, most of it a hole in the file, walked in less than a megabyte."""
    size = 2**27
    head = models.whole(1, size) + models.whole(2, Type.FLOAT) + models.held(8, "w")
    tensor = head + models.varint(9 << 3 | 2) + models.varint(4 * size)
    node = models.held(1, one_node("Neg").graph.node[0].SerializeToString())
    graph = node + models.varint(5 << 3 | 2) + models.varint(len(tensor) + 4 * size) + tensor
    with (tmp_path / "m").open("wb") as file:
        file.write(models.whole(1, 9) + models.varint(7 << 3 | 2) + models.varint(len(graph) + 4 * size) + graph)
        file.truncate(file.tell() + 4 * size)
    tracemalloc.start()
    found = scan_model(tmp_path / "m")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.figures.initializer_bytes == 4 * size
    assert peak_bytes < 1_000_000


def test_a_long_run_of_numbers_counts_as_one_field(tmp_path: Path) -> None:
    """A tree ensemble's numbers, a quarter of a million of each kind, on a budget of a hundred fields."""
    count = 250_000
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_values=[0.5] * count,
        nodes_featureids=list(range(count)),
        nodes_modes=["BRANCH_LEQ", "LEAF"] * (count // 2),
    )
    model = onnx_model(
        [node], [("x", Type.FLOAT, ["rows", 3])], [("y", Type.FLOAT, ["rows", 1])], domains={"ai.onnx.ml": 3}
    )
    assert scanned(tmp_path, model.SerializeToString(), ScanLimits(fields=100)).figures.nodes == 1
