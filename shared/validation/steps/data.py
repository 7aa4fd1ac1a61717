"""Steps on the data: it is read, and the model runs over it.

More rows than are looked at are sampled with a fixed seed, so that the same drop gives the same verdicts; every
sentence then says so. A model that is too slow for all of them is run on fewer.
"""

import time
from dataclasses import replace

import numpy as np

from shared.core.verdict import Outcome
from shared.validation.chain import SEED, Chain, Sample
from shared.validation.checks import data as data_checks
from shared.validation.checks.verdicts import failed, unclear
from shared.validation.datafile import Array
from shared.validation.model import BATCH_ROWS, LoadedModel, ModelError
from shared.validation.probes.inputs import NoInputsError, made_up_rows, spread_rows
from shared.validation.refusal import DropRefusedError
from shared.validation.steps.model import weigh
from shared.validation.tabular import Table, read_table
from shared.validation.wire import REFERENCE_FILE, VALIDATION_FILE, Stage

MAX_ROWS = 200_000
FULL_BATCH_ROWS = 128
"""The most rows that a model server runs at once."""
_FEWER_ROWS = (50_000, 10_000, 2_000)
_MAX_VALUES = 20_000_000
"""Of all outputs over all rows together: they are held in memory at once."""
_LONGEST_RUN_S = 40.0
_NO_REFERENCE = "there is no reference data, which the policy requires: drop a bundle whose manifest names it"
_TIMED_ROWS = 4 * BATCH_ROWS


def read_data(chain: Chain) -> bool:
    """The validation data, then the reference data. Data that does not fit ends the chain: nothing else would hold."""
    work = chain.work
    if work.validation is None:
        chain.add(data_checks.without_data(work.policy))
        return _read_reference(chain)
    chain.begin(Stage.READING_DATA)
    try:
        table = read_table(
            work.validation,
            name=work.manifest.validation or VALIDATION_FILE,
            manifest=work.manifest,
            signature=chain.loaded.signature,
            what="the validation data",
            max_bytes=chain.file_bytes,
            optional=work.policy.slices,
        )
    except DropRefusedError as refusal:
        return chain.add(failed("data", str(refusal)))
    unlabelled = data_checks.labels(table.label, work.manifest.label)
    verdict = unlabelled or data_checks.data(table.inputs, table.rows, what="data", policy=work.policy)
    if verdict.outcome is Outcome.PASS:
        try:
            chain.data = _sample(table, chain.loaded)
        except ModelError as error:
            verdict = failed("data", str(error))
    return chain.add(verdict) and _read_reference(chain)


def _read_reference(chain: Chain) -> bool:
    work = chain.work
    if work.reference is None:
        if work.policy.require_reference_data:
            chain.add(unclear("reference", _NO_REFERENCE))
        return True
    chain.begin(Stage.READING_DATA)
    try:
        table = read_table(
            work.reference,
            name=work.manifest.reference or REFERENCE_FILE,
            manifest=work.manifest,
            signature=chain.loaded.signature,
            what="the reference data",
            max_bytes=chain.file_bytes,
            optional=work.policy.slices,
        )
    except DropRefusedError as refusal:
        return chain.add(failed("reference", str(refusal)))
    verdict = data_checks.data(table.inputs, table.rows, what="reference", policy=work.policy)
    if verdict.outcome is Outcome.PASS:
        chain.reference = _rows(table, chosen(table.rows, MAX_ROWS))
    return chain.add(verdict)


def run_rows(chain: Chain) -> bool:
    """A full batch, for what it costs; then every row. A model that does not run at all ends the chain."""
    chain.begin(Stage.RUNNING)
    model, data = chain.loaded, chain.data
    try:
        batch = batch_rows(chain)
        weigh(chain, batch)
        if data is None:
            return True
        at_once = model.rows_at_once or BATCH_ROWS
        data = chain.data = _affordable(model, data, at_once)
        chain.outputs = model.run_rows(data.inputs, data.rows, at_once)
    except ModelError as error:
        if chain.data is None:
            # Rows that were made up may be none that the model is for.
            weigh(chain, None)
            return True
        return chain.add(failed("run", str(error)))
    chain.add(data_checks.outputs(chain.outputs, data.rows, data.described, chain.work.policy))
    return True


def batch_rows(chain: Chain, *, most: int = FULL_BATCH_ROWS) -> dict[str, Array] | None:
    """`most` rows, or as many as the graph fixes, of the data or made up; None where none can be made up."""
    rows = chain.loaded.rows_at_once or most
    if chain.data is not None:
        return spread_rows(chain.data.inputs, chain.data.rows, rows)
    try:
        return made_up_rows(chain.loaded.signature, rows)
    except NoInputsError:
        return None


def chosen(rows: int, most: int) -> Array:
    """The rows to look at, in their order: all, or a sample that is the same each time."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(SEED).permutation(rows)[:most])


def most_held(values_a_row: float) -> int:
    """How many rows' outputs are held at once."""
    return int(_MAX_VALUES // max(values_a_row, 1))


def _sample(table: Table, model: LoadedModel) -> Sample:
    """Raises ModelError where the rows do not fill the batches that the graph fixes."""
    inputs = model.prepared(table.inputs)
    at_once = model.rows_at_once or 1
    return _rows(replace(table, inputs=inputs), chosen(table.rows, MAX_ROWS - MAX_ROWS % at_once))


def _rows(table: Table, at: Array) -> Sample:
    is_all = len(at) == table.rows

    def of(array: Array) -> Array:
        return array if is_all else array[at]

    return Sample(
        inputs={name: of(array) for name, array in table.inputs.items()},
        labels=None if table.label is None else of(table.label),
        columns={name: of(array) for name, array in table.columns.items()},
        features=table.features,
        rows=len(at),
        total_rows=table.rows,
    )


def _affordable(model: LoadedModel, data: Sample, at_once: int) -> Sample:
    """Fewer rows where all would take too long, or give more than is held: the sizes are few where time decides, so
    that the same drop is mostly run on as many.
    """
    timed = min(data.rows, max(at_once, _TIMED_ROWS - _TIMED_ROWS % at_once))
    first = {name: array[:timed] for name, array in data.inputs.items()}
    started = time.perf_counter()
    given = model.run_rows(first, timed, at_once)
    row_s = (time.perf_counter() - started) / timed
    most = most_held(sum(array.size for array in given.values()) / timed)
    if row_s * min(data.rows, most) > _LONGEST_RUN_S:
        most = min(most, next((rows for rows in _FEWER_ROWS if row_s * rows <= _LONGEST_RUN_S), _FEWER_ROWS[-1]))
    most = max(most - most % at_once, at_once)
    if most >= data.rows:
        return data
    table = Table(
        rows=data.rows,
        inputs=dict(data.inputs),
        label=data.labels,
        columns=dict(data.columns),
        features=data.features,
    )
    return replace(_rows(table, chosen(data.rows, most)), total_rows=data.total_rows)
