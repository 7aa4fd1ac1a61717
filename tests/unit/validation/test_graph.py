"""What passes for an ONNX model."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper

from shared.validation.graph import foreign_operator, read_model
from shared.validation.refusal import DropRefusedError, RefusalCode
from tests.unit.validation.drops import MANIFEST, Spec, forest, one_node, onnx_model, refusal, scorer


def refused(path: Path, content: bytes) -> tuple[str, str]:
    path.write_bytes(content)
    with pytest.raises(DropRefusedError) as caught:
        read_model(path)
    return refusal(caught.value)


def test_a_real_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(forest()[0])
    assert read_model(tmp_path / "m").graph.node


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
            cut = read_model(tmp_path / "m")
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
