"""A version's performance without labels, from the counts of a window alone.

Fitted once, at validation, on labelled rows: whether a row was answered rightly, or by how much its answer was off, is
explained by the bins that the row falls in, those of its confidence among them. The fit is a sum over features, so its
mean over a window is the same sum over the window's shares: counts give the estimate exactly. With the confidence alone
that is CBPE with confidence calibrated by bins, and for numbers DLE (NannyML's documentation; Kivimaki et al. 2025,
"Confidence-based estimators for predictive performance in model monitoring"); the other features make up for regions
where confidence misleads. It sees what a shift of inputs does. What it can never see is that the same inputs now have
other labels: so `shared.drift.calibration` holds estimates against labels when they come. Loads numpy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from shared.core.errors import InvalidInputError
from shared.drift.sides import check_counts
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import AnswerSource, Profile

type Codes = NDArray[np.int64]
type Floats = NDArray[np.float64]

MAX_ROWS = 50_000
LEAST_ROWS = 200
MAX_BINS = 800
_FOLDS = 10
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of a weight's square, beside the mean squared error."""
_CHUNK = 4_096
_TRIED_ROWS = 10_000
"""Of which each is left out to choose the penalty."""
_LEAST_REST = 1e-9
_Z = 1.959964
_SEED = 0


class PerformanceModel(BaseModel):
    """Weights of the bins of some of a profile's features, in the order of `features`.

    Those of the whole fit come first, and then of fits that each leave a tenth of the rows out, whose differences are
    the fit's error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: int = Field(default=1, ge=1, le=1)
    profile: str
    rows: NonNegativeInt
    """Labelled rows that it was fitted on."""
    features: tuple[str, ...]
    level: float
    """Mean of what is estimated in those rows: accuracy, or mean absolute error."""
    deviation: float = Field(ge=0)
    """Of one row from what is estimated for it."""
    penalty: float
    low: float
    high: float
    """What is observed lies between; so do estimates."""
    intercepts: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> "PerformanceModel":
        if len(self.weights) != len(self.intercepts) or len({len(row) for row in self.weights}) != 1:
            raise ValueError(f"{len(self.intercepts)} intercepts need as many rows of weights, all of one length")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """An estimate of performance, its standard error, and the rows it is of. In the unit of what was observed."""

    value: float
    error: float
    rows: int

    @property
    def interval(self) -> tuple[float, float]:
        """At 95 %."""
        return self.value - _Z * self.error, self.value + _Z * self.error


def fitted(profile: Profile, codes: Codes, observed: Floats) -> PerformanceModel | None:
    """Fit on labelled rows: their bins, [n, features] (shared.drift.coding), and what was observed of each, [n]: 1 or 0
    for right or wrong, or an absolute error. None where fewer than LEAST_ROWS are usable. More than MAX_ROWS are
    sampled.
    """
    usable = np.flatnonzero(np.isfinite(observed))
    if len(usable) < LEAST_ROWS or not profile.features:
        return None
    chosen = np.random.default_rng(_SEED).permutation(usable)[:MAX_ROWS]
    y = observed[chosen].astype(np.float64)
    used = _telling(profile, codes[chosen], y)
    starts = np.cumsum([0, *(profile.features[at].bins for at in used)])
    places = codes[chosen][:, used] + starts[:-1]
    moments = [_moments(places[at::_FOLDS], y[at::_FOLDS], int(starts[-1])) for at in range(_FOLDS)]
    whole = sum(moments[1:], start=moments[0])
    errors = _left_out_errors(whole, places[:_TRIED_ROWS], y[:_TRIED_ROWS])
    best = int(np.argmin(errors))
    fits = [_solved(whole, _PENALTIES[best])] + [_solved(whole - one, _PENALTIES[best]) for one in moments]
    return PerformanceModel(
        profile=profile.id,
        rows=len(y),
        features=tuple(profile.features[at].name for at in used),
        level=float(y.mean()),
        deviation=float(np.sqrt(errors[best])),
        penalty=_PENALTIES[best],
        low=float(y.min()),
        high=float(y.max()),
        intercepts=tuple(intercept for intercept, _ in fits),
        weights=tuple(tuple(weights.tolist()) for _, weights in fits),
    )


def estimated(profile: Profile, model: PerformanceModel, counts: FeatureCounts) -> Estimated:
    """The performance in a window of one row or more. Raises InvalidInputError where profiles differ, or no row is."""
    check_counts(profile, counts)
    bins = {feature.name: feature.bins for feature in profile.features}
    width = sum(bins.get(name, 0) for name in model.features)
    if model.profile != profile.id or len(model.weights[0]) != width or not counts.rows:
        raise InvalidInputError(
            f"a model of profile {model.profile[:12]} and {counts.rows} rows by {profile.id[:12]}: both must be of one "
            "profile, and of a row or more"
        )
    cells = profile.cells()
    seen = [cell for name in model.features for cell in counts.cells[cells[name].start :][: bins[name]]]
    values = np.array(model.intercepts) + np.array(model.weights) @ (np.array(seen) / counts.rows)
    value, folds = float(values[0]), values[1:]
    # The jackknife by groups (Shao and Wu 1989): fits that each leave a group out differ by so much less.
    of_fit = (len(folds) - 1) / len(folds) * float(np.square(folds - folds.mean()).sum())
    error = float(np.sqrt(of_fit + model.deviation**2 / counts.rows))
    return Estimated(value=float(np.clip(value, model.low, model.high)), error=error, rows=counts.rows)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Sums over rows: their number, of bins, of pairs of bins, of y, of y by bin."""

    rows: float
    bins: Floats
    pairs: Floats
    y: float
    by_bin: Floats

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.rows + other.rows,
            self.bins + other.bins,
            self.pairs + other.pairs,
            self.y + other.y,
            self.by_bin + other.by_bin,
        )

    def __sub__(self, other: "_Moments") -> "_Moments":
        return self + _Moments(-other.rows, -other.bins, -other.pairs, -other.y, -other.by_bin)


def _moments(places: Codes, y: Floats, width: int) -> _Moments:
    pairs, bins, by_bin = np.zeros((width, width)), np.zeros(width), np.zeros(width)
    for start in range(0, len(places), _CHUNK):
        part, some = places[start : start + _CHUNK], y[start : start + _CHUNK]
        # Counts of a chunk are exact in float32, which multiplies twice as fast.
        table = _indicators(part, width)
        pairs += table.T @ table
        bins += table.sum(axis=0)
        by_bin += some @ table
    return _Moments(float(len(places)), bins, pairs, float(y.sum()), by_bin)


def _indicators(places: Codes, width: int) -> NDArray[np.float32]:
    """A row a case, 1 in each of its bins."""
    table = np.zeros((len(places), width), dtype=np.float32)
    np.put_along_axis(table, places, 1.0, axis=1)
    return table


def _solved(moments: _Moments, penalty: float) -> tuple[float, Floats]:
    """The ridge's intercept, which is not penalised, and weights."""
    from scipy.linalg import solve  # noqa: PLC0415

    mean, level = moments.bins / moments.rows, moments.y / moments.rows
    gram = moments.pairs / moments.rows - np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] += penalty
    weights = solve(gram, moments.by_bin / moments.rows - mean * level, assume_a="pos")
    return float(level - weights @ mean), weights


def _left_out_errors(moments: _Moments, places: Codes, y: Floats) -> list[float]:
    """By penalty, the mean squared error of some of the rows, each by the fit that leaves it alone out (PRESS: Allen
    1974; Golub, Heath and Wahba 1979, eq. 1.3).
    """
    from scipy.linalg import eigh  # noqa: PLC0415

    rows, mean, level = moments.rows, moments.bins / moments.rows, moments.y / moments.rows
    sizes, directions = eigh(moments.pairs / rows - np.outer(mean, mean))
    target = (moments.by_bin / rows - mean * level) @ directions
    shrunk = 1.0 / (np.maximum(sizes, 0.0)[:, None] + np.array(_PENALTIES))
    total = np.zeros(len(_PENALTIES))
    for start in range(0, len(places), _CHUNK):
        table = _indicators(places[start : start + _CHUNK], len(mean))
        turned = table @ directions.astype(np.float32) - (mean @ directions)
        off = y[start : start + _CHUNK, None] - level - turned @ (target[:, None] * shrunk)
        leverage = (1.0 + np.square(turned) @ shrunk) / rows
        total += np.square(off / np.maximum(1.0 - leverage, _LEAST_REST)).sum(axis=0)
    errors: list[float] = (total / len(places)).tolist()
    return errors


def _telling(profile: Profile, codes: Codes, y: Floats) -> list[int]:
    """The features to fit, at most MAX_BINS in all: what was answered, and then those whose bins tell most of y."""
    told = []
    for at, feature in enumerate(profile.features):
        rows = np.bincount(codes[:, at], minlength=feature.bins)
        sums = np.bincount(codes[:, at], weights=y, minlength=feature.bins)
        told.append(float((np.square(sums) / np.maximum(rows, 1)).sum()))
    order = sorted(
        range(len(told)), key=lambda at: (not isinstance(profile.features[at].source, AnswerSource), -told[at])
    )
    ends = np.cumsum([profile.features[at].bins for at in order])
    return sorted(order[: int(np.searchsorted(ends, MAX_BINS, side="right"))])
