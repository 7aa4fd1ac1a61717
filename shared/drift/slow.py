"""Finds slow drift, window by window, with a stated mean number of windows between false alarms.

Each window gives shares and means of the profile's bins: of a number its mean rank among the reference's rows, the mean
square of that rank's distance from the middle (its spread), and what is missing; of a category the share of each bin.
The null: each of them, given what came before, lies within `tolerance` of the reference's, plus what a reference of
finite size leaves open (Dvoretzky, Kiefer and Wolfowitz 1956, with the constant of Massart 1990).

A row in a bin of weight w multiplies a bet by 1 + l (w - edge), which under the null gains nothing in the mean
(Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", section 4), at stakes l for
several sizes of drift; a window's product follows from its counts, and is a bet still where only the mean of its rows
is bound by the null. Shiryaev and Roberts' sum of such bets, one begun at every window, is an e-detector, and so is the
mean of many (Shin, Ramdas and Rinaldo 2024, "E-detectors", definition 2.2): alarmed when it comes to A, it sounds a
false alarm no more often than once in A windows in the mean, however the bets depend on one another.

Taken for granted is that rows of a window are independent given its own level; what healthy hours vary by more makes
fewer rows of them (`shared.drift.directions`), by a root of the product, which is a bet too. Loads numpy.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from shared.core.errors import InvalidInputError
from shared.drift.directions import design_effects
from shared.drift.season import Usual
from shared.drift.sides import check_counts
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import Feature, NumberFeature, Profile

type Floats = NDArray[np.float64]

TOLERANCE = 0.05
MAX_ROWS = 10_000
"""A window counts for no more: what is not quite independent would be overrated."""
_BEYOND = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Sizes of drift beyond the tolerance that are bet on."""
_MISLEADING = 0.01
"""The share of references that may lie farther from the truth than is allowed for."""
_BLAMED = 0.1
"""A share of the evidence that names a feature."""


class Moved(StrEnum):
    """What of a feature drifts."""

    MEAN = "mean"
    SPREAD = "spread"
    MISSING = "missing"
    SHARE = "share"
    """Of a category."""


_MISSING_AT = {Moved.MEAN: 0.5, Moved.SPREAD: 0.25}


class SlowState(BaseModel):
    """A detector between two windows, as it is stored. Logarithms are natural; None is that of nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: int = 1
    profile: str
    tolerance: float
    mean_windows: float
    windows: NonNegativeInt = 0
    has_alarmed: bool = False
    log_sums: tuple[tuple[float | None, ...], ...] = ()


class SlowDrift:
    """The running detector of one version's windows, which must all be of one length."""

    def __init__(self, profile: Profile, *, mean_windows: float, tolerance: float = TOLERANCE) -> None:
        """False alarms are `mean_windows` windows apart in the mean, or more. Raises InvalidInputError."""
        if mean_windows < 1 or not 0 <= tolerance < 1:
            raise InvalidInputError(
                f"{mean_windows:g} windows between false alarms, tolerance {tolerance:g}: wanted are 1 or more, and a "
                "tolerance of at least 0 and below 1"
            )
        self._profile = profile
        self._tolerance, self._mean_windows = tolerance, mean_windows
        streams = [stream for feature in profile.features for stream in _streams(feature)]
        self._names = [(name, moved) for name, moved, _, _ in streams]
        cells = profile.cells()
        # Which cells each stream is a sum of, one stream after the other, and where each begins.
        sizes = [len(weights) for _, _, weights, _ in streams]
        self._begins = np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, dtype=np.int64)
        self._cells = np.array(
            [cells[name].start + at for (name, _), size in zip(self._names, sizes, strict=True) for at in range(size)],
            dtype=np.int64,
        )
        self._weights = np.concatenate([weights for _, _, weights, _ in streams] or [np.zeros(0)])
        reach = math.sqrt(math.log(max(1, len(streams)) / _MISLEADING) / (2 * max(1, profile.rows)))
        shares = {feature.name: _shares(feature) for feature in profile.features}
        self._edges = np.array([w @ shares[name] + tolerance + reach * variation for name, _, w, variation in streams])
        self._log_gains = np.concatenate(
            [
                np.log1p(np.outer(w - edge, _stakes(w, edge, shares[name])))
                for (name, _, w, _), edge in zip(streams, self._edges.tolist(), strict=True)
            ]
            or [np.zeros((0, len(_BEYOND)))]
        )
        self._log_sums = np.full((len(streams), len(_BEYOND)), -np.inf)
        self._windows = 0
        self._has_alarmed = False

    @classmethod
    def of(cls, profile: Profile, state: SlowState) -> Self:
        """Go on from a stored state. Raises InvalidInputError where it is another profile's."""
        found = cls(profile, mean_windows=state.mean_windows, tolerance=state.tolerance)
        sums = np.array([[-np.inf if one is None else one for one in row] for row in state.log_sums], dtype=np.float64)
        if state.profile != profile.id or sums.shape != found._log_sums.shape:
            raise InvalidInputError(
                f"a state of profile {state.profile[:12]} was found, and one of {profile.id[:12]} is wanted: begin anew"
            )
        found._log_sums, found._windows, found._has_alarmed = sums, state.windows, state.has_alarmed
        return found

    @property
    def state(self) -> SlowState:
        """The detector as it is now."""
        rows = self._log_sums.tolist()
        return SlowState(
            profile=self._profile.id,
            tolerance=self._tolerance,
            mean_windows=self._mean_windows,
            windows=self._windows,
            has_alarmed=self._has_alarmed,
            log_sums=tuple(tuple(None if one == -math.inf else one for one in row) for row in rows),
        )

    @property
    def has_alarmed(self) -> bool:
        """Whether it has, at this window or before. After an alarm begin anew."""
        return self._has_alarmed

    @property
    def log_evidence(self) -> float:
        """Logarithm of the mean of all sums: an alarm where it reaches that of `mean_windows`."""
        if not self._log_sums.size:
            return -math.inf
        return float(np.logaddexp.reduce(self._log_sums, axis=None)) - math.log(self._log_sums.size)

    @property
    def blamed(self) -> list[tuple[str, Moved]]:
        """The features that the evidence comes from, and what of them moved, the strongest first."""
        total = float(np.logaddexp.reduce(self._log_sums, axis=None)) if self._log_sums.size else -math.inf
        if total == -math.inf:
            return []
        shares: dict[tuple[str, Moved], float] = {}
        for name, log_sum in zip(self._names, np.logaddexp.reduce(self._log_sums, axis=1).tolist(), strict=True):
            shares[name] = shares.get(name, 0.0) + math.exp(log_sum - total)
        return sorted((name for name, share in shares.items() if share >= _BLAMED), key=lambda name: -shares[name])

    def add(
        self,
        counts: FeatureCounts,
        *,
        learned: Sequence[tuple[datetime, FeatureCounts]] = (),
        usual: Usual | None = None,
    ) -> None:
        """Take a window, less what is usual of its hour. One without rows is none. Raises InvalidInputError where
        another profile counted it. `learned` are hours that were healthy, by the same profile.
        """
        check_counts(self._profile, counts)
        if not counts.rows or not self._names:
            return
        self._windows += 1
        cells = np.array(counts.cells, dtype=np.float64) / counts.rows
        if usual is not None:
            cells -= usual.away
        gains = np.add.reduceat(self._log_gains * cells[self._cells, None], self._begins)
        rows = counts.rows / self._effects(learned, counts.rows)
        # What is usual is itself a mean of so many rows, which go together as these do.
        rows = np.minimum(rows if usual is None else rows / (1 + counts.rows / usual.rows), MAX_ROWS)
        self._log_sums = np.logaddexp(self._log_sums, 0.0) + rows[:, None] * gains
        self._has_alarmed |= self.log_evidence >= math.log(self._mean_windows)

    def _effects(self, learned: Sequence[tuple[datetime, FeatureCounts]], size: int) -> Floats:
        """By how much fewer rows a window of this size is worth to each stream."""
        held = [(hour, counts) for hour, counts in learned if counts.rows]
        if not held:
            return np.ones(len(self._names))
        table = np.array([counts.cells for _, counts in held], dtype=np.float64)[:, self._cells]
        rows = np.array([counts.rows for _, counts in held], dtype=np.float64)
        means = np.add.reduceat(table * self._weights, self._begins, axis=1)
        squares = np.add.reduceat(table.sum(axis=0) * np.square(self._weights), self._begins)
        variances = np.maximum(0.0, squares / rows.sum() - np.square(means.sum(axis=0) / rows.sum()))
        effects = design_effects(means / rows[:, None], variances, rows, [hour for hour, _ in held])
        # A level of the hour's own is worth a row however many rows have it.
        result: Floats = 1.0 + (effects - 1.0) * max(1.0, size / rows.mean())
        return result


type _Stream = tuple[str, Moved, Floats, float]
"""Of which feature, what of it, the weight of each bin in [0, 1], and how far the mean moves at most beside the
distribution function."""


def _streams(feature: Feature) -> Iterator[_Stream]:
    """What is looked at of a feature, each upwards and downwards."""
    bins = feature.bins
    if isinstance(feature, NumberFeature):
        shares = np.array(feature.counts[:-1], dtype=np.float64)
        shares = shares / shares.sum() if shares.sum() else np.full(bins - 1, 1 / (bins - 1))
        ranks = np.cumsum(shares) - shares / 2
        far = np.square(2 * ranks - 1)
        missing = np.zeros(bins)
        missing[-1] = 1.0
        # What is missing is taken to lie where the reference lies in the mean.
        found = [
            (Moved.MEAN, np.append(ranks, shares @ ranks)),
            (Moved.SPREAD, np.append(far, shares @ far)),
            (Moved.MISSING, missing),
        ]
    else:
        found = [(Moved.SHARE, row) for row in np.eye(bins)]
    for moved, weights in found:
        variation = _variation(weights, _MISSING_AT[moved]) if moved in _MISSING_AT else 1.0
        yield feature.name, moved, weights, variation
        yield feature.name, moved, 1.0 - weights, variation


def _variation(weights: Floats, missing_at: float) -> float:
    """The total variation over the bins in order, the missing standing where it adds least, which no data tell."""
    ordered = np.insert(weights[:-1], int((len(weights) - 1) * missing_at), weights[-1])
    return float(np.abs(np.diff(ordered)).sum())


def _stakes(weights: Floats, edge: float, shares: Floats) -> Floats:
    """About what wins most where the mean lies `_BEYOND` the edge; half of what is staked stays out of reach."""
    variance = float(np.square(weights - weights @ shares) @ shares)
    if np.isin(weights, (0.0, 1.0)).all():
        # A share that was nothing has no variance, and has one at the edge.
        variance = max(variance, edge * (1 - edge))
    beyond = np.array(_BEYOND)
    return np.minimum(beyond / (variance + np.square(beyond)), 0.5 / edge)


def _shares(feature: Feature) -> Floats:
    counts = np.array(feature.counts, dtype=np.float64)
    result: Floats = counts / max(1.0, counts.sum())
    return result
