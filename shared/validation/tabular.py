"""Reads the data that a model is measured on: NPZ, Parquet or CSV, its columns mapped to the graph's inputs by name.

The same values give the same table in each form. For the sandboxed process; a form's library loads with its first file.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shared.registry.manifest import Manifest
from shared.registry.signature import Signature
from shared.validation.columns import Column, mapped, wanted_datatypes
from shared.validation.datafile import Array, read_arrays, text_of
from shared.validation.refusal import DropRefusedError, RefusalCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A data file, mapped: every array has `rows` rows."""

    rows: int
    inputs: dict[str, Array]
    """For each graph input an array of its very dtype, in a shape that fits. Text is an object array of `str`."""
    label: Array | None
    """None where the file has no label."""
    columns: dict[str, Array]
    """Named columns, one value a row: the features (`feature_names`, the columns' own names, or `name[i]` for those of
    a matrix), then the further ones that the manifest declares as slices or protected. A missing number is NaN, a
    missing text empty."""
    features: tuple[str, ...]
    """Which of the columns are features, each once."""


def read_table(
    path: Path,
    *,
    name: str,
    manifest: Manifest,
    signature: Signature | None,
    what: str,
    max_bytes: int,
    optional: tuple[str, ...] = (),
) -> Table:
    """Read a data file, which the drop knows as `name` and messages as `what`; at most `max_bytes` expanded.

    The ending of `name` tells the form. The file that the manifest names as validation data must hold every column that
    it declares; `optional` columns are named where they are there. Without a signature the file is only read: the
    table's inputs and columns are empty. Raises DropRefusedError with a sentence about what does not read, lacks, is
    too many or does not fit.
    """
    ending = PurePosixPath(name).suffix
    if signature is None:
        return Table(rows=_count(path, ending, what, max_bytes), inputs={}, label=None, columns={}, features=())
    columns = _read(path, ending, wanted_datatypes(signature, manifest), what, max_bytes)
    rows = min((len(column.values) for column in columns.values()), default=0)
    declared = (*manifest.slices, *manifest.protected) if name == manifest.validation else ()
    reading = manifest.model_copy(update={"slices": (*manifest.slices, *optional)})
    found = mapped(columns, signature=signature, manifest=reading, what=what, declared=declared)
    return Table(rows=rows, inputs=found.inputs, label=found.label, columns=found.columns, features=found.features)


def _count(path: Path, ending: str, what: str, max_bytes: int) -> int:
    """The rows of a data file, of which every value is read."""
    if ending == ".npz":
        return min(map(len, read_arrays(path, what=what, max_bytes=max_bytes).values()), default=0)
    from shared.validation.arrowfile import count_csv, count_parquet  # noqa: PLC0415 - loads pyarrow

    count = {".parquet": count_parquet, ".csv": count_csv}.get(ending)
    if count is None:
        raise _unknown(what)
    return count(path, what=what, max_bytes=max_bytes)


def _read(path: Path, ending: str, wanted: dict[str, str], what: str, max_bytes: int) -> dict[str, Column]:
    if ending == ".npz":
        arrays = read_arrays(path, what=what, max_bytes=max_bytes)
        return {name: Column(values=text_of(array, name=name, what=what)) for name, array in arrays.items()}
    from shared.validation.arrowfile import read_csv, read_parquet  # noqa: PLC0415 - loads pyarrow

    if ending == ".parquet":
        return read_parquet(path, what=what, max_bytes=max_bytes)
    if ending == ".csv":
        return read_csv(path, datatypes=wanted, what=what, max_bytes=max_bytes)
    raise _unknown(what)


def _unknown(what: str) -> DropRefusedError:
    return DropRefusedError(RefusalCode.BAD_DATA, f"{what} is neither NPZ nor Parquet nor CSV: use one of these")
