"""Maps the columns of a data file to the inputs of a graph, by name. Loads numpy: for the sandboxed process.

Nothing is guessed: a column that nobody asked for is refused, as is the label where an input would take it, and a value
is converted only where the input's type holds it exactly. Into an input of real numbers every number is rounded to its
precision, as every client of the model rounds it, so that a column is the same in each form of file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.registry.manifest import Manifest, Task
from shared.registry.signature import FREE, Signature, TensorSpec
from shared.validation.datafile import Array
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt

MAX_COLUMNS = 10_000
"""The columns that a data file may have."""
_TEXT = "BYTES"
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An array as it lies in a data file, one row a case; text is an object array of `str`.

    `missing` marks rows without a value, whatever stands there, and is None where every row has one.
    """

    values: Array
    missing: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """The columns of a data file by what they are for, as `shared.validation.tabular.Table` says."""

    inputs: dict[str, Array]
    label: Array | None
    columns: dict[str, Array]
    features: tuple[str, ...]
    """Which of the columns are features, each once: two inputs may take the same one."""


def wanted_datatypes(signature: Signature, manifest: Manifest) -> dict[str, str]:
    """The Open Inference Protocol datatypes that columns of a table will be wanted in, as far as names tell.

    For formats that do not say what their columns hold. A classifier that answers in text has its labels as text.
    """
    wanted: dict[str, str] = {}
    alone = len(signature.inputs) == 1
    for spec in signature.inputs:
        names = manifest.inputs.get(spec.name) or (manifest.feature_names if alone else ()) or (spec.name,)
        wanted |= dict.fromkeys(names, spec.datatype)
        if len(wanted) < MAX_COLUMNS:
            wanted |= dict.fromkeys(_indexed(spec), spec.datatype)
    answers = [spec for spec in signature.outputs if manifest.prediction in (None, spec.name)]
    if manifest.task is Task.CLASSIFICATION and any(spec.datatype == _TEXT for spec in answers):
        wanted[manifest.label] = _TEXT
    return wanted


def mapped(
    columns: Mapping[str, Column], *, signature: Signature, manifest: Manifest, what: str, declared: Iterable[str]
) -> Mapped:
    """Give each graph input its columns, and name the rest.

    `declared` are the columns that must be there beside the features and the label. Raises DropRefusedError naming the
    columns that lack, that are too many, or that do not fit.
    """
    unknown = manifest.inputs.keys() - {spec.name for spec in signature.inputs}
    if unknown:
        taken = _listed(spec.name for spec in signature.inputs)
        raise _bad(f"`inputs` of the manifest names {_listed(sorted(unknown))}, and the model takes {taken}")
    inputs: dict[str, Array] = {}
    features: dict[str, Array] = {}
    used = {manifest.label}
    for spec in signature.inputs:
        names = _sources(spec, columns, manifest, alone=len(signature.inputs) == 1)
        _refuse_label(spec, names, columns, manifest, what)
        inputs[spec.name] = _joined(spec, names, columns, what)
        features |= _features(spec, names, inputs[spec.name], manifest if len(signature.inputs) == 1 else None)
        used.update(names)
    extra = _extra(columns, used, features, manifest, what)
    lacking = [name for name in declared if name not in features and name not in extra]
    if lacking:
        raise _bad(
            f"{what} lacks {_listed(lacking)}, which `slices` or `protected` of the manifest names: it has "
            f"{_listed([*features, *extra])}"
        )
    label = columns.get(manifest.label)
    return Mapped(
        inputs=inputs,
        label=None if label is None else _label(label, manifest.label, what),
        columns=features | extra,
        features=tuple(features),
    )


def _sources(spec: TensorSpec, columns: Mapping[str, Column], manifest: Manifest, *, alone: bool) -> Sequence[str]:
    """The names of the columns that an input takes, whether they are there or not."""
    if spec.name in manifest.inputs:
        return manifest.inputs[spec.name]
    named = manifest.feature_names if alone else ()
    if named and all(name in columns for name in named):
        return named
    if spec.name in columns:
        return (spec.name,)
    indexed = _indexed(spec)
    return indexed if indexed and indexed[0] in columns else named or (spec.name,)


def _indexed(spec: TensorSpec) -> list[str]:
    """The names of a matrix's columns by their place, where it has as many as a file may."""
    width = spec.shape[1] if len(spec.shape) == 2 else 0
    return [f"{spec.name}[{i}]" for i in range(width)] if width <= MAX_COLUMNS else []


def _refuse_label(
    spec: TensorSpec, names: Sequence[str], columns: Mapping[str, Column], manifest: Manifest, what: str
) -> None:
    if manifest.label in names and manifest.label in columns:
        raise _bad(
            f"the input {_quoted(spec.name)} takes the column {_quoted(manifest.label)} of {what}, which is the label: "
            "a model is not given what it is to predict; take it out of the features, or name the label's column as "
            "`label` in the manifest"
        )


def _joined(spec: TensorSpec, names: Sequence[str], columns: Mapping[str, Column], what: str) -> Array:
    lacking = [name for name in names if name not in columns]
    if lacking:
        advice = (
            ""
            if len(spec.shape) != 2 or len(names) > 1
            else (": give it that column, or name the columns of the matrix as `feature_names` in the manifest")
        )
        raise _bad(
            f"{what} lacks {_listed(lacking)} for the input {_quoted(spec.name)}, and has {_listed(columns)}{advice}"
        )
    parts = [_converted(name, columns[name], spec, what) for name in names]
    if len(parts) > 1:
        matrix = next((name for name, part in zip(names, parts, strict=True) if part.ndim != 1), None)
        if matrix is not None:
            raise _bad(
                f"the column {_quoted(matrix)} of {what} holds more than one value a row, and is to be one of "
                f"{len(parts)} columns of the input {_quoted(spec.name)}"
            )
        array = np.stack(parts, axis=1)
    else:
        array = parts[0][:, np.newaxis] if parts[0].ndim == 1 and len(spec.shape) == 2 else parts[0]
    if array.ndim != len(spec.shape) or any(
        wanted not in (FREE, found) for wanted, found in zip(spec.shape[1:], array.shape[1:], strict=True)
    ):
        raise _bad(
            f"the input {_quoted(spec.name)} takes rows of the shape {list(spec.shape[1:])}, and {what} gives "
            f"{list(array.shape[1:])} by {_listed(names)}"
        )
    return array


def _converted(name: str, column: Column, spec: TensorSpec, what: str) -> Array:
    """A column in an input's type. Raises DropRefusedError where that type cannot hold its values."""
    from shared.validation.model import NUMPY_TYPE  # noqa: PLC0415 - loads onnxruntime

    values, missing = column.values, column.missing
    target: np.dtype[Any] = np.dtype(NUMPY_TYPE[spec.datatype])
    of = f"the column {_quoted(name)} of {what}"
    takes = f"the input {_quoted(spec.name)} takes {spec.datatype}"
    if missing is not None and target.kind != "f":
        raise _bad(
            f"{of} has no value in {int(missing.sum())} rows, first in row {int(missing.argmax())}, and {takes}, "
            "which has no mark for that: fill them in"
        )
    if (values.dtype.kind == "O") is not (target.kind == "O"):
        found, wanted = ("text", str(target)) if values.dtype.kind == "O" else (str(values.dtype), "text")
        raise _bad(f"{of} is {found}, and {takes}: store it as {wanted}")
    if values.dtype != target and not _holds(target, values if missing is None else values[~missing]):
        raise _bad(f"{of} is {values.dtype} with values that {target} does not hold, and {takes}: store it as {target}")
    with np.errstate(all="ignore"):
        converted = values.astype(target, copy=missing is not None)
    if missing is not None:
        converted[missing] = np.nan
    return converted


def _holds(target: np.dtype[Any], values: Array) -> bool:
    """Whether a type holds these values of another one: exactly where it holds whole numbers, else within its range.

    Ranges are compared as Python numbers, which are exact.
    """
    source = values.dtype.kind
    if source == "b" or not values.size:
        return True
    if target.kind == "f":
        with np.errstate(all="ignore"):
            return bool((np.isinf(values.astype(target)) <= np.isinf(values)).all())
    if source == "f" and not (np.isfinite(values).all() and (np.trunc(values) == values).all()):
        return False
    low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    return bool(low <= values.min().item() and values.max().item() <= high)


def _features(spec: TensorSpec, names: Sequence[str], array: Array, manifest: Manifest | None) -> dict[str, Array]:
    """An input's columns by name: those of the file, `feature_names` for a lone matrix, else `name[i]`."""
    if array.ndim == 1:
        return {names[0]: array}
    if array.ndim != 2:
        return {}
    width = array.shape[1]
    if len(names) != width:
        names = [f"{names[0]}[{i}]" for i in range(width)]
        if manifest is not None and manifest.feature_names:
            names = manifest.feature_names
            if len(names) != width:
                raise _bad(
                    f"`feature_names` of the manifest has {len(names)} names, and the input "
                    f"{_quoted(spec.name)} has {width} columns"
                )
    return {name: array[:, i] for i, name in enumerate(names)}


def _extra(
    columns: Mapping[str, Column], used: set[str], features: Mapping[str, Array], manifest: Manifest, what: str
) -> dict[str, Array]:
    """The columns that are neither feature nor label, and that the manifest declares."""
    declared = {*manifest.slices, *manifest.protected}
    extra = [name for name in columns if name not in used or (name == manifest.label and name in declared)]
    undeclared = [name for name in extra if name not in declared]
    if undeclared:
        raise _bad(
            f"{what} holds {_listed(undeclared)}, which the model does not take: leave it out, or name it in `slices` "
            "or `protected` of the manifest"
        )
    found = {}
    for name in extra:
        values = columns[name].values
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if name in features or values.ndim != 1:
            why = "has the name of a feature" if name in features else "holds more than one value a row"
            raise _bad(f"the column {_quoted(name)} of {what} {why}")
        found[name] = _filled(values, columns[name].missing)
    return found


def _filled(values: Array, missing: NDArray[np.bool_] | None) -> Array:
    """A column that no model takes: a missing number is NaN, a missing text is empty."""
    if missing is None:
        return values
    filled = values.copy() if values.dtype.kind in "Of" else values.astype(np.float64)
    filled[missing] = "" if values.dtype.kind == "O" else np.nan
    return filled


def _label(column: Column, name: str, what: str) -> Array:
    if column.missing is not None:
        row = int(column.missing.argmax())
        raise _bad(f"the label {_quoted(name)} of {what} has no value in row {row}: every row needs one")
    return column.values


def _quoted(name: str) -> str:
    return repr(excerpt(name, 60))


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    shown = ", ".join(_quoted(name) for name in found[:_SHOWN]) or "nothing"
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _bad(message: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.BAD_DATA, message)
