"""A batch: the inputs of several calls put together, one run of the model, and what each call gets of its outputs.

Blocking; safe on any thread. A batch that fails as a whole does not say whose fault it is: who had it run has its
halves run. Where the outputs of some rows are no finite numbers and must be, the calls of those rows fail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from time import thread_time
from typing import Any, Protocol

import msgspec
import numpy as np

from aks_serving.errors import ModelRunError
from aks_serving.model import Model, Signature
from aks_serving.tensors import DTYPES, Array, Feeds, is_real, nested
from shared.core.errors import SlipwayError
from shared.telemetry.profile import Profile

_OBJECT_BYTES = 48
_encode_lines = msgspec.json.Encoder().encode_lines

type BatchKey = tuple[tuple[int, ...], ...] | None
"""Calls of one key can stand in one batch: the shapes of a row of each input, or None for packed rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The only input of a model that takes a table of numbers, any number of rows of `width` each."""

    name: str
    dtype: np.dtype[Any]
    width: int

    @property
    def row_bytes(self) -> int:
        """The size of a row, packed: row-major, little-endian."""
        return self.width * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that passed every check, and how it may be run.

    `batchable`: requests may be run together. `allow_nan`: outputs may hold what is no finite number; otherwise such an
    output is the model's failure. `run_times_s`: seconds that runs of so many bytes of inputs took while it was warmed.
    `memory_bytes`: what the process grew by when it was loaded. `sample`: a request of one row, to rehearse with.
    `profile`: what its traffic is counted by; None where its route names none, or it could not be read.
    """

    model: Model
    batchable: bool
    layout: Layout | None = None
    allow_nan: bool = True
    run_times_s: tuple[tuple[int, float], ...] = ()
    memory_bytes: int = 0
    sample: Feeds | None = None
    profile: Profile | None = None


class Inputs(Protocol):
    """What a batch needs of a call. Exactly one of `packed` and `feeds` is set.

    `packed` holds rows in the model's layout; `feeds` an array by input, in the signature's order. `rows` is None where
    the call must run alone.
    """

    packed: bytes | None
    feeds: Feeds | None
    rows: int | None


class Results:
    """The outputs of one run: the rows of several calls, in order, or (`whole`) all there is, of one."""

    __slots__ = ("_finite", "_lists", "_raw", "_rows", "arrays", "feeds", "memo", "took_s", "whole")

    def __init__(
        self,
        arrays: Sequence[Array],
        *,
        whole: bool,
        feeds: Feeds | None = None,
        took_s: float = 0.0,
        finite: bool = False,
    ) -> None:
        """`feeds` are the inputs of the run, `took_s` the processor's time that it took; `finite` where it is known
        that each number in `arrays` is finite.
        """
        self._finite = finite
        self.arrays = arrays
        self.feeds: Feeds = feeds or {}
        self.whole = whole
        self.took_s = took_s
        self._lists: list[Any] | None = None
        self._rows: list[list[bytes]] | None = None
        self._raw: list[tuple[bytes, int]] | None = None
        self.memo: dict[object, Any] = {}
        """What those who render answers from a batch made once for all of them, under keys of theirs."""

    def lists(self) -> list[Any]:
        """The outputs as JSON can hold them, nested by their shapes. Made once for the batch."""
        if self._lists is None:
            self._lists = [nested(array, finite=self._finite) for array in self.arrays]
        return self._lists

    def rows(self) -> list[list[bytes]]:
        """The rows of each output as JSON, of results that are not whole. Made once for the batch: writing all at once
        takes half of what writing each takes. JSON as it is written here has no line break.
        """
        if self._rows is None:
            self._rows = [_encode_lines(values).split(b"\n") for values in self.lists()]
        return self._rows

    def raw(self, start: int, stop: int) -> list[bytes]:
        """The outputs of the call whose rows these are as binary data. Those of the batch are made at once."""
        if self.whole:
            return [array.tobytes() for array in self.arrays]
        if self._raw is None:
            self._raw = [(array.tobytes(), array.nbytes // len(array)) for array in self.arrays]
        return [data[start * row_bytes : stop * row_bytes] for data, row_bytes in self._raw]

    def of(self, start: int, stop: int) -> Sequence[Array]:
        """The outputs of the call whose rows these are."""
        return self.arrays if self.whole else [array[start:stop] for array in self.arrays]

    def asked(self, start: int, stop: int) -> Feeds:
        """The inputs of the call whose rows these are."""
        return self.feeds if self.whole else {name: array[start:stop] for name, array in self.feeds.items()}


type Outcome = Results | ModelRunError | Sequence[Results | SlipwayError]
"""What calls that ran together got: rows of the same results, the error of them all, or each its own."""


def layout_of(signature: Signature) -> Layout | None:
    """The layout of a model whose rows may be packed, or None where its signature is another."""
    if len(signature.inputs) != 1:
        return None
    spec = signature.inputs[0]
    dtype = DTYPES[spec.datatype]
    if len(spec.shape) != 2 or spec.shape[0] != -1 or spec.shape[1] < 1 or dtype.kind not in "fiu":
        return None
    return Layout(name=spec.name, dtype=dtype, width=spec.shape[1])


def bytes_of(feeds: Feeds) -> int:
    """What inputs take of memory, nearly: of texts, which are objects, their lengths and what an object takes."""
    size_bytes = 0
    for array in feeds.values():
        size_bytes += array.nbytes
        if array.dtype.kind == "O":
            size_bytes += array.size * _OBJECT_BYTES + sum(map(len, array.ravel().tolist()))
    return size_bytes


def run_calls(loaded: LoadedModel, calls: Sequence[Inputs]) -> Outcome:
    """Run calls of one key together: what they get of it, in order."""
    # Not the wall's time: what else the machine did meanwhile is not the model's.
    begun_s = thread_time()
    try:
        feeds = _joined(loaded.layout, calls) if len(calls) > 1 else _feeds(calls[0], loaded.layout)
        arrays = loaded.model.run(feeds)
        if len(calls) > 1:
            _check_rows(loaded, calls, arrays)
    except (ModelRunError, MemoryError, ValueError) as error:
        return error if isinstance(error, ModelRunError) else _failure(loaded, str(error)[:300])
    took_s = thread_time() - begun_s
    finite = not loaded.allow_nan and _are_finite(arrays)
    results = Results(arrays, whole=len(calls) == 1, feeds=feeds, took_s=took_s, finite=finite)
    return results if finite or loaded.allow_nan else _finite(loaded, calls, results)


def _finite(loaded: LoadedModel, calls: Sequence[Inputs], results: Results) -> Sequence[Results | SlipwayError]:
    """A result for each call: failures for those whose own rows hold what is no finite number."""
    found: list[Results | SlipwayError] = []
    for start, stop in _spans(calls):
        arrays = results.of(start, stop)
        if _are_finite(arrays):
            found.append(_part(results, start, stop))
        else:
            found.append(_failure(loaded, "it gave a value that is not a finite number"))
    return found


def _are_finite(arrays: Sequence[Array]) -> bool:
    """Whether all numbers are."""
    return all(np.isfinite(array).all() for array in arrays if is_real(array))


def _part(results: Results, start: int, stop: int) -> Results:
    """The results of one call by themselves."""
    return Results(results.of(start, stop), whole=True, feeds=results.asked(start, stop))


def _spans(calls: Sequence[Inputs]) -> list[tuple[int, int]]:
    """Which of the joined rows are each call's."""
    return list(pairwise(accumulate((call.rows or 0 for call in calls), initial=0)))


def _joined(layout: Layout | None, calls: Sequence[Inputs]) -> Feeds:
    if layout is not None:
        data = b"".join([call.packed for call in calls])  # type: ignore[misc]  # calls of a layout's key are packed
        return _table(layout, data)
    parts = [call.feeds for call in calls if call.feeds is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_rows(loaded: LoadedModel, calls: Sequence[Inputs], outputs: Sequence[Array]) -> None:
    rows = sum([call.rows or 0 for call in calls])
    if any(output.ndim == 0 or output.shape[0] != rows for output in outputs):
        raise _failure(loaded, "its outputs do not have a row for each row of the inputs")


def _feeds(call: Inputs, layout: Layout | None) -> Feeds:
    if call.packed is None or layout is None:
        return call.feeds or {}
    return _table(layout, call.packed)


def _table(layout: Layout, data: bytes) -> Feeds:
    # As np.frombuffer and a reshape, in one call.
    return {layout.name: np.ndarray((len(data) // layout.row_bytes, layout.width), layout.dtype, data)}


def _failure(loaded: LoadedModel, reason: str) -> ModelRunError:
    return ModelRunError(loaded.model.version, reason)
