"""What passes for an ONNX model."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as Type
from onnx import helper, numpy_helper

from shared.validation.graph import (
    RUNTIME_IR_VERSIONS,
    RUNTIME_OPSETS,
    foreign_operator,
    read_model,
    unsupported_version,
)
from shared.validation.growth import check_growth
from shared.validation.refusal import DropRefusedError, RefusalCode
from tests.hostile import models
from tests.unit.validation.drops import MANIFEST, Spec, forest, one_node, onnx_model, refusal, scorer


def refused(path: Path, content: bytes) -> tuple[str, str]:
    path.write_bytes(content)
    with pytest.raises(DropRefusedError) as caught:
        read_model(path, workdir=path.parent)
    return refusal(caught.value)


def test_a_real_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(forest()[0])
    assert read_model(tmp_path / "m", workdir=tmp_path).graph.node


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"hello world", b"PK\x03\x04" + bytes(100), MANIFEST, b"\x08\x09", bytes(10_000)]
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    code, said = refused(tmp_path / "m", content)
    assert code == RefusalCode.NOT_ONNX
    assert said.startswith("not an ONNX model: ")


def test_a_model_cut_at_any_byte_is_refused_or_says_the_same(tmp_path: Path) -> None:
    """Every cut but those that lose nothing: a protobuf file cut at a field's border is a protobuf file.

    The fields are written in the order of their numbers: the graph (7), the opsets (8), metadata (14). A cut before the
    opsets are complete leaves a model that the checker refuses. One after them loses metadata entries and no more, so
    that the model computes what it computed; a bare model might lose its `slipway.task` so, which the digest of a
    bundle or the sender's own digest shows, and nothing in the file could.
    """
    model = scorer()
    helper.set_model_props(model, {"slipway.task": "classification", "trained": "today"})
    content = model.SerializeToString()
    accepted = []
    for length in range(len(content)):
        (tmp_path / "m").write_bytes(content[:length])
        try:
            cut = read_model(tmp_path / "m", workdir=tmp_path)
        except DropRefusedError:
            continue
        accepted.append(length)
        assert cut.graph == model.graph
        assert list(cut.opset_import) == list(model.opset_import)
        assert cut.ir_version == model.ir_version
    assert len(accepted) == 2  # before either of the two metadata entries


def test_a_model_of_two_domains_cut_before_its_last_opset_is_refused(tmp_path: Path) -> None:
    model = onnx_model(
        [helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml"), helper.make_node("Neg", ["s"], ["y"])],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 3])],
        domains={"ai.onnx.ml": 3},
    )
    content = model.SerializeToString()
    for length in range(len(content)):
        assert refused(tmp_path / "m", content[:length])[0] == RefusalCode.NOT_ONNX


def test_a_graph_without_nodes_or_outputs_is_refused(tmp_path: Path) -> None:
    empty = onnx_model([], [("x", Type.FLOAT, ["rows", 3])], [("x", Type.FLOAT, ["rows", 3])])
    assert "no nodes or no outputs" in refused(tmp_path / "m", empty.SerializeToString())[1]
    no_output = onnx_model([helper.make_node("Neg", ["x"], ["y"])], [("x", Type.FLOAT, ["rows", 3])], [])
    assert "no nodes or no outputs" in refused(tmp_path / "m", no_output.SerializeToString())[1]


def test_a_graph_that_no_request_can_be_answered_by_is_refused_and_says_why(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.ones((2, 3), np.float32), "c")
    takes_nothing = onnx_model(
        [helper.make_node("Neg", ["c"], ["y"])], [], [("y", Type.FLOAT, [2, 3])], constants=[constant]
    )
    has_its_input = onnx_model(
        [helper.make_node("Neg", ["c"], ["y"])],
        [("c", Type.FLOAT, [2, 3])],
        [("y", Type.FLOAT, [2, 3])],
        constants=[constant],
    )
    twice = one_node("Neg")
    twice.graph.output.append(twice.graph.output[0])
    for model, why in (
        (takes_nothing, "the model's graph has no input, "),
        (has_its_input, "the model's graph has no input, "),
        (twice, "the model's graph has 2 outputs named 'y': "),
    ):
        code, said = refused(tmp_path / "m", model.SerializeToString())
        assert code == RefusalCode.UNSERVABLE
        assert said.startswith(why)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (one_node("NoSuchOperator"), "NoSuchOperator"),
        (one_node("Neg", out=Type.INT64), "type"),
        (
            onnx_model(
                [helper.make_node("Neg", ["z"], ["y"])],
                [("x", Type.FLOAT, ["rows", 3])],
                [("y", Type.FLOAT, ["rows", 3])],
            ),
            "'z'",
        ),
        (
            onnx_model(
                [helper.make_node("Neg", ["y"], ["z"]), helper.make_node("Neg", ["z"], ["y"])],
                [("x", Type.FLOAT, ["rows", 3])],
                [("y", Type.FLOAT, ["rows", 3])],
            ),
            "'y'",
        ),
    ],
    ids=["unknown operator", "wrong type", "dangling value", "cycle"],
)
def test_what_the_checker_refuses_is_refused_in_its_words(tmp_path: Path, model: onnx.ModelProto, said: str) -> None:
    code, sentence = refused(tmp_path / "m", model.SerializeToString())
    assert code == RefusalCode.NOT_ONNX
    assert "the ONNX checker says" in sentence
    assert said in sentence


def test_tensors_outside_the_file_are_refused_wherever_they_hide(tmp_path: Path) -> None:
    outside = helper.make_tensor("w", Type.FLOAT, [3], [0.0, 0.0, 0.0])
    outside.data_location = Type.EXTERNAL
    outside.external_data.add(key="location", value="/etc/passwd")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=outside)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", Type.FLOAT, [3])],
    )
    rows: list[Spec] = [("x", Type.FLOAT, ["rows", 3])]
    out: list[Spec] = [("y", Type.FLOAT, ["rows", 3])]
    go = helper.make_tensor("go", Type.BOOL, [], [True])
    as_weight = onnx_model([helper.make_node("Add", ["x", "w"], ["y"])], rows, out, constants=[outside])
    in_branch = onnx_model(
        [
            helper.make_node("If", ["go"], ["b"], then_branch=branch, else_branch=branch),
            helper.make_node("Add", ["x", "b"], ["y"]),
        ],
        rows,
        out,
        constants=[go],
    )
    for model in (as_weight, in_branch):
        code, said = refused(tmp_path / "m", model.SerializeToString())
        assert code == RefusalCode.EXTERNAL_DATA
        assert "'w'" in said


def test_a_custom_operator_is_foreign_unless_the_model_defines_it() -> None:
    model = one_node("Twice", domain="acme.ops")
    model.opset_import.append(helper.make_opsetid("acme.ops", 1))
    assert foreign_operator(model) == "acme.ops::Twice"
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("acme.ops", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert foreign_operator(model) is None


IN: list[Spec] = [("x", Type.FLOAT, ["rows", 3])]
OUT: list[Spec] = [("y", Type.FLOAT, ["rows", 3])]
OPERATORS = {
    "": helper.make_node("Neg", ["x"], ["y"]),
    "ai.onnx.ml": helper.make_node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml"),
    "com.microsoft": helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"),
}


def loads(domain: str, version: int, *, ir_version: int = 9) -> bool:
    """Whether the runtime itself takes a model of an operator set."""
    model = onnx_model([OPERATORS[domain]], IN, OUT, domains={domain: version})
    model.ir_version = ir_version
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options)
    except Exception:  # noqa: BLE001 - the runtime has a class for each of its codes
        return False
    return True


@pytest.mark.parametrize("domain", RUNTIME_OPSETS)
def test_the_table_of_operator_sets_is_the_runtimes(domain: str) -> None:
    known = RUNTIME_OPSETS[domain]
    assert [version for version in (*known, known[-1] + 1) if loads(domain, version)] == list(known)


def test_the_table_of_ir_versions_is_the_runtimes() -> None:
    known = RUNTIME_IR_VERSIONS
    assert [version for version in (*known, known[-1] + 1) if loads("", 17, ir_version=version)] == list(known)


def test_a_version_that_the_runtime_does_not_take_is_named() -> None:
    assert unsupported_version(scorer()) is None
    for opset, ir_version, said in (
        (RUNTIME_OPSETS[""][-1] + 1, 9, "the opset 27 of ai.onnx is not among 7 to 26"),
        (RUNTIME_OPSETS[""][0] - 1, 9, "the opset 6 of ai.onnx"),
        (17, RUNTIME_IR_VERSIONS[-1] + 1, "the IR version 14 is not among 3 to 13"),
    ):
        model = onnx.ModelProto.FromString(models.of_versions(opset=opset, ir_version=ir_version))
        assert said in str(unsupported_version(model))
    model = onnx.ModelProto.FromString(models.function_chain(1))
    model.functions[0].opset_import[0].version = 99
    assert "the opset 99 of ai.onnx" in str(unsupported_version(model))


def test_large_tensors_are_checked_without_their_values(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", Type.FLOAT, [3, 100_000], bytes(1_200_000), raw=True)
    out: list[Spec] = [("y", Type.FLOAT, ["rows", 100_000])]
    model = onnx_model([helper.make_node("MatMul", ["x", "w"], ["y"])], IN, out, constants=[weights])
    (tmp_path / "m").write_bytes(model.SerializeToString())
    read = read_model(tmp_path / "m", workdir=tmp_path)
    assert read.ByteSize() < 500
    assert list(read.graph.initializer[0].dims) == [3, 100_000]
    model.graph.initializer[0].dims[:] = [4, 75_000]
    assert "Incompatible dimensions" in refused(tmp_path / "m", model.SerializeToString())[1]


def test_tensors_in_files_of_the_drop_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(models.external("weights/w.bin"))
    (tmp_path / "other name").write_bytes(bytes(12))
    read = read_model(tmp_path / "m", workdir=tmp_path, external={"weights/w.bin": tmp_path / "other name"})
    assert read.graph.initializer[0].data_location == Type.EXTERNAL
    (tmp_path / "other name").write_bytes(bytes(11))
    with pytest.raises(DropRefusedError, match="which has 11"):
        read_model(tmp_path / "m", workdir=tmp_path, external={"weights/w.bin": tmp_path / "other name"})


def test_an_output_whose_shape_follows_from_the_graph_need_not_say_it(tmp_path: Path) -> None:
    model = scorer()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (tmp_path / "m").write_bytes(model.SerializeToString())
    assert not read_model(tmp_path / "m", workdir=tmp_path).graph.output[0].type.tensor_type.HasField("shape")
    model.graph.output[0].type.tensor_type.elem_type = Type.INT64
    assert "type" in refused(tmp_path / "m", model.SerializeToString())[1]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (models.recursive_functions(circle=1), RefusalCode.NOT_ONNX, "in a circle: 'f0'"),
        (models.recursive_functions(circle=3), RefusalCode.NOT_ONNX, "in a circle: 'f0', 'f1', 'f2'"),
        (models.laughing_functions(21), RefusalCode.TOO_LARGE, "more than 1000000 nodes"),
        (models.function_chain(70), RefusalCode.TOO_LARGE, "more than 64 deep"),
        (models.huge_constant_in_a_branch(), RefusalCode.TOO_LARGE, "makes 4398046511104 bytes"),
    ],
)
def test_what_a_small_model_grows_to_is_refused(tmp_path: Path, content: bytes, code: RefusalCode, said: str) -> None:
    found, sentence = refused(tmp_path / "m", content)
    assert found == code
    assert said in sentence


@pytest.mark.parametrize("content", [models.laughing_functions(10), models.function_chain(60)])
def test_functions_that_call_functions_are_fine(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    read_model(tmp_path / "m", workdir=tmp_path)


@pytest.mark.parametrize(
    ("node", "numbers", "made_bytes"),
    [
        (("ConstantOfShape", ["a"], {}), {"a": [2**28, 2]}, 2**31),
        (("Expand", ["x", "a"], {}), {"a": [2**31, 1]}, 2**31),
        (("Tile", ["x", "a"], {}), {"a": [1, 2**31]}, 2**31),
        (("Pad", ["x", "a"], {}), {"a": [0, 2**30, 0, 2**30]}, 2**31),
        (("RandomUniform", [], {"shape": [2**29, 1]}), {}, 2**31),
        (("OneHot", ["i", "a", "v"], {}), {"a": [2**31]}, 2**31),
        (("Resize", ["x", "", "", "a"], {}), {"a": [1, 2**31]}, 2**31),
    ],
)
def test_a_node_that_makes_much_is_named(
    node: tuple[str, list[str], dict[str, Any]], numbers: dict[str, list[int]], made_bytes: int
) -> None:
    operator, inputs, attributes = node
    made = helper.make_node(operator, inputs, ["y"], name="big", **attributes)
    constants = [models.numbers(name, values) for name, values in numbers.items()]
    with pytest.raises(DropRefusedError, match=rf"'big' \({operator}\) makes {made_bytes} bytes"):
        check_growth(onnx_model([made], IN, OUT, constants=constants))
    halves = [models.numbers(name, [max(1, value // 4) for value in values]) for name, values in numbers.items()]
    if halves:
        check_growth(onnx_model([made], IN, OUT, constants=halves))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_a_size_that_is_no_number_says_nothing_of_what_is_made(odd: float) -> None:
    for given, made in (
        ({"value_float": odd}, helper.make_node("Range", ["one", "odd", "one"], ["y"])),
        ({"value_floats": [odd]}, helper.make_node("ConstantOfShape", ["odd"], ["y"])),
    ):
        nodes = [
            helper.make_node("Constant", [], ["odd"], **given),
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            made,
        ]
        check_growth(onnx_model(nodes, IN, OUT))


@pytest.mark.parametrize(
    "equation", ["....", "a..b->ab", "i.j->ij", "....i->i", "i...j...->ij", "....->(((", "i,j->i->j"]
)
def test_an_einsum_whose_equation_is_none_is_refused_before_the_checker_hangs_on_it(
    tmp_path: Path, equation: str
) -> None:
    inputs = ["x"] * (equation.partition("->")[0].count(",") + 1)
    code, said = refused(tmp_path / "m", models.of(helper.make_node("Einsum", inputs, ["y"], equation=equation)))
    assert code == RefusalCode.NOT_ONNX
    assert said == f"not an ONNX model: the Einsum equation {equation!r} is none"


@pytest.mark.parametrize(
    "equation", ["ij->ij", "...j->...j", "i...->i...", " i j -> i j ", "i j", "...", "Ab->Ab", "a...b->a...b"]
)
def test_an_einsum_with_an_equation_is_read(tmp_path: Path, equation: str) -> None:
    node = helper.make_node("Einsum", ["x"], ["y"], equation=equation)
    (tmp_path / "m").write_bytes(models.of(node, free=True))
    assert read_model(tmp_path / "m", workdir=tmp_path).graph.node
