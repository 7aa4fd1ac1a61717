"""Golden rows: inputs with the outputs that validation saw them give, replayed wherever the model is loaded.

The file is JSON of Open Inference Protocol V2 tensors, under a digest of its own, in one of two versions. Version 2
names the tolerances of each output, and what it does not name must come out equal; version 1 has one tolerance for all
outputs of real numbers. NaN equals NaN, and an infinity itself. A difference is a LoadError that shows it: an altered
output, or a runtime that computes otherwise, does not serve.
"""

from typing import Annotated

import msgspec
import numpy as np

from aks_serving.errors import LoadCode, LoadError, ModelRunError
from aks_serving.model import Model
from aks_serving.tensors import DATATYPES, Array, Feeds, flat, is_real, read, shaped
from shared.core.errors import InvalidInputError

_MAX_VALUE = 60
"""Characters of a text value that a difference shows."""

type _NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Tensor(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor as JSON carries it; `data` is flat and row-major."""

    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw

    def array(self) -> Array:
        """The tensor. Raises InvalidInputError."""
        if self.datatype not in DATATYPES:
            raise InvalidInputError(f"tensor {self.name!r} has the datatype {self.datatype!r}: {', '.join(DATATYPES)}")
        what = f"tensor {self.name!r}"
        return shaped(read(self.data, self.datatype, what), self.shape, what)


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """One run of the model."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class Tolerance(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How far an output may differ from the recorded one: by `atol + rtol * |recorded|`."""

    rtol: _NotNegative
    atol: _NotNegative


_EXACT = Tolerance(rtol=0.0, atol=0.0)


class GoldenRows1(msgspec.Struct, forbid_unknown_fields=True, tag_field="schema_version", tag=1):
    """The file as it was first."""

    rtol: _NotNegative
    atol: _NotNegative
    cases: list[Case]

    @property
    def recorded_by(self) -> str:
        """The runtime that gave the outputs, as far as the file says."""
        return "a runtime that it does not name"

    def tolerance(self, _: str, recorded: Array) -> Tolerance:
        """How far an output may differ."""
        return Tolerance(rtol=self.rtol, atol=self.atol) if is_real(recorded) else _EXACT


class GoldenRows2(msgspec.Struct, forbid_unknown_fields=True, tag_field="schema_version", tag=2):
    """The file as it is."""

    tolerances: dict[str, Tolerance]
    runtime: str
    cases: list[Case]

    @property
    def recorded_by(self) -> str:
        """The runtime that gave the outputs."""
        return self.runtime[:100]

    def tolerance(self, name: str, _: Array) -> Tolerance:
        """How far an output may differ."""
        return self.tolerances.get(name, _EXACT)


_DECODER = msgspec.json.Decoder(GoldenRows1 | GoldenRows2)


def replay(model: Model, data: bytes) -> list[Feeds]:
    """Run every case and compare; the inputs of the cases. Raises LoadError naming the first case that differs."""
    try:
        rows = _DECODER.decode(data)
        cases = [
            ({t.name: t.array() for t in case.inputs}, {t.name: t.array() for t in case.outputs}) for case in rows.cases
        ]
    except (msgspec.DecodeError, InvalidInputError) as error:
        raise LoadError(LoadCode.GOLDEN, f"the golden rows cannot be read: {error}") from error
    for number, (feeds, wanted) in enumerate(cases, start=1):
        where = f"golden case {number} of {len(cases)}"
        try:
            outputs = model.run(feeds)
        except ModelRunError as error:
            raise LoadError(LoadCode.GOLDEN, f"{where}: {error}; {_runtimes(rows)}") from error
        found = {spec.name: array for spec, array in zip(model.signature.outputs, outputs, strict=True)}
        for name, recorded in wanted.items():
            difference = _difference(found.get(name), recorded, rows.tolerance(name, recorded))
            if difference:
                raise LoadError(LoadCode.GOLDEN, f"{where}: output {name[:100]!r} {difference}; {_runtimes(rows)}")
    return [feeds for feeds, _ in cases]


def matches(found: Array, wanted: Array, *, rtol: float, atol: float) -> Array:
    """Where two arrays of the same dtype and shape agree, as an array of booleans. What is no real number: exactly."""
    if not is_real(wanted):
        return np.asarray(found == wanted, dtype=np.bool_)
    wide = np.float64
    return np.isclose(found.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol, equal_nan=True)


def _within(found: Array, recorded: Array, tolerance: Tolerance) -> Array:
    """As `matches`; and whole numbers within a tolerance that is named for them."""
    agree = matches(found, recorded, rtol=tolerance.rtol, atol=tolerance.atol)
    if recorded.dtype.kind in "iu" and tolerance != _EXACT:
        wide = np.float64
        agree |= np.isclose(found.astype(wide), recorded.astype(wide), rtol=tolerance.rtol, atol=tolerance.atol)
    return agree


def _difference(found: Array | None, recorded: Array, tolerance: Tolerance) -> str:
    """What is different, as the rest of a sentence; empty where nothing is."""
    if found is None:
        return "was recorded, and the model gives no such output"
    if found.dtype != recorded.dtype or found.shape != recorded.shape:
        return f"is {found.dtype} of shape {list(found.shape)}, recorded as {recorded.dtype} {list(recorded.shape)}"
    differs = ~_within(found, recorded, tolerance)
    if not differs.any():
        return ""
    index, off_by = _worst(found, recorded, differs)
    at = [int(place) for place in np.unravel_index(index, recorded.shape)]
    return (
        f"differs in {int(differs.sum())} of {recorded.size} values, most at {at}: "
        f"expected {_shown(recorded, index)}, found {_shown(found, index)}{off_by} "
        f"(rtol {tolerance.rtol:g}, atol {tolerance.atol:g})"
    )


def _worst(found: Array, recorded: Array, differs: Array) -> tuple[int, str]:
    """The index (in row-major order) of the value that differs most, and by how much where that is a number."""
    if recorded.dtype.kind not in "fiuV":
        return int(np.argmax(differs.ravel())), ""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(found.astype(np.float64) - recorded.astype(np.float64)).ravel()
    distance = np.where(differs.ravel(), np.nan_to_num(distance, nan=np.inf), -1.0)
    index = int(np.argmax(distance))
    return index, f", off by {distance[index]:.6g}"


def _shown(array: Array, index: int) -> str:
    text = repr(flat(array)[index])
    return text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "..."


def _runtimes(rows: GoldenRows1 | GoldenRows2) -> str:
    import onnxruntime  # noqa: PLC0415 - heavy: only where a model is loaded

    return f"recorded by {rows.recorded_by}, replayed by onnxruntime {onnxruntime.__version__}"
