"""Predictions and scores are found in what models give, and what cannot be matched is left out with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from shared.registry.manifest import Manifest, Task
from shared.registry.signature import Signature, TensorSpec
from shared.validation.model import ModelError, load
from shared.validation.predictions import read_predictions
from shared.validation.statistics.estimates import measure
from shared.validation.statistics.evidence import Predictions
from shared.validation.statistics.metrics import PROBABILITY_METRICS, RANKING_METRICS
from tests.support.models import iris

DATATYPES = {"f": "FP32", "i": "INT64", "U": "BYTES", "O": "BYTES", "b": "BOOL"}


def read(labels: ArrayLike, *, task: str = "classification", outputs: dict[str, ArrayLike], **keys: Any) -> Predictions:
    """Predictions from outputs by name, with a signature of their forms."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    specs = tuple(
        TensorSpec(name=name, datatype=DATATYPES[array.dtype.kind], shape=(-1, *array.shape[1:]))
        for name, array in arrays.items()
    )
    manifest = Manifest.model_validate({"task": task, **keys})
    return read_predictions(np.asarray(labels), arrays, Signature(inputs=(), outputs=specs), manifest)


def converted(estimator: Any, labels: NDArray[np.generic], folder: Path, **options: bool) -> Predictions:
    """What a scikit-learn classifier of iris says as ONNX."""
    from skl2onnx import to_onnx

    features, _ = iris()
    graph = to_onnx(estimator.fit(features, labels), features[:1], options=options)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    model = load(folder / "model.onnx")
    outputs = model.run_rows({"X": features}, len(features), 64)
    return read_predictions(labels, outputs, model.signature, Manifest(task=Task.CLASSIFICATION))


@pytest.mark.parametrize("names", [None, ["setosa", "versicolor", "virginica"], [10, 20, 30]])
def test_a_scikit_learn_classifier_has_its_probabilities_matched_to_its_classes(
    names: list[Any] | None, tmp_path: Path
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss, roc_auc_score

    features, codes = iris()
    labels = codes if names is None else np.array(names)[codes]
    estimator = LogisticRegression(max_iter=2_000)
    predictions = converted(estimator, labels, tmp_path, zipmap=False)
    assert predictions.classes == tuple(estimator.classes_.tolist())
    probabilities = estimator.predict_proba(features)
    assert predictions.probabilities is not None
    assert predictions.probabilities == pytest.approx(probabilities, abs=1e-5)
    values = measure(predictions).values
    assert values["log_loss"] == pytest.approx(log_loss(labels, probabilities), abs=1e-5)
    assert values["roc_auc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="weighted"), abs=1e-5
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_a_support_vector_machines_scores_are_no_probabilities(classes: int, tmp_path: Path) -> None:
    from sklearn.svm import LinearSVC

    _, codes = iris()
    predictions = converted(LinearSVC(), np.minimum(codes, classes - 1), tmp_path)
    assert predictions.scores is not None
    assert predictions.probabilities is None
    measured = measure(predictions)
    assert measured.values["roc_auc"] > 0.8
    assert not set(measured.values) & set(PROBABILITY_METRICS)
    assert "are no probabilities" in measured.missing["log_loss"]


def test_columns_in_another_order_are_told_by_the_predictions() -> None:
    said = np.array(["b", "a", "b", "a"])
    b_first = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], dtype=np.float32)
    predictions = read(said, outputs={"label": said, "probabilities": b_first})
    assert predictions.classes == ("a", "b")
    assert predictions.probabilities is not None
    assert predictions.probabilities[0] == pytest.approx([0.1, 0.9], abs=1e-6)


def test_scores_of_pairs_of_classes_are_left_out() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pairs = generator.normal(size=(90, 3)).astype(np.float32)
    predictions = read(labels, outputs={"label": labels, "scores": pairs})
    assert predictions.scores is None
    assert "cannot be told" in predictions.notes[0]
    assert not set(measure(predictions).values) & set(RANKING_METRICS)


def test_a_class_that_the_data_lacks_keeps_its_column() -> None:
    labels = np.array([0, 2, 0, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]] * 2, dtype=np.float32)
    predictions = read(labels, outputs={"label": labels, "probabilities": probabilities})
    assert predictions.classes == (0, 1, 2)
    assert measure(predictions).values["log_loss"] == pytest.approx(-np.log(0.8), abs=1e-6)


def test_a_label_that_the_model_does_not_know_has_no_probability() -> None:
    said = np.array(["a", "b", "a", "b"])
    probabilities = np.array([[0.8, 0.2], [0.1, 0.9]] * 2, dtype=np.float32)
    predictions = read(["a", "b", "c", "b"], outputs={"label": said, "probabilities": probabilities})
    assert predictions.classes == ("a", "b", "c")
    assert predictions.scores is None or predictions.scores[2].tolist() == pytest.approx([0.8, 0.2, 0.0], abs=1e-6)
    assert measure(predictions).values["accuracy"] == 0.75


def test_one_column_of_probabilities_is_of_the_later_class() -> None:
    predictions = read([0, 1, 1, 0], outputs={"p": np.array([[0.2], [0.9], [0.5], [0.6]], dtype=np.float32)})
    assert predictions.predicted.tolist() == [0, 1, 0, 1]
    assert predictions.probabilities is not None
    assert predictions.probabilities[1] == pytest.approx([0.1, 0.9], abs=1e-6)
    beside = read(
        ["no", "yes"], outputs={"label": ["no", "yes"], "probability": np.array([[0.2], [0.9]], dtype=np.float32)}
    )
    assert beside.probabilities is not None
    assert beside.probabilities[:, 1] == pytest.approx([0.2, 0.9], abs=1e-6)


def test_scores_of_each_class_are_predictions_without_being_probabilities() -> None:
    predictions = read([0, 1, 2], outputs={"logits": np.array([[5, 1, 1], [0, 9, 2], [1, 2, 3]], dtype=np.float32)})
    assert predictions.predicted.tolist() == [0, 1, 2]
    assert predictions.probabilities is None
    assert measure(predictions).values["roc_auc"] == 1.0


def test_the_manifest_names_the_output_with_probabilities() -> None:
    labels = np.array([0, 1, 0, 1])
    outputs: dict[str, ArrayLike] = {
        "label": labels,
        "first": np.array([[0.6, 0.4], [0.4, 0.6]] * 2, dtype=np.float32),
        "second": np.array([[0.9, 0.1], [0.1, 0.9]] * 2, dtype=np.float32),
    }
    by_form, by_name = read(labels, outputs=outputs), read(labels, outputs=outputs, probability="second")
    assert by_form.probabilities is not None
    assert by_name.probabilities is not None
    assert by_form.probabilities[0] == pytest.approx([0.6, 0.4], abs=1e-6)
    assert by_name.probabilities[0] == pytest.approx([0.9, 0.1], abs=1e-6)
    with pytest.raises(ModelError, match="names the output 'third' and the model has 'label', 'first', 'second'"):
        read(labels, outputs=outputs, probability="third")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_left_out(value: float) -> None:
    labels = np.array([0, 1])
    scores = np.array([[0.9, 0.1], [value, 0.8]], dtype=np.float32)
    predictions = read(labels, outputs={"label": labels, "probabilities": scores})
    assert predictions.scores is None
    assert "not finite" in predictions.notes[0]


def test_an_output_of_no_scores_is_left_out() -> None:
    predictions = read([0, 1], outputs={"label": [0, 1], "probabilities": np.zeros((2, 0), np.float32)})
    assert predictions.scores is None
    assert "no values" in predictions.notes[0]


def test_a_class_with_a_long_name_costs_each_row_little() -> None:
    long = "x" * 50_000
    labels = np.array(["a", "b" * 200, long + "1", long + "2"], dtype=object)
    said = labels[[0, 1, 2, 2]]
    predictions = read(labels, outputs={"label": said}, positive_class="b" * 200)
    assert predictions.correct.tolist() == [True, True, True, False]
    assert max(len(str(name)) for name in predictions.classes) == 256


def test_the_largest_class_is_not_taken_for_another() -> None:
    labels = np.array([0, 2**63 - 1], np.uint64)
    assert read(labels, outputs={"label": labels.astype(np.int64)}).classes == (0, 2**63 - 1)


def test_the_positive_class_is_the_manifests_or_the_later_of_two() -> None:
    labels = ["bad", "good", "good"]
    assert read(labels, outputs={"label": labels}).positive == 1
    assert read(labels, outputs={"label": labels}, positive_class="bad").positive == 0
    assert read([0, 1, 2], outputs={"label": [0, 1, 2]}).positive is None
    assert read([0, 1, 2], outputs={"label": [0, 1, 2]}, positive_class="2").positive == 2
    with pytest.raises(ModelError, match="the positive class 'ugly', and the classes are bad, good"):
        read(labels, outputs={"label": labels}, positive_class="ugly")


@pytest.mark.parametrize(
    ("labels", "outputs", "said"),
    [
        (["a", "b"], {"label": [0, 1]}, "the labels are text and the output 'label' gives whole numbers"),
        ([1, 3], {"p": np.eye(2, dtype=np.float32)}, "a label is 3: number the labels alike"),
        ([0, 1], {"p": np.full((2, 2), np.nan, np.float32)}, "holds NaN, which is no class"),
        ([0, 1], {"p": np.array([[-3.0], [3.0]], np.float32)}, "gives neither classes nor scores"),
        ([0.5, 1], {"label": [0, 1]}, "the labels hold numbers that are not whole"),
        ([0, 1], {"label": [[0, 1], [1, 0]]}, "have 2 values a row"),
        ([0, 1], {"label": np.zeros((2, 0), np.int64)}, r"'label' have no values: the shape is \[2, 0\]"),
        ([0, 1], {"p": np.zeros((2, 0), np.float32)}, "have no values"),
        (
            np.array([0, 2**63], np.uint64),
            {"label": [0, 1]},
            "hold 9223372036854775808, which is too large for a class",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(labels: ArrayLike, outputs: dict[str, ArrayLike], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read(labels, outputs=outputs)


@pytest.mark.parametrize(
    ("labels", "output", "said"),
    [
        ([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0]], r"has the shape \[2, 2\] and the labels \[2\]"),
        ([1.0, 1e200], [1.0, 1.0], "too large to measure"),
        ([1.0, 2.0], [1.0, np.inf], "not finite"),
        (["a", "b"], [1.0, 1.0], "are no numbers"),
        ([1.0, 2.0], np.zeros((2, 0)), r"'y' have no values"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "the labels have no values"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused(labels: ArrayLike, output: ArrayLike, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read(labels, task="regression", outputs={"y": np.asarray(output, dtype=np.float32)})


def test_numbers_of_a_column_or_flat_are_the_same() -> None:
    column = read([1.0, 2.0], task="regression", outputs={"y": np.array([[1.5], [2.5]], dtype=np.float32)})
    assert column.labels.shape == column.predicted.shape == (2, 1)
    assert column.absolute_errors.tolist() == [0.5, 0.5]
