"""What a version predicts, a row at a time, counted under a bounded number of keys; and the counts of two versions in
the same bins.

A label stands under its text; a number under `#level:bucket`. Buckets are logarithmic, of either sign, by the GAMMA of
shared.telemetry.histogram; of level 1 each holds two of level 0, of level 2 two of level 1, and so on, so that counts
of different levels add up, and are compared at the coarser one (uniform collapse: Epicoco, Melle, Cafaro, Pulimeno and
Morleo 2020, "UDDSketch"). A pod counts numbers at the finest level that needs no more than MAX_KEYS keys. Of labels it
names the MAX_KEYS most frequent, and counts the others together: what is compared are the frequent ones, and the rest.

Counts add without loss, numbers at the coarsest level of them, while they need no more than MAX_MERGED_KEYS keys of
either kind; beyond, they are bounded in the same way. Of numbers the sum is the same in any order and grouping: a part
is never coarser than the whole. Of more labels a grouping may name others than another does. Loads numpy where
something is counted, not where counts are added or compared.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from shared.telemetry.histogram import GAMMA, merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    type Array = NDArray[Any]

MAX_KEYS, MAX_MERGED_KEYS = 200, 1_000
MAX_CLASSES = 1_000
"""Scores of as many classes are counted by the greatest; wider rows are not counted."""
OTHER, NAN = "#other", "#nan"
BINS = 8
_MAX_LABELS = 20
"""Labels that have a bin of their own."""
_LEAST_EXPECTED = 5.0
"""Rows that the smaller sample must expect in a bin (Cochran 1954)."""
_SMALLEST, _GREATEST = 1e-9, 1e15
_LOG_GAMMA = math.log(GAMMA)
_BUCKETS = math.ceil(math.log(_GREATEST / _SMALLEST) / _LOG_GAMMA)
"""Of one sign, at level 0."""
_MAX_INTEGER_LABEL = 1_000
_MAX_TEXT = 64
_MAX_FRESH, _MAX_FRESH_ROWS = 256, 8_192


class PredictionTally:
    """Counts the first outputs of answered requests. They are kept as they are until some hundreds have come."""

    __slots__ = ("_bins", "_fresh", "_fresh_rows", "_labels")

    def __init__(self) -> None:
        self._labels: dict[str, int] = {}
        self._bins: Array | None = None
        """Numbers by their bucket of level 0, from the least to the greatest; None before the first."""
        self._fresh: list[Array] = []
        self._fresh_rows = 0

    @property
    def counts(self) -> dict[str, int]:
        """Rows by key, at most MAX_KEYS labels and as many numbers."""
        self._fold()
        return bounded(self._labels | ({} if self._bins is None else _number_keys(self._bins)))

    def gave(self, first: "Array") -> None:
        """Count an output: a value a row, shape [n] or [n, 1], or scores of classes, [n, k]. Of others, nothing.

        The array must not change afterwards.
        """
        rows = _rows(first)
        if rows is None or not len(rows):
            return
        self._fresh.append(rows)
        self._fresh_rows += len(rows)
        if len(self._fresh) >= _MAX_FRESH or self._fresh_rows >= _MAX_FRESH_ROWS:
            self._fold()

    def _fold(self) -> None:
        if not self._fresh:
            return
        fresh, self._fresh, self._fresh_rows = self._fresh, [], 0
        labels, numbers = _counted(fresh)
        self._labels = merged([self._labels, labels])
        if len(self._labels) > MAX_MERGED_KEYS:
            self._labels = bounded(self._labels, MAX_MERGED_KEYS)
        for part in numbers:
            bins = _binned(part)
            self._bins = bins if self._bins is None else self._bins + bins


def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts, under at most MAX_MERGED_KEYS labels and as many buckets of numbers."""
    return bounded(merged(counts), MAX_MERGED_KEYS)


def bounded(counts: Mapping[str, int], most: int = MAX_KEYS) -> dict[str, int]:
    """The counts under at most so many labels, and as many buckets of numbers, all of one level: rarer labels counted
    together.
    """
    labels = {key: count for key, count in counts.items() if not key.startswith("#") or key.startswith("##")}
    numbers = {place: count for key, count in counts.items() if (place := _place(key))}
    kept = {key: counts[key] for key in (OTHER, NAN) if counts.get(key)}
    if len(labels) > most:
        frequent = sorted(labels, key=lambda key: (-labels[key], key))[:most]
        kept[OTHER] = kept.get(OTHER, 0) + sum(labels.values()) - sum(labels[key] for key in frequent)
        labels = {key: labels[key] for key in frequent}
    level = max((level for level, _ in numbers), default=0)
    numbers = _at(numbers, level)
    while len(numbers) > most:
        level += 1
        numbers = _at(numbers, level)
    return labels | {f"#{level}:{bucket}": count for (level, bucket), count in numbers.items()} | kept


def pooled(one: Mapping[str, int], other: Mapping[str, int], *, bins: int = BINS) -> list[tuple[int, int]]:
    """The rows of both in the same bins, made from both together; the last holds what is too rare to compare.

    Numbers fall in about `bins` bins of equal shares, each frequent label in its own.
    """
    both = merged([one, other])
    total, smaller = sum(both.values()), min(sum(one.values()), sum(other.values()))
    if not smaller:
        return []
    least = _LEAST_EXPECTED * total / smaller
    groups = _number_groups(both, max(least, total / bins))
    labels = [key for key in both if _place(key) is None and key != OTHER]
    labels.sort(key=lambda key: (-both[key], key))
    groups += [[key] for key in labels[:_MAX_LABELS]]
    held = [group for group in groups if sum(both[key] for key in group) >= least]
    counts = [(sum(one.get(k, 0) for k in group), sum(other.get(k, 0) for k in group)) for group in held]
    rest = tuple(sum(side.values()) - sum(c[place] for c in counts) for place, side in enumerate((one, other)))
    if any(rest):
        counts.append((rest[0], rest[1]))
    return counts


def _number_groups(both: Mapping[str, int], wanted: float) -> list[list[str]]:
    """The keys of numbers in order, grouped to `wanted` rows or more; a bucket that has as many stands alone."""
    places = {key: place for key in both if (place := _place(key))}
    if not places:
        return []
    coarsest = max(level for level, _ in places.values())
    buckets: dict[int, list[str]] = {}
    for key, place in places.items():
        buckets.setdefault(_raised(place, coarsest)[1], []).append(key)
    groups: list[list[str]] = []
    gathered: list[str] = []
    rows = 0
    for bucket in sorted(buckets):
        here = sum(both[key] for key in buckets[bucket])
        if here >= wanted and gathered:
            groups.append(gathered)
            gathered, rows = [], 0
        gathered += buckets[bucket]
        rows += here
        if rows >= wanted:
            groups.append(gathered)
            gathered, rows = [], 0
    return [*groups, gathered] if gathered else groups


def _place(key: str) -> tuple[int, int] | None:
    """The level and the bucket of a key of numbers."""
    level, colon, bucket = key[1:].partition(":")
    return (int(level), int(bucket)) if key.startswith("#") and colon and level.isdigit() else None


def _at(numbers: Mapping[tuple[int, int], int], level: int) -> dict[tuple[int, int], int]:
    return merged({_raised(place, level): count} for place, count in numbers.items())


def _raised(place: tuple[int, int], level: int) -> tuple[int, int]:
    """The bucket of a coarser level that holds a bucket; one of a level as coarse is left as it is."""
    at, bucket = place
    if at >= level:
        return place
    width = 1 << (level - at)
    size = -(-abs(bucket) // width)
    return level, size if bucket >= 0 else -size


def _rows(first: "Array") -> "Array | None":
    if first.ndim == 1:
        return first
    if first.ndim != 2:
        return None
    if first.shape[1] == 1:
        return first[:, 0]
    if first.dtype.kind == "f" and 0 < first.shape[1] <= MAX_CLASSES:
        classes: Array = first.argmax(axis=1)
        return classes
    return None


def _counted(fresh: Iterable["Array"]) -> tuple[dict[str, int], list["Array"]]:
    """Labels, counted, and the numbers that are left to be."""
    import numpy as np  # noqa: PLC0415

    by_kind: dict[str, list[Array]] = {}
    for rows in fresh:
        by_kind.setdefault(rows.dtype.kind, []).append(rows)
    labels: Counter[str] = Counter()
    numbers: list[Array] = []
    for kind, parts in by_kind.items():
        rows = np.concatenate(parts)
        if kind in "biu":
            values, times = np.unique(rows, return_counts=True)
            is_label = np.abs(values.astype(np.float64)) < _MAX_INTEGER_LABEL
            texts = [str(value).lower() for value in values[is_label].tolist()]
            labels.update(dict(zip(texts, times[is_label].tolist(), strict=True)))
            numbers.append(np.repeat(values[~is_label], times[~is_label]).astype(np.float64))
        elif kind == "f":
            is_nan = np.isnan(rows)
            if is_nan.any():
                labels[NAN] += int(is_nan.sum())
                rows = rows[~is_nan]
            numbers.append(rows.astype(np.float64))
        else:
            for value, count in Counter(rows.tolist()).items():
                labels[_label(value)] += count
    return labels, numbers


def _binned(numbers: "Array") -> "Array":
    import numpy as np  # noqa: PLC0415

    size = np.clip(np.abs(numbers), _SMALLEST, _GREATEST)
    # The least size is bucket 0, whatever its sign; whatever is larger is at least 1.
    bucket = np.where(size <= _SMALLEST, 0.0, np.maximum(np.ceil(np.log(size / _SMALLEST) / _LOG_GAMMA), 1.0))
    places = np.copysign(bucket, numbers).astype(np.int64) + _BUCKETS
    return np.bincount(places, minlength=2 * _BUCKETS + 1)


def _number_keys(bins: "Array") -> dict[str, int]:
    """Rows by key, at the finest level that needs no more than MAX_KEYS."""
    import numpy as np  # noqa: PLC0415

    buckets = np.flatnonzero(bins)
    times, buckets, level = bins[buckets], buckets - _BUCKETS, 0
    while len(buckets) > MAX_KEYS:
        buckets, place = np.unique(np.sign(buckets) * ((np.abs(buckets) + 1) // 2), return_inverse=True)
        times, level = np.bincount(place, weights=times).astype(np.int64), level + 1
    return {f"#{level}:{bucket}": count for bucket, count in zip(buckets.tolist(), times.tolist(), strict=True)}


def _label(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) <= _MAX_TEXT and text.isascii() and not text.startswith("#"):
        return text
    data = text.encode("utf-8", "replace")
    text = data.decode()
    if len(text) > _MAX_TEXT:
        text = f"{text[: _MAX_TEXT - 17]}…{blake2b(data, digest_size=8).hexdigest()}"
    return f"#{text}" if text.startswith("#") else text
