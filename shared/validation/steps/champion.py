"""What the champion answers on the version's validation data, as far as it can be held against the same labels.

The data comes with the drop, so nothing in it may end the comparison by itself: rows that the champion cannot answer,
or whose label it does not know, count as its errors, and rows that do not fill its fixed batches are filled up. What is
left, as another task, leaves a reason on the chain.
"""

import numpy as np

from shared.registry.manifest import Manifest, Task
from shared.registry.signature import TensorSpec
from shared.validation.chain import Chain
from shared.validation.datafile import Array
from shared.validation.model import BATCH_ROWS, NUMPY_TYPE, LoadedModel, ModelError, Rows
from shared.validation.predictions import prediction_output, read_predictions
from shared.validation.statistics.evidence import Flags, Predictions
from shared.validation.wire import Stage

_MOST_FAILING_BATCHES = 20
"""Above this many the champion is not asked row by row: it does not run on data like this."""


def champion_predictions(chain: Chain) -> tuple[Predictions, int] | None:
    """The champion's predictions of the same rows, and how many rows are foreign to it, which count as its errors.

    None, and a reason on the chain, where it compares in nothing.
    """
    champion, data = chain.champion, chain.data
    if champion is None or data is None or data.labels is None:
        return None
    manifest = chain.work.champion_manifest or chain.work.manifest
    chain.champion_unusable = _unfit(champion, data.inputs, manifest.task, chain.work.manifest.task)
    if chain.champion_unusable:
        return None
    chain.begin(Stage.CHAMPION)
    inputs = {spec.name: data.inputs[spec.name] for spec in champion.signature.inputs}
    trouble = "does not run on this data"
    try:
        outputs, answered = _outputs(champion, inputs, data.rows)
        trouble = "gives answers that do not compare with these labels"
        return _read(data.labels, outputs, answered, champion, manifest)
    except ModelError as error:
        chain.champion_unusable = f"{trouble}: {error}"
    except MemoryError:
        chain.champion_unusable = "asks for more memory than there is"
    return None


def _unfit(champion: LoadedModel, inputs: Rows, task: Task, wanted: Task) -> str:
    """Why it need not even be run, in words that follow "the champion"; empty where it may be."""
    if task is not wanted:
        return f"does {task}, and this version {wanted}"
    lacking = [spec.name for spec in champion.signature.inputs if not _fits(spec, inputs.get(spec.name))]
    return f"takes the input {lacking[0]!r} in another form, so that it cannot run on this data" if lacking else ""


def _read(
    labels: Array, outputs: Rows, answered: Flags, champion: LoadedModel, manifest: Manifest
) -> tuple[Predictions, int]:
    # Which class is the positive one is nothing to compare by, and one that these rows lack is no error.
    manifest = manifest.model_copy(update={"positive_class": None})
    if manifest.task is Task.REGRESSION:
        if not answered.all():
            raise ModelError(f"it answers no number for {int((~answered).sum())} of {len(labels)} rows")
        return read_predictions(labels, outputs, champion.signature, manifest), 0
    spec = prediction_output(champion.signature, manifest)
    known = _known(labels[answered], outputs[spec.name])
    if not known.any():
        raise ModelError("it knows none of them")
    found = read_predictions(
        labels[answered][known],
        {name: array[known] for name, array in outputs.items()},
        champion.signature,
        manifest,
    )
    foreign = len(labels) - int(known.sum())
    if not foreign:
        return found, 0
    right = np.zeros(len(labels), dtype=np.int64)
    right[np.flatnonzero(answered)[known]] = found.correct
    every = np.ones(len(labels), dtype=np.int64)
    return Predictions(task=manifest.task, labels=every, predicted=right, classes=("wrong", "right")), foreign


def _known(labels: Array, given: Array) -> Flags:
    """The rows whose label is among the classes that scores number from 0, and whose scores are no NaN."""
    known: Flags = np.ones(len(labels), dtype=np.bool_)
    if given.dtype.kind != "f":
        return known
    columns = given.reshape(len(given), -1)
    known &= ~np.isnan(columns).any(axis=1)
    if labels.dtype.kind in "biuf":
        classes = max(columns.shape[1], 2)
        codes = labels.reshape(len(labels), -1).astype(np.float64)
        known &= ((codes >= 0) & (codes < classes)).all(axis=1)
    return known


def _outputs(champion: LoadedModel, inputs: Rows, rows: int) -> tuple[Rows, Flags]:
    """Its outputs over the rows that it answers, and which these are. Raises ModelError or MemoryError."""
    answered: Flags = np.ones(rows, dtype=np.bool_)
    try:
        return _run(champion, inputs, rows), answered
    except (ModelError, MemoryError):
        answered = _answered(champion, inputs, rows)
        if answered.all() or not answered.any():
            raise
    some = {name: array[answered] for name, array in inputs.items()}
    return _run(champion, some, int(answered.sum())), answered


def _run(champion: LoadedModel, inputs: Rows, rows: int) -> Rows:
    """Batches that the graph fixes are filled up with rows that come again; their answers are left out."""
    at_once = champion.rows_at_once or BATCH_ROWS
    if not champion.rows_at_once or rows % at_once == 0:
        return champion.run_rows(inputs, rows, at_once)
    filled = rows + -rows % at_once
    at = np.resize(np.arange(rows), filled)
    outputs = champion.run_rows({name: array[at] for name, array in inputs.items()}, filled, at_once)
    return {name: array[:rows] for name, array in outputs.items()}


def _answered(champion: LoadedModel, inputs: Rows, rows: int) -> Flags:
    """The rows that it answers: those of a batch that fails are tried one by one. Raises ModelError where many fail."""
    answered: Flags = np.ones(rows, dtype=np.bool_)
    at_once = champion.rows_at_once or BATCH_ROWS
    failing = 0
    for start in range(0, rows, at_once):
        batch = range(start, min(start + at_once, rows))
        if _answers(champion, inputs, batch):
            continue
        failing += 1
        if failing > _MOST_FAILING_BATCHES:
            raise ModelError(f"it fails on rows of more than {_MOST_FAILING_BATCHES} batches of {at_once}")
        for row in batch:
            answered[row] = _answers(champion, inputs, range(row, row + 1))
    return answered


def _answers(champion: LoadedModel, inputs: Rows, at: range) -> bool:
    try:
        _run(champion, {name: array[at.start : at.stop] for name, array in inputs.items()}, len(at))
    except (ModelError, MemoryError):
        return False
    return True


def _fits(spec: TensorSpec, array: Array | None) -> bool:
    return (
        array is not None
        and array.dtype == np.dtype(NUMPY_TYPE[spec.datatype])
        and array.ndim == len(spec.shape)
        and all(size in {-1, found} for size, found in zip(spec.shape[1:], array.shape[1:], strict=True))
    )
