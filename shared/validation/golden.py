"""Golden rows: inputs with the outputs they gave, for the model server to replay before it lets a version serve.

The file is JSON: `schema_version` (2), `tolerances`, `runtime` and `cases`. A case has `inputs` and `outputs`, lists of
tensors with `name`, `datatype` (Open Inference Protocol V2's), `shape` and `data`, flat in row-major order. JSON has no
word for numbers that are not finite: they stand as the strings "NaN", "Infinity" and "-Infinity". `tolerances` maps
the name of an output to its `rtol` and `atol`: such an output may differ from the recorded one by
`atol + rtol * |recorded|`, NaN being equal to NaN and an infinity to itself. Outputs that it does not name must be
equal. `runtime` is the text "onnxruntime 1.2.3", the runtime that gave the outputs. The same model, data and runtime
give the same bytes.

Version 1, which servers go on reading, has one `rtol` and `atol` for all outputs of real numbers in place of
`tolerances`, and no `runtime`.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.registry.signature import TensorSpec
from shared.validation.datafile import Array
from shared.validation.model import LoadedModel, ModelError, Rows
from shared.validation.probes.inputs import NoInputsError, made_up_rows
from shared.validation.tolerance import Tolerances, differing
from shared.validation.wire import MAX_GOLDEN_BYTES

MAX_CASES = 16


class NotRepeatableError(ModelError):
    """The model gave two different answers to one question."""


class NoGoldenRowsError(ModelError):
    """There is nothing to make golden rows from."""


def golden_rows(
    model: LoadedModel,
    data: Rows | None,
    *,
    order: NDArray[np.int64],
    tolerances: Tolerances,
    runtime: str,
) -> tuple[bytes, int]:
    """The file's content and the number of its cases, from the data or, without any, from made-up inputs.

    `order` has the data's rows, those first that are wanted most (see `spread_over`). Each case is run twice. Raises
    NotRepeatableError where the answers differ by more than the tolerance, NoGoldenRowsError where no case can be made,
    ModelError where the model does not run.
    """
    cases: list[bytes] = []
    size_bytes = 0
    for inputs in _cases_from(model, data, order) if data is not None else _made_up(model):
        outputs = model.run(inputs)
        _compare(outputs, model.run(inputs), tolerances)
        case = {
            "inputs": [_tensor(spec, inputs[spec.name]) for spec in model.signature.inputs],
            "outputs": [_tensor(spec, outputs[spec.name]) for spec in model.signature.outputs],
        }
        encoded = _json(case)
        if size_bytes + len(encoded) > MAX_GOLDEN_BYTES - 100_000:
            break
        cases.append(encoded)
        size_bytes += len(encoded) + 1
    if not cases:
        raise NoGoldenRowsError(f"one case alone is larger than the {MAX_GOLDEN_BYTES} bytes of a golden file")
    head = {
        "schema_version": 2,
        "tolerances": {name: tolerance.model_dump() for name, tolerance in tolerances.items()},
        "runtime": runtime,
    }
    content = _json(head)[:-1] + b',"cases":[' + b",".join(cases) + b"]}"
    if len(content) > MAX_GOLDEN_BYTES:
        raise NoGoldenRowsError(f"the names of the outputs fill the {MAX_GOLDEN_BYTES} bytes of a golden file")
    return content, len(cases)


def spread_over(predicted: Array | None, rows: int) -> NDArray[np.int64]:
    """At most MAX_CASES rows, spread over what was predicted: over classes in turn, or over the range of numbers.

    `predicted` has one class code or real number a row; without it the rows are spread over the data. Ascending.
    """
    wanted = min(rows, MAX_CASES)
    if predicted is None:
        return _even(np.arange(rows), wanted)
    if predicted.dtype.kind == "f":
        return np.sort(_even(np.argsort(predicted, kind="stable"), wanted))
    groups = [np.flatnonzero(predicted == code) for code in np.unique(predicted)]
    taken: list[int] = []
    turn = 1
    while len(taken) < wanted:
        # Class by class one more row, its rows spread over the data anew: rare classes run out, common ones fill up.
        sizes = [min(turn, len(group)) for group in groups]
        taken = sorted({int(row) for group, size in zip(groups, sizes, strict=True) for row in _even(group, size)})
        turn += 1
    return _even(np.array(taken, dtype=np.int64), wanted)


def _even(rows: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, wanted).round().astype(np.int64))]


def _compare(first: Rows, second: Rows, tolerances: Tolerances) -> None:
    for name, array in first.items():
        other = second[name]
        if other.shape != array.shape or differing(other, array, tolerances.get(name)).any():
            raise NotRepeatableError(f"the output {name!r} differs when the same input is run twice")


def _cases_from(model: LoadedModel, data: Rows, order: NDArray[np.int64]) -> Iterator[dict[str, Array]]:
    """One row to a case; where the graph fixes how many, the batches that the rows lie in."""
    at_once = model.rows_at_once or 1
    for block in dict.fromkeys(int(row) // at_once for row in order):
        yield {name: array[block * at_once : (block + 1) * at_once] for name, array in data.items()}


def _made_up(model: LoadedModel) -> Iterator[dict[str, Array]]:
    try:
        yield made_up_rows(model.signature)
    except NoInputsError as error:
        raise NoGoldenRowsError(str(error)) from error


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _tensor(spec: TensorSpec, array: Array) -> dict[str, Any]:
    flat = array.ravel().tolist()
    if array.dtype.kind == "f":
        flat = [_number(value) for value in flat]
    elif array.dtype.kind == "O":
        flat = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in flat]
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "data": flat}


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
