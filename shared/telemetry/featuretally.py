"""Counts rows by a reference profile, many at a time. Loads numpy: for the model server and the sandboxed process.

Rows counted in any batches give the same counts: what is counted of a row depends on that row alone, and all sums are
of whole numbers. Rows are kept as they come until a thousand are there, or some megabytes; then all are counted at
once, so that memory is bounded and a row costs little (docs/drift.md).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shared.telemetry.featurecolumns import TEXT_KINDS, Array, Columns, Floats, Part, numbers_of, texts_of
from shared.telemetry.features import MOST_SPREADS, STEPS, FeatureCounts
from shared.telemetry.profile import (
    AnswerSource,
    CategoryFeature,
    ColumnSource,
    Feature,
    NumberFeature,
    Profile,
    ReconstructionSource,
    Source,
    SummarySource,
)
from shared.telemetry.subjects import GROUPS

type Cells = NDArray[np.int64]

MAX_FRESH_ROWS = 1024
"""Counting them takes about 2 ms, for which a request may have to wait; more at once would cost less a row."""
MAX_FRESH_BYTES = 8_000_000
_BLOCK_VALUES = 32_768
"""As many values are looked at at once as a processor keeps at hand."""
_WEIGHT_STEPS = 2.0**10


class FeatureTally:
    """Counts one version's traffic. Not for several threads at once."""

    def __init__(self, profile: Profile) -> None:
        self._id = profile.id
        self._counter = Counter(profile.features)
        self._cells = np.zeros(profile.width, dtype=np.int64)
        self._subjects = np.zeros(GROUPS, dtype=np.int64)
        self._rows = 0
        self._fresh: list[Part] = []
        self._fresh_rows = self._fresh_bytes = 0

    def saw(self, arrays: Mapping[str, Array], rows: int) -> None:
        """Count so many rows. What the profile does not ask for is left out; an array that is not there is missing in
        every row. The arrays must not change afterwards.
        """
        if rows <= MAX_FRESH_ROWS:
            self._keep(arrays, rows)
            return
        # A row may be asked for many more values than it has, where widths vary: so many rows at once, no more.
        held = {name: array for name, array in arrays.items() if array.shape[:1] == (rows,)}
        for start in range(0, rows, MAX_FRESH_ROWS):
            stop = min(rows, start + MAX_FRESH_ROWS)
            self._keep({name: array[start:stop] for name, array in held.items()}, stop - start)

    def asked_by(self, groups: Cells) -> None:
        """Of the rows that were counted, so many are of subjects of each group (shared.telemetry.subjects.grouped)."""
        self._subjects += groups

    def _keep(self, arrays: Mapping[str, Array], rows: int) -> None:
        self._fresh.append((arrays, rows))
        self._fresh_rows += rows
        self._fresh_bytes += sum([array.nbytes for array in arrays.values()])
        if self._fresh_rows >= MAX_FRESH_ROWS or self._fresh_bytes >= MAX_FRESH_BYTES:
            self.fold()

    def take(self) -> FeatureCounts:
        """What was counted since the last time."""
        self.fold()
        subjects = self._subjects.tolist() if self._subjects.any() else []
        counts = FeatureCounts(profile=self._id, rows=self._rows, cells=self._cells.tolist(), subjects=subjects)
        self._cells[:] = 0
        self._subjects[:] = 0
        self._rows = 0
        return counts

    def fold(self) -> None:
        """Count at once what was only kept."""
        fresh, self._fresh, self._fresh_rows, self._fresh_bytes = self._fresh, [], 0, 0
        columns = Columns(fresh)
        if columns.rows:
            self._cells += self._counter.counted(columns)
            self._rows += columns.rows


class Counter:
    """Counts columns in the cells of features: the numbers of all of them at once."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self._starts = np.cumsum([0, *(feature.width for feature in features)])
        is_number = [isinstance(feature, NumberFeature) for feature in features]
        is_late = [isinstance(feature.source, ReconstructionSource) for feature in features]
        self._early = [place for place in range(len(features)) if is_number[place] and not is_late[place]]
        self._late = [place for place in range(len(features)) if is_late[place]]
        self._categories = [place for place in range(len(features)) if not is_number[place]]
        self._numbers = NumberCounter([_as_number(features[place]) for place in self._early])
        self._errors = [NumberCounter([_as_number(features[place])]) for place in self._late]
        self._in_error = [at for at, place in enumerate(self._early) if is_column(features[place])]

    def counted(self, columns: Columns) -> Cells:
        """The cells of all features, in order. A row or more."""
        cells = np.zeros(self._starts[-1], dtype=np.int64)
        if self._early:
            values = numbers_table([self._features[place].source for place in self._early], columns)
            counted, z = self._numbers.counted(values, with_z=bool(self._late))
            self._put(cells, self._early, counted)
            for place, counter in zip(self._late, self._errors, strict=True):
                error = reconstruction_error(z[:, self._in_error], components_of(self._features[place].source))
                self._put(cells, [place], counter.counted(error[:, None])[0])
        for place in self._categories:
            feature = self._features[place]
            if isinstance(feature, CategoryFeature):
                self._put(cells, [place], [_categories(feature, value_of(feature.source, columns))])
        return cells

    def _put(self, cells: Cells, places: Sequence[int], counted: Sequence[Cells]) -> None:
        for place, found in zip(places, counted, strict=True):
            cells[self._starts[place] : self._starts[place + 1]] = found


class NumberCounter:
    """Counts numbers of several features, a column each."""

    def __init__(self, features: Sequence[NumberFeature]) -> None:
        most = max((len(feature.edges) for feature in features), default=0)
        self._edges = np.full((most, len(features)), np.inf)
        for place, feature in enumerate(features):
            self._edges[: len(feature.edges), place] = feature.edges
        self._missing = np.array([len(feature.edges) + 1 for feature in features], dtype=np.uint8)
        self._starts = np.cumsum([0, *(feature.bins for feature in features)])
        self._mean = np.array([feature.mean for feature in features])
        self._spread = np.array([feature.spread for feature in features])

    def counted(self, values: Floats, *, with_z: bool = False) -> tuple[list[Cells], Floats]:
        """The cells of each feature, and z in whole steps, [n, features]; no rows of it without `with_z`."""
        bins = np.zeros(self._starts[-1], dtype=np.int64)
        more = np.zeros((3, values.shape[1]))
        step = max(1, _BLOCK_VALUES // max(1, values.shape[1]))
        z = np.empty(values.shape if with_z else (0, values.shape[1]))
        for start in range(0, len(values), step):
            block = values[start : start + step]
            is_finite = np.isfinite(block)
            is_whole = bool(is_finite.all())
            bins += np.bincount(self._places(block, is_whole=is_whole).ravel(), minlength=len(bins))
            steps = self.steps(block if is_whole else np.where(is_finite, block, self._mean))
            infinite = 0 if is_whole else np.isinf(block).sum(axis=0)
            more += [np.broadcast_to(infinite, steps.shape[1]), steps.sum(axis=0), np.einsum("ij,ij->j", steps, steps)]
            if with_z:
                z[start : start + step] = steps
        sums = more.astype(np.int64)
        parts = np.split(bins, self._starts[1:-1])
        return [np.concatenate([part, sums[:, place]]) for place, part in enumerate(parts)], z

    def steps(self, values: Floats) -> Floats:
        """The score z = (x - mean) / spread, in whole parts of 1/STEPS, held within MOST_SPREADS, for finite values."""
        with np.errstate(over="ignore"):
            z = (values - self._mean) / self._spread
        np.clip(z, -MOST_SPREADS, MOST_SPREADS, out=z)
        z *= STEPS
        result: Floats = np.rint(z, out=z)
        return result

    def _places(self, block: Floats, *, is_whole: bool) -> NDArray[np.intp]:
        """Where each value is counted: how many edges lie below it."""
        found = np.zeros(block.shape, dtype=np.uint8)
        for edge in self._edges:
            found += block > edge
        if not is_whole:
            found = np.where(np.isnan(block), self._missing, found)
        result: NDArray[np.intp] = found + self._starts[:-1]
        return result


def is_column(feature: Feature) -> bool:
    """Whether a feature is among those that are reconstructed."""
    return isinstance(feature, NumberFeature) and isinstance(feature.source, ColumnSource)


def numbers_table(sources: Sequence[Source], columns: Columns) -> Floats:
    """The numbers that sources name, [n, sources]."""
    found = np.empty((columns.rows, len(sources)))
    start = 0
    while start < len(sources):
        source, stop = sources[start], start + 1
        if isinstance(source, ColumnSource):
            # A run of one table's columns is copied at once.
            while stop < len(sources) and sources[stop] == ColumnSource(
                input=source.input, place=source.place + stop - start
            ):
                stop += 1
            table = columns.table(source.input)
            if table.dtype.kind not in TEXT_KINDS and source.place + stop - start <= table.shape[1]:
                found[:, start:stop] = table[:, source.place : source.place + stop - start]
            else:
                for place in range(start, stop):
                    found[:, place] = numbers_of(value_of(sources[place], columns))
        else:
            found[:, start] = numbers_of(value_of(source, columns))
        start = stop
    return found


def value_of(source: Source, columns: Columns) -> Array:
    """The values that a source names by itself, shape [n]."""
    match source:
        case ColumnSource(input=name, place=place):
            return columns.column(name, place)
        case AnswerSource(of=of, output=name):
            return columns.confidence(name) if of == "confidence" else columns.answer(name)
        case SummarySource(input=name, summary=summary, place=place):
            return columns.summary(name, summary, place)
        case ReconstructionSource():
            raise ValueError("an error of reconstruction is computed from other features, not from an input")


def components_of(source: Source) -> Floats:
    """The components of a reconstruction, [k, columns]."""
    return np.array(source.components if isinstance(source, ReconstructionSource) else ())


def reconstruction_error(steps: Floats, components: Floats) -> Floats:
    """The root of the mean square of z - z V V', which is that of z less that of z V, for z in steps of 1/STEPS, shape
    [n, columns], and V' = `components`, [k, columns]. Shape [n].

    In whole steps throughout, so that the error of a row does not hang on the rows beside it.
    """
    projected = np.rint(steps @ np.rint(components * _WEIGHT_STEPS).T / _WEIGHT_STEPS)
    rest = np.einsum("ij,ij->i", steps, steps) - np.einsum("ij,ij->i", projected, projected)
    result: Floats = np.sqrt(np.maximum(rest, 0.0) / steps.shape[1]) / STEPS
    return result


def _as_number(feature: Feature) -> NumberFeature:
    if not isinstance(feature, NumberFeature):
        raise TypeError(f"feature {feature.name!r} is no number")
    return feature


def _categories(feature: CategoryFeature, values: Array) -> Cells:
    known = dict.fromkeys(feature.rare, len(feature.categories))
    known |= {text: place for place, text in enumerate(feature.categories)}
    cells = np.zeros(feature.bins, dtype=np.int64)
    for text, times in texts_of(values).items():
        cells[known.get(text, len(feature.categories) + 1)] += times
    return cells
