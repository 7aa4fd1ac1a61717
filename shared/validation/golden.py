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

from shared.registry.signature import TensorSpec
from shared.validation.datafile import Array
from shared.validation.model import NUMPY_TYPE, LoadedModel, ModelError, Rows
from shared.validation.wire import MAX_GOLDEN_BYTES

RTOL = 1e-4
ATOL = 1e-5
MAX_CASES = 16
_MAX_SYNTHETIC_VALUES = 1_000_000


class NotRepeatableError(ModelError):
    """The model gave two different answers to one question."""


class NoGoldenRowsError(ModelError):
    """There is nothing to make golden rows from."""


def golden_rows(model: LoadedModel, data: Rows | None, rows: int) -> tuple[bytes, int]:
    """The file's content and the number of its cases, from the data or, without any, from made-up inputs.

    Each case is run twice. Raises NotRepeatableError where the answers differ by more than the tolerance,
    NoGoldenRowsError where no case can be made, ModelError where the model does not run.
    """
    cases: list[bytes] = []
    size_bytes = 0
    for inputs in _cases_from(model, data, rows) if data is not None else [_synthetic(model)]:
        outputs = model.run(inputs)
        _compare(outputs, model.run(inputs))
        case = {
            "inputs": [_tensor(spec, inputs[spec.name]) for spec in model.signature.inputs],
            "outputs": [_tensor(spec, outputs[spec.name]) for spec in model.signature.outputs],
        }
        encoded = json.dumps(case, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        if size_bytes + len(encoded) > MAX_GOLDEN_BYTES - 1_000:
            break
        cases.append(encoded)
        size_bytes += len(encoded) + 1
    if not cases:
        raise NoGoldenRowsError(f"one case alone is larger than the {MAX_GOLDEN_BYTES} bytes of a golden file")
    head = f'{{"schema_version":1,"rtol":{RTOL},"atol":{ATOL},"cases":['.encode()
    return head + b",".join(cases) + b"]}", len(cases)


def equal_within(first: Array, second: Array) -> bool:
    """Equal text and whole numbers; real numbers within the tolerance, NaN equal to NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype.kind == "f":
        return bool(np.allclose(first.astype("f8"), second.astype("f8"), rtol=RTOL, atol=ATOL, equal_nan=True))
    return bool(np.array_equal(first, second))


def _compare(first: Rows, second: Rows) -> None:
    for name in first:
        if not equal_within(first[name], second[name]):
            raise NotRepeatableError(f"the output {name!r} differs when the same input is run twice")


def _cases_from(model: LoadedModel, data: Rows, rows: int) -> Iterator[dict[str, Array]]:
    """Rows spread evenly over the data, one to a case, or as many as the graph fixes."""
    at_once = model.rows_at_once or 1
    blocks = rows // at_once
    for block in dict.fromkeys(round(i) for i in np.linspace(0, blocks - 1, min(MAX_CASES, blocks))):
        yield {name: array[block * at_once : (block + 1) * at_once] for name, array in data.items()}


def _synthetic(model: LoadedModel) -> dict[str, Array]:
    return {spec.name: _made_up(spec) for spec in model.signature.inputs}


def _made_up(spec: TensorSpec) -> Array:
    """Small plain values: a ramp from -1 to 1, or zeros and ones, which are also safe as indices."""
    shape = tuple(1 if position == 0 and size < 0 else size for position, size in enumerate(spec.shape))
    count = math.prod(shape)
    if min(shape, default=1) < 0 or count > _MAX_SYNTHETIC_VALUES:
        raise NoGoldenRowsError(
            f"the input {spec.name!r} has the shape {list(spec.shape)}, which does not say what to fill in"
        )
    dtype = np.dtype(NUMPY_TYPE[spec.datatype])
    flat: Array = np.linspace(-1.0, 1.0, count) if dtype.kind == "f" else np.arange(count) % 2
    return (flat.astype(str) if dtype.kind == "O" else flat).astype(dtype).reshape(shape)


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
