"""Makes a version's reference profile from its reference data and what the version answered to them.

Half of the rows, taken at random, choose the bins, and the others are counted in them. Where both came from the same
rows, chance would have shaped the bins: what those rows happen not to hold would always be more frequent later. Loads
numpy: for the sandboxed process.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from shared.drift.binning import NumberBins
from shared.telemetry.featurecolumns import TEXT_KINDS, Array, Columns, Floats, numbers_of, texts_of
from shared.telemetry.featuretally import (
    Counter,
    NumberCounter,
    is_column,
    numbers_table,
    reconstruction_error,
    value_of,
)
from shared.telemetry.profile import (
    MAX_CATEGORIES,
    MAX_COLUMNS,
    MAX_COMPONENTS,
    MAX_FEATURES,
    MAX_KNOWN,
    PROJECTIONS,
    AnswerSource,
    CategoryFeature,
    ColumnSource,
    Feature,
    NumberFeature,
    Profile,
    ReconstructionSource,
    Source,
    Summary,
    SummarySource,
)

PREDICTION, CONFIDENCE, RECONSTRUCTION = "prediction", "confidence", "reconstruction error"
LEAST_ROWS = 20
_SEED = 0
_HELD_VARIANCE = 0.8
_LEAST_COLUMNS = 3
_MAX_DISTINCT = 0.5
"""Text that differs from row to row more often than this is no category."""
_MAX_LABELS = 1_000
"""Whole numbers as answers are categories where they are no larger."""
_ROUNDING = 1e-3


def profile_of(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], *, names: Mapping[str, Sequence[str]] | None = None
) -> Profile | None:
    """The profile of rows of reference data: inputs and outputs by name, a row a case along the first axis, the outputs
    in the model's order. `names` are those of an input's columns. None where there are fewer than 20 rows.
    """
    arrays = {**inputs, **outputs}
    rows = min((len(array) for array in arrays.values()), default=0)
    if rows < LEAST_ROWS:
        return None
    is_choosing = np.zeros(rows, dtype=np.bool_)
    is_choosing[np.random.default_rng(_SEED).permutation(rows)[: rows // 2]] = True
    choosing, counting = (
        Columns([({name: array[:rows][which] for name, array in arrays.items()}, int(which.sum()))])
        for which in (is_choosing, ~is_choosing)
    )
    answers = list(_answer_sources(outputs))
    sources = [*list(_input_sources(inputs, names or {}))[: MAX_FEATURES - len(answers) - 1], *answers]
    features = [_with_bins(name, source, value_of(source, choosing), arrays) for name, source in _named_apart(sources)]
    features += _reconstruction(features, choosing)
    return _with_counts(features, counting)


def _named_apart(sources: Sequence[tuple[str, Source]]) -> Iterator[tuple[str, Source]]:
    """No two of one name: what is answered keeps its own, and of columns the first does."""
    taken = {RECONSTRUCTION, *(name for name, source in sources if isinstance(source, AnswerSource))}
    for name, source in sources:
        found, times = name, 1
        while found in taken and not isinstance(source, AnswerSource):
            times += 1
            found = f"{name} ({times})"
        taken.add(found)
        yield found, source


def _input_sources(inputs: Mapping[str, Array], names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Source]]:
    for name, array in inputs.items():
        width = math.prod(array.shape[1:])
        if array.ndim > 2 or width > MAX_COLUMNS or _is_free_text(array):
            yield from _summaries(name, array)
            continue
        of = names.get(name, ())
        titles = of if len(of) == width else [name] if width == 1 else [f"{name}[{place}]" for place in range(width)]
        yield from ((title, ColumnSource(input=name, place=place)) for place, title in enumerate(titles))


def _summaries(name: str, array: Array) -> Iterator[tuple[str, Source]]:
    if array.dtype.kind in TEXT_KINDS:
        summaries: tuple[Summary, ...] = (Summary.LENGTH,)
        projection = Summary.TEXT_PROJECTION
    else:
        summaries = (Summary.MEAN, Summary.SPREAD, Summary.NORM)
        projection = Summary.PROJECTION
    for summary in summaries:
        yield f"{name} {summary}", SummarySource(input=name, summary=summary)
    for place in range(PROJECTIONS):
        yield f"{name} projection {place}", SummarySource(input=name, summary=projection, place=place)


def _answer_sources(outputs: Mapping[str, Array]) -> Iterator[tuple[str, Source]]:
    """The first output, and the scores of classes, where there are any."""
    for place, (name, array) in enumerate(outputs.items()):
        if place == 0 and array.ndim <= 2:
            yield PREDICTION, AnswerSource(of="prediction", output=name)
        if _are_scores(array):
            yield CONFIDENCE, AnswerSource(of="confidence", output=name)
            return


def _are_scores(array: Array) -> bool:
    """Whether rows of several numbers are shares of one."""
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] < 2:
        return False
    within = bool((array >= -_ROUNDING).all())
    return within and bool(np.allclose(array.astype(np.float64).sum(axis=1), 1.0, rtol=0, atol=_ROUNDING))


def _is_free_text(array: Array) -> bool:
    if array.dtype.kind not in TEXT_KINDS or not array.size:
        return False
    distinct = len(set(array.reshape(len(array), -1)[:, 0].tolist()))
    return distinct > MAX_KNOWN or distinct > _MAX_DISTINCT * len(array)


def _with_bins(name: str, source: Source, values: Array, arrays: Mapping[str, Array]) -> Feature:
    if _is_category(source, values, arrays):
        frequent = [text for text, _ in sorted(texts_of(values).items(), key=lambda pair: (-pair[1], pair[0]))]
        categories, rare = frequent[:MAX_CATEGORIES], frequent[MAX_CATEGORIES : MAX_CATEGORIES + MAX_KNOWN]
        empty = (0,) * (len(categories) + 2)
        return CategoryFeature(name=name, source=source, categories=tuple(categories), rare=tuple(rare), counts=empty)
    numbers = numbers_of(values)
    edges = NumberBins.of(numbers).edges
    mean, spread = _moments(numbers[np.isfinite(numbers)])
    empty = (0,) * (len(edges) + 2)
    return NumberFeature(name=name, source=source, edges=edges, counts=empty, mean=mean, spread=spread)


def _moments(finite: Floats) -> tuple[float, float]:
    """Mean and standard deviation; 1 where the values do not differ."""
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        return low, 1.0
    # The square of a large value is infinite, and that of a small one 0.
    unit = max(abs(low), abs(high))
    shares = finite / unit
    spread = float(shares.std()) * unit
    return float(shares.mean()) * unit, spread if spread > 0 else 1.0


def _is_category(source: Source, values: Array, arrays: Mapping[str, Array]) -> bool:
    if values.dtype.kind in TEXT_KINDS:
        return True
    if not isinstance(source, AnswerSource) or source.of != "prediction":
        return False
    array = arrays[source.output]
    is_class = array.ndim == 2 and array.shape[1] > 1
    return is_class or (values.dtype.kind in "biu" and bool((np.abs(values.astype(np.float64)) < _MAX_LABELS).all()))


def _reconstruction(features: Sequence[Feature], columns: Columns) -> list[Feature]:
    """The error of a reconstruction from the components that hold four fifths of the variance."""
    parts = [feature for feature in features if isinstance(feature, NumberFeature) and is_column(feature)]
    if len(parts) < _LEAST_COLUMNS:
        return []
    _, steps = NumberCounter(parts).counted(numbers_table([part.source for part in parts], columns), with_z=True)
    _, sizes, directions = np.linalg.svd(steps - steps.mean(axis=0), full_matrices=False)
    held = np.cumsum(np.square(sizes))
    if not held[-1] > 0:
        return []
    kept = min(int(np.searchsorted(held, _HELD_VARIANCE * held[-1])) + 1, MAX_COMPONENTS, len(parts) - 1)
    components = directions[:kept]
    source = ReconstructionSource(components=tuple(tuple(row) for row in components.tolist()))
    return [_with_bins(RECONSTRUCTION, source, reconstruction_error(steps, components), {})]


def _with_counts(features: Sequence[Feature], columns: Columns) -> Profile:
    cells = Counter(features).counted(columns).tolist()
    found: list[Feature] = []
    start = 0
    for feature in features:
        counts = tuple(cells[start : start + feature.bins])
        more = {"infinite": cells[start + feature.bins]} if isinstance(feature, NumberFeature) else {}
        found.append(feature.model_copy(update={"counts": counts, **more}))
        start += feature.width
    return Profile(rows=columns.rows, features=tuple(found))
