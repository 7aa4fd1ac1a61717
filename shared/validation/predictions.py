"""Finds the predictions among a model's outputs and brings them and the labels to one form.

Loads numpy: for the sandboxed process.
"""

import numpy as np
from numpy.typing import NDArray

from shared.registry.manifest import Manifest, Task
from shared.registry.signature import Signature, TensorSpec
from shared.validation.datafile import Array
from shared.validation.metrics import Labels, classification, regression
from shared.validation.model import ModelError, Rows
from shared.validation.refusal import excerpt

_REAL = ("FP16", "FP32", "FP64")
_EXACT = 2.0**53
"""Whole numbers up to here are exact as FP64."""


def measure(labels: Array, outputs: Rows, signature: Signature, manifest: Manifest) -> dict[str, float]:
    """The metrics of the manifest's task. Raises ModelError where labels and predictions cannot be compared."""
    spec = prediction_output(signature, manifest)
    given = outputs[spec.name]
    if manifest.task is Task.REGRESSION:
        targets, predicted = _numbers(labels, "the labels"), _numbers(given, f"the output {spec.name!r}")
        if targets.shape != predicted.shape:
            raise ModelError(
                f"the output {spec.name!r} has the shape {list(given.shape)} and the labels {list(labels.shape)}"
            )
        measured = regression(targets, predicted)
    else:
        true, predicted_classes = _classes(labels, "the labels"), _predicted_classes(given, spec)
        if true.dtype.kind != predicted_classes.dtype.kind:
            raise ModelError(
                f"the labels are {_kind(true)} and the output {spec.name!r} gives {_kind(predicted_classes)}: "
                "store the labels in the model's terms, or name another output as `prediction` in the manifest"
            )
        measured = classification(true, predicted_classes)
    if not np.isfinite(list(measured.values())).all():
        raise ModelError(f"the output {spec.name!r} holds numbers too large to measure")
    return measured


def prediction_output(signature: Signature, manifest: Manifest) -> TensorSpec:
    """The output that the manifest names; else a classifier's first of classes, a regressor's first of real numbers.

    A model without such an output has its first one compared. Raises ModelError where the name is no output's.
    """
    if manifest.prediction is not None:
        for spec in signature.outputs:
            if spec.name == manifest.prediction:
                return spec
        names = ", ".join(repr(excerpt(spec.name, 60)) for spec in signature.outputs[:10])
        raise ModelError(f"the manifest names the output {manifest.prediction!r} and the model has {names}")
    wants_real = manifest.task is Task.REGRESSION
    fitting = [spec for spec in signature.outputs if (spec.datatype in _REAL) is wants_real]
    return (fitting or list(signature.outputs))[0]


def _predicted_classes(given: Array, spec: TensorSpec) -> Labels:
    """Classes as they are; the index of the highest of several scores; whether a single probability is over 0.5."""
    what = f"the output {spec.name!r}"
    if spec.datatype not in _REAL:
        return _classes(given, what)
    if np.isnan(given).any():
        raise ModelError(f"{what} holds NaN, which is no class")
    if given.ndim == 2 and given.shape[1] > 1:
        return given.argmax(axis=1).astype(np.int64)
    column = given.reshape(len(given), -1).astype(np.float64)
    if column.shape[1] != 1 or (column < 0).any() or (column > 1).any():
        raise ModelError(
            f"{what} gives neither classes nor scores per class nor probabilities: "
            "name the output to compare as `prediction` in the manifest"
        )
    return (column[:, 0] > 0.5).astype(np.int64)


def _classes(array: Array, what: str) -> Labels:
    column = array.reshape(len(array), -1)
    if column.shape[1] != 1:
        raise ModelError(f"{what} have {column.shape[1]} values a row: one class each is wanted")
    flat = column[:, 0]
    if flat.dtype.kind in "OUS":
        return np.array([v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in flat.tolist()])
    whole = np.nan_to_num(np.clip(flat, -_EXACT, _EXACT)).astype(np.int64) if flat.dtype.kind == "f" else flat
    if (whole != flat).any():
        raise ModelError(f"{what} hold numbers that are not whole, which are no classes: is the task regression?")
    return whole.astype(np.int64)


def _numbers(array: Array, what: str) -> NDArray[np.float64]:
    if array.dtype.kind not in "biuf":
        raise ModelError(f"{what} are no numbers: is the task classification?")
    numbers = array.reshape(len(array), -1).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ModelError(f"{what} hold numbers that are not finite")
    return numbers


def _kind(classes: Labels) -> str:
    return "text" if classes.dtype.kind == "U" else "whole numbers"
