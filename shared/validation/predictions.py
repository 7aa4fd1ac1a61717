"""Finds the predictions and scores among a model's outputs and brings them and the labels to one form.

What cannot be compared is the model's fault and raises ModelError; scores that cannot be used are left out, with a
note that says why. Loads numpy: for the sandboxed process.
"""

import numpy as np
from numpy.typing import NDArray

from shared.registry.manifest import Manifest, Task
from shared.registry.signature import Signature, TensorSpec
from shared.validation.datafile import Array
from shared.validation.model import ModelError, Rows
from shared.validation.refusal import excerpt
from shared.validation.statistics.columns import clipped
from shared.validation.statistics.evidence import Codes, Floats, Predictions
from shared.validation.statistics.scores import ClassScores, Labels, as_probabilities, matched, two_columns

_REAL = ("FP16", "FP32", "FP64")
_EXACT = 2.0**53
"""Whole numbers up to here are exact as FP64."""
_LARGEST_CLASS = 2**63 - 1
_CLASS_LENGTH = 256
"""Characters of a class's name, for each row takes as much memory as the longest; a manifest's has at most 200."""
_LARGEST = 1e140
"""Squares of numbers up to here, and the sums of those, are finite."""


def read_predictions(labels: Array, outputs: Rows, signature: Signature, manifest: Manifest) -> Predictions:
    """Labels beside what the model said. Raises ModelError where they cannot be compared.

    `labels` has one row a case, at least one; `outputs` are the model's, by name, over the same rows.
    """
    spec = prediction_output(signature, manifest)
    given = outputs[spec.name]
    if manifest.task is Task.REGRESSION:
        return _regression(labels, given, spec)
    true = _classes(labels, "the labels")
    if spec.datatype in _REAL:
        scored = _scored(given, spec)
        _refuse_unnumbered(true, scored, spec)
        return _classification(true, scored.classes[_highest(scored)], scored, (), manifest)
    predicted = _classes(given, f"the output {spec.name!r}")
    _refuse_other_kind(true, predicted, spec)
    scores, notes = _scores_beside(true, predicted, outputs, signature, manifest, spec)
    return _classification(true, predicted, scores, notes, manifest)


def prediction_output(signature: Signature, manifest: Manifest) -> TensorSpec:
    """The output that the manifest names; else a classifier's first of classes, a regressor's first of real numbers.

    A model without such an output has its first one compared. Raises ModelError where the name is no output's.
    """
    if manifest.prediction is not None:
        return _named(manifest.prediction, signature)
    wants_real = manifest.task is Task.REGRESSION
    fitting = [spec for spec in signature.outputs if (spec.datatype in _REAL) is wants_real]
    return (fitting or list(signature.outputs))[0]


def _named(name: str, signature: Signature) -> TensorSpec:
    for spec in signature.outputs:
        if spec.name == name:
            return spec
    names = ", ".join(repr(excerpt(spec.name, 60)) for spec in signature.outputs[:10])
    raise ModelError(f"the manifest names the output {name!r} and the model has {names}")


def _regression(labels: Array, given: Array, spec: TensorSpec) -> Predictions:
    targets, predicted = _numbers(labels, "the labels"), _numbers(given, f"the output {spec.name!r}")
    if targets.shape != predicted.shape:
        raise ModelError(
            f"the output {spec.name!r} has the shape {list(given.shape)} and the labels {list(labels.shape)}"
        )
    return Predictions(task=Task.REGRESSION, labels=targets, predicted=predicted)


def _classification(
    true: Labels, predicted: Labels, scored: ClassScores | None, notes: tuple[str, ...], manifest: Manifest
) -> Predictions:
    known = [true, predicted] if scored is None else [true, predicted, scored.classes]
    classes, index = np.unique(np.concatenate(known), return_inverse=True)
    codes: Codes = index.astype(np.int64)
    rows = len(true)
    scores = None
    if scored is not None:
        # A class that the model has no column for got none of its probability, and the least of its scores.
        least = 0.0 if scored.are_probabilities else float(scored.scores.min())
        scores = np.full((rows, len(classes)), least)
        scores[:, codes[2 * rows :]] = scored.scores
    return Predictions(
        task=Task.CLASSIFICATION,
        labels=codes[:rows],
        predicted=codes[rows : 2 * rows],
        classes=tuple(classes.tolist()),
        scores=scores,
        are_probabilities=scored is not None and scored.are_probabilities,
        positive=_positive(classes.tolist(), manifest),
        notes=notes,
    )


def _positive(classes: list[str | int], manifest: Manifest) -> int | None:
    if manifest.positive_class is None:
        return 1 if len(classes) == 2 else None
    names = [str(known) for known in classes]
    if str(manifest.positive_class) not in names:
        shown = ", ".join(excerpt(name, 40) for name in names[:10])
        raise ModelError(
            f"the manifest names the positive class {excerpt(manifest.positive_class, 40)!r}, "
            f"and the classes are {shown}"
        )
    return names.index(str(manifest.positive_class))


def _scored(given: Array, spec: TensorSpec) -> ClassScores:
    """The scores of an output that is compared with the labels: several a row, or one probability."""
    what = f"the output {spec.name!r}"
    columns = _by_row(given, what).astype(np.float64)
    if np.isnan(columns).any():
        raise ModelError(f"{what} holds NaN, which is no class")
    if columns.shape[1] == 1 and (columns >= 0).all() and (columns <= 1).all():
        columns = two_columns(columns[:, 0])
    elif given.ndim != 2 or columns.shape[1] == 1:
        raise ModelError(
            f"{what} gives neither classes nor scores per class nor probabilities: "
            "name the output to compare as `prediction` in the manifest"
        )
    probabilities = as_probabilities(columns)
    return ClassScores(
        scores=np.nan_to_num(columns) if probabilities is None else probabilities,
        classes=np.arange(columns.shape[1], dtype=np.int64),
        are_probabilities=probabilities is not None,
    )


def _highest(scored: ClassScores) -> NDArray[np.intp]:
    """The class of each row. A single probability of exactly one half is no hit, which argmax agrees with."""
    return scored.scores.argmax(axis=1)


def _refuse_unnumbered(true: Labels, scored: ClassScores, spec: TensorSpec) -> None:
    """Scores alone number the classes from 0; labels of another numbering would be compared with the wrong ones."""
    _refuse_other_kind(true, scored.classes, spec)
    width = len(scored.classes)
    foreign = [value for value in np.unique(true).tolist() if not 0 <= value < width]
    if foreign:
        raise ModelError(
            f"the output {spec.name!r} gives scores of {width} classes, which are numbered from 0, and a label is "
            f"{foreign[0]}: number the labels alike, or name an output of classes as `prediction` in the manifest"
        )


def _refuse_other_kind(true: Labels, predicted: Labels, spec: TensorSpec) -> None:
    if true.dtype.kind != predicted.dtype.kind:
        raise ModelError(
            f"the labels are {_kind(true)} and the output {spec.name!r} gives {_kind(predicted)}: "
            "store the labels in the model's terms, or name another output as `prediction` in the manifest"
        )


def _scores_beside(
    true: Labels, predicted: Labels, outputs: Rows, signature: Signature, manifest: Manifest, prediction: TensorSpec
) -> tuple[ClassScores | None, tuple[str, ...]]:
    """The scores among the other outputs: the manifest's, else the first whose columns can be told apart."""
    if manifest.probability is not None:
        specs = [_named(manifest.probability, signature)]
    else:
        specs = [spec for spec in signature.outputs if spec.datatype in _REAL and spec.name != prediction.name]
    observed = np.unique(np.concatenate([true, predicted]))
    notes: list[str] = []
    for spec in specs:
        found, note = _scores_of(outputs[spec.name], spec, predicted, observed, named=manifest.probability is not None)
        if found is not None and found.are_probabilities:
            return found, ()
        if found is not None:
            return found, (f"the scores of the output {excerpt(spec.name, 60)!r} are no probabilities",)
        notes.append(note)
    return None, tuple(notes) or ("the model has no output of scores or probabilities",)


def _scores_of(
    given: Array, spec: TensorSpec, predicted: Labels, observed: Labels, *, named: bool
) -> tuple[ClassScores | None, str]:
    name = excerpt(spec.name, 60)
    if given.dtype.kind not in "fiu":
        return None, f"the output {name!r} holds no numbers"
    if not given.size:
        return None, f"the output {name!r} has no values"
    columns = given.reshape(len(given), -1).astype(np.float64)
    if not np.isfinite(columns).all():
        return None, f"the output {name!r} holds numbers that are not finite"
    if columns.shape[1] == 1 and (named or "prob" in spec.name.lower()):
        columns = two_columns(columns[:, 0])
    if given.ndim > 2 or columns.shape[1] < 2:
        return None, f"the output {name!r} does not give each class a score"
    found = matched(columns, predicted, observed)
    return found, f"which class each column of the output {name!r} belongs to cannot be told"


def _classes(array: Array, what: str) -> Labels:
    column = _by_row(array, what)
    if column.shape[1] != 1:
        raise ModelError(f"{what} have {column.shape[1]} values a row: one class each is wanted")
    flat = column[:, 0]
    if flat.dtype.kind in "OUS":
        texts = (v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in flat.tolist())
        return np.array([clipped(text, _CLASS_LENGTH) for text in texts])
    if flat.dtype.kind == "u" and int(flat.max()) > _LARGEST_CLASS:
        raise ModelError(f"{what} hold {flat.max()}, which is too large for a class: at most {_LARGEST_CLASS}")
    whole = np.nan_to_num(np.clip(flat, -_EXACT, _EXACT)).astype(np.int64) if flat.dtype.kind == "f" else flat
    if (whole != flat).any():
        raise ModelError(f"{what} hold numbers that are not whole, which are no classes: is the task regression?")
    return whole.astype(np.int64)


def _numbers(array: Array, what: str) -> Floats:
    if array.dtype.kind not in "biuf":
        raise ModelError(f"{what} are no numbers: is the task classification?")
    numbers: Floats = _by_row(array, what).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ModelError(f"{what} hold numbers that are not finite")
    if np.abs(numbers).max() > _LARGEST:
        raise ModelError(f"{what} hold numbers too large to measure: at most {_LARGEST:g}")
    return numbers


def _by_row(array: Array, what: str) -> Array:
    """Shape [n, ...] as [n, k] with k above 0. Raises ModelError."""
    if not array.size:
        raise ModelError(f"{what} have no values: the shape is {list(array.shape)}")
    return array.reshape(len(array), -1)


def _kind(classes: Labels) -> str:
    return "text" if classes.dtype.kind == "U" else "whole numbers"
