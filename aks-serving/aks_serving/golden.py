"""Golden rows: inputs with the outputs that validation saw them give, replayed wherever the model is loaded.

The file is JSON of Open Inference Protocol V2 tensors, under a digest of its own. Integers, booleans and strings must
come out equal, floats within the file's tolerances (NaN equals NaN). A difference is a LoadError that shows it.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np

from aks_serving.errors import LoadError, ModelRunError
from aks_serving.model import Model
from aks_serving.tensors import DTYPES, Array, Feeds, flat, read, shaped
from shared.core.errors import InvalidInputError


class Tensor(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor as JSON carries it; `data` is flat and row-major."""

    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw

    def array(self) -> Array:
        """The tensor. Raises InvalidInputError."""
        if self.datatype not in DTYPES:
            raise InvalidInputError(f"tensor {self.name!r} has the datatype {self.datatype!r}: {', '.join(DTYPES)}")
        what = f"tensor {self.name!r}"
        return shaped(read(self.data, self.datatype, what), self.shape, what)


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """One run of the model."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class GoldenRows(msgspec.Struct, forbid_unknown_fields=True):
    """The file."""

    schema_version: Literal[1]
    rtol: Annotated[float, msgspec.Meta(ge=0)]
    atol: Annotated[float, msgspec.Meta(ge=0)]
    cases: list[Case]


def replay(model: Model, data: bytes) -> list[Feeds]:
    """Run every case and compare; the inputs of the cases. Raises LoadError naming the first case that differs."""
    try:
        rows = msgspec.json.decode(data, type=GoldenRows)
        cases = [
            ({t.name: t.array() for t in case.inputs}, {t.name: t.array() for t in case.outputs}) for case in rows.cases
        ]
    except (msgspec.DecodeError, InvalidInputError) as error:
        raise LoadError(f"the golden rows cannot be read: {error}") from error
    for number, (feeds, wanted) in enumerate(cases, start=1):
        try:
            outputs = model.run(feeds)
        except ModelRunError as error:
            raise LoadError(f"golden case {number} of {len(cases)}: {error}") from error
        found = {spec.name: array for spec, array in zip(model.signature.outputs, outputs, strict=True)}
        for name, array in wanted.items():
            difference = _difference(found.get(name), array, rtol=rows.rtol, atol=rows.atol)
            if difference:
                raise LoadError(f"golden case {number} of {len(cases)}: output {name!r} {difference}")
    return [feeds for feeds, _ in cases]


def _difference(found: Array | None, wanted: Array, *, rtol: float, atol: float) -> str:
    if found is None:
        return "was recorded, and the model gives no such output"
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"is {found.dtype} of shape {list(found.shape)}, recorded as {wanted.dtype} {list(wanted.shape)}"
    differs = ~matches(found, wanted, rtol=rtol, atol=atol)
    if not differs.any():
        return ""
    index = int(np.argmax(differs.ravel()))
    at = [int(place) for place in np.unravel_index(index, wanted.shape)]
    return (
        f"differs in {int(differs.sum())} of {wanted.size} values, first at {at}: "
        f"it is {flat(found)[index]}, recorded as {flat(wanted)[index]}"
    )


def matches(found: Array, wanted: Array, *, rtol: float, atol: float) -> Array:
    """Where two arrays of the same dtype and shape agree, as an array of booleans."""
    if wanted.dtype.kind != "f":
        return np.asarray(found == wanted, dtype=np.bool_)
    wide = np.float64
    return np.isclose(found.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol, equal_nan=True)
