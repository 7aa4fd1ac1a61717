"""A batch: the inputs of several calls put together, one run of the model, and what each call gets of its outputs.

Blocking; safe on any thread. A batch that fails is run again one call at a time: only the guilty call fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import thread_time
from typing import Any, Protocol

import numpy as np

from aks_serving.errors import ModelRunError
from aks_serving.model import Model, Signature
from aks_serving.tensors import DTYPES, Array, Feeds, is_real, nested

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
    output is the model's failure. `run_times_s`: seconds that runs of so many rows took while it was warmed.
    `memory_bytes`: what the process grew by when it was loaded.
    """

    model: Model
    batchable: bool
    layout: Layout | None = None
    allow_nan: bool = True
    run_times_s: tuple[tuple[int, float], ...] = ()
    memory_bytes: int = 0


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

    __slots__ = ("_lists", "arrays", "memo", "took_s", "whole")

    def __init__(self, arrays: Sequence[Array], *, whole: bool, took_s: float = 0.0) -> None:
        """`took_s` is the processor's time that the run took."""
        self.arrays = arrays
        self.whole = whole
        self.took_s = took_s
        self._lists: list[Any] | None = None
        self.memo: dict[object, Any] = {}
        """What those who render answers from a batch made once for all of them, under keys of theirs."""

    def lists(self) -> list[Any]:
        """The outputs as JSON can hold them, nested by their shapes. Made once for the batch."""
        if self._lists is None:
            self._lists = [nested(array) for array in self.arrays]
        return self._lists

    def of(self, start: int, stop: int) -> Sequence[Array]:
        """The outputs of the call whose rows these are."""
        return self.arrays if self.whole else [array[start:stop] for array in self.arrays]


def layout_of(signature: Signature) -> Layout | None:
    """The layout of a model whose rows may be packed, or None where its signature is another."""
    if len(signature.inputs) != 1:
        return None
    spec = signature.inputs[0]
    dtype = DTYPES[spec.datatype]
    if len(spec.shape) != 2 or spec.shape[0] != -1 or spec.shape[1] < 1 or dtype.kind not in "fiu":
        return None
    return Layout(name=spec.name, dtype=dtype, width=spec.shape[1])


def run_calls(loaded: LoadedModel, calls: Sequence[Inputs]) -> Results | list[Results | ModelRunError]:
    """Run calls of one key together: what they get of it, in order; where that failed, a result for each."""
    # Not the wall's time: what else the machine did meanwhile is not the model's.
    begun_s = thread_time()
    try:
        arrays = _run(loaded, _feeds(calls[0], loaded.layout)) if len(calls) == 1 else _run_joined(loaded, calls)
        return Results(arrays, whole=len(calls) == 1, took_s=thread_time() - begun_s)
    except (ModelRunError, MemoryError, ValueError) as error:
        if len(calls) == 1:
            failure = error if isinstance(error, ModelRunError) else _failure(loaded, str(error)[:300])
            return [failure]
    return [_run_alone(loaded, call) for call in calls]


def _run_joined(loaded: LoadedModel, calls: Sequence[Inputs]) -> Sequence[Array]:
    layout = loaded.layout
    if layout is not None:
        data = b"".join([call.packed for call in calls])  # type: ignore[misc]  # calls of a layout's key are packed
        feeds = {layout.name: np.frombuffer(data, layout.dtype).reshape(-1, layout.width)}
    else:
        parts = [call.feeds for call in calls if call.feeds is not None]
        feeds = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    rows = sum([call.rows or 0 for call in calls])
    outputs = _run(loaded, feeds)
    if any(output.ndim == 0 or output.shape[0] != rows for output in outputs):
        raise _failure(loaded, "its outputs do not have a row for each row of the inputs")
    return outputs


def _run_alone(loaded: LoadedModel, call: Inputs) -> Results | ModelRunError:
    outcome = run_calls(loaded, [call])
    return outcome if isinstance(outcome, Results) else outcome[0]


def _run(loaded: LoadedModel, feeds: Feeds) -> Sequence[Array]:
    outputs = loaded.model.run(feeds)
    if not loaded.allow_nan:
        for array in outputs:
            if is_real(array) and not np.isfinite(array).all():
                raise _failure(loaded, "it gave a value that is not a finite number")
    return outputs


def _feeds(call: Inputs, layout: Layout | None) -> Feeds:
    if call.packed is None or layout is None:
        return call.feeds or {}
    return {layout.name: np.frombuffer(call.packed, layout.dtype).reshape(-1, layout.width)}


def _failure(loaded: LoadedModel, reason: str) -> ModelRunError:
    return ModelRunError(loaded.model.version, reason)
