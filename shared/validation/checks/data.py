"""The checks of validation: each turns evidence into a verdict, and does nothing else.

Loads numpy and onnx: for the sandboxed process.
"""

import math
from collections.abc import Mapping

import numpy as np
import onnx

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.registry.signature import Signature, TensorSpec
from shared.validation.datafile import Array
from shared.validation.graph import RUNTIME_DOMAINS, foreign_operator
from shared.validation.model import NUMPY_TYPE, Rows
from shared.validation.refusal import excerpt

_CLAIM_TOLERANCE = 0.005
_SHOWN = 5


def size(size_bytes: int, policy: ValidationPolicy) -> Verdict:
    """Is the model's file within the policy's limit?"""
    limit = policy.max_size_bytes
    outcome, compared = (Outcome.PASS, "within") if size_bytes <= limit else (Outcome.FAIL, "above")
    return Verdict(
        check="size",
        outcome=outcome,
        sentence=f"the model has {size_bytes} bytes, {compared} the limit of {limit}",
        value=size_bytes,
        limit=limit,
    )


def operators(model: onnx.ModelProto) -> Verdict:
    """Does a model that the ONNX checker passed use only operators that the runtime has or the model defines?"""
    foreign = foreign_operator(model)
    if foreign is not None:
        known = ", ".join(sorted(domain for domain in RUNTIME_DOMAINS if domain))
        return failed("onnx", f"the operator {excerpt(foreign, 100)} is a custom one: use operators of {known}")
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    listed = ", ".join(f"{excerpt(domain, 60)} {version}" for domain, version in sorted(opsets.items()))
    return passed("onnx", f"a valid ONNX model of IR version {model.ir_version}, opset {listed}")


def loads(signature: Signature) -> Verdict:
    """What a model that loaded takes and gives."""
    return passed("load", f"the model loads: {_listed(signature.inputs)} gives {_listed(signature.outputs)}")


def data(signature: Signature, arrays: Mapping[str, Array], *, what: str, policy: ValidationPolicy) -> Verdict:
    """Do the arrays of a data file, without its labels, fit the model's inputs?"""
    problems = _names_problems(signature, arrays)
    for spec in signature.inputs:
        if spec.name in arrays:
            problems += _array_problems(spec, arrays[spec.name], policy)
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        return failed(what, "; ".join(problems[:_SHOWN]) + more)
    rows = len(next(iter(arrays.values())))
    return passed(what, f"{rows} rows that fit the model's inputs", n=rows)


def labels(arrays: Mapping[str, Array], manifest: Manifest) -> Verdict | None:
    """Is the label array there, and whole? None where it is."""
    found = arrays.get(manifest.label)
    if found is None:
        return failed(
            "data", f"there is no label array {manifest.label!r}: add it, or name it as `label` in the manifest"
        )
    if not len(found):
        return failed("data", "the validation data has no rows")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        row = int(np.argmax(~np.isfinite(found.reshape(len(found), -1)).all(axis=1)))
        return failed("data", f"the label of row {row} is not a finite number")
    return None


def outputs(given: Rows, rows: int, policy: ValidationPolicy) -> Verdict:
    """Are the outputs of a run over the data free of NaN, where the policy wants that?"""
    for name, array in given.items():
        bad = _rows_with_nan(array)
        if bad.any() and not policy.allow_nan:
            return failed(
                "run",
                f"the output {name!r} holds NaN for {int(bad.sum())} of {rows} rows, first for row {bad.argmax()}",
            )
    return passed("run", f"the model answers each of {rows} rows, in batches and one by one", n=rows)


def thresholds(measured: Mapping[str, float], rows: int, task: Task, policy: ValidationPolicy) -> list[Verdict]:
    """One verdict for each metric that the policy limits; without a limit, one that says so."""
    limits: Mapping[str, float | None] = (
        {"r2": policy.r2}
        if task is Task.REGRESSION
        else {"accuracy": policy.accuracy, "precision": policy.precision, "recall": policy.recall, "f1": policy.f1}
    )
    verdicts = [threshold(name, measured.get(name), rows, limit) for name, limit in limits.items() if limit is not None]
    return verdicts or [passed("metrics", f"measured on {rows} rows; the policy sets no limits", n=rows)]


def threshold(name: str, value: float | None, rows: int, limit: float) -> Verdict:
    """Is a metric of which more is better at its limit or above?"""
    if value is None or not math.isfinite(value):
        return Verdict(
            check=name,
            outcome=Outcome.INCONCLUSIVE,
            sentence=f"{name} cannot be computed on {rows} rows, and the policy wants at least {limit}",
            n=rows,
            limit=limit,
        )
    outcome = Outcome.PASS if value >= limit else Outcome.FAIL
    compared = "is not below" if outcome is Outcome.PASS else "is below"
    sentence = f"{name} {_apart(value, limit)} on {rows} rows {compared} the limit {limit}"
    return Verdict(check=name, outcome=outcome, sentence=sentence, n=rows, value=value, limit=limit)


def claims(claimed: Mapping[str, float], measured: Mapping[str, float]) -> Verdict | None:
    """What the manifest claims beside what was measured. Never more than a remark: a claim weighs nothing."""
    if not claimed:
        return None
    differing = [
        f"{excerpt(name, 60)} is claimed as {value:g} and measured as {measured[name]:.4g}"
        for name, value in claimed.items()
        if name in measured and abs(value - measured[name]) > _CLAIM_TOLERANCE
    ]
    unmeasured = [excerpt(name, 60) for name in claimed if name not in measured]
    said = differing[:_SHOWN]
    if unmeasured:
        said.append(f"not measured here: {', '.join(unmeasured[:_SHOWN])}")
    return passed("claims", "; ".join(said) or "the metrics claimed are those measured", n=len(claimed))


def without_data(policy: ValidationPolicy) -> Verdict:
    """What it means that a version came without validation data."""
    if not policy.require_validation_data:
        return passed("metrics", "there is no validation data: only the file was checked")
    return Verdict(
        check="metrics",
        outcome=Outcome.INCONCLUSIVE,
        sentence="there is no validation data, which the policy requires: drop a bundle whose manifest names it",
    )


def passed(check: str, sentence: str, *, n: int | None = None) -> Verdict:
    """A PASS verdict without a number to compare."""
    return Verdict(check=check, outcome=Outcome.PASS, sentence=sentence, n=n)


def failed(check: str, sentence: str) -> Verdict:
    """A FAIL verdict without a number to compare."""
    return Verdict(check=check, outcome=Outcome.FAIL, sentence=sentence)


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    shown = [f"{excerpt(spec.name, 60)} {spec.datatype} {list(spec.shape)}" for spec in specs[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(specs) - _SHOWN} more" if len(specs) > _SHOWN else "")


def _names_problems(signature: Signature, arrays: Mapping[str, Array]) -> list[str]:
    wanted = [spec.name for spec in signature.inputs]
    missing = [repr(excerpt(name, 60)) for name in wanted if name not in arrays]
    extra = [repr(excerpt(name, 60)) for name in arrays if name not in wanted]
    problems = []
    if missing:
        problems.append(f"there is no array for the input {', '.join(missing[:_SHOWN])}")
    if extra:
        problems.append(f"the array {', '.join(extra[:_SHOWN])} is no input of the model: remove it")
    return problems


def _array_problems(spec: TensorSpec, array: Array, policy: ValidationPolicy) -> list[str]:
    dtype = NUMPY_TYPE[spec.datatype]
    if not len(array):
        return [f"the array {spec.name!r} has no rows"]
    if dtype != "object" and array.dtype != np.dtype(dtype):
        return [f"the array {spec.name!r} is {array.dtype} and the input wants {spec.datatype}: store it as {dtype}"]
    if dtype == "object" and array.dtype.kind not in "USO":
        return [f"the array {spec.name!r} is {array.dtype} and the input wants text"]
    if not _shape_fits(array.shape, spec.shape):
        wanted = ", ".join(["rows", *("any" if size < 0 else str(size) for size in spec.shape[1:])])
        return [f"the array {spec.name!r} has the shape {list(array.shape)} and the input wants [{wanted}]"]
    bad = _rows_with_nan(array)
    if bad.any() and not policy.allow_nan:
        return [
            f"the feature {spec.name!r} holds NaN in {int(bad.sum())} of {len(array)} rows, first in row {bad.argmax()}"
        ]
    return []


def _shape_fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(
        free < 0 or size == free for size, free in zip(found[1:], wanted[1:], strict=True)
    )


def _rows_with_nan(array: Array) -> Array:
    """For each row whether it holds NaN."""
    if array.dtype.kind != "f":
        return np.zeros(len(array), dtype=np.bool_)
    result: Array = np.isnan(array.reshape(len(array), -1)).any(axis=1)
    return result


def _apart(value: float, limit: float) -> str:
    """A number with as many digits, four or more, as show on which side of the limit it lies."""
    for digits in range(4, 17):
        text = f"{value:.{digits}g}"
        shown = float(text)
        if (shown < limit, shown > limit) == (value < limit, value > limit):
            return text
    return repr(value)
