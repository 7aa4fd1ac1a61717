"""Tries a model with inputs that nobody expects, and in ways that must not matter: again, apart, in another batch.

Only observes: what an observation means is decided by shared.validation.checks.robustness. A model that fails on an
input is an observation; one that takes the process down takes it down in a stage that is named after the probe.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from shared.validation.datafile import Array
from shared.validation.model import LoadedModel, ModelError, Rows
from shared.validation.probes.inputs import extremes, no_rows, spread_at, with_infinity, with_nan, with_outlier
from shared.validation.tolerance import Tolerances, differing, worst_distance
from shared.validation.wire import Stage

_BASE_ROWS = 8
_APART_ROWS = 32
_APART_SIZES = (1, 2, 8)
"""Rows to a call. A server runs those of as many requests as came together."""
_REPEATS = 3


class Probe(StrEnum):
    """What is tried."""

    REPEATS = "repeats"
    BATCH_AGAINST_SINGLE = "batch_against_single"
    OUTLIER = "outlier"
    NAN = "nan"
    INFINITY = "infinity"
    EXTREMES = "extremes"
    EMPTY_BATCH = "empty_batch"


STAGE: Mapping[Probe, Stage] = {
    Probe.REPEATS: Stage.REPEATING,
    Probe.BATCH_AGAINST_SINGLE: Stage.RUNNING_APART,
    Probe.OUTLIER: Stage.RUNNING_OUTLIER,
    Probe.NAN: Stage.RUNNING_NAN,
    Probe.INFINITY: Stage.RUNNING_INFINITY,
    Probe.EXTREMES: Stage.RUNNING_EXTREMES,
    Probe.EMPTY_BATCH: Stage.RUNNING_EMPTY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two answers to one question, of one output: how many values differ by more than its tolerance."""

    output: str
    differing: int
    values: int
    worst: float | None
    """The finite distance that goes furthest beyond its tolerance, or comes nearest to it."""
    allowed: float | None = None
    """The tolerance there."""
    why: str = ""
    """Why they could not be compared, as in another shape."""
    at_once: int = 1
    """Rows to a call, of those that were run apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a model did with a probe.

    `rows` counts those that were tried. `refused` and `not_finite` name inputs that it would not answer and that it
    answered with NaN or infinities; `error` is the last thing that the runtime said. `skipped` says why nothing was
    tried. `differences` are those of the outputs, also where they lie within the tolerance.
    """

    probe: Probe
    rows: int = 0
    tried: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    wrong_rows: str = ""
    error: str = ""
    differences: tuple[Difference, ...] = ()
    sessions: int = 1
    skipped: str = ""
    is_measured: bool = False
    """Whether the rows run apart were held against the answers that the metrics are of."""


def observe(
    model: LoadedModel,
    batch: Rows,
    rows: int,
    tolerances: Tolerances,
    *,
    measured: Rows | None,
    again: Callable[[], LoadedModel] | None,
    begin: Callable[[Stage], None],
) -> Iterator[Observation]:
    """Every probe, one after the other, on a batch that the model answered before.

    `measured` are the answers to the batch's rows that the metrics were computed of, in batches of other rows; None
    without. `again` makes a second session of the model; None where that would cost too much. A model that does not
    repeat itself is not compared with itself in batches.
    """
    begin(STAGE[Probe.REPEATS])
    repeats = _repeats(model, batch, rows, tolerances, again)
    yield repeats
    for probe, compared in ((Probe.BATCH_AGAINST_SINGLE, _apart), (Probe.OUTLIER, _beside_outlier)):
        begin(STAGE[probe])
        if any(difference.differing for difference in repeats.differences) or repeats.refused:
            yield Observation(probe=probe, skipped="the model does not even repeat itself")
        elif model.rows_at_once == 1 or rows < 2:
            yield Observation(probe=probe, skipped="the model takes one row at a time")
        else:
            yield compared(model, batch, rows, tolerances, measured)
    # A graph that fixes its number of rows takes no other.
    few = rows if model.rows_at_once else min(rows, _BASE_ROWS)
    base = {name: array[:few] for name, array in batch.items()}
    for probe, inputs in ((Probe.NAN, with_nan(base, few)), (Probe.INFINITY, with_infinity(base, few))):
        begin(STAGE[probe])
        if inputs is None:
            yield Observation(probe=probe, skipped="the model takes no real numbers")
        else:
            yield _tried(model, probe, [(probe.value, inputs)], few)
    begin(STAGE[Probe.EXTREMES])
    yield _tried(model, Probe.EXTREMES, list(extremes(base)), few)
    begin(STAGE[Probe.EMPTY_BATCH])
    yield _empty(model, base)


def _repeats(
    model: LoadedModel, batch: Rows, rows: int, tolerances: Tolerances, again: Callable[[], LoadedModel] | None
) -> Observation:
    try:
        first = model.run(batch)
        others = [model.run(batch) for _ in range(_REPEATS - 1)]
        if again is not None:
            others.append(again().run(batch))
    except ModelError as error:
        return Observation(probe=Probe.REPEATS, rows=rows, refused=("the same rows again",), error=str(error))
    differences = _worst(_differences(other, first, tolerances) for other in others)
    return Observation(probe=Probe.REPEATS, rows=rows, differences=differences, sessions=1 if again is None else 2)


def _apart(model: LoadedModel, batch: Rows, rows: int, tolerances: Tolerances, measured: Rows | None) -> Observation:
    """Rows one by one and in batches of several sizes, against the answers that were measured.

    A graph that knows its answers in batches of one size alone, as that of the measurement, would shine there.
    """
    probe, wanted, size = Probe.BATCH_AGAINST_SINGLE, measured, rows
    try:
        if wanted is None:
            wanted = model.run_rows(batch, rows, rows)
        if model.rows_at_once:
            return _turned(model, batch, rows, tolerances, wanted, is_measured=measured is not None)
        at = spread_at(rows, min(rows, _APART_ROWS))
        some, chosen = ({name: array[at] for name, array in side.items()} for side in (batch, wanted))
        runs = []
        plan = [(size, some, chosen) for size in _APART_SIZES if size <= len(at)]
        for size, inputs, right in (*plan, (rows, batch, wanted)):
            found = model.run_rows(inputs, rows if inputs is batch else len(at), size)
            runs.append(_differences(found, right, tolerances, at_once=size))
    except ModelError as error:
        return Observation(
            probe=probe, rows=rows, refused=("alone" if size == 1 else f"{size} at once",), error=str(error)
        )
    return Observation(probe=probe, rows=rows, differences=_worst(iter(runs)), is_measured=measured is not None)


def _turned(
    model: LoadedModel, batch: Rows, rows: int, tolerances: Tolerances, wanted: Rows, *, is_measured: bool
) -> Observation:
    """Where the graph fixes the rows: the same ones in another order, and beside other rows than when measured."""
    turned = model.run({name: np.roll(array, 1, axis=0) for name, array in batch.items()})
    back = {name: np.roll(array, -1, axis=0) for name, array in turned.items()}
    runs = [_differences(found, wanted, tolerances, at_once=rows) for found in (back, model.run(batch))]
    return Observation(
        probe=Probe.BATCH_AGAINST_SINGLE, rows=rows, differences=_worst(iter(runs)), is_measured=is_measured
    )


def _beside_outlier(
    model: LoadedModel, batch: Rows, rows: int, tolerances: Tolerances, measured: Rows | None
) -> Observation:
    """The rows of a batch whose last one is put out of all proportion, against their answers without it.

    What takes a scale from all rows at once, as dynamic quantisation does, hides where rows are alike.
    """
    beside = with_outlier(batch)
    if beside is None:
        return Observation(probe=Probe.OUTLIER, skipped="the model takes no real numbers")
    try:
        wanted = model.run(batch) if measured is None else measured
        found = model.run(beside)
    except (ModelError, MemoryError) as error:
        said = str(error) if isinstance(error, ModelError) else "it asks for more memory than there is"
        return Observation(probe=Probe.OUTLIER, rows=rows, refused=("beside an outlier",), error=said)
    others, right = ({name: array[: rows - 1] for name, array in side.items()} for side in (found, wanted))
    return Observation(
        probe=Probe.OUTLIER,
        rows=rows - 1,
        differences=_differences(others, right, tolerances, at_once=rows),
        is_measured=measured is not None,
    )


def _tried(model: LoadedModel, probe: Probe, cases: list[tuple[str, dict[str, Array]]], rows: int) -> Observation:
    refused, not_finite, error = [], [], ""
    for what, inputs in cases:
        try:
            outputs = model.run(inputs)
        except ModelError as raised:
            refused.append(what)
            error = str(raised)
        except MemoryError:
            refused.append(what)
            error = "it asks for more memory than there is"
        else:
            if any(not np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
                not_finite.append(what)
    return Observation(
        probe=probe,
        rows=rows * len(cases),
        tried=tuple(what for what, _ in cases),
        refused=tuple(refused),
        not_finite=tuple(not_finite),
        error=error,
        skipped="" if cases else "the model takes neither numbers nor text",
    )


def _empty(model: LoadedModel, base: Rows) -> Observation:
    probe = Probe.EMPTY_BATCH
    if model.rows_at_once:
        return Observation(probe=probe, skipped=f"the graph fixes {model.rows_at_once} rows")
    try:
        outputs = model.run(no_rows(base))
    except ModelError as error:
        return Observation(probe=probe, refused=("a batch of no rows",), error=str(error))
    except MemoryError:
        return Observation(probe=probe, refused=("a batch of no rows",), error="it asks for more memory than there is")
    wrong = [name for name, array in outputs.items() if array.ndim == 0 or len(array)]
    said = f"the output {wrong[0]!r} has the shape {list(outputs[wrong[0]].shape)}" if wrong else ""
    return Observation(probe=probe, wrong_rows=said)


def _differences(found: Rows, wanted: Rows, tolerances: Tolerances, *, at_once: int = 1) -> tuple[Difference, ...]:
    return tuple(replace(_difference(name, found[name], wanted[name], tolerances), at_once=at_once) for name in wanted)


def _difference(name: str, found: Array, wanted: Array, tolerances: Tolerances) -> Difference:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        why = f"{found.dtype} of the shape {list(found.shape)} and {wanted.dtype} of {list(wanted.shape)}"
        return Difference(output=name, differing=max(wanted.size, 1), values=wanted.size, worst=None, why=why)
    tolerance = tolerances.get(name)
    distance = worst_distance(found, wanted, tolerance)
    return Difference(
        output=name,
        differing=int(differing(found, wanted, tolerance).sum()),
        values=wanted.size,
        worst=distance.found if distance else None,
        allowed=distance.allowed if distance else None,
    )


def _worst(runs: Iterator[tuple[Difference, ...]]) -> tuple[Difference, ...]:
    """For each output the comparison in which most differs."""
    return tuple(
        max(of_one, key=lambda d: (d.differing, (d.worst or 0.0) - (d.allowed or 0.0)))
        for of_one in zip(*runs, strict=True)
    )
