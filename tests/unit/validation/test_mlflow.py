"""MLflow models, read without MLflow: as bundles and folders, with and without a manifest beside them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from onnx import TensorProto as Type
from onnx import helper

from shared.registry.manifest import Manifest, Task
from shared.validation.mlflow import MAX_MLMODEL_BYTES, is_mlflow_file, read_mlmodel, values_from_graph
from shared.validation.refusal import DropRefusedError
from tests.unit.validation.drops import npz, onnx_model, scorer, scorer_rows
from tests.unit.validation.forms import MLMODEL, listed, manifest, outside_model, taken_bundle, taken_folder

BESIDE = ("conda.yaml", "python_env.yaml", "requirements.txt", "input_example.json", "metadata/MLmodel", "code/a.py")
TENSORS = MLMODEL[: MLMODEL.index(b"signature:")] + (
    b"""signature:
  inputs: '[{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape":
    [-1, 3]}}]'
  outputs: '[{"name": "scores", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]'
  params: null
utc_time_created: '2026-05-04 03:02:01.000999'
"""
)
OLD = b"""flavors:
  onnx: {data: model.onnx, onnx_version: 1.7.0}
  python_function: {data: model.onnx, env: conda.yaml, loader_module: mlflow.onnx, python_version: 3.7.9}
utc_time_created: '2020-11-09 10:11:12.131415'
"""


def mlflow_model(mlmodel: bytes = MLMODEL, **more: bytes) -> dict[str, bytes]:
    """The files of a logged model."""
    return {"MLmodel": mlmodel, "model.onnx": scorer().SerializeToString(), **dict.fromkeys(BESIDE, b"x"), **more}


def taken(place: Path, files: Mapping[str, bytes]) -> Manifest:
    return taken_bundle(place, files).manifest


def refused(place: Path, files: Mapping[str, bytes]) -> str:
    with pytest.raises(DropRefusedError) as caught:
        taken_bundle(place, files)
    return f"{caught.value.code}: {caught.value}"


def test_a_logged_model_needs_no_manifest(tmp_path: Path) -> None:
    accepted = taken_bundle(tmp_path, mlflow_model())
    assert [(file.role.value, file.name) for file in accepted.files] == [("model", "model.onnx")]
    assert accepted.manifest == Manifest(
        task=Task.CLASSIFICATION,
        author="someone@example.org",
        run_id="fedcba9876543210fedcba9876543210",
        feature_names=("height", "width", "depth"),
        tags={
            "mlflow.version": "3.4.0",
            "mlflow.model_id": "m-0123456789abcdef0123456789abcdef",
            "mlflow.model_uuid": "m-0123456789abcdef0123456789abcdef",
            "mlflow.utc_time_created": "2026-05-04 03:02:01.000999",
            "mlflow.artifact_path": "model",
            "mlflow.metadata.stage": "7",
        },
    )


def test_a_manifest_beside_it_wins_key_by_key(tmp_path: Path) -> None:
    text = b"task: regression\nvalidation: rows.npz\nauthor: other@example.org\ntags: {team: a, mlflow.version: '?'}"
    files = mlflow_model() | {"slipway.yaml": text, "rows.npz": npz(scorer_rows(5))}
    found = taken(tmp_path, files)
    assert (found.task, found.author, found.validation) == (Task.REGRESSION, "other@example.org", "rows.npz")
    assert found.run_id == "fedcba9876543210fedcba9876543210"
    assert (found.tags["team"], found.tags["mlflow.version"], found.tags["mlflow.metadata.stage"]) == ("a", "?", "7")


def test_a_folder_needs_a_manifest_that_lists_its_files_and_may_leave_the_rest_to_the_mlmodel(tmp_path: Path) -> None:
    with pytest.raises(DropRefusedError, match=r"has no slipway\.yaml"):
        taken_folder(tmp_path, mlflow_model())
    files = listed(mlflow_model())
    files["slipway.yaml"] = files["slipway.yaml"].replace(b"task: classification\n", b"")
    assert taken_folder(tmp_path, files).manifest.task is Task.CLASSIFICATION


def test_weights_may_lie_beside_the_model(tmp_path: Path) -> None:
    location = "5f0b3c1e-9f5d-11ef-8d5a-0242ac120002"
    files = mlflow_model() | {"model.onnx": outside_model(location).SerializeToString(), location: bytes(36)}
    assert [file.name for file in taken_bundle(tmp_path, files).files] == ["model.onnx", location]


def test_the_task_comes_from_metadata_or_the_signature_or_the_graph(tmp_path: Path) -> None:
    def task(mlmodel: bytes, model: bytes | None = None) -> Task:
        return taken(tmp_path, mlflow_model(mlmodel) | ({"model.onnx": model} if model else {})).task

    assert task(TENSORS) is Task.REGRESSION
    assert task(OLD) is Task.REGRESSION
    assert (
        task(TENSORS.replace(b"slipway_author: someone@example.org", b"slipway_task: classification"))
        == "classification"
    )
    answers = onnx_model(
        [helper.make_node("ArgMax", ["x"], ["y"], axis=1)],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.INT64, ["rows", 1])],
    )
    assert task(OLD, answers.SerializeToString()) is Task.CLASSIFICATION


def test_metrics_in_the_metadata_are_claims(tmp_path: Path) -> None:
    text = MLMODEL.replace(b"  stage: 7", b"  metrics: {accuracy: 0.9, f1: 1}\n  slipway_metrics_recall: 0.5")
    assert taken(tmp_path, mlflow_model(text)).metrics == {"accuracy": 0.9, "f1": 1.0, "recall": 0.5}


@pytest.mark.parametrize(
    ("mlmodel", "said"),
    [
        (MLMODEL.replace(b"  onnx:", b"  sklearn:"), "has the flavours sklearn, python_function, and no `onnx` one"),
        (b"flavors: []", "has the flavours none"),
        (b"flavors: {onnx: {data: 7}}", "no `onnx` one that names its `data`"),
        (b"x", "MLmodel holds no mapping"),
        (b"\xff", "MLmodel is not UTF-8 text"),
        (b"flavors: &a {onnx: *a}", "MLmodel has an anchor or alias"),
        (b"flavors: " + b"[" * 100, "MLmodel nests more than 8 levels"),
        (MLMODEL.replace(b"data: model.onnx", b"data: ../m.onnx"), "use a plain file name"),
        (MLMODEL.replace(b'\'[{"type": "double"', b'\'{["type": "double"'), "inputs that are no JSON list of specs"),
        (MLMODEL.replace(b"  inputs: '[", b"  inputs: '" + b"[" * 5_000), "inputs that are no JSON list of specs"),
        (
            OLD + b"""signature: {inputs: '[{"type": "double", "name": "a"}, {"type": "double", "name": "b"}]'}""",
            "signature has 2 columns, and the input 'x' of the model has 3",
        ),
        (TENSORS.replace(b'"name": "x"', b'"name": "other"'), "names the input 'other', which the model does not take"),
        (MLMODEL.replace(b"slipway_author", b"slipway_writer"), "unknown entry 'slipway_writer'"),
        (MLMODEL.replace(b"slipway_author: someone@example.org", b"slipway_task: guess"), "task is 'guess'"),
        (MLMODEL.replace(b"  stage: 7", b"  metrics: {accuracy: high}"), "metrics.accuracy is 'high'"),
        (OLD + b"metadata: [1]", "has a `metadata` that is no mapping"),
        (OLD + b"# " + b"x" * MAX_MLMODEL_BYTES, "is larger than the 1048576 bytes it may have"),
    ],
)
def test_an_mlmodel_that_says_something_else_is_refused(tmp_path: Path, mlmodel: bytes, said: str) -> None:
    sentence = refused(tmp_path, mlflow_model(mlmodel))
    assert said in sentence
    assert sentence.startswith(("bad_manifest", "too_large"))


def test_a_file_that_mlflow_does_not_write_is_refused(tmp_path: Path) -> None:
    assert "the bundle holds 'model.pkl'" in refused(tmp_path, mlflow_model() | {"model.pkl": b""})
    assert not is_mlflow_file("data/rows.npz")


def test_a_signature_without_names_or_with_a_tensor_of_the_inputs_name_says_nothing_of_columns() -> None:
    nameless = MLMODEL.replace(b'"name": "height", ', b"")
    assert read_mlmodel(nameless).columns == ()
    assert "feature_names" not in values_from_graph(read_mlmodel(TENSORS), scorer())
    one = read_mlmodel(OLD + b"""signature: {inputs: '[{"type": "double", "name": "x"}]'}""")
    assert "feature_names" not in values_from_graph(one, scorer())


def test_what_cannot_be_a_tag_is_left_out() -> None:
    text = OLD + b"artifact_path: " + b"a" * 300 + b"\nmetadata: {long: " + b"b" * 300 + b", list: [1], none: }"
    assert read_mlmodel(text).values["tags"] == {"mlflow.utc_time_created": "2020-11-09 10:11:12.131415"}


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    files = mlflow_model()
    del files["model.onnx"]
    assert refused(tmp_path, files) == "missing_file: the bundle lacks 'model.onnx', which its MLmodel names"
    beside = files | {"slipway.yaml": manifest()}
    assert refused(tmp_path, beside) == "missing_file: the bundle lacks 'model.onnx', which its slipway.yaml names"


def test_a_signature_whose_types_are_no_texts_says_nothing_of_classes() -> None:
    """As MLflow writes arrays and objects, or as nobody does."""
    for kind in (b"[1]", b"{}", b"null", b"7"):
        found = read_mlmodel(OLD + b"""signature: {outputs: '[{"type": """ + kind + b"""}]'}""")
        assert found.answers_in_classes is False
