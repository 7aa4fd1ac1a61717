"""Is the data whole, and does the model answer it? Pure; loads numpy."""

import numpy as np

from shared.core.verdict import Verdict
from shared.registry.policy import ValidationPolicy
from shared.validation.checks.verdicts import failed, passed, unclear
from shared.validation.datafile import Array
from shared.validation.model import Rows
from shared.validation.refusal import excerpt


def data(inputs: Rows, rows: int, *, what: str, policy: ValidationPolicy) -> Verdict:
    """Are there rows, and are features free of NaN, where the policy wants that?"""
    if not rows:
        return failed(what, f"the {what} has no rows" if what != "data" else "the validation data has no rows")
    for name, array in inputs.items():
        bad = rows_with_nan(array)
        if bad.any() and not policy.allow_nan:
            feature = excerpt(name, 60)
            said = f"the feature {feature!r} holds NaN in {int(bad.sum())} of {rows} rows, first in row {bad.argmax()}"
            return failed(what, said, n=rows)
    return passed(what, f"{rows} rows that fit the model's inputs{_without_numbers(inputs)}", n=rows)


def labels(found: Array | None, label: str) -> Verdict | None:
    """Is the label column there, and whole? None where it is."""
    if found is None:
        return failed("data", f"there is no label array {label!r}: add it, or name it as `label` in the manifest")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        row = int(np.argmax(~np.isfinite(found.reshape(len(found), -1)).all(axis=1)))
        return failed("data", f"the label of row {row} is not a finite number")
    return None


def outputs(given: Rows, rows: int, described: str, policy: ValidationPolicy) -> Verdict:
    """Are the outputs of a run over the data free of NaN, where the policy wants that?"""
    for name, array in given.items():
        bad = rows_with_nan(array)
        if bad.any() and not policy.allow_nan:
            output = excerpt(name, 60)
            said = f"the output {output!r} holds NaN for {int(bad.sum())} of {rows} rows, first for row {bad.argmax()}"
            return failed("run", said, n=rows)
    return passed("run", f"the model answers each of {described}", n=rows)


def without_data(policy: ValidationPolicy) -> Verdict:
    """What it means that a version came without validation data."""
    if not policy.require_validation_data:
        return passed("metrics", "there is no validation data: the model alone was checked")
    return unclear(
        "metrics", "there is no validation data, which the policy requires: drop a bundle whose manifest names it"
    )


def _without_numbers(inputs: Rows) -> str:
    """A remark on features that say nothing: without one finite number."""
    for name, array in inputs.items():
        if array.dtype.kind == "f" and array.size:
            empty = ~np.isfinite(array.reshape(len(array), -1)).any(axis=0)
            if empty.any():
                return (
                    f"; the feature {excerpt(name, 60)!r} holds no finite number in {int(empty.sum())} of {len(empty)} "
                    f"columns, first in column {int(empty.argmax())}"
                )
    return ""


def rows_with_nan(array: Array) -> Array:
    """For each row whether it holds NaN."""
    if array.dtype.kind != "f":
        return np.zeros(len(array), dtype=np.bool_)
    result: Array = np.isnan(array.reshape(len(array), -1)).any(axis=1)
    return result
